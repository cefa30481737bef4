use proptest::prelude::*;

use super::*;
use crate::device::draft::{DraftSpec, Drafted, GateStatistic, draft_outcome};
use crate::method::{Keep, PayloadForm, ProbabilityBits};

const WARM: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 };
const FULL: PayloadForm = PayloadForm::Full { bits: ProbabilityBits::B32 };
const TOKEN_ONLY: PayloadForm = PayloadForm::TokenOnly { bits: ProbabilityBits::B32 };

fn key(prompt: u32) -> DrawKey {
    DrawKey { seed: 11, prompt, repetition: 0, position: 5, rejections: 0 }
}

fn drafted(logits: &[f32], sampling: Sampling, payload: PayloadForm, key: DrawKey) -> Drafted {
    draft_outcome(logits, None, key, &DraftSpec { sampling, payload, statistic: GateStatistic::None, importance: None })
}

/// One round of γ = 1 through codec and judgement: the token that is committed.
fn round(drafter: &[f32], verifier: &[f32], sampling: Sampling, form: PayloadForm, key: DrawKey) -> u32 {
    let draft = drafted(drafter, sampling, form, key);
    let payload = Payload::encode(&form, &draft.distribution, draft.token);
    let payload: Payload = postcard::from_bytes(&postcard::to_stdvec(&payload).unwrap()).unwrap();
    let outcome = verify_outcome(verifier, verifier.len(), &sampling, key, &[draft.token], &[payload], false).unwrap();
    match outcome.next {
        Next::None => {
            assert_eq!(outcome.accepted, 1);
            draft.token
        }
        Next::Replacement(token) => token,
        Next::Resample(y) => resample_on_device(&draft.distribution, &y, key),
        Next::Bonus(_) => panic!("no bonus was asked for"),
    }
}

/// Σ (observed − expected)² / expected over the tokens with expected counts, for the distribution `y`.
fn chi_square(counts: &[u64], y: &Distribution) -> f64 {
    let total: u64 = counts.iter().sum();
    counts
        .iter()
        .zip(y.probabilities())
        .map(|(&count, &p)| {
            let expected = f64::from(p) * total as f64;
            if expected == 0.0 {
                assert_eq!(count, 0, "a token that y excludes");
                return 0.0;
            }
            (count as f64 - expected).powi(2) / expected
        })
        .sum()
}

// Two distributions over eight tokens that differ a lot.
const DRAFTER: [f32; 8] = [2.0, 1.5, 0.0, -0.5, 1.0, 0.2, -1.0, 0.7];
const VERIFIER: [f32; 8] = [0.0, 2.2, 0.5, 0.3, -1.0, 1.5, 0.0, 0.7];
// 99.9 % quantile of chi-square with 7 degrees of freedom.
const LIMIT: f64 = 24.32;

fn committed_counts(sampling: Sampling, form: PayloadForm) -> Vec<u64> {
    let mut counts = vec![0; 8];
    for prompt in 0..100_000 {
        counts[round(&DRAFTER, &VERIFIER, sampling, form, key(prompt)) as usize] += 1;
    }
    counts
}

#[test]
fn exact_payloads_give_the_verifiers_distribution() {
    let truncated = Sampling { temperature: 0.8, top_k: 6, top_p: 0.95 };
    let mut forms = vec![FULL, TOKEN_ONLY];
    for bits in [ProbabilityBits::B8, ProbabilityBits::B16, ProbabilityBits::B32] {
        forms.push(PayloadForm::SparseExact { keep: Keep::Top(3), bits });
    }
    for sampling in [WARM, truncated] {
        let y = Distribution::from_logits(&VERIFIER, &sampling);
        for &form in &forms {
            let statistic = chi_square(&committed_counts(sampling, form), &y);
            assert!(statistic < LIMIT, "{form:?}: chi-square {statistic}");
        }
    }
}

#[test]
fn the_control_fails() {
    let form = PayloadForm::TopK { keep: Keep::Top(1), bits: ProbabilityBits::B32 };
    let y = Distribution::from_logits(&VERIFIER, &WARM);
    let statistic = chi_square(&committed_counts(WARM, form), &y);
    assert!(statistic > 10.0 * LIMIT, "top-1 passes with chi-square {statistic}");
}

#[test]
fn dssd_equals_hlm_token_for_token() {
    for sampling in [WARM, GREEDY, Sampling { temperature: 0.7, top_k: 5, top_p: 0.9 }] {
        for prompt in 0..20_000 {
            let hlm = round(&DRAFTER, &VERIFIER, sampling, FULL, key(prompt));
            let dssd = round(&DRAFTER, &VERIFIER, sampling, TOKEN_ONLY, key(prompt));
            assert_eq!(hlm, dssd);
        }
    }
}

#[test]
fn greedy_commits_the_verifiers_arg_max() {
    let bits = ProbabilityBits::B8;
    for form in [
        FULL,
        PayloadForm::Full { bits },
        PayloadForm::TopK { keep: Keep::Top(2), bits },
        PayloadForm::SparseExact { keep: Keep::Top(2), bits },
        PayloadForm::TokenOnly { bits },
    ] {
        assert_eq!(round(&DRAFTER, &VERIFIER, GREEDY, form, key(0)), 1);
        assert_eq!(round(&VERIFIER, &DRAFTER, GREEDY, form, key(0)), 0);
        assert_eq!(round(&VERIFIER, &VERIFIER, GREEDY, form, key(0)), 1);
    }
}

#[test]
fn a_greedy_token_only_rejection_needs_no_law_down() {
    let draft = drafted(&DRAFTER, GREEDY, TOKEN_ONLY, key(0));
    let payload = Payload::encode(&TOKEN_ONLY, &draft.distribution, draft.token);
    let outcome = verify_outcome(&VERIFIER, 8, &GREEDY, key(0), &[draft.token], &[payload], false).unwrap();
    assert_eq!((outcome.accepted, outcome.next), (0, Next::Replacement(1)));
}

/// A block in which the drafter speaks the verifier's distribution is accepted whole, and the bonus comes from its own row and key.
#[test]
fn a_block_of_equals_is_accepted_with_a_bonus() {
    let rows: Vec<f32> = [VERIFIER, DRAFTER, VERIFIER].concat();
    let keys = [key(3), key(3).at(6), key(3).at(7)];
    let drafts: Vec<Drafted> =
        rows.chunks(8).zip(keys).take(2).map(|(row, key)| drafted(row, WARM, FULL, key)).collect();
    let tokens: Vec<u32> = drafts.iter().map(|draft| draft.token).collect();
    let payloads: Vec<Payload> =
        drafts.iter().map(|draft| Payload::encode(&FULL, &draft.distribution, draft.token)).collect();
    let outcome = verify_outcome(&rows, 8, &WARM, keys[0], &tokens, &payloads, true).unwrap();
    assert_eq!(outcome.accepted, 2);
    assert_eq!(outcome.accept_probabilities, [1.0, 1.0]);
    assert_eq!(outcome.next, Next::Bonus(verifier_draw(&VERIFIER, &WARM, keys[2])));
}

#[test]
fn a_block_ends_at_its_first_rejection() {
    // Greedy: the second draft is wrong, the third is never judged, however broken its payload.
    let rows: Vec<f32> = [VERIFIER; 4].concat();
    let good = Payload::encode(&TOKEN_ONLY, &Distribution::one_hot(8, 1), 1);
    let wrong = Payload::encode(&FULL, &Distribution::one_hot(8, 2), 2);
    let broken = Payload::Full(crate::device::payload::Values::B8(Vec::new()));
    let payloads = [good, wrong, broken];
    let outcome = verify_outcome(&rows, 8, &GREEDY, key(0), &[1, 2, 1], &payloads, true).unwrap();
    assert_eq!((outcome.accepted, outcome.next), (1, Next::Replacement(1)));
    assert_eq!(outcome.accept_probabilities, [1.0, 0.0]);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let payload = Payload::encode(&FULL, &Distribution::one_hot(8, 1), 1);
    let verify = |logits: &[f32], vocab, payloads: &[Payload], bonus| {
        verify_outcome(logits, vocab, &WARM, key(0), &[1], payloads, bonus).unwrap_err()
    };
    assert_eq!(verify(&VERIFIER, 8, &[], false), PayloadError::Count { payloads: 0, drafts: 1 });
    let payloads = [payload];
    assert_eq!(verify(&VERIFIER, 8, &payloads, true), PayloadError::Logits { expected: 16, found: 8 });
    assert_eq!(verify(&VERIFIER[..7], 8, &payloads, false), PayloadError::Logits { expected: 8, found: 7 });
    assert_eq!(verify(&[], 0, &payloads, false), PayloadError::Logits { expected: 0, found: 0 });
}

#[test]
fn quantised_laws_that_lost_the_draft_still_judge_it() {
    assert_eq!(accept_probability(0.0, 0.1), 1.0);
    assert_eq!(accept_probability(0.0, 0.0), 0.0);
    assert_eq!(accept_probability(0.5, 0.25), 0.5);
    assert_eq!(accept_probability(0.25, 0.5), 1.0);
}

#[test]
fn audit_is_the_acceptance_probability() {
    let y = Distribution::from_logits(&VERIFIER, &WARM);
    assert_eq!(audit_outcome(&VERIFIER, &WARM, 0, 0.5), y.probability(0) / 0.5);
    assert_eq!(audit_outcome(&VERIFIER, &GREEDY, 1, 1.0), 1.0);
    assert_eq!(audit_outcome(&VERIFIER, &GREEDY, 0, 1.0), 0.0);
}

fn logits() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (1_usize..60).prop_flat_map(|vocab| {
        let one = prop::collection::vec(prop_oneof![4 => -8.0_f32..4.0, 1 => Just(-300.0_f32)], vocab);
        (one.clone(), one)
    })
}

proptest! {
    /// x_d · accept(d) + P(reject) · residual(d) = y_d for every token, to 1e-6, zeros and truncations included. The
    /// residual's distribution is read off its own weights: the same expression as in `residual_draw`.
    #[test]
    fn accept_plus_residual_is_y(
        (drafter, verifier) in logits(),
        temperature in prop_oneof![Just(0.0_f32), 0.2_f32..2.0],
        top_k in 0_u32..20,
        top_p in 0.3_f32..1.3,
    ) {
        let sampling = Sampling { temperature, top_k, top_p };
        let x = Distribution::from_logits(&drafter, &sampling);
        let y = Distribution::from_logits(&verifier, &sampling);
        let residual: Vec<f64> = y.probabilities().iter().zip(x.probabilities())
            .map(|(&y, &x)| (f64::from(y) - f64::from(x)).max(0.0)).collect();
        let mass: f64 = residual.iter().sum();
        let accepted: Vec<f64> = (0..).zip(x.probabilities())
            .map(|(d, &x_d)| f64::from(x_d) * accept_probability(x_d, y.probability(d))).collect();
        let rejected = 1.0 - accepted.iter().sum::<f64>();
        for (d, accepted) in accepted.iter().enumerate() {
            let y_d = f64::from(y.probability(d as u32));
            let replaced = if mass > 0.0 { residual[d] / mass } else { y_d };
            let committed = accepted + rejected * replaced;
            prop_assert!((committed - y_d).abs() < 1e-6, "token {}: {} instead of {}", d, committed, y_d);
        }
    }

    /// A replacement is never a token that the residual excludes.
    #[test]
    fn residual_draws_have_residual_mass((drafter, verifier) in logits(), prompt in any::<u32>()) {
        let x = Distribution::from_logits(&drafter, &WARM);
        let y = Distribution::from_logits(&verifier, &WARM);
        let token = resample_on_device(&x, &y, key(prompt));
        let some = y.probabilities().iter().zip(x.probabilities()).any(|(y, x)| y > x);
        let floor = if some { x.probability(token) } else { 0.0 };
        prop_assert!(y.probability(token) > floor);
    }

    /// Hostile uploads end in an error or in a token of the vocabulary, never in a panic.
    #[test]
    fn hostile_uploads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), drafts in prop::collection::vec(any::<u32>(), 0..4), bonus in any::<bool>()) {
        let payloads = postcard::from_bytes::<Vec<Payload>>(&bytes).unwrap_or_default();
        let rows: Vec<f32> = VERIFIER.repeat(drafts.len() + usize::from(bonus));
        for drafts in [drafts.clone(), drafts.iter().map(|d| d % 8).collect()] {
            if let Ok(outcome) = verify_outcome(&rows, 8, &WARM, key(0), &drafts, &payloads, bonus)
                && let Next::Replacement(token) | Next::Bonus(token) = outcome.next
            {
                prop_assert!(token < 8);
            }
        }
    }
}
