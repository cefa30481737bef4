//! How many verifiers are on. Once per period as many are wanted as would be busy for the target share of the time with
//! what kept them busy in it, and no fewer than it takes to compute in one period what waits. What is missing is added at
//! once; what is too much goes one at a time, the one with the least to do first.
//!
//! A verifier that is added draws idle power and takes work after its cold start. One that goes finishes its batch, its
//! queue is placed anew, its caches are dropped, and it draws nothing. Periods that passed without an input are made up for
//! when the next one comes, at the times when they ended.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::machine::PoolMachine;
use super::message::Output;
use super::settings::Autoscale;
use super::verifier::Stage;
use crate::id::VerifierId;
use crate::time::{Span, Time};

#[derive(Debug)]
pub(super) struct Scaling {
    settings: Autoscale,
    /// Verifiers that are on or starting.
    on: u16,
    /// When the period ends.
    end: Time,
    /// Verifiers that compute, and since when that many do.
    running: u32,
    since: Time,
    /// Time in batches in this period, summed over the verifiers, in ns.
    busy: u128,
    /// Those that are starting, by when they take work.
    starting: BTreeSet<(Time, u16)>,
    /// Nothing has come in since the last period ended.
    pub(super) quiet: bool,
}

impl Scaling {
    /// `on` verifiers are on at `now`.
    pub(super) fn new(now: Time, settings: Autoscale, on: u16) -> Scaling {
        let settings = Autoscale { period: settings.period.max(Span(1)), ..settings };
        let (end, starting) = (now + settings.period, BTreeSet::new());
        Scaling { settings, on, end, running: 0, since: now, busy: 0, starting, quiet: false }
    }

    /// When the period ends.
    pub(super) fn end(&self) -> Time {
        self.end
    }

    /// When the next verifier takes work.
    pub(super) fn next_start(&self) -> Option<Time> {
        self.starting.first().map(|&(at, _)| at)
    }

    fn count(&mut self, now: Time) {
        self.busy += u128::from(now.since(self.since).0) * u128::from(self.running);
        self.since = self.since.max(now);
    }

    /// How many should be on after the period that ends now. `queued`: tokens that wait; `pace`: tokens per second of one
    /// verifier, if known.
    fn wanted(&self, queued: u64, pace: Option<f64>) -> u16 {
        let Autoscale { min, max, target_busy, period, .. } = self.settings;
        let by_busy = self.busy as f64 / period.0 as f64 / f64::from(target_busy);
        let by_queue = pace.map_or(0.0, |pace| queued as f64 / (pace * period.seconds()));
        // Rounding of the division must not ask for one more. `as` saturates.
        let wanted = (by_busy.max(by_queue) - 1e-9).ceil() as u16;
        wanted.clamp(min.max(1), max.max(min).max(1))
    }
}

impl PoolMachine {
    /// One verifier more or less computes from now on.
    pub(super) fn busy_changed(&mut self, now: Time, change: i32) {
        if let Some(scaling) = &mut self.scaling {
            scaling.count(now);
            scaling.running = scaling.running.saturating_add_signed(change);
        }
    }

    /// Does what was to be done at its time up to `now`: verifiers that have started take work, periods end.
    pub(super) fn scale_until(&mut self, now: Time, out: &mut Vec<Output>) {
        loop {
            let Some(scaling) = &self.scaling else { return };
            let next = scaling.next_start().map_or(scaling.end, |start| start.min(scaling.end));
            if next > now {
                return;
            }
            self.reprice(next);
            let Some(scaling) = &mut self.scaling else { return };
            match scaling.starting.first().copied() {
                Some((at, id)) if at == next => {
                    scaling.starting.remove(&(at, id));
                    self.verifiers[usize::from(id)].stage = Stage::On;
                    self.refresh(VerifierId(id));
                    self.place_the_unplaced();
                }
                _ => self.end_period(next, now, out),
            }
        }
    }

    fn end_period(&mut self, end: Time, now: Time, out: &mut Vec<Output>) {
        let (queued, pace) = (self.queued_tokens, self.pace());
        let Some(scaling) = &mut self.scaling else { return };
        scaling.count(end);
        let (wanted, on) = (scaling.wanted(queued, pace), scaling.on);
        scaling.busy = 0;
        let period = scaling.settings.period;
        // A whole period without an input that changes nothing is like all that follow.
        let alike = if scaling.quiet && wanted == on { now.since(end).0 / period.0 } else { 0 };
        let skipped = Span(period.0.saturating_mul(alike));
        scaling.since = scaling.since.max(end + skipped);
        scaling.end = end + skipped + period;
        scaling.quiet = true;
        if wanted > on {
            self.add(end, wanted - on);
        } else if wanted < on {
            self.take_one_away(end, out);
        }
    }

    /// Turns `missing` verifiers on: first those that have not gone yet, then by number.
    fn add(&mut self, now: Time, missing: u16) {
        let Some(scaling) = &mut self.scaling else { return };
        let mut left = missing;
        let mut back = Vec::new();
        for (index, verifier) in self.verifiers.iter_mut().enumerate() {
            if left > 0 && verifier.stage == Stage::Draining {
                verifier.stage = Stage::On;
                back.push(VerifierId(index as u16));
                left -= 1;
            }
        }
        let ready_at = now + scaling.settings.cold_start;
        for (index, verifier) in self.verifiers.iter_mut().enumerate() {
            let Stage::Off(since) = verifier.stage else { continue };
            if left == 0 {
                break;
            }
            verifier.off += now.since(since.max(self.started));
            verifier.stage = Stage::Starting(ready_at);
            scaling.starting.insert((ready_at, index as u16));
            left -= 1;
        }
        scaling.on += missing - left;
        back.into_iter().for_each(|id| self.refresh(id));
    }

    /// Turns one verifier off: the last to start, or else the one with the least to do.
    fn take_one_away(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(scaling) = &mut self.scaling else { return };
        scaling.on -= 1;
        if let Some((_, id)) = scaling.starting.pop_last() {
            self.verifiers[usize::from(id)].stage = Stage::Off(now);
            return;
        }
        let on = self.verifiers.iter().zip(0u16..).filter(|(verifier, _)| verifier.stage == Stage::On);
        let least = on.min_by_key(|(verifier, id)| (verifier.load(), self.kv.used(*id), Reverse(*id)));
        let Some(id) = least.map(|(_, id)| VerifierId(id)) else { return };
        let verifier = &mut self.verifiers[usize::from(id.0)];
        verifier.stage = Stage::Draining;
        let waiting = verifier.waiting();
        self.refresh(id);
        self.mark_dirty(id);
        for slot in waiting {
            self.replace(slot);
        }
        self.drained(now, id, out);
    }

    /// A verifier that is to go, and computes nothing any more, goes.
    pub(super) fn drained(&mut self, now: Time, id: VerifierId, out: &mut Vec<Output>) {
        let verifier = &mut self.verifiers[usize::from(id.0)];
        if verifier.stage != Stage::Draining || verifier.running.is_some() {
            return;
        }
        verifier.stage = Stage::Off(now);
        while let Some(slot) = self.kv.oldest(id.0) {
            self.kv.remove(slot);
            self.sessions[slot].kv = 0;
            out.push(Output::DropKv { verifier: id, session: self.sessions[slot].key });
        }
    }
}
