//! Do the books close? What a generation says as a whole must follow from its rows (ARCHITECTURE.md has how).

use specfleet_engine::record::{FinishReason, GenerationRecord, RoundRecord};
use specfleet_engine::time::Span;
use thiserror::Error;

/// A figure of a generation that its rows contradict.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Imbalance {
    /// The device's states do not add up to the generation's span.
    #[error("the device's states add up to {states} ns, the generation took {span} ns")]
    Time {
        /// Sum of the states.
        states: u64,
        /// From start to end.
        span: u64,
    },
    /// The rounds' shares do not add up to the generation's cloud energy.
    #[error("the rounds' shares of {account} add up to {rounds} nJ, the generation says {generation} nJ")]
    Energy {
        /// Which account: `cloud` or `cloud_paper`.
        account: &'static str,
        /// Sum over the rounds.
        rounds: u64,
        generation: u64,
    },
    /// What the rounds are charged for waiting does not add up to the generation's.
    #[error("the rounds' waiting adds up to {rounds} ns, the generation was charged {generation} ns")]
    Waiting {
        /// Sum over the rounds.
        rounds: u64,
        generation: u64,
    },
    /// An upload attempt ended never, or more than once.
    #[error("{sent} uploads were sent, {ended} ended")]
    Uploads {
        /// Attempts that left the device.
        sent: u64,
        /// Verdicts, refusals and cancellations.
        ended: u64,
    },
    /// The rounds do not commit the generation's tokens one by one and in order.
    #[error("the generation has {tokens} tokens, its rounds agree with the first {agreeing} of them ({rounds} rounds)")]
    Tokens {
        /// Tokens of the generation.
        tokens: usize,
        /// Leading rounds whose position and token are right.
        agreeing: usize,
        rounds: usize,
    },
}

/// Checks one generation against its rounds: time, charged waiting, cloud energy with and without catch-up, uploads,
/// tokens. `accounting`: that of its run ([`specfleet_engine::record::ACCOUNTING`]).
pub fn check_energy_closes(
    generation: &GenerationRecord,
    rounds: &[RoundRecord],
    accounting: u32,
) -> Result<(), Imbalance> {
    check_totals(generation, accounting)?;
    let mut sums = RoundSums::starting_at(0);
    rounds.iter().for_each(|round| sums.add(round, &generation.tokens));
    sums.check(generation, accounting)
}

/// What a generation's rounds add up to, or a part of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundSums {
    /// Index of the first round.
    first: u32,
    pub(crate) rounds: u32,
    /// Leading rounds whose position and token are right.
    agreeing: u32,
    cloud: u64,
    cloud_paper: u64,
    waiting: Span,
    /// Whether the device committed a draft by itself because the pool did not answer: when that happens is chance.
    pub(crate) local: bool,
}

impl RoundSums {
    /// Nothing yet; the next round is the generation's `first`.
    pub(crate) fn starting_at(first: u32) -> RoundSums {
        RoundSums { first, rounds: 0, agreeing: 0, cloud: 0, cloud_paper: 0, waiting: Span::ZERO, local: false }
    }

    /// Adds the next round of a generation of these tokens.
    #[inline]
    pub(crate) fn add(&mut self, round: &RoundRecord, tokens: &[u32]) {
        let index = self.first + self.rounds;
        let agrees = round.position == index && tokens.get(index as usize) == Some(&round.token);
        self.agreeing += u32::from(agrees && self.agreeing == self.rounds);
        self.rounds += 1;
        self.cloud += round.cloud_nanojoules();
        self.cloud_paper += round.cloud_paper_nanojoules();
        self.waiting += round.waiting;
        self.local |= round.source.is_without_pool();
    }

    /// Adds the part that follows.
    pub(crate) fn append(&mut self, later: &RoundSums) {
        let whole = self.agreeing == self.rounds && self.first + self.rounds == later.first;
        self.agreeing += if whole { later.agreeing } else { 0 };
        self.rounds += later.rounds;
        self.cloud += later.cloud;
        self.cloud_paper += later.cloud_paper;
        self.waiting += later.waiting;
        self.local |= later.local;
    }

    /// Whether they are what the generation says: cloud energy with and without catch-up, charged waiting, tokens.
    pub(crate) fn check(&self, generation: &GenerationRecord, accounting: u32) -> Result<(), Imbalance> {
        // A generation that ends with a token has waited for its tokens alone; others may have waited in vain since.
        let whole = matches!(generation.finish, FinishReason::Stop | FinishReason::Length);
        let (rounds, charged) = (self.waiting, generation.times.waiting);
        // Rows of the first accounting do not say what they waited.
        if accounting > 1 && (rounds > charged || whole && rounds < charged) {
            return Err(Imbalance::Waiting { rounds: rounds.0, generation: charged.0 });
        }
        for (account, rounds, generation) in [
            ("cloud", self.cloud, generation.energy.cloud),
            ("cloud_paper", self.cloud_paper, generation.energy.cloud_paper),
        ] {
            if rounds != generation {
                return Err(Imbalance::Energy { account, rounds, generation });
            }
        }
        let (tokens, agreeing, rounds) = (generation.tokens.len(), self.agreeing as usize, self.rounds as usize);
        if agreeing != rounds || agreeing != tokens || self.first != 0 {
            return Err(Imbalance::Tokens { tokens, agreeing, rounds });
        }
        Ok(())
    }
}

/// What a generation's record says about itself: its time and its uploads. One that was dropped was never started, so
/// no device spent time on it, however long it had been due.
pub(crate) fn check_totals(generation: &GenerationRecord, accounting: u32) -> Result<(), Imbalance> {
    let span = match generation.finish {
        FinishReason::Dropped => 0,
        _ => generation.ended.since(generation.started).0,
    };
    let states = generation.times.total(accounting).0;
    if states != span {
        return Err(Imbalance::Time { states, span });
    }
    let uploads = generation.uploads;
    let ended = uploads.verdicts + uploads.refused + uploads.cancelled;
    if uploads.sent != ended {
        return Err(Imbalance::Uploads { sent: uploads.sent, ended });
    }
    Ok(())
}
