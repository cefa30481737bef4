//! Closed generations and their audits.

use specfleet_engine::id::DeviceId;
use specfleet_engine::record::{
    AuditRecord, DeviceCounts, DeviceTimes, GenerationEnergy, GenerationRecord, UploadCounts,
};
use specfleet_engine::time::Span;

use super::{decode_ids, encode_ids};
use crate::chunk::TableRow;
use crate::codec::{ColumnDecoder, ColumnEncoder, Malformed};
use crate::table::Table;

/// The row that closes a generation: its record, and how many rounds belong to it.
#[derive(Clone, Debug)]
pub(crate) struct ClosedGeneration {
    pub(crate) record: GenerationRecord,
    pub(crate) rounds: u32,
}

impl TableRow for ClosedGeneration {
    const TABLE: Table = Table::Generations;
    const ROWS_PER_CHUNK: usize = 256;

    fn longest_list(&self) -> usize {
        self.record.tokens.len()
    }

    fn encode(rows: &[ClosedGeneration], columns: &mut ColumnEncoder) {
        let records = || rows.iter().map(|row| &row.record);
        columns.integers(rows.iter().map(|row| row.rounds));
        encode_ids(records().map(|row| &row.id), columns);
        columns.integers(records().map(|row| row.device.0));
        columns.integers(records().map(|row| row.data_set));
        columns.integers(records().map(|row| row.prompt_tokens));
        columns.integer_lists(records().map(|row| &row.tokens[..]));
        columns.dictionary(records().map(|row| row.finish));
        columns.integers(records().map(|row| row.scheduled));
        columns.integers(records().map(|row| row.latency_target));
        columns.integers(records().map(|row| row.started));
        columns.optional(records().map(|row| row.first_token));
        columns.integers(records().map(|row| row.ended));
        columns.integers(records().map(|row| row.times.draft));
        columns.integers(records().map(|row| row.times.uncertainty));
        columns.integers(records().map(|row| row.times.importance));
        columns.integers(records().map(|row| row.times.overrun));
        columns.integers(records().map(|row| row.times.waiting));
        columns.integers(records().map(|row| row.times.idle));
        columns.integers(records().map(|row| row.airtime_up));
        columns.integers(records().map(|row| row.airtime_down));
        columns.integers(records().map(|row| row.counts.draft_steps));
        columns.integers(records().map(|row| row.counts.prefill_tokens));
        columns.integers(records().map(|row| row.counts.uncertainty));
        columns.integers(records().map(|row| row.counts.importance));
        columns.integers(records().map(|row| row.counts.wasted_drafts));
        columns.integers(records().map(|row| row.counts.stale));
        columns.integers(records().map(|row| row.uploads.sent));
        columns.integers(records().map(|row| row.uploads.verdicts));
        columns.integers(records().map(|row| row.uploads.refused));
        columns.integers(records().map(|row| row.uploads.cancelled));
        columns.integers(records().map(|row| row.energy.device));
        columns.integers(records().map(|row| row.energy.radio));
        columns.integers(records().map(|row| row.energy.cloud));
        columns.integers(records().map(|row| row.energy.cloud_paper));
        columns.dictionary(records().map(|row| row.device_provenance));
        columns.dictionary(records().map(|row| row.radio_provenance));
        columns.dictionary(records().map(|row| row.cloud_provenance));
        columns.integers(records().map(|row| row.times.waiting_overrun));
    }

    fn decode(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<ClosedGeneration>, Malformed> {
        let rounds = columns.integers()?;
        let ids = decode_ids(columns)?;
        let device = columns.integers()?;
        let data_set = columns.integers()?;
        let prompt_tokens = columns.integers()?;
        let mut tokens = columns.integer_lists()?;
        let finish = columns.dictionary()?;
        let scheduled = columns.integers()?;
        let latency_target = columns.integers()?;
        let started = columns.integers()?;
        let first_token = columns.optional()?;
        let ended = columns.integers()?;
        let mut times = decode_times(rows, columns)?;
        let airtime_up = columns.integers()?;
        let airtime_down = columns.integers()?;
        let counts = decode_counts(rows, columns)?;
        let uploads = decode_uploads(rows, columns)?;
        let energy = decode_energy(rows, columns)?;
        let device_provenance = columns.dictionary()?;
        let radio_provenance = columns.dictionary()?;
        let cloud_provenance = columns.dictionary()?;
        for (times, waiting_overrun) in times.iter_mut().zip(columns.integers()?) {
            times.waiting_overrun = waiting_overrun;
        }
        let generation = |i: usize| ClosedGeneration {
            rounds: rounds[i],
            record: GenerationRecord {
                id: ids[i],
                device: DeviceId(device[i]),
                data_set: data_set[i],
                prompt_tokens: prompt_tokens[i],
                tokens: std::mem::take(&mut tokens[i]),
                finish: finish[i],
                scheduled: scheduled[i],
                latency_target: latency_target[i],
                started: started[i],
                first_token: first_token[i],
                ended: ended[i],
                times: times[i],
                airtime_up: airtime_up[i],
                airtime_down: airtime_down[i],
                counts: counts[i],
                uploads: uploads[i],
                energy: energy[i],
                device_provenance: device_provenance[i],
                radio_provenance: radio_provenance[i],
                cloud_provenance: cloud_provenance[i],
            },
        };
        Ok((0..rows).map(generation).collect())
    }
}

/// Where the devices' time went. The time by which their host was late stands at the end of the table.
fn decode_times(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<DeviceTimes>, Malformed> {
    let draft = columns.integers()?;
    let uncertainty = columns.integers()?;
    let importance = columns.integers()?;
    let overrun = columns.integers()?;
    let waiting = columns.integers()?;
    let idle = columns.integers()?;
    let times = |i: usize| DeviceTimes {
        draft: draft[i],
        uncertainty: uncertainty[i],
        importance: importance[i],
        overrun: overrun[i],
        waiting: waiting[i],
        waiting_overrun: Span::ZERO,
        idle: idle[i],
    };
    Ok((0..rows).map(times).collect())
}

fn decode_counts(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<DeviceCounts>, Malformed> {
    let draft_steps = columns.integers()?;
    let prefill_tokens = columns.integers()?;
    let uncertainty = columns.integers()?;
    let importance = columns.integers()?;
    let wasted_drafts = columns.integers()?;
    let stale = columns.integers()?;
    let counts = |i: usize| DeviceCounts {
        draft_steps: draft_steps[i],
        prefill_tokens: prefill_tokens[i],
        uncertainty: uncertainty[i],
        importance: importance[i],
        wasted_drafts: wasted_drafts[i],
        stale: stale[i],
    };
    Ok((0..rows).map(counts).collect())
}

fn decode_uploads(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<UploadCounts>, Malformed> {
    let sent = columns.integers()?;
    let verdicts = columns.integers()?;
    let refused = columns.integers()?;
    let cancelled = columns.integers()?;
    let uploads =
        |i: usize| UploadCounts { sent: sent[i], verdicts: verdicts[i], refused: refused[i], cancelled: cancelled[i] };
    Ok((0..rows).map(uploads).collect())
}

fn decode_energy(rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<GenerationEnergy>, Malformed> {
    let device = columns.integers()?;
    let radio = columns.integers()?;
    let cloud = columns.integers()?;
    let cloud_paper = columns.integers()?;
    let energy = |i: usize| GenerationEnergy {
        device: device[i],
        radio: radio[i],
        cloud: cloud[i],
        cloud_paper: cloud_paper[i],
    };
    Ok((0..rows).map(energy).collect())
}

impl TableRow for AuditRecord {
    const TABLE: Table = Table::Audits;
    const ROWS_PER_CHUNK: usize = 128;

    fn longest_list(&self) -> usize {
        self.positions.len().max(self.accept_probabilities.len())
    }

    fn encode(rows: &[AuditRecord], columns: &mut ColumnEncoder) {
        encode_ids(rows.iter().map(|row| &row.id), columns);
        columns.integer_lists(rows.iter().map(|row| &row.positions[..]));
        columns.float_lists(rows.iter().map(|row| &row.accept_probabilities[..]));
    }

    fn decode(_rows: usize, columns: &mut ColumnDecoder<'_>) -> Result<Vec<AuditRecord>, Malformed> {
        let ids = decode_ids(columns)?;
        let positions = columns.integer_lists()?;
        let accept_probabilities = columns.float_lists()?;
        let rows = ids.into_iter().zip(positions).zip(accept_probabilities);
        let audit = |((id, positions), accept_probabilities)| AuditRecord { id, positions, accept_probabilities };
        Ok(rows.map(audit).collect())
    }
}
