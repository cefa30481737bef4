//! The audit of method.md §8: after a method's phase the verifier scores every token that the filter let through. It is
//! charged to no account and runs outside all timings.

use std::collections::BTreeMap;

use specfleet_engine::acceptance::audit_outcome;
use specfleet_engine::id::GenerationId;
use specfleet_engine::method::Sampling;
use specfleet_engine::record::AuditRecord;
use specfleet_model::{KvArena, LogitRows, Model, ModelError, SeqStep};

/// Sequences scored in one pass.
const BATCH: usize = 16;

/// A finished generation to audit.
#[derive(Clone, Debug)]
pub struct Case {
    pub id: GenerationId,
    /// Its prompt's tokens and the generated ones.
    pub tokens: Vec<u32>,
    /// How many of them are the prompt's.
    pub prompt_tokens: usize,
    /// Skipped positions among the generated tokens, with x_d of each.
    pub skipped: Vec<(u32, f32)>,
}

/// What the verifier says of skipped tokens, computed once for each text: a pass with the same seed has the same.
#[derive(Debug, Default)]
pub struct Audited {
    known: BTreeMap<GenerationId, (Case, AuditRecord)>,
}

impl Audited {
    /// The audits of these cases. `repeats`: whether later passes have the same texts.
    pub fn audit(
        &mut self,
        verifier: &Model,
        sampling: &Sampling,
        repeats: bool,
        cases: Vec<Case>,
    ) -> Result<Vec<AuditRecord>, ModelError> {
        let first = |id: GenerationId| GenerationId { pass: 0, ..id };
        let same = |case: &Case, known: &Case| (&case.tokens, &case.skipped) == (&known.tokens, &known.skipped);
        let mut audits = Vec::new();
        let fresh: Vec<Case> = cases
            .into_iter()
            .filter(|case| match self.known.get(&first(case.id)) {
                Some((known, audit)) if same(case, known) => {
                    audits.push(AuditRecord { id: case.id, ..audit.clone() });
                    false
                }
                _ => true,
            })
            .collect();
        let new = audit(verifier, sampling, &fresh)?;
        if repeats {
            let new = new.iter().map(|audit| (audit.id, audit)).collect::<BTreeMap<_, _>>();
            for case in fresh {
                if let Some(audit) = new.get(&case.id) {
                    self.known.entry(first(case.id)).or_insert((case, (*audit).clone()));
                }
            }
        }
        audits.extend(new);
        Ok(audits)
    }
}

/// Scores the skipped tokens of all cases.
pub fn audit(verifier: &Model, sampling: &Sampling, cases: &[Case]) -> Result<Vec<AuditRecord>, ModelError> {
    let vocab = verifier.shape().vocab;
    let cases: Vec<&Case> = cases.iter().filter(|case| !case.skipped.is_empty()).collect();
    let mut audits = Vec::with_capacity(cases.len());
    for batch in cases.chunks(BATCH) {
        let longest: usize = batch.iter().map(|case| case.tokens.len()).sum();
        // Room for the batch, in whole pages per sequence.
        let mut arena = KvArena::new(verifier, (longest + 256 * batch.len()) * verifier.shape().kv_bytes_per_token);
        let steps: Vec<SeqStep<'_>> = batch
            .iter()
            .map(|case| SeqStep {
                seq: arena.open(),
                // The last token predicts nothing that was generated.
                tokens: &case.tokens[..case.tokens.len() - 1],
                logits: LogitRows::Last(case.tokens.len() - case.prompt_tokens),
                attention: None,
            })
            .collect();
        let output = verifier.forward(&mut arena, &steps)?;
        for (index, case) in batch.iter().enumerate() {
            let rows = output.logits(index);
            let score = |&(position, x_d): &(u32, f32)| {
                let row = &rows[position as usize * vocab..][..vocab];
                let token = case.tokens[case.prompt_tokens + position as usize];
                audit_outcome(row, sampling, token, x_d)
            };
            audits.push(AuditRecord {
                id: case.id,
                positions: case.skipped.iter().map(|&(position, _)| position).collect(),
                accept_probabilities: case.skipped.iter().map(score).collect(),
            });
        }
    }
    Ok(audits)
}
