//! One device's generation loop: draft → signals → gate → upload → await → commit or roll back.
//!
//! Call order: [`DeviceMachine::handle`] with whatever happened, then carry out what it appended to `out`, in order;
//! then ask [`DeviceMachine::poll_timeout`] and, when that time has come, call `handle` with [`Input::Timeout`]. Time
//! must not run backwards. Every `Step` is answered by `StepDone` (or `StepFailed`), every `Connect` by `Connected` or
//! `Disconnected`. The machine asks for one step at a time and keeps at most one upload under way; nothing that arrives
//! late, twice or unasked changes a token.
//!
//! The machine holds lengths, counters and the few drafts that are not decided yet; the tokens themselves live in the
//! driver's session store, which `Set` and `StepDone` keep in step.

use std::sync::Arc;

use super::energy::DeviceCost;
use super::gate::{self, GateReason, RunningMoments};
use super::generation::{Computing, Generation, Held, Network, Pending, UploadCost};
use super::link::{Direction, LinkState, Transfer};
use super::message::{
    Input, NextToken, Output, Refusal, Start, Step, StepResult, UploadJob, UploadPlan, Verdict, WakeReason,
};
use super::settings::{DeviceSettings, OnUnreachable, SettingsError};
use crate::id::{DeviceId, UploadId};
use crate::method::{Gate, ImportanceStatistic, MAX_BLOCK, Writer};
use crate::record::{DeviceCounts, DeviceTimes, FinishReason, Source, UploadCounts};
use crate::time::{Span, Time};

/// Most drafts that wait for a decision: a block, and what is drafted ahead of its verdict.
const MAX_PENDING: usize = MAX_BLOCK + 2;

/// Doublings of the time that a device waits for a verdict.
const MOST_DOUBLINGS: u32 = 10;

/// See the module's documentation.
#[derive(Debug)]
pub struct DeviceMachine {
    settings: Arc<DeviceSettings>,
    device: DeviceId,
    /// Sessions are numbered per device, so that a late frame of an earlier generation is told apart.
    session: u32,
    next_upload: u32,
    link_up: bool,
    /// Connection attempts, refusals or timeouts in a row.
    failures: u32,
    reconnect_at: Option<Time>,
    /// Since when the pool has not answered although it was asked.
    silent_since: Option<Time>,
    link: LinkState,
    /// Until when the account below is written.
    accounted: Time,
    computing: Option<Computing>,
    generation: Option<Box<Generation>>,
}

/// What the machine should do next with the oldest draft.
enum Decision {
    NeedDraft,
    Skip(GateReason),
    Upload(u8, GateReason),
}

impl DeviceMachine {
    /// A device without a connection and without a generation.
    pub fn new(device: DeviceId, settings: Arc<DeviceSettings>) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(DeviceMachine {
            settings,
            device,
            session: 0,
            next_upload: 0,
            link_up: false,
            failures: 0,
            reconnect_at: None,
            silent_since: None,
            link: LinkState::default(),
            accounted: Time::ZERO,
            computing: None,
            generation: None,
        })
    }

    /// The settings it runs under.
    pub fn settings(&self) -> &Arc<DeviceSettings> {
        &self.settings
    }

    /// The pool's session number of the running (or last) generation.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Whether a draft step's declared time is all that the device waits for: nothing that others do can reach it before.
    pub fn drafts_alone(&self) -> bool {
        self.computing.as_ref().is_some_and(|computing| computing.held.is_some())
            && self.generation.as_ref().is_some_and(|generation| matches!(generation.network, Network::Quiet))
    }

    /// Bytes this device holds in memory, heap included.
    pub fn bytes(&self) -> usize {
        let generation = self
            .generation
            .as_ref()
            .map_or(0, |g| size_of::<Generation>() + g.pending.capacity() * size_of::<Pending>());
        size_of::<Self>() + generation
    }

    /// A frame of `bits` nominal bits starts to arrive at `now`: charges the radio and says when (and after what span)
    /// the driver must hand it to [`Self::handle`].
    pub fn receive(&mut self, now: Time, bits: u64) -> (Time, Span) {
        let settings = &self.settings;
        let arrival = self.link.transfer(&settings.link, settings.seed, self.device, Direction::Down, now, bits);
        if let Some(generation) = &mut self.generation {
            generation.airtime_down += arrival.airtime;
        }
        (arrival.arrives, arrival.arrives.since(now))
    }

    /// Takes in what happened at `now` and appends what to do about it to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.account(now);
        match input {
            Input::Join => self.join(out),
            Input::Start(start) => self.start(now, start),
            Input::StepDone(result) => self.step_done(now, result, out),
            Input::StepFailed => self.step_failed(now),
            Input::Sent { upload, bytes } => self.sent(upload, bytes),
            Input::Verdict(verdict) => self.verdict(now, verdict, out),
            Input::Refused(refusal) => self.refused(now, refusal),
            Input::Connected => self.connected(now, out),
            Input::Disconnected => self.disconnected(now),
            Input::Timeout => self.timeout(now, out),
            // Placeholder until departures are handled.
            Input::Leave => {}
        }
        self.advance(now, out);
    }

    /// When to call [`Self::handle`] with [`Input::Timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Time, WakeReason)> {
        let mut earliest: Option<(Time, WakeReason)> = self.reconnect_at.map(|at| (at, WakeReason::Reconnect));
        let mut offer = |at: Time, reason| {
            if earliest.is_none_or(|(best, _)| at < best) {
                earliest = Some((at, reason));
            }
        };
        if let Some(computing) = self.computing.as_ref().filter(|c| c.held.is_some()) {
            offer(computing.due(&self.settings), WakeReason::StepTime);
        }
        if let Some(generation) = &self.generation {
            match generation.network {
                Network::Quiet | Network::Blocked { .. } => {}
                Network::Sending { until, .. } => offer(until, WakeReason::Uplink),
                Network::Awaiting { deadline, .. } => offer(deadline, WakeReason::VerdictTimeout),
                Network::Backoff { until, .. } => offer(until, WakeReason::Retry),
            }
            if let Some(at) = self.unreachable_at(generation) {
                offer(at, WakeReason::Unreachable);
            }
        }
        earliest
    }

    // ---- inputs ------------------------------------------------------------------------------------------------

    fn join(&mut self, out: &mut Vec<Output>) {
        let uploads = self.settings.method.writer == Writer::Verifier || self.settings.method.gate != Gate::Never;
        out.push(if uploads { Output::Connect } else { Output::Ready });
    }

    fn start(&mut self, now: Time, start: Start) {
        if self.generation.is_some() {
            return;
        }
        self.session += 1;
        let limit = self.settings.limit(start.prompt_tokens);
        self.generation = Some(Box::new(Generation {
            id: start.generation,
            data_set: start.data_set,
            prompt: start.prompt_tokens,
            limit,
            committed: start.prompt_tokens,
            uploaded: 0,
            kv: 0,
            epoch: 0,
            pending: Vec::new(),
            moments: RunningMoments::default(),
            network: Network::Quiet,
            upload_reason: GateReason::Always,
            cost: UploadCost::NONE,
            ending: (limit == 0).then_some(FinishReason::Length),
            scheduled: start.scheduled,
            started: now,
            first_token: None,
            times: DeviceTimes::default(),
            airtime_up: Span::ZERO,
            airtime_down: Span::ZERO,
            counts: DeviceCounts::default(),
            uploads: UploadCounts::default(),
            cloud: 0,
            cloud_paper: 0,
        }));
    }

    fn step_done(&mut self, now: Time, result: StepResult, out: &mut Vec<Output>) {
        let (Some(computing), Some(generation)) = (&mut self.computing, &mut self.generation) else { return };
        let asked = result.generation == generation.id
            && result.position == computing.position
            && result.epoch == computing.epoch
            && computing.held.is_none();
        if !asked {
            generation.counts.stale += 1;
            return;
        }
        let StepResult { token, payload_bits, signals, lookback, .. } = result;
        computing.held = Some(Held { token, payload_bits, signals, lookback });
        if now >= computing.due(&self.settings) {
            self.finish_step(now, out);
        }
    }

    fn step_failed(&mut self, now: Time) {
        let (Some(computing), Some(generation)) = (self.computing.take(), &mut self.generation) else { return };
        generation.times.overrun += now.since(computing.since);
        generation.ending = Some(FinishReason::Failed);
    }

    fn sent(&mut self, upload: UploadId, bytes: u32) {
        if let Some(generation) = &mut self.generation
            && matches!(generation.network, Network::Awaiting { upload: awaited, .. } if awaited == upload)
        {
            generation.cost.bytes = generation.cost.bytes.saturating_add(bytes);
        }
    }

    fn verdict(&mut self, now: Time, verdict: Verdict, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        let awaited = match generation.network {
            Network::Awaiting { drafts, upload, .. } if upload == verdict.upload => drafts,
            _ => {
                generation.counts.stale += 1;
                return;
            }
        };
        self.failures = 0;
        self.silent_since = None;
        generation.cloud += verdict.nanojoules;
        generation.cloud_paper += verdict.paper_nanojoules;
        if verdict.more {
            generation.network = Network::Awaiting {
                drafts: awaited,
                upload: verdict.upload,
                deadline: now + self.settings.verdict_timeout,
            };
        } else {
            generation.uploads.verdicts += 1;
            generation.network = Network::Quiet;
        }
        self.apply(now, awaited, &verdict, out);
    }

    fn refused(&mut self, now: Time, refusal: Refusal) {
        let Some(generation) = &mut self.generation else { return };
        let Network::Awaiting { drafts, upload, .. } = generation.network else { return };
        if upload != refusal.upload {
            return;
        }
        generation.uploads.refused += 1;
        self.silent_since = None;
        self.failures += 1;
        if refusal.reason.is_final() {
            generation.network = Network::Quiet;
            generation.ending = Some(FinishReason::Failed);
            return;
        }
        // The pool may have forgotten the session since: start over from the prompt.
        generation.uploaded = 0;
        let wait = refusal.retry_after.max(self.settings.retry.delay(self.failures));
        generation.network = Network::Backoff { drafts, until: now + wait };
    }

    fn connected(&mut self, now: Time, out: &mut Vec<Output>) {
        self.link_up = true;
        self.failures = 0;
        self.silent_since = None;
        self.reconnect_at = None;
        match &self.generation {
            None => out.push(Output::Ready),
            Some(generation) => {
                if let Network::Blocked { drafts } = generation.network {
                    self.begin_upload(now, drafts);
                }
            }
        }
    }

    fn disconnected(&mut self, now: Time) {
        self.link_up = false;
        self.failures += 1;
        self.reconnect_at = Some(now + self.settings.retry.delay(self.failures));
        let Some(generation) = &mut self.generation else { return };
        // The pool has freed the session: the next upload carries everything.
        generation.uploaded = 0;
        match generation.network {
            Network::Quiet | Network::Blocked { .. } => {}
            Network::Awaiting { drafts, .. } => {
                generation.uploads.cancelled += 1;
                generation.network = Network::Blocked { drafts };
            }
            Network::Sending { drafts, .. } | Network::Backoff { drafts, .. } => {
                generation.network = Network::Blocked { drafts };
            }
        }
        if !matches!(generation.network, Network::Quiet) {
            self.silent_since.get_or_insert(now);
        }
    }

    fn timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some(at) = self.reconnect_at
            && at <= now
        {
            self.reconnect_at = None;
            out.push(Output::Connect);
        }
        if self.computing.as_ref().is_some_and(|c| c.held.is_some() && c.due(&self.settings) <= now) {
            self.finish_step(now, out);
        }
        if let Some(generation) = &self.generation
            && self.unreachable_at(generation).is_some_and(|at| at <= now)
        {
            self.give_up_on_pool(now, out);
        }
        let Some(generation) = &self.generation else { return };
        match generation.network {
            Network::Sending { drafts, until } if until <= now => self.send(now, drafts, out),
            Network::Awaiting { drafts, upload, deadline } if deadline <= now => {
                self.cancel(now, upload, out);
                self.begin_upload(now, drafts);
            }
            Network::Backoff { drafts, until } if until <= now => self.begin_upload(now, drafts),
            _ => {}
        }
    }

    // ---- the loop ----------------------------------------------------------------------------------------------

    /// Decides and asks for whatever can be decided and asked for now.
    fn advance(&mut self, now: Time, out: &mut Vec<Output>) {
        loop {
            let Some(generation) = &self.generation else { return };
            if generation.ending.is_some() {
                self.end(now, out);
                return;
            }
            if !matches!(generation.network, Network::Quiet) {
                if self.settings.method.draft_ahead && self.may_draft_ahead() {
                    self.ask_for_draft(now, out);
                }
                return;
            }
            if self.settings.method.writer == Writer::Verifier {
                self.begin_upload(now, 0);
                return;
            }
            match self.decide() {
                Decision::NeedDraft => {
                    self.ask_for_draft(now, out);
                    return;
                }
                Decision::Skip(reason) => self.commit_draft(now, Source::Skipped, reason, out),
                Decision::Upload(drafts, reason) => {
                    if let Some(generation) = &mut self.generation {
                        generation.upload_reason = reason;
                    }
                    self.begin_upload(now, drafts);
                }
            }
        }
    }

    /// What to do with the oldest draft: needs a whole block, and its importance, before it decides.
    fn decide(&mut self) -> Decision {
        let settings = &self.settings;
        let Some(generation) = &mut self.generation else { return Decision::NeedDraft };
        let want = u32::from(settings.method.block).min(generation.remaining()) as usize;
        let ends_at = generation.pending.iter().position(|p| settings.end_tokens.contains(&p.token));
        let block = want.min(ends_at.map_or(want, |at| at + 1));
        if generation.pending.len() < block {
            return Decision::NeedDraft;
        }
        let Some(first) = generation.pending.first().copied() else { return Decision::NeedDraft };
        if !first.ready {
            return Decision::NeedDraft;
        }
        let decision = gate::decide(&settings.method.gate, &first.signals, &generation.moments);
        if let Gate::Joint { importance, .. } = settings.method.gate
            && importance.statistic == ImportanceStatistic::Concentration
        {
            generation.pending[0].signals.importance_threshold = generation.moments.threshold(importance.kappa);
            generation.moments.push(first.signals.importance);
        }
        if decision.upload { Decision::Upload(block as u8, decision.reason) } else { Decision::Skip(decision.reason) }
    }

    fn ask_for_draft(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        if self.computing.is_some() {
            return;
        }
        let settings = &self.settings;
        let position = generation.committed + generation.pending.len() as u32;
        let prefill = position - generation.kv - 1;
        let uncertainty = settings.estimates_uncertainty();
        // Lookahead reads attention only for a draft that waits for it; the other statistic is read at every step.
        let importance = match settings.importance_statistic() {
            None => false,
            Some(ImportanceStatistic::Concentration) => true,
            Some(ImportanceStatistic::Lookahead) => generation.looked_at(position).is_some(),
        };
        generation.counts.draft_steps += 1;
        generation.counts.prefill_tokens += u64::from(prefill);
        generation.counts.uncertainty += u64::from(uncertainty);
        generation.counts.importance += u64::from(importance);
        self.computing = Some(Computing {
            position,
            epoch: generation.epoch,
            since: now,
            prefill,
            uncertainty,
            importance,
            stale: false,
            held: None,
        });
        out.push(Output::Step(Step {
            generation: generation.id,
            position,
            epoch: generation.epoch,
            keep: generation.kv,
        }));
    }

    /// Whether a draft beyond the block under way may still survive.
    fn may_draft_ahead(&self) -> bool {
        let Some(generation) = &self.generation else { return false };
        let drafts = generation.network.drafts();
        let bonus = u32::from(self.settings.method.bonus);
        let most = (drafts + u32::from(self.settings.method.block) + bonus).min(generation.remaining());
        let pending = generation.pending.len();
        let ended = generation.pending.iter().any(|p| self.settings.end_tokens.contains(&p.token));
        drafts > 0 && !ended && pending < (most as usize).min(MAX_PENDING)
    }

    /// The step's declared time is over: book it and take its draft.
    fn finish_step(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(computing) = self.computing.take() else { return };
        let (Some(result), Some(generation)) = (computing.held, &mut self.generation) else { return };
        let elapsed = now.since(computing.since);
        let charge = computing.charge(&self.settings);
        match self.settings.profile.cost {
            DeviceCost::Declared { .. } => {
                generation.times.draft += charge.draft;
                generation.times.uncertainty += charge.uncertainty;
                generation.times.importance += charge.importance;
                generation.times.overrun += elapsed - charge.total();
            }
            DeviceCost::Host { .. } => generation.times.draft += elapsed,
        }
        if computing.stale {
            generation.counts.stale += 1;
            generation.counts.wasted_drafts += 1;
            return;
        }
        generation.kv = computing.position;
        // Grows one by one: most methods never hold more than one or three.
        generation.pending.reserve_exact(1);
        let waits = self.settings.looks_ahead() && gate::needs_importance(&self.settings.method.gate, &result.signals);
        generation.pending.push(Pending {
            token: result.token,
            payload_bits: result.payload_bits,
            signals: result.signals,
            ready: !waits,
        });
        if let (Some(lookback), Some(earlier)) = (result.lookback, generation.looked_at(computing.position)) {
            earlier.signals.importance = lookback.importance;
            earlier.signals.importance_threshold = lookback.threshold;
            earlier.ready = true;
        }
        out.push(Output::Set { position: computing.position, token: result.token });
    }

    // ---- uploads -----------------------------------------------------------------------------------------------

    /// Starts to send the oldest `drafts` drafts (none when the verifier writes).
    fn begin_upload(&mut self, now: Time, drafts: u8) {
        let Some(generation) = &mut self.generation else { return };
        if !self.link_up {
            generation.network = Network::Blocked { drafts };
            self.silent_since.get_or_insert(now);
            return;
        }
        let catch_up = u64::from(generation.committed - generation.uploaded) * self.settings.id_bits();
        let payload: u64 = generation.pending.iter().take(usize::from(drafts)).map(|p| u64::from(p.payload_bits)).sum();
        let bits = catch_up + payload;
        let Transfer { arrives, airtime, snr_db, .. } =
            self.link.transfer(&self.settings.link, self.settings.seed, self.device, Direction::Up, now, bits);
        generation.airtime_up += airtime;
        let cost = &mut generation.cost;
        cost.attempts += 1;
        cost.bits += bits;
        cost.uplink += arrives.since(now);
        if cost.attempts == 1 {
            cost.snr_db = snr_db;
        }
        generation.network = Network::Sending { drafts, until: arrives };
    }

    /// The last bit has left.
    fn send(&mut self, now: Time, drafts: u8, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        self.next_upload += 1;
        let upload = UploadId(self.next_upload);
        // Patience doubles with each attempt, or a pool that is merely slow would compute every one of them in vain.
        let attempts = generation.cost.attempts.clamp(1, MOST_DOUBLINGS + 1) - 1;
        let deadline = now + Span(self.settings.verdict_timeout.0.saturating_mul(1 << attempts));
        generation.uploads.sent += 1;
        generation.network = Network::Awaiting { drafts, upload, deadline };
        let sent = &generation.pending[..usize::from(drafts).min(generation.pending.len())];
        let ends = sent.last().is_some_and(|last| self.settings.end_tokens.contains(&last.token));
        let room = generation.remaining() > u32::from(drafts);
        let job = if drafts == 0 {
            UploadJob::Write { limit: generation.remaining() }
        } else {
            UploadJob::Judge { drafts, bonus: self.settings.method.bonus && room && !ends }
        };
        out.push(Output::Upload(UploadPlan {
            upload,
            session: self.session,
            generation: generation.id,
            epoch: generation.epoch,
            base: generation.uploaded,
            committed: generation.committed,
            job,
            deadline,
            wanted: None,
            risk: sent.iter().map(|p| p.signals.statistic).sum(),
        }));
    }

    /// Ends the awaited upload without a verdict.
    fn cancel(&mut self, now: Time, upload: UploadId, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        generation.uploads.cancelled += 1;
        self.silent_since.get_or_insert(now);
        out.push(Output::Cancel(upload));
    }

    fn apply(&mut self, now: Time, drafts: u8, verdict: &Verdict, out: &mut Vec<Output>) {
        let accepted = verdict.accepted.min(drafts);
        let reason = self.generation.as_ref().map_or(GateReason::Always, |g| g.upload_reason);
        let mut bill = Some(verdict);
        for _ in 0..accepted {
            self.commit(now, Commit::Draft(Source::Accepted), reason, bill.take(), out);
        }
        match verdict.next {
            NextToken::Replacement(token) | NextToken::Resampled(token) if accepted < drafts => {
                self.commit(now, Commit::Replace(token), reason, bill.take(), out);
            }
            NextToken::Bonus(token) if accepted == drafts => {
                self.commit(now, Commit::Add(token), reason, bill.take(), out);
            }
            // No token, or one that does not fit what was asked: nothing to commit.
            _ => {}
        }
        if let Some(generation) = &mut self.generation {
            let unknown = u32::from(matches!(verdict.next, NextToken::Resampled(_)));
            generation.uploaded = generation.committed - unknown.min(generation.committed);
        }
    }

    // ---- commits -----------------------------------------------------------------------------------------------

    fn commit_draft(&mut self, now: Time, source: Source, reason: GateReason, out: &mut Vec<Output>) {
        self.commit(now, Commit::Draft(source), reason, None, out);
    }

    /// Makes one token final and rolls back whatever no longer follows from it.
    fn commit(&mut self, now: Time, what: Commit, reason: GateReason, bill: Option<&Verdict>, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        if generation.ending.is_some() {
            return;
        }
        let position = generation.committed;
        let drafted = (!generation.pending.is_empty()).then(|| generation.pending.remove(0));
        let epoch = generation.epoch;
        let (token, source) = match what {
            Commit::Draft(source) => match drafted {
                Some(draft) => (draft.token, source),
                None => return,
            },
            Commit::Replace(token) => {
                generation.epoch += 1;
                (token, Source::Replaced)
            }
            Commit::Add(token) => {
                let source = match self.settings.method.writer {
                    Writer::Verifier => Source::Verifier,
                    Writer::Drafter => Source::Bonus,
                };
                (token, source)
            }
        };
        if source == Source::Replaced || drafted.is_none_or(|draft| draft.token != token) {
            generation.counts.wasted_drafts += generation.pending.len() as u64;
            generation.pending.clear();
            generation.kv = generation.kv.min(position);
            if let Some(computing) = &mut self.computing {
                computing.stale = true;
            }
            out.push(Output::Set { position, token });
        }
        generation.committed += 1;
        generation.first_token.get_or_insert(now);
        out.push(Output::Record(generation.record(now, position, token, epoch, source, reason, drafted, bill)));
        if self.settings.end_tokens.contains(&token) {
            generation.ending = Some(FinishReason::Stop);
        } else if generation.remaining() == 0 {
            generation.ending = Some(FinishReason::Length);
        }
    }

    /// The pool is out of reach and the scenario does not want to wait any longer.
    fn give_up_on_pool(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(generation) = &mut self.generation else { return };
        let drafts = generation.network.drafts();
        if let Network::Awaiting { upload, .. } = generation.network {
            generation.uploads.cancelled += 1;
            out.push(Output::Cancel(upload));
        }
        generation.network = Network::Quiet;
        if self.settings.on_unreachable == OnUnreachable::Local && drafts > 0 {
            let reason = generation.upload_reason;
            generation.cost = UploadCost::NONE;
            for _ in 0..drafts {
                self.commit_draft(now, Source::Fallback, reason, out);
            }
        } else {
            generation.ending = Some(FinishReason::Failed);
        }
    }

    fn unreachable_at(&self, generation: &Generation) -> Option<Time> {
        let wanted = !matches!(generation.network, Network::Quiet);
        match (self.settings.on_unreachable, self.silent_since) {
            (OnUnreachable::Local | OnUnreachable::Fail, Some(since)) if wanted => {
                Some(since + self.settings.unreachable_after)
            }
            _ => None,
        }
    }

    /// Closes the generation, once the step under way is over (its time belongs to this generation).
    fn end(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.computing.is_some() {
            return;
        }
        let Some(mut generation) = self.generation.take() else { return };
        if let Network::Awaiting { upload, .. } = generation.network {
            generation.uploads.cancelled += 1;
            out.push(Output::Cancel(upload));
        }
        generation.counts.wasted_drafts += generation.pending.len() as u64;
        out.push(Output::Finished(Box::new(generation.close(now, self.device, &self.settings))));
    }

    /// Writes the time since the last event to the account of what the device was doing. A draft step is booked as a
    /// whole when it ends, because only then is it known how its time divides.
    fn account(&mut self, now: Time) {
        let elapsed = now.since(self.accounted);
        self.accounted = self.accounted.max(now);
        if self.computing.is_some() {
            return;
        }
        if let Some(generation) = &mut self.generation {
            match generation.network {
                Network::Quiet => generation.times.idle += elapsed,
                _ => generation.times.waiting += elapsed,
            }
        }
    }
}

/// The three ways in which a token becomes final.
enum Commit {
    /// The oldest draft, as it is.
    Draft(Source),
    /// The verifier's token instead of the oldest draft, which was rejected.
    Replace(u32),
    /// The verifier's token behind all drafts; drafts made ahead survive if the first of them equals it.
    Add(u32),
}
