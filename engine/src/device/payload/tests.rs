use proptest::prelude::*;

use super::*;
use crate::method::Sampling;

const BITS: [ProbabilityBits; 3] = [ProbabilityBits::B8, ProbabilityBits::B16, ProbabilityBits::B32];

fn forms(keep: Keep) -> Vec<PayloadForm> {
    BITS.iter()
        .flat_map(|&bits| {
            [
                PayloadForm::Full { bits },
                PayloadForm::TopK { keep, bits },
                PayloadForm::SparseExact { keep, bits },
                PayloadForm::TokenOnly { bits },
            ]
        })
        .collect()
}

fn distribution(logits: &[f32], temperature: f32) -> Distribution {
    Distribution::from_logits(logits, &Sampling { temperature, top_k: 0, top_p: 1.0 })
}

/// p = 0.4, 0.3, 0.2, 0.1 for the tokens 2, 0, 3, 1.
fn four() -> Distribution {
    Distribution::try_from(vec![0.3, 0.1, 0.4, 0.2]).unwrap()
}

fn whole(payload: &Payload, vocab: usize, draft: u32) -> Vec<f32> {
    match payload.decode(vocab, draft).unwrap() {
        DecodedDistribution::Whole { probabilities } => probabilities,
        DecodedDistribution::DraftOnly { .. } => panic!("token-only"),
    }
}

fn through_the_wire(payload: &Payload) -> Payload {
    postcard::from_bytes(&postcard::to_stdvec(payload).unwrap()).unwrap()
}

#[test]
fn top_k_spreads_the_tail() {
    let form = PayloadForm::TopK { keep: Keep::Top(2), bits: ProbabilityBits::B32 };
    let inside = Payload::encode(&form, &four(), 2);
    let distribution = whole(&inside, 4, 2);
    for (found, expected) in distribution.iter().zip([0.3, 0.15, 0.4, 0.15]) {
        assert!((found - expected).abs() < 1e-6, "{distribution:?}");
    }
    let outside = whole(&Payload::encode(&form, &four(), 1), 4, 1);
    assert!((outside[1] - 0.1).abs() < 1e-6 && (outside[3] - 0.15).abs() < 1e-6);
    assert_eq!(inside.decode(4, 1), Err(PayloadError::MissingDraftProbability { draft: 1 }));
    assert_eq!(Payload::encode(&form, &four(), 1).decode(4, 0), Err(PayloadError::DoubleDraftProbability { draft: 0 }));
}

#[test]
fn nominal_bits_follow_the_table() {
    let x = distribution(&(0..2048).map(|i| (i as f32).sqrt() * 0.1).collect::<Vec<_>>(), 1.0);
    let keep = Keep::Top(30);
    let likely = x.arg_max();
    for bits in BITS {
        let b = u64::from(bits.bits());
        let of = |form: PayloadForm, draft| Payload::encode(&form, &x, draft).nominal_bits(2048);
        assert_eq!(of(PayloadForm::Full { bits }, likely), 2048 * b);
        assert_eq!(of(PayloadForm::TopK { keep, bits }, likely), 30 * (b + 11));
        assert_eq!(of(PayloadForm::TopK { keep, bits }, 0), 30 * (b + 11) + b);
        assert_eq!(of(PayloadForm::TokenOnly { bits }, likely), 11 + b);
    }
    for form in forms(keep) {
        let x = sparsify(&form, x.clone());
        let payload = Payload::encode(&form, &x, likely);
        assert_eq!(payload.nominal_bits(2048), nominal_bits(&form, 2048, 30, false));
    }
    assert_eq!(
        (token_bits(1), token_bits(2), token_bits(2048), token_bits(2049), token_bits(32_000)),
        (0, 1, 11, 12, 15)
    );
    // CU-HLM's own count: 32,000 × 23 bits, 8 of them for the probability.
    let cu_hlm = PayloadForm::SparseExact { keep, bits: ProbabilityBits::B8 };
    assert_eq!(nominal_bits(&cu_hlm, 32_000, 32_000, false), 92_000 * 8);
    let token_only = PayloadForm::TokenOnly { bits: ProbabilityBits::B16 };
    assert_eq!(downlink_bits(&token_only, 2048, true), 2048 * 16);
    assert_eq!(downlink_bits(&token_only, 2048, false), 11);
}

#[test]
fn wire_size_of_a_full_payload_is_four_bytes_a_value() {
    let x = distribution(&vec![0.0; 2048], 1.0);
    let payload = Payload::encode(&PayloadForm::Full { bits: ProbabilityBits::B32 }, &x, 0);
    assert!(postcard::to_stdvec(&payload).unwrap().len() <= 2048 * 4 + 8);
}

#[test]
fn tail_mass_keeps_the_smallest_set() {
    let form = PayloadForm::SparseExact { keep: Keep::TailMass(0.26), bits: ProbabilityBits::B32 };
    let x = sparsify(&form, distribution(&[0.4_f32.ln(), 0.35_f32.ln(), 0.15_f32.ln(), 0.1_f32.ln()], 1.0));
    assert_eq!(x.ranked(9), [0, 1]);
    assert!((x.probability(0) - 0.4 / 0.75).abs() < 1e-6);
}

#[test]
fn hostile_examples() {
    let b32 = |values: &[f32]| Payload::Full(Values::B32(values.to_vec()));
    assert_eq!(b32(&[1.0]).decode(2, 0), Err(PayloadError::Length { expected: 2, found: 1 }));
    assert_eq!(b32(&[0.5, 0.5]).decode(2, 2), Err(PayloadError::DraftOutOfRange { draft: 2, vocab: 2 }));
    for bad in [[0.0, 0.0], [f32::NAN, 1.0], [-0.5, 1.0], [f32::INFINITY, 0.0], [0.9, 0.2]] {
        assert!(matches!(b32(&bad).decode(2, 0), Err(PayloadError::NotADistribution(_))), "{bad:?}");
    }
    assert!(Payload::Full(Values::B8(vec![0, 0])).decode(2, 0).is_err());
    let sparse =
        |ids: &[u32], values: &[u8]| Payload::SparseExact { ids: ids.to_vec(), values: Values::B8(values.to_vec()) };
    assert_eq!(sparse(&[1, 1], &[1, 1]).decode(4, 1), Err(PayloadError::Ids { vocab: 4, index: 1 }));
    assert_eq!(sparse(&[1, 4], &[1, 1]).decode(4, 1), Err(PayloadError::Ids { vocab: 4, index: 1 }));
    assert_eq!(sparse(&[1], &[1]).decode(4, 0), Err(PayloadError::ImpossibleDraft { draft: 0 }));
    assert!(sparse(&[], &[]).decode(4, 0).is_err());
    let top_k = Payload::TopK { ids: vec![0, 1], values: Values::B8(vec![255, 255]), draft_probability: None };
    assert!(top_k.decode(4, 0).is_err());
    for bad in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
        assert!(Payload::TokenOnly(Scalar::B32(bad)).decode(4, 0).is_err());
    }
}

fn vocabulary() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(prop_oneof![4 => -12.0_f32..4.0, 1 => Just(-200.0_f32)], 1..80)
}

proptest! {
    /// What the verifier reconstructs from `full` in f32 and from `sparse-exact` at any precision is the very distribution that
    /// the draft was drawn from.
    #[test]
    fn exact_forms_reconstruct_the_distribution(logits in vocabulary(), k in 1_u32..40, u in 0.0..1.0_f64) {
        for bits in BITS {
            for form in [
                PayloadForm::Full { bits: ProbabilityBits::B32 },
                PayloadForm::SparseExact { keep: Keep::Top(k), bits },
                PayloadForm::SparseExact { keep: Keep::TailMass(0.1), bits },
            ] {
                let x = sparsify(&form, distribution(&logits, 1.0));
                let draft = x.sample(u);
                let payload = through_the_wire(&Payload::encode(&form, &x, draft));
                let decoded = whole(&payload, logits.len(), draft);
                prop_assert_eq!(decoded.as_slice(), x.probabilities());
            }
        }
    }

    /// Every form of every honest distribution is accepted by the decoder, with x_d close to what it should be.
    #[test]
    fn honest_payloads_decode(logits in vocabulary(), temperature in prop_oneof![Just(0.0_f32), 0.1_f32..2.0], k in 1_u32..40, u in 0.0..1.0_f64) {
        for form in forms(Keep::Top(k)) {
            let x = sparsify(&form, distribution(&logits, temperature));
            let draft = x.sample(u);
            let payload = through_the_wire(&Payload::encode(&form, &x, draft));
            let decoded = payload.decode(logits.len(), draft);
            prop_assert!(decoded.is_ok(), "{:?} {:?}", form, decoded);
            let step = match payload.bits() {
                ProbabilityBits::B8 => 0.5,
                ProbabilityBits::B16 => 2e-3,
                ProbabilityBits::B32 => 0.0,
            };
            let x_d = x.probability(draft);
            let found = decoded.unwrap().probability(draft);
            prop_assert!((found - x_d).abs() <= step * x_d.max(1.0 / 80.0), "{:?}: {} for {}", form, found, x_d);
        }
    }

    /// Random bytes never make the decoder panic, and what it lets through is finite and not negative.
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), vocab in 0_usize..40, draft in any::<u32>()) {
        if let Ok(payload) = postcard::from_bytes::<Payload>(&bytes) {
            for draft in [draft, draft % 40] {
                if let Ok(DecodedDistribution::Whole { probabilities }) = payload.decode(vocab, draft) {
                    prop_assert_eq!(probabilities.len(), vocab);
                    prop_assert!(probabilities.iter().all(|p| p.is_finite() && *p >= 0.0));
                }
            }
        }
    }

    /// The same for payloads that are well formed and wrong.
    #[test]
    fn hostile_payloads_never_panic(
        form in 0..4_u8,
        ids in prop::collection::vec(0_u32..10, 0..10),
        values in prop::collection::vec(prop_oneof![any::<f32>(), 0.0_f32..0.3], 0..10),
        scalar in any::<f32>(),
        given in any::<bool>(),
        draft in 0_u32..10,
    ) {
        let payload = match form {
            0 => Payload::Full(Values::B32(values)),
            1 => Payload::TopK { ids, values: Values::B32(values), draft_probability: given.then_some(Scalar::B32(scalar)) },
            2 => Payload::SparseExact { ids, values: Values::B32(values) },
            _ => Payload::TokenOnly(Scalar::B32(scalar)),
        };
        if let Ok(distribution) = payload.decode(9, draft) {
            prop_assert!(distribution.probability(draft).is_finite());
        }
    }
}
