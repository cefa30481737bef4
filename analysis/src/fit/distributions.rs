//! What the pair of models did, as distributions that a simulation draws from and as a risk line.

use specfleet_engine::calibration::{Distributions, RiskLine, percentiles};
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::method::{Gate, Join, Method, Writer};
use specfleet_engine::record::{FinishReason, RoundRecord};

use super::GenerationRows;

/// Shares of the drafts, ordered by u(t), that acceptance is given for.
const SHARES: usize = 20;

/// In place of a drafted token where nothing was drafted.
const NO_DRAFT: u32 = u32::MAX;

/// A draft whose uncertainty was measured, and min(1, y_d/x_d) as far as the run knows it.
#[derive(Clone, Copy, Debug)]
struct LoggedDraft {
    u: f32,
    accepted: Option<f32>,
}

/// Fits what the methods of these generations measured; `None` if no method measured u(t), or nothing is known about
/// acceptance. `methods` is the run's list.
///
/// Each signal comes from the methods that measure it, so a run of several methods says more than one. Acceptance: of a
/// token that the verifier has not seen the audited min(1, y_d/x_d), of a judged draft 1 or 0. Without an audit the
/// drafts below the threshold of a gate are unknown, and their shares take the value of the nearest known one.
pub fn fit_distributions(generations: &[GenerationRows<'_>], methods: &[Method]) -> Option<Distributions> {
    let mut drafts = drafts(generations, methods);
    let acceptance = acceptance(&mut drafts)?;
    let (mut entropy, mut doubt, mut importance, mut draft_probability) = (vec![], vec![], vec![], vec![]);
    let (mut important, mut unimportant) = (0_u64, 0_u64);
    for (method, round) in drafted(generations, methods) {
        draft_probability.push(round.draft_probability);
        importance.push(round.importance);
        match method.gate {
            Gate::Entropy { .. } => entropy.push(round.uncertainty),
            Gate::MaxProbability { .. } => doubt.push(round.uncertainty),
            Gate::Joint { join: Join::And, .. } => {
                important += u64::from(round.reason == GateReason::Important);
                unimportant += u64::from(round.reason == GateReason::Unimportant);
            }
            _ => {}
        }
    }
    let known = important + unimportant;
    let ended = || generations.iter().filter(|g| matches!(g.record.finish, FinishReason::Stop | FinishReason::Length));
    Some(Distributions {
        drafts: drafts.len() as u64,
        uncertainty: percentiles(drafts.iter().map(|draft| draft.u).collect()),
        acceptance,
        importance: percentiles(importance),
        important: (known > 0).then(|| important as f64 / known as f64),
        draft_probability: percentiles(draft_probability),
        entropy: percentiles(entropy),
        doubt: percentiles(doubt),
        length: percentiles(ended().map(|g| g.rounds.len() as f32).collect()),
        prompt: percentiles(generations.iter().map(|g| g.record.prompt_tokens as f32).collect()),
    })
}

/// The risk line over the same pairs of uncertainty and acceptance; `None` without any.
pub fn refit_line(generations: &[GenerationRows<'_>], methods: &[Method]) -> Option<RiskLine> {
    let drafts = drafts(generations, methods);
    let line = RiskLine::fit(drafts.iter().filter_map(|draft| Some((draft.u, 1.0 - draft.accepted?))));
    (line.n > 0).then_some(line)
}

/// The drafts of all methods that measure u(t).
fn drafts(generations: &[GenerationRows<'_>], methods: &[Method]) -> Vec<LoggedDraft> {
    let mut drafts = Vec::new();
    for generation in generations {
        let gate = methods.get(usize::from(generation.record.id.method)).map(|method| &method.gate);
        if !matches!(gate, Some(Gate::Uncertainty { .. } | Gate::Joint { .. } | Gate::Price(_))) {
            continue;
        }
        let mut audited = vec![None; generation.rounds.len()];
        if let Some(audit) = generation.audit {
            for (position, probability) in audit.positions.iter().zip(&audit.accept_probabilities) {
                if let Some(slot) = audited.get_mut(*position as usize).filter(|_| probability.is_finite()) {
                    *slot = Some(*probability);
                }
            }
        }
        let known = generation.rounds.iter().zip(audited);
        drafts.extend(known.filter(|(round, _)| is_draft(round) && round.uncertainty.is_finite()).map(
            |(round, audited)| {
                let accepted = round.source.accepted().map(|accepted| f32::from(u8::from(accepted))).or(audited);
                LoggedDraft { u: round.uncertainty, accepted }
            },
        ));
    }
    drafts
}

/// All drafted rounds, each with its method.
fn drafted<'a>(
    generations: &'a [GenerationRows<'a>],
    methods: &'a [Method],
) -> impl Iterator<Item = (&'a Method, &'a RoundRecord)> {
    generations.iter().flat_map(|generation| {
        let method = methods.get(usize::from(generation.record.id.method));
        let method = method.filter(|method| method.writer == Writer::Drafter);
        method.into_iter().flat_map(|method| {
            generation.rounds.iter().filter(|round| is_draft(round)).map(move |round| (method, round))
        })
    })
}

fn is_draft(round: &RoundRecord) -> bool {
    round.draft != NO_DRAFT
}

/// Mean acceptance in [`SHARES`] equal shares of the drafts, which are put in the order of u. Drafts of equal u count with
/// their common mean, so that it does not matter where a share cuts between them.
fn acceptance(drafts: &mut [LoggedDraft]) -> Option<Vec<f32>> {
    drafts.sort_by(|a, b| a.u.total_cmp(&b.u));
    let mut means = Vec::with_capacity(drafts.len());
    for equals in drafts.chunk_by(|a, b| a.u == b.u) {
        let mean = mean(equals.iter().filter_map(|draft| draft.accepted.map(f64::from)));
        means.extend(equals.iter().map(|_| mean));
    }
    let cut = |share: usize| means.len() * share / SHARES;
    let shares: Vec<Option<f64>> =
        (0..SHARES).map(|share| mean(means[cut(share)..cut(share + 1)].iter().filter_map(|mean| *mean))).collect();
    let nearest = |share: usize| {
        let known = shares.iter().enumerate().filter_map(|(other, value)| Some((other.abs_diff(share), (*value)?)));
        known.min_by_key(|(distance, _)| *distance).map(|(_, value)| value as f32)
    };
    (0..SHARES).map(nearest).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u64);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}
