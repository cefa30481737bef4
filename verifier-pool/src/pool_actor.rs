//! The `PoolActor` actor: owns the pool machine and the session store. Whatever happens becomes one [`Input`] in the
//! [`Agenda`], which says when the machine is told of it; what the machine answers is carried out in order, and the timer
//! follows what comes next.

mod handlers;

use std::collections::VecDeque;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, MailboxError, SpawnHandle, WrapFuture};
use specfleet_engine::acceptance::Next;
use specfleet_engine::id::{ConnectionId, VerifierId};
use specfleet_engine::pool::{Agenda, Batch, BatchItem, Input, NextInput, Output, PoolMachine, PoolSettings};
use specfleet_engine::record::BatchRecord;
use specfleet_engine::time::Time;
use specfleet_engine::wire::{ServerFrame, Upload, VerdictFrame};
use specfleet_timer::{HostClock, Timer};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tracing::field::Empty;
use tracing::{Span, debug, debug_span, warn};

use crate::guests::Guests;
use crate::judge::ItemAnswer;
use crate::options::{PoolCall, PoolEvent, PoolJournal};
use crate::replica::{Blueprint, Replica};
use crate::status::Outstanding;
use crate::store::SessionStore;
use crate::verifier_actor::{BatchOrder, VerifierAnswer, VerifierFailed, VerifierOrder};

/// Messages that may wait for the pool. A connection has at most one under way and waits until the machine is told of it.
const MAILBOX: usize = 64;

/// After what a verifier that got no thread is tried again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What an input brings along that the machine does not see.
#[derive(Default)]
struct InputPayload {
    /// With `Input::Upload`: what was uploaded, until it is admitted.
    upload: Option<Box<Upload>>,
    /// With `Input::BatchDone`: what came out, by item.
    answers: Vec<ItemAnswer>,
    /// With an input from a device: dropped when the machine has been told of it, which is what its connection waits for.
    _told: Option<oneshot::Sender<()>>,
}

/// The actor that drives the pool's machine.
pub(crate) struct PoolActor {
    machine: PoolMachine,
    agenda: Agenda<InputPayload>,
    /// Whether devices go by the same clock.
    shares_clock: bool,
    host: HostClock,
    store: SessionStore,
    guests: Guests,
    replicas: Vec<Replica>,
    /// The span of each one's batch, for the log.
    spans: Vec<Span>,
    blueprint: Blueprint,
    /// The running timer and what it waits for.
    timer: Option<(Time, SpawnHandle)>,
    /// What rings at that time.
    clock: Timer,
    events: mpsc::Sender<PoolEvent>,
    /// Records of the input at hand.
    records: VecDeque<PoolEvent>,
    journal: Option<PoolJournal>,
    /// Verifiers that could not be started again for want of a thread.
    without_thread: Vec<VerifierId>,
    /// Who waits for the last answer.
    draining: Vec<oneshot::Sender<()>>,
}

/// What a pool actor is made of.
pub(crate) struct PoolParts {
    pub(crate) settings: PoolSettings,
    pub(crate) host: HostClock,
    pub(crate) shares_clock: bool,
    /// Connections that may be there at a time.
    pub(crate) most_guests: usize,
    pub(crate) blueprint: Blueprint,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) clock: Timer,
    pub(crate) events: mpsc::Sender<PoolEvent>,
    pub(crate) journal: Option<PoolJournal>,
}

impl Actor for PoolActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl PoolActor {
    /// A pool whose verifiers run already.
    pub(crate) fn new(mut parts: PoolParts) -> PoolActor {
        let now = parts.host.now();
        if let Some(journal) = &mut parts.journal {
            journal(now, PoolCall::New, &[]);
        }
        PoolActor {
            agenda: Agenda::new(now, parts.settings.cost.is_some(), parts.shares_clock),
            machine: PoolMachine::new(now, parts.settings),
            shares_clock: parts.shares_clock,
            host: parts.host,
            store: SessionStore::default(),
            guests: Guests::new(parts.most_guests),
            spans: vec![Span::none(); parts.replicas.len()],
            replicas: parts.replicas,
            blueprint: parts.blueprint,
            timer: None,
            clock: parts.clock,
            events: parts.events,
            records: VecDeque::new(),
            journal: parts.journal,
            without_thread: Vec::new(),
            draining: Vec::new(),
        }
    }

    /// Tells the machine of everything whose time has come, and then lets everything outside catch up.
    fn turn(&mut self, ctx: &mut Context<Self>) {
        let mut outputs = Vec::new();
        let wake = loop {
            match self.agenda.next(self.machine.poll_timeout(), self.host.now()) {
                NextInput::Now(at, input) => {
                    let (input, cargo) = input.unwrap_or((Input::Timeout, InputPayload::default()));
                    self.handle(at, input, cargo, &mut outputs);
                }
                NextInput::At(at) => break Some(at),
                NextInput::Nothing => break None,
            }
        };
        self.send_orders(ctx);
        self.restart_later(ctx);
        self.set_timer(wake, ctx);
        self.send_records(ctx);
        if self.agenda.is_empty() && self.outstanding() == Outstanding::default() {
            for drained in self.draining.drain(..) {
                // Whoever waited may have given up.
                let _ = drained.send(());
            }
        }
    }

    /// Something has happened that is not emulated.
    fn happen(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.agenda.happen(self.host.now(), input, InputPayload::default());
        self.turn(ctx);
    }

    /// The only caller of the machine's `handle`: takes the input in and carries out what follows from it.
    fn handle(&mut self, at: Time, input: Input, mut cargo: InputPayload, outputs: &mut Vec<Output>) {
        if let Input::Upload(request) = &input
            && !self.guests.contains(request.session.connection)
        {
            // It would open a session that nobody closes.
            return;
        }
        if let Input::Cancel { session, upload } = &input {
            self.store.drop_upload(*session, *upload);
        }
        let shown = self.journal.is_some().then(|| input.clone());
        self.machine.handle(at, input, outputs);
        if let (Some(journal), Some(input)) = (&mut self.journal, &shown) {
            journal(at, PoolCall::Handle(input), outputs);
        }
        for output in outputs.drain(..) {
            if let Some(follows) = self.carry_out(output, &mut cargo) {
                self.agenda.happen(self.host.now(), follows, InputPayload::default());
            }
        }
    }

    /// Does what the machine asks for. What happens because of it at once is the next input.
    fn carry_out(&mut self, output: Output, cargo: &mut InputPayload) -> Option<Input> {
        match output {
            Output::Admitted { session, .. } => {
                self.guests.worked(self.host.now(), session.connection);
                if let Some(upload) = cargo.upload.take() {
                    self.store.admit(session, upload);
                }
                None
            }
            Output::Refused { session, upload, reason, retry_after, price } => {
                // Refused on arrival it was never stored, and a pending upload of the same number is another one.
                if cargo.upload.take().is_none() {
                    self.store.drop_upload(session, upload);
                }
                self.guests.refused(session, upload, reason);
                self.agenda.answered(session.connection);
                let frame = ServerFrame::Refused { session: session.session, upload, reason, retry_after, price };
                self.send_frame(session.connection, frame)
            }
            Output::Start(batch) => {
                self.formed(&batch);
                self.agenda.started(batch.verifier, batch.release);
                let order = BatchOrder {
                    batch: batch.batch,
                    evict: batch.evict,
                    tasks: batch.items.iter().map(|item| self.store.task(item)).collect(),
                    ordered: self.host.now(),
                };
                self.order(batch.verifier, VerifierOrder::Batch(order));
                None
            }
            Output::Verdict { session, upload, item, more, cost, price } => {
                let answer = cargo.answers.get_mut(item as usize)?;
                let (accepted, next) = (answer.outcome.accepted, answer.outcome.next);
                self.store.commit(session, accepted, next, more);
                let next = std::mem::replace(&mut answer.next, Next::None);
                if !more {
                    self.agenda.answered(session.connection);
                }
                let frame = VerdictFrame { session: session.session, upload, accepted, next, more, cost, price };
                self.send_frame(session.connection, ServerFrame::Verdict(Box::new(frame)))
            }
            Output::Forget(session) => {
                self.guests.worked(self.host.now(), session.connection);
                self.store.forget(session);
                None
            }
            Output::DropKv { verifier, session } => {
                self.order(verifier, VerifierOrder::Free(session));
                None
            }
            Output::Restart(verifier) => {
                warn!(verifier = verifier.0, "verifier failed, another is started in its place");
                self.restart(verifier)
            }
            Output::Record(record) => {
                self.over(&record);
                self.records.push_back(PoolEvent::Batch(record));
                None
            }
            Output::VerifierRecord(record) => {
                self.records.push_back(PoolEvent::Verifier(record));
                None
            }
        }
    }

    // ---- devices -----------------------------------------------------------------------------------------------

    /// Queues a frame for a device. One that has let its queue fill up is gone from here on.
    fn send_frame(&mut self, connection: ConnectionId, frame: ServerFrame) -> Option<Input> {
        (!self.guests.send(connection, frame)).then_some(Input::Disconnected(connection))
    }

    /// A connection is no guest any more.
    fn gone(&mut self, connection: ConnectionId, ctx: &mut Context<Self>) {
        self.agenda.forget(connection);
        self.happen(Input::Disconnected(connection), ctx);
    }

    // ---- verifiers ---------------------------------------------------------------------------------------------

    fn order(&mut self, verifier: VerifierId, order: VerifierOrder) {
        if let Some(replica) = self.replicas.get_mut(usize::from(verifier.0)) {
            replica.order(order);
        }
    }

    /// Sends each verifier its orders; the answer comes back as a future of this actor.
    fn send_orders(&mut self, ctx: &mut Context<Self>) {
        for index in 0..self.replicas.len() {
            let Some(request) = self.replicas[index].send() else { continue };
            // There are at most `u16::MAX` verifiers, by the type of the setting.
            let verifier = VerifierId(index as u16);
            ctx.spawn(request.into_actor(self).map(move |answer, pool, ctx| pool.answered(verifier, answer, ctx)));
        }
    }

    fn answered(
        &mut self,
        verifier: VerifierId,
        answer: Result<Result<VerifierAnswer, VerifierFailed>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        // A mailbox that is gone means that the whole thread died.
        let Ok(Ok(VerifierAnswer { batch, held })) = answer else {
            let at = self.agenda.failed(verifier, self.host.now());
            self.handle(at, Input::VerifierFailed(verifier), InputPayload::default(), &mut Vec::new());
            self.turn(ctx);
            return;
        };
        if let Some(replica) = self.replicas.get_mut(usize::from(verifier.0)) {
            replica.answered(held);
        }
        match batch {
            Some(done) => {
                let input = Input::BatchDone {
                    verifier,
                    batch: done.batch,
                    waited: done.waited,
                    compute: done.compute,
                    outcomes: done.items.iter().map(|item| item.outcome).collect(),
                };
                let cargo = InputPayload { answers: done.items, ..InputPayload::default() };
                self.agenda.computed(verifier, self.host.now(), input, cargo);
                self.turn(ctx);
            }
            None => self.send_orders(ctx),
        }
    }

    /// Starts a fresh verifier in place of one that failed.
    fn restart(&mut self, verifier: VerifierId) -> Option<Input> {
        let replica = self.replicas.get_mut(usize::from(verifier.0))?;
        match replica.restart(&self.blueprint) {
            Ok(()) => Some(Input::VerifierReady(verifier)),
            // No thread to be had; its jobs run elsewhere meanwhile.
            Err(_) => {
                self.without_thread.push(verifier);
                None
            }
        }
    }

    /// Tries again to start those that got no thread.
    fn restart_later(&mut self, ctx: &mut Context<Self>) {
        for verifier in std::mem::take(&mut self.without_thread) {
            ctx.run_later(RESTART_PAUSE, move |pool, ctx| {
                if let Some(ready) = pool.restart(verifier) {
                    pool.happen(ready, ctx);
                } else {
                    pool.restart_later(ctx);
                }
            });
        }
    }

    // ---- the log -----------------------------------------------------------------------------------------------

    /// A batch begins: its span, with what the ledger's row will say.
    fn formed(&mut self, batch: &Batch) {
        let (Some(span), sequences) = (self.spans.get_mut(usize::from(batch.verifier.0)), batch.items.len()) else {
            return;
        };
        *span = debug_span!("batch", batch = batch.batch, verifier = batch.verifier.0, sequences, tokens = Empty);
        if !span.is_disabled() {
            span.record("tokens", batch.items.iter().map(BatchItem::work).sum::<u32>());
            debug!(parent: &*span, "formed");
        }
    }

    /// A batch is over.
    fn over(&mut self, record: &BatchRecord) {
        let Some(span) = self.spans.get_mut(usize::from(record.verifier.0)) else { return };
        let span = std::mem::replace(span, Span::none());
        let (compute_ns, work, nanojoules) = (record.compute.0, record.work, record.nanojoules);
        if record.completed {
            debug!(parent: &span, compute_ns, work, nanojoules, "completed");
        } else {
            let (batch, verifier) = (record.batch, record.verifier.0);
            warn!(parent: &span, batch, verifier, compute_ns, work, nanojoules, "failed");
        }
    }

    // ---- time and records --------------------------------------------------------------------------------------

    /// Sets the one timer.
    fn set_timer(&mut self, wanted: Option<Time>, ctx: &mut Context<Self>) {
        if self.timer.map(|(at, _)| at) == wanted {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        // A time beyond what the clock can tell never comes. One that rings too early, after a standstill, is set again.
        let instant = |at: Time| Some((at, self.host.instant(at)?));
        let Some((at, instant)) = wanted.and_then(instant) else { return };
        let alarm = self.clock.at(instant).into_actor(self).map(|(), pool, ctx| {
            pool.timer = None;
            pool.turn(ctx);
        });
        self.timer = Some((at, ctx.spawn(alarm)));
    }

    /// Hands the records over. While their queue is full this actor handles nothing else, and the devices wait in turn.
    fn send_records(&mut self, ctx: &mut Context<Self>) {
        while let Some(record) = self.records.pop_front() {
            match self.events.try_send(record) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.records.clear(),
                Err(TrySendError::Full(record)) => {
                    let events = self.events.clone();
                    self.records.push_front(record);
                    let rest = std::mem::take(&mut self.records);
                    let send_rest = async move {
                        for record in rest {
                            // The error is a receiver that is gone.
                            let _ = events.send(record).await;
                        }
                    };
                    ctx.wait(send_rest.into_actor(self));
                }
            }
        }
    }

    fn outstanding(&self) -> Outstanding {
        let (queued_jobs, queued_tokens, running) = self.machine.outstanding();
        Outstanding { queued_jobs, queued_tokens, running }
    }
}
