//! Whole columns come out as row by row.

#[path = "../../ledger/tests/suite/common/mod.rs"]
mod common;

use common::*;
use proptest::prelude::*;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::{Gate, Method, PayloadForm, ProbabilityBits, Writer};
use specfleet_engine::record::RoundRecord;
use specfleet_ledger::{Meta, RoundColumn, RunReader, RunState, RunWriter};
use tempfile::tempdir;

use super::{ExportRow, ExportedRound, Names, append_rounds, learn};
use crate::values::NO_WORD;
use crate::visit::Append;

fn method(name: &str) -> Method {
    Method {
        name: name.to_owned(),
        writer: Writer::Drafter,
        gate: Gate::Always,
        payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
        block: 1,
        bonus: false,
        draft_ahead: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Of methods and data sets that the run names and of those that it does not; every second generation stays open.
    #[test]
    fn a_chunk_is_appended_as_its_rows_are(
        generations in prop::collection::vec((0u16..4, 0u32..4, prop::collection::vec(any_round(), 1..40)), 1..8),
    ) {
        let dir = tempdir().expect("a temporary folder");
        let data_sets = vec!["word-problems".to_owned(), "dialogues".to_owned()];
        let methods = ["hlm", "block"].map(method).to_vec();
        let mut writer = RunWriter::create(dir.path(), Meta { methods, data_sets, ..meta("r") }).expect("a new run");
        for (number, (method, _, rounds)) in generations.iter().enumerate() {
            let (id, device) = (id(*method, number as u32), DeviceId(number as u32));
            writer.append_rounds(id, device, rounds).expect("rounds");
            if number % 2 == 0 {
                writer.close_generation(plausible_generation(id, device, rounds), &[]).expect("a closing");
            }
        }
        let run_dir = writer.run_dir().to_path_buf();
        writer.finish(RunState::Completed).expect("an end");
        let reader = RunReader::open(&run_dir).expect("the run has ended");
        let names = Names::of(reader.meta());
        let data_set = |id: GenerationId| match generations[id.prompt as usize].1 {
            3 => NO_WORD,
            named => named,
        };
        for chunk in reader.scan_rounds(RoundColumn::ALL) {
            let chunk = chunk.expect("no chunk is damaged");
            let (_, mut columns) = learn::<ExportedRound>(&names);
            let mut rows = columns.clone();
            append_rounds(&chunk, &names, data_set, &mut columns);
            for piece in &chunk.pieces {
                for index in piece.range.clone() {
                    let record: RoundRecord = chunk.rows.record(index);
                    let (id, device, closed) = (piece.id, piece.device, piece.closed);
                    let mut row = ExportedRound { id, device, data_set: data_set(id), closed, record };
                    prop_assert!(row.visit(&names, &mut Append::to(&mut rows)).is_ok());
                }
            }
            // As text, in which a NaN equals another.
            prop_assert_eq!(format!("{columns:?}"), format!("{rows:?}"));
        }
    }
}
