//! The stored rows of a run, as tests compare them.

use std::collections::BTreeMap;

use specfleet_engine::id::GenerationId;
use specfleet_engine::record::{AuditRecord, BatchRecord, GenerationRecord, RoundRecord, Source, VerifierRecord};
use specfleet_ledger::{Meta, RunReader};

/// Everything that a run has stored, in the order in which it is read.
pub(crate) struct Rows {
    pub(crate) meta: Meta,
    pub(crate) generations: Vec<(GenerationRecord, Vec<RoundRecord>)>,
    pub(crate) batches: Vec<BatchRecord>,
    pub(crate) audits: Vec<AuditRecord>,
    pub(crate) verifiers: Vec<VerifierRecord>,
}

impl Rows {
    pub(crate) fn read(reader: &RunReader) -> Rows {
        assert!(reader.damaged().is_empty(), "{:?}", reader.damaged());
        let generation = |record: Result<GenerationRecord, _>| {
            let record = record.expect("a complete row");
            let rounds = reader.rounds(record.id).expect("all its rounds");
            (record, rounds)
        };
        Rows {
            meta: reader.meta().clone(),
            generations: reader.generations().map(generation).collect(),
            batches: reader.batches().collect::<Result<_, _>>().expect("complete rows"),
            audits: reader.audits().collect::<Result<_, _>>().expect("complete rows"),
            verifiers: reader.verifiers().collect::<Result<_, _>>().expect("complete rows"),
        }
    }

    /// Every row as text, which unlike the row itself equals its copy where a figure is not a number.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (record, rounds) in &self.generations {
            lines.push(format!("{record:?}"));
            lines.extend(rounds.iter().map(|round| format!("{:?} {round:?}", record.id)));
        }
        lines.extend(self.batches.iter().map(|batch| format!("{batch:?}")));
        lines.extend(self.audits.iter().map(|audit| format!("{audit:?}")));
        lines.extend(self.verifiers.iter().map(|verifier| format!("{verifier:?}")));
        lines
    }

    /// What was decided in each generation: its first line is about all of it, the others about each round.
    ///
    /// That is every column but times, joules, counts of bytes, and what depends on times: which verifier had what in its
    /// cache, and what was drafted ahead in vain.
    pub(crate) fn decided(&self) -> BTreeMap<GenerationId, Vec<String>> {
        let of = |(record, rounds): &(GenerationRecord, Vec<RoundRecord>)| {
            let GenerationRecord { device, data_set, prompt_tokens, tokens, finish, uploads, .. } = record;
            let whole = format!("{device:?} {data_set} {prompt_tokens} {tokens:?} {finish:?} {uploads:?}");
            let round = |r: &RoundRecord| {
                let cost = r.upload_cost();
                let committed = (r.position, r.token, r.source, r.rejections, cost.attempts, cost.uplink_bits);
                let gate = (r.reason, r.uncertainty, r.importance, r.importance_threshold, r.price);
                // A draft may or may not have been made ahead where the verifier then wrote by itself.
                let drafted = (r.source != Source::Bonus).then_some((r.draft, r.draft_probability));
                format!("{committed:?} {drafted:?} {gate:?}")
            };
            (record.id, std::iter::once(whole).chain(rounds.iter().map(round)).collect())
        };
        self.generations.iter().map(of).collect()
    }

    /// Fails at the first generation that was decided otherwise.
    pub(crate) fn assert_decided_as(&self, other: &Rows) {
        let (own, other) = (self.decided(), other.decided());
        assert!(own.keys().eq(other.keys()), "other generations: {:?} and {:?}", own.keys(), other.keys());
        for (id, decided) in &own {
            assert_eq!(decided, &other[id], "{id:?}");
        }
    }
}
