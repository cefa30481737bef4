//! Perplexity: how likely the verifier finds what was written.

use specfleet_model::{KvArena, LogitRows, Model, ModelError, SeqStep};

/// Most sequences of a pass, and most numbers of logits that it may hold.
const SEQUENCES: usize = 32;
const LOGITS: usize = 1 << 24;

/// A text behind its prompt.
pub(super) struct Behind<'a> {
    pub(super) prompt: &'a [u32],
    pub(super) tokens: &'a [u32],
}

/// exp of the mean negative log-likelihood of the generated tokens, given the prompt and the tokens before them, at
/// temperature 1 without truncation. NaN for a text without tokens.
pub(super) fn perplexities(verifier: &Model, texts: &[Behind<'_>], threads: usize) -> Result<Vec<f32>, ModelError> {
    let vocab = verifier.shape().vocab;
    let mut found = Vec::with_capacity(texts.len());
    let mut rest = texts;
    while !rest.is_empty() {
        let mut logits = 0;
        let fits = rest.iter().take(SEQUENCES).take_while(|text| {
            logits += text.tokens.len() * vocab;
            logits <= LOGITS
        });
        // One text alone always goes.
        let (batch, later) = rest.split_at(fits.count().max(1));
        rest = later;
        found.extend(pass(verifier, batch, threads)?);
    }
    Ok(found)
}

fn pass(verifier: &Model, batch: &[Behind<'_>], threads: usize) -> Result<Vec<f32>, ModelError> {
    let vocab = verifier.shape().vocab;
    // The last token predicts nothing that was generated.
    let joined = |text: &Behind<'_>| {
        let mut joined = [text.prompt, text.tokens].concat();
        joined.pop();
        joined
    };
    let fed: Vec<Vec<u32>> = batch.iter().map(joined).collect();
    let tokens: usize = fed.iter().map(|tokens| tokens.len() + 256).sum();
    let mut arena = KvArena::new(verifier, tokens * verifier.shape().kv_bytes_per_token).with_threads(threads);
    let scored: Vec<usize> =
        (0..batch.len()).filter(|index| !batch[*index].tokens.is_empty() && !fed[*index].is_empty()).collect();
    let steps: Vec<SeqStep<'_>> = scored
        .iter()
        .map(|&index| SeqStep {
            seq: arena.open(),
            tokens: &fed[index],
            logits: LogitRows::Last(batch[index].tokens.len()),
            attention: None,
        })
        .collect();
    let output = verifier.forward(&mut arena, &steps)?;
    let mut found = vec![f32::NAN; batch.len()];
    for (step, &index) in scored.iter().enumerate() {
        let tokens = batch[index].tokens;
        let rows = output.logits(step).chunks_exact(vocab);
        // Without a prompt the first token has no row: it follows nothing.
        let judged = &tokens[tokens.len() - rows.len()..];
        let sum: f64 = rows.zip(judged).map(|(row, token)| surprise(row, *token)).sum();
        found[index] = (sum / judged.len() as f64).exp() as f32;
    }
    Ok(found)
}

fn surprise(row: &[f32], token: u32) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|logit| f64::from(logit - most).exp()).sum();
    sum.ln() - f64::from(row[token as usize] - most)
}

#[cfg(test)]
mod tests {
    use specfleet_model::{Embedded, Precision};

    use super::*;

    #[test]
    fn surprise_is_minus_the_log_of_the_probability() {
        let row = [0.0, 2f32.ln(), 5f32.ln()];
        for (token, probability) in [(0, 0.125f64), (1, 0.25), (2, 0.625)] {
            assert!((surprise(&row, token) + probability.ln()).abs() < 1e-6);
        }
        // A shift changes nothing, however large.
        assert!((surprise(&row.map(|x| x + 1e4), 1) - 4f64.ln()).abs() < 1e-2);
    }

    #[test]
    fn perplexity_is_that_of_feeding_token_by_token() {
        let model = Model::embedded(Embedded::Verifier, Precision::F32).expect("embedded");
        let (prompt, tokens) = ([0, 5, 9], [4, 8, 8, 200]);
        let mut arena = KvArena::new(&model, 1 << 24);
        let seq = arena.open();
        let mut product = 1.0f64;
        let mut next = prompt.to_vec();
        for token in tokens {
            let step = SeqStep { seq, tokens: &next, logits: LogitRows::Last(1), attention: None };
            let output = model.forward(&mut arena, &[step]).expect("a pass");
            let weights: Vec<f64> = output.logits(0).iter().map(|logit| f64::from(*logit).exp()).collect();
            product *= weights[token as usize] / weights.iter().sum::<f64>();
            next = vec![token];
        }
        let found = perplexities(&model, &[Behind { prompt: &prompt, tokens: &tokens }], 1).expect("a pass")[0];
        let expected = product.powf(-0.25);
        assert!((f64::from(found) / expected - 1.0).abs() < 1e-4, "{found}, expected {expected}");
    }

    #[test]
    fn a_batch_says_what_each_text_says_alone() {
        let model = Model::embedded(Embedded::Verifier, Precision::F32).expect("embedded");
        let texts = [(vec![0, 5, 9], vec![4, 8]), (vec![0], vec![]), (vec![0, 7], vec![3]), (vec![0], vec![1, 1, 1])];
        let behind = |(prompt, tokens): &'_ (Vec<u32>, Vec<u32>)| (prompt.clone(), tokens.clone());
        let own: Vec<(Vec<u32>, Vec<u32>)> = texts.iter().map(behind).collect();
        let cases: Vec<Behind<'_>> = own.iter().map(|(prompt, tokens)| Behind { prompt, tokens }).collect();
        let together = perplexities(&model, &cases, 2).expect("a pass");
        for (case, value) in cases.iter().zip(&together) {
            let alone = perplexities(&model, &[Behind { ..*case }], 1).expect("a pass");
            assert_eq!(alone[0].to_bits(), value.to_bits());
        }
        assert!(together[1].is_nan() && together[0] >= 1.0 && together[3] >= 1.0, "{together:?}");
    }
}
