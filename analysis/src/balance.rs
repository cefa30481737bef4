//! Do the books close? What a generation says as a whole must follow from its rows (ARCHITECTURE.md has how).

use specfleet_engine::record::{FinishReason, GenerationRecord, RoundRecord};
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
        /// The generation's figure.
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
        /// Number of rounds.
        rounds: usize,
    },
}

/// Checks one generation against its rounds: time, cloud energy in both accountings, uploads, tokens.
pub fn check_energy_closes(generation: &GenerationRecord, rounds: &[RoundRecord]) -> Result<(), Imbalance> {
    check_totals(generation)?;
    let cloud = rounds.iter().map(|round| round.cloud_nanojoules).sum();
    let cloud_paper = rounds.iter().map(|round| round.cloud_paper_nanojoules).sum();
    for (account, rounds, generation) in
        [("cloud", cloud, generation.energy.cloud), ("cloud_paper", cloud_paper, generation.energy.cloud_paper)]
    {
        if rounds != generation {
            return Err(Imbalance::Energy { account, rounds, generation });
        }
    }
    let agrees = |index: usize| {
        let (token, round) = (generation.tokens.get(index), rounds.get(index));
        token.zip(round).is_some_and(|(token, round)| round.token == *token && round.position as usize == index)
    };
    let agreeing = (0..rounds.len()).take_while(|index| agrees(*index)).count();
    if agreeing != rounds.len() || agreeing != generation.tokens.len() {
        return Err(Imbalance::Tokens { tokens: generation.tokens.len(), agreeing, rounds: rounds.len() });
    }
    Ok(())
}

/// What a generation's record says about itself: its time and its uploads. One that was dropped was never started, so
/// no device spent time on it, however long it had been due.
pub(crate) fn check_totals(generation: &GenerationRecord) -> Result<(), Imbalance> {
    let span = match generation.finish {
        FinishReason::Dropped => 0,
        _ => generation.ended.since(generation.started).0,
    };
    let states = generation.times.total().0;
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
