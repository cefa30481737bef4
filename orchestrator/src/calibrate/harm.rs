//! What a rejected draft would have cost: the text with it and the text with its replacement, both written to the end.

use specfleet_analysis::{exact_match, final_answer, token_agreement};
use specfleet_engine::acceptance::verifier_draw;
use specfleet_engine::calibration::{CalibrationSample, HarmMeasure, HarmSample};
use specfleet_model::{LogitRows, Model, ModelError, SeqId, SeqStep};

use super::TOKENS;
use super::walk::{Rejected, Walker, draw_key};
use crate::error::Error;

/// Tokens compared where there is no final answer.
const AGREEMENT_TOKENS: usize = 32;

impl Walker<'_> {
    /// Follows each rejected draft and its replacement to the end of the text, both written on by the verifier with the
    /// same draws, and measures what the draft costs.
    pub(super) fn harm(&mut self) -> Result<(Vec<HarmSample>, HarmMeasure), Error> {
        let has_answer = |r: &Rejected| r.reference.as_deref().and_then(final_answer).is_some();
        let answers = self.rejected.iter().all(has_answer);
        let measure = if answers { HarmMeasure::ExactMatch } else { HarmMeasure::TokenAgreement };
        let mut harm = Vec::new();
        let rejected = std::mem::take(&mut self.rejected);
        for batch in rejected.chunks(self.walks / 2) {
            let texts: Vec<(Vec<u32>, u32, u32)> = batch
                .iter()
                .flat_map(|r| {
                    [r.draft, r.replacement].map(|token| ([&r.prefix[..], &[token]].concat(), r.prompt, r.rejections))
                })
                .collect();
            let texts = self.write_on(texts)?;
            for (rejected, both) in batch.iter().zip(texts.chunks_exact(2)) {
                let loss = match measure {
                    HarmMeasure::ExactMatch => {
                        let right = |tokens: &[u32]| -> Result<f32, ModelError> {
                            let text = self.pair.tokenizer.decode(&tokens[rejected.prompt_tokens..])?;
                            let reference = rejected.reference.as_deref();
                            let matches = reference.and_then(|it| exact_match(&text, it));
                            Ok(f32::from(u8::from(matches == Some(true))))
                        };
                        right(&both[1])? - right(&both[0])?
                    }
                    HarmMeasure::TokenAgreement => {
                        let from = rejected.prefix.len() + 1;
                        let window = |tokens: &[u32]| tokens[from..].iter().copied().take(AGREEMENT_TOKENS).collect();
                        let (draft, replacement): (Vec<u32>, Vec<u32>) = (window(&both[0]), window(&both[1]));
                        1.0 - token_agreement(&draft, &replacement) as f32
                    }
                };
                let CalibrationSample { concentration, lookahead, .. } = rejected.sample.clone();
                harm.push(HarmSample { harm: loss, concentration, lookahead });
            }
        }
        Ok((harm, measure))
    }

    /// The verifier alone writes each text on to its end.
    fn write_on(&mut self, texts: Vec<(Vec<u32>, u32, u32)>) -> Result<Vec<Vec<u32>>, ModelError> {
        let verifier: &Model = &self.pair.verifier;
        let eos = &verifier.shape().eos;
        let mut texts: Vec<(Vec<u32>, u32, u32, SeqId, usize)> = texts
            .into_iter()
            .map(|(tokens, prompt, rejections)| {
                let most = (tokens.len() + TOKENS).min(self.pair.context());
                (tokens, prompt, rejections, self.verifier_kv.open(), most)
            })
            .collect();
        loop {
            let open: Vec<usize> = (0..texts.len())
                .filter(|&at| {
                    let (tokens, .., most) = &texts[at];
                    tokens.len() < *most && !tokens.last().is_some_and(|t| eos.contains(t))
                })
                .collect();
            if open.is_empty() {
                break;
            }
            let steps: Vec<SeqStep<'_>> = open
                .iter()
                .map(|&at| SeqStep {
                    seq: texts[at].3,
                    tokens: &texts[at].0[self.verifier_kv.len(texts[at].3)..],
                    logits: LogitRows::Last(1),
                    attention: None,
                })
                .collect();
            let output = verifier.forward(&mut self.verifier_kv, &steps)?;
            for (index, &at) in open.iter().enumerate() {
                let (tokens, prompt, rejections, ..) = &mut texts[at];
                let key = draw_key(*prompt, tokens.len(), *rejections);
                tokens.push(verifier_draw(output.logits(index), &self.sampling, key));
            }
        }
        Ok(texts
            .into_iter()
            .map(|(tokens, _, _, seq, _)| {
                self.verifier_kv.close(seq);
                tokens
            })
            .collect())
    }
}
