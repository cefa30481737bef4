//! Tokens become final, one at a time and in order.

use super::super::gate::GateReason;
use super::super::message::{Output, Verdict};
use super::{DeviceMachine, NEVER};
use crate::method::Writer;
use crate::record::{FinishReason, Source};
use crate::time::Time;

/// The three ways in which a token becomes final.
pub(super) enum Commit {
    /// The oldest draft, as it is.
    Draft(Source),
    /// The verifier's token instead of the oldest draft, which was rejected.
    Replace(u32),
    /// The verifier's token behind all drafts; drafts made ahead survive if the first of them equals it.
    Add(u32),
}

impl DeviceMachine {
    pub(super) fn commit_draft(&mut self, now: Time, source: Source, reason: GateReason, out: &mut Vec<Output>) {
        self.commit(now, Commit::Draft(source), reason, None, out);
    }

    /// Makes one token final and rolls back whatever no longer follows from it.
    pub(super) fn commit(
        &mut self,
        now: Time,
        what: Commit,
        reason: GateReason,
        bill: Option<&Verdict>,
        out: &mut Vec<Output>,
    ) {
        let Some(generation) = &mut self.generation else { return };
        if generation.ending.is_some() {
            return;
        }
        let position = generation.committed;
        let drafted = generation.pending.first().map(|draft| draft.token);
        let rejections = generation.rejections;
        let (token, source) = match what {
            Commit::Draft(source) => match drafted {
                Some(token) => (token, source),
                None => return,
            },
            Commit::Replace(token) => {
                generation.rejections += 1;
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
        let own = usize::from(drafted.is_some());
        if source == Source::Replaced || drafted != Some(token) {
            generation.counts.wasted_drafts += (generation.pending.len() - own) as u64;
            generation.pending.truncate(own);
            generation.kv = generation.kv.min(position);
            if let Some(computing) = &mut self.computing {
                computing.stale = true;
            }
            out.push(Output::Set { position, token });
        }
        generation.committed += 1;
        if generation.first_token == NEVER {
            generation.first_token = now;
        }
        generation.last_token = now;
        out.push(Output::Record(generation.record(now, position, token, rejections, source, reason, bill)));
        // After its record: a draft that has just been written is slow to move.
        generation.pending.drain(..own);
        if self.settings.end_tokens.contains(&token) {
            generation.ending = Some(FinishReason::Stop);
        } else if generation.remaining() == 0 {
            generation.ending = Some(FinishReason::Length);
        } else if self.battery_is_empty()
            && let Some(generation) = &mut self.generation
        {
            generation.ending = Some(FinishReason::Battery);
        }
    }
}
