//! Drafting: which step to ask for, what it is charged, and what the gate says about its draft.

use super::super::energy::DeviceCost;
use super::super::gate::{self, GateReason};
use super::super::generation::{Computing, FinishedStep, PendingDraft};
use super::super::link::{ChannelKey, Direction};
use super::super::message::{Output, Step, StepResult};
use super::DeviceMachine;
use crate::method::{Gate, ImportanceStatistic, MAX_BLOCK, PriceRule};
use crate::record::FinishReason;
use crate::time::Time;

/// Most drafts that wait for a decision: a block, and what is drafted ahead of its verdict.
const MAX_PENDING: usize = MAX_BLOCK + 2;

impl DeviceMachine {
    /// What to do with the oldest draft, and with how many it would be uploaded. `None` while a block is not whole, or
    /// its first draft's importance not known.
    pub(super) fn decide(&mut self, now: Time) -> Option<(u8, GateReason)> {
        let settings = &self.settings;
        let generation = self.generation.as_ref()?;
        // As nearly always after a commit.
        let first = generation.pending.first()?;
        let want = u32::from(settings.method.block).min(generation.remaining()) as usize;
        let ends_at = generation.pending.iter().position(|p| settings.end_tokens.contains(&p.token));
        let block = want.min(ends_at.map_or(want, |at| at + 1));
        if generation.pending.len() < block {
            return None;
        }
        if !first.ready {
            return None;
        }
        let price = match settings.method.gate {
            Gate::Price(rule) => self.price(&rule, block as u8, now),
            _ => f32::NAN,
        };
        let settings = &self.settings;
        let generation = self.generation.as_mut()?;
        let weighed = &mut generation.pending.first_mut()?.signals;
        let reason = gate::decide(&settings.method.gate, weighed, &generation.moments, price).reason;
        match settings.method.gate {
            Gate::Joint { importance, .. } if importance.statistic == ImportanceStatistic::Concentration => {
                weighed.importance_threshold = generation.moments.threshold(importance.kappa);
                generation.moments.push(weighed.importance);
            }
            // κ has no part in this rule.
            Gate::Price(_) => weighed.importance_threshold = f32::NAN,
            _ => {}
        }
        generation.price = price;
        Some((block as u8, reason))
    }

    /// λ_link + λ_pool for an upload of the oldest `drafts` drafts now.
    fn price(&self, rule: &PriceRule, drafts: u8, now: Time) -> f32 {
        let (settings, bits) = (&self.settings, self.upload_bits(drafts));
        let key = self.generation.as_ref().map_or_else(ChannelKey::default, |g| g.channel(settings.seed));
        let sending = settings.link.sending_now(key, Direction::Up, now, bits);
        let pool = self.extras.as_ref().map_or(0.0, |extras| extras.pool_price(rule, now));
        rule.link_price(sending.joules, sending.seconds) + pool
    }

    pub(super) fn ask_for_draft(&mut self, now: Time, out: &mut Vec<Output>) {
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
            rejections: generation.rejections,
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
            rejections: generation.rejections,
            keep: generation.kv,
        }));
    }

    /// Whether a draft beyond the block under way may still survive.
    pub(super) fn may_draft_ahead(&self) -> bool {
        let Some(generation) = &self.generation else { return false };
        let drafts = generation.network.drafts();
        let bonus = u32::from(self.settings.method.bonus);
        let most = (drafts + u32::from(self.settings.method.block) + bonus).min(generation.remaining());
        let pending = generation.pending.len();
        let ended = generation.pending.iter().any(|p| self.settings.end_tokens.contains(&p.token));
        drafts > 0 && !ended && pending < (most as usize).min(MAX_PENDING)
    }

    pub(super) fn step_done(&mut self, now: Time, result: &StepResult, out: &mut Vec<Output>) {
        let (Some(computing), Some(generation)) = (&mut self.computing, &mut self.generation) else { return };
        let asked = result.generation == generation.id
            && result.position == computing.position
            && result.rejections == computing.rejections
            && computing.held.is_none();
        if !asked {
            generation.counts.stale += 1;
            return;
        }
        let StepResult { token, payload_bits, signals, lookback, .. } = *result;
        computing.held = Some(FinishedStep { token, payload_bits, signals, lookback });
        if now >= computing.due(&self.settings) {
            self.finish_step(now, out);
        }
    }

    pub(super) fn step_failed(&mut self, now: Time) {
        let (Some(computing), Some(generation)) = (self.computing.take(), &mut self.generation) else { return };
        generation.times.overrun += now.since(computing.since);
        generation.ending = Some(FinishReason::Failed);
    }

    /// The step's declared time is over: book it and take its draft.
    pub(super) fn finish_step(&mut self, now: Time, out: &mut Vec<Output>) {
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
        generation.pending.push(PendingDraft {
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
}
