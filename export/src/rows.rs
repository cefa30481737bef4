//! The rows of each table, field by field: the one place that names columns, units and meanings.

use specfleet_engine::id::{DeviceId, GenerationId, VerifierId};
use specfleet_engine::record::{
    AuditRecord, BETWEEN_METHODS, BatchRecord, DeviceCounts, DeviceTimes, FinishReason, GenerationEnergy,
    GenerationRecord, Provenance, RoundRecord, UploadCounts, VerifierRecord,
};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{EnergyOwner, EnergyPart, EnergyRow, Meta, RoundChunk, ScoreRow};

use crate::schema::{ExportColumn, ExportTable};
use crate::values::{ColumnValues, NO_WORD, ValueBatch};
use crate::visit::{Append, Learn, Misfit, NJ, NS, NamedFields, Spec, Visit, Whole};

/// What a run calls its methods, data sets and scorers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The last one stands for what was between methods.
    methods: Vec<String>,
    data_sets: Vec<String>,
    scorers: Vec<String>,
    /// Of the scorers' figures.
    units: Vec<String>,
}

impl Names {
    pub(crate) fn of(meta: &Meta) -> Names {
        let mut methods: Vec<String> = meta.methods.iter().map(|method| method.name.clone()).collect();
        methods.push("between-methods".to_owned());
        let scorers = meta.scorers.iter().map(|scorer| scorer.name.clone()).collect();
        let units = meta.scorers.iter().map(|scorer| scorer.unit.clone()).collect();
        Names { methods, data_sets: meta.data_sets.clone(), scorers, units }
    }

    fn method(&self, index: u16) -> u32 {
        let last = self.methods.len().saturating_sub(1) as u32;
        match index {
            BETWEEN_METHODS => last,
            index if u32::from(index) < last => index.into(),
            _ => NO_WORD,
        }
    }
}

/// A row of a table.
pub(crate) trait ExportRow: Sized {
    const TABLE: ExportTable;

    /// One of no meaning, to learn columns from and to read into.
    fn blank() -> Self;

    /// Goes over its fields.
    fn visit(&mut self, names: &Names, visit: &mut impl Visit) -> Result<(), Misfit>;
}

/// The columns of a row.
pub(crate) fn learn<R: ExportRow>(names: &Names) -> (Vec<ExportColumn>, ValueBatch) {
    let mut learn = Learn { columns: Vec::new(), values: Vec::new() };
    // Learning fits everything.
    let _ = R::blank().visit(names, &mut learn);
    (learn.columns, ValueBatch { columns: learn.values })
}

pub(crate) fn columns(table: ExportTable) -> Vec<ExportColumn> {
    let names = Names::default();
    match table {
        ExportTable::Rounds => learn::<ExportedRound>(&names).0,
        ExportTable::Generations => learn::<GenerationRecord>(&names).0,
        ExportTable::Batches => learn::<BatchRecord>(&names).0,
        ExportTable::Energy => learn::<EnergyRow>(&names).0,
        ExportTable::Audits => learn::<AuditRecord>(&names).0,
        ExportTable::Verifiers => learn::<VerifierRow>(&names).0,
        ExportTable::Scores => learn::<ScoreRow>(&names).0,
    }
}

fn visit_method(method: &mut u16, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
    let mut code = names.method(*method);
    let meaning = "Name of the method; `between-methods` for what belongs to none, NULL if the run does not name it";
    v.word(Spec("method", "", meaning), true, &names.methods, &mut code)?;
    v.whole(Spec("method_index", "", "Index of the method in the run's list; 65535 between methods"), method)
}

fn visit_id(id: &mut GenerationId, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
    visit_method(&mut id.method, names, v)?;
    v.whole(Spec("prompt", "", "Line of the prompt in its workload, from 0"), &mut id.prompt)?;
    v.whole(Spec("repetition", "", "Repetition of the same prompt, from 0"), &mut id.repetition)?;
    v.whole_since(PASS, &mut id.pass, 0)
}

const PASS: Spec = Spec("pass", "", "Pass of the run over all its methods, from 0");

fn visit_data_set(code: &mut u32, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
    let spec = Spec("data_set", "", "Name of the prompt's data set; NULL if the run does not say");
    v.word(spec, true, &names.data_sets, code)
}

const DEVICE: Spec = Spec("device", "", "Number of the device, from 0");

/// A round with what people group by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExportedRound {
    pub(crate) id: GenerationId,
    pub(crate) device: DeviceId,
    /// Index into the run's list; [`NO_WORD`] if its generation does not say.
    pub(crate) data_set: u32,
    pub(crate) closed: bool,
    pub(crate) record: RoundRecord,
}

impl ExportRow for ExportedRound {
    const TABLE: ExportTable = ExportTable::Rounds;

    fn blank() -> ExportedRound {
        ExportedRound {
            id: GenerationId::default(),
            device: DeviceId(0),
            data_set: NO_WORD,
            closed: false,
            record: RoundRecord::UNKNOWN,
        }
    }

    fn visit(&mut self, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
        visit_id(&mut self.id, names, v)?;
        v.whole(DEVICE, &mut self.device)?;
        visit_data_set(&mut self.data_set, names, v)?;
        v.boolean(
            Spec("closed", "", "Whether the generation ended: it has a row in generations"),
            true,
            &mut self.closed,
        )?;
        let r = &mut self.record;
        v.whole(Spec("position", "", "Position among the generated tokens, from 0"), &mut r.position)?;
        v.whole(Spec("token", "", "The committed token"), &mut r.token)?;
        let mut draft = (r.draft != u32::MAX).then_some(r.draft);
        v.maybe(Spec("draft", "", "What the drafter proposed; NULL where nothing was drafted"), &mut draft)?;
        r.draft = draft.unwrap_or(u32::MAX);
        v.whole(Spec("epoch", "", "Rejections so far in this generation when the draft was drawn"), &mut r.rejections)?;
        v.named(Spec("source", "", "Who wrote the token"), &mut r.source)?;
        v.named(Spec("reason", "", "Why the gate decided as it did"), &mut r.reason)?;
        let uncertainty =
            "The gate's statistic: u(t), the entropy in nats, or 1 − max x; NULL if the method needs none";
        v.float(Spec("uncertainty", "as the method's gate", uncertainty), &mut r.uncertainty)?;
        v.float(Spec("importance", "1", "I(t); NULL if the method needs none"), &mut r.importance)?;
        let threshold = Spec("importance_threshold", "1", "What I(t) had to reach; NULL if the method needs none");
        v.float(threshold, &mut r.importance_threshold)?;
        let probability = "The drafter's probability of its draft; NULL where nothing was drafted";
        v.float(Spec("draft_probability", "1", probability), &mut r.draft_probability)?;
        v.float(
            Spec("price", "1", "The price that the gate weighed the draft against; NULL without one"),
            &mut r.price,
        )?;
        v.whole(
            Spec("committed_at_ns", NS, "When the token was committed, since the start of the run"),
            &mut r.committed_at,
        )?;
        // A table has no optional groups of columns: a row that paid for no upload holds the figures of no cost, and is
        // known by them when it is read.
        let mut cost = r.upload_cost();
        let c = &mut cost;
        v.whole(Spec("attempts", "", "Upload attempts that this row pays for, resends included"), &mut c.attempts)?;
        v.whole(Spec("uplink_bits", "bit", "Nominal uplink bits that drove the channel"), &mut c.uplink_bits)?;
        v.whole(Spec("uplink_bytes", "byte", "Bytes of the upload frames on the wire"), &mut c.uplink_bytes)?;
        v.whole(Spec("downlink_bytes", "byte", "Bytes of the verdict frame on the wire"), &mut c.downlink_bytes)?;
        let snr = "Signal-to-noise ratio in the first coherence block of the upload; NULL without an upload";
        v.float(Spec("snr_db", "dB", snr), &mut c.snr_db)?;
        v.whole(Spec("uplink_ns", NS, "From the start of sending until the last bit had left"), &mut c.uplink)?;
        v.whole(Spec("downlink_ns", NS, "From the verdict's first bit until it was usable"), &mut c.downlink)?;
        let waiting = Spec("waiting_ns", NS, "Time charged as waiting since the token before");
        v.whole_since(waiting, &mut r.waiting, Span::ZERO)?;
        v.whole(Spec("queue_ns", NS, "Time in the pool's queue"), &mut c.verify.queue_wait)?;
        v.whole(
            Spec("batch_ns", NS, "From being chosen for a batch to the start of its computation"),
            &mut c.verify.batch_wait,
        )?;
        v.whole(Spec("compute_ns", NS, "Computation time of that batch"), &mut c.verify.compute)?;
        v.whole(Spec("work", "token", "Tokens that the verifier fed for it"), &mut c.verify.fed_tokens)?;
        v.whole(Spec("cloud_nanojoules", NJ, "This upload's share of the batch energy"), &mut c.verify.nanojoules)?;
        let paper = "The same in the papers' accounting: the judged drafts only, no catch-up";
        v.whole(Spec("cloud_paper_nanojoules", NJ, paper), &mut c.verify.paper_nanojoules)?;
        r.upload = (!cost.is_zero()).then_some(cost);
        Ok(())
    }
}

/// Appends a chunk of rounds column by column: what [`ExportedRound::visit`] would append row by row, in the same order, which
/// a test looks after.
/// `data_set` tells the index of a generation's data set.
pub(crate) fn append_rounds(
    chunk: &RoundChunk,
    names: &Names,
    data_set: impl Fn(GenerationId) -> u32,
    batch: &mut ValueBatch,
) {
    let RoundChunk { pieces, rows } = chunk;
    let mut to = Append::to(batch);
    fn whole<W: Whole>(to: &mut Append<'_>, from: &[W]) {
        if let ColumnValues::Integers(values) = to.next() {
            values.extend(from.iter().map(|value| value.to_raw()));
        }
    }
    fn float(to: &mut Append<'_>, from: &[f32]) {
        if let ColumnValues::Floats(values) = to.next() {
            values.extend_from_slice(from);
        }
    }
    fn named<N: NamedFields>(to: &mut Append<'_>, from: &[N]) {
        if let ColumnValues::Words { codes, .. } = to.next() {
            codes.extend(from.iter().map(|value| value.code()));
        }
    }
    /// The same value for all rows of a piece.
    macro_rules! pieces {
        ($pattern:pat => $values:expr, $piece:ident => $value:expr) => {
            if let $pattern = to.next() {
                for $piece in pieces {
                    let value = $value;
                    $values.extend(std::iter::repeat_n(value, $piece.range.len()));
                }
            }
        };
    }
    pieces!(ColumnValues::Words { codes, .. } => codes, piece => names.method(piece.id.method));
    pieces!(ColumnValues::Integers(values) => values, piece => i64::from(piece.id.method));
    pieces!(ColumnValues::Integers(values) => values, piece => i64::from(piece.id.prompt));
    pieces!(ColumnValues::Integers(values) => values, piece => i64::from(piece.id.repetition));
    pieces!(ColumnValues::Integers(values) => values, piece => i64::from(piece.id.pass));
    pieces!(ColumnValues::Integers(values) => values, piece => piece.device.to_raw());
    pieces!(ColumnValues::Words { codes, .. } => codes, piece => match data_set(piece.id) {
        code if (code as usize) < names.data_sets.len() => code,
        _ => NO_WORD,
    });
    pieces!(ColumnValues::Booleans(values) => values, piece => piece.closed);
    whole(&mut to, &rows.position);
    whole(&mut to, &rows.token);
    if let ColumnValues::MaybeIntegers(values) = to.next() {
        values.extend(rows.draft.iter().map(|draft| (*draft != u32::MAX).then_some(i64::from(*draft))));
    }
    whole(&mut to, &rows.rejections);
    named(&mut to, &rows.source);
    named(&mut to, &rows.reason);
    float(&mut to, &rows.uncertainty);
    float(&mut to, &rows.importance);
    float(&mut to, &rows.importance_threshold);
    float(&mut to, &rows.draft_probability);
    float(&mut to, &rows.price);
    whole(&mut to, &rows.committed_at);
    whole(&mut to, &rows.attempts);
    whole(&mut to, &rows.uplink_bits);
    whole(&mut to, &rows.uplink_bytes);
    whole(&mut to, &rows.downlink_bytes);
    float(&mut to, &rows.snr_db);
    whole(&mut to, &rows.uplink);
    whole(&mut to, &rows.downlink);
    whole(&mut to, &rows.waiting);
    whole(&mut to, &rows.queue);
    whole(&mut to, &rows.batch);
    whole(&mut to, &rows.compute);
    whole(&mut to, &rows.work);
    whole(&mut to, &rows.cloud_nanojoules);
    whole(&mut to, &rows.cloud_paper_nanojoules);
}

impl ExportRow for GenerationRecord {
    const TABLE: ExportTable = ExportTable::Generations;

    fn blank() -> GenerationRecord {
        GenerationRecord {
            id: GenerationId::default(),
            device: DeviceId(0),
            data_set: 0,
            prompt_tokens: 0,
            tokens: Vec::new(),
            finish: FinishReason::Stop,
            scheduled: Time::ZERO,
            latency_target: Span::ZERO,
            started: Time::ZERO,
            first_token: None,
            ended: Time::ZERO,
            times: DeviceTimes::default(),
            airtime_up: Span::ZERO,
            airtime_down: Span::ZERO,
            counts: DeviceCounts::default(),
            uploads: UploadCounts::default(),
            energy: GenerationEnergy::default(),
            device_provenance: Provenance::Modelled,
            radio_provenance: Provenance::Modelled,
            cloud_provenance: Provenance::Modelled,
        }
    }

    fn visit(&mut self, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
        visit_id(&mut self.id, names, v)?;
        v.whole(DEVICE, &mut self.device)?;
        visit_data_set(&mut self.data_set.into(), names, v)?;
        v.whole(Spec("data_set_index", "", "Index of the data set in the run's list"), &mut self.data_set)?;
        v.whole(Spec("prompt_tokens", "token", "Tokens of the prompt"), &mut self.prompt_tokens)?;
        v.integers(Spec("tokens", "", "The generated tokens, the end-of-text token included"), &mut self.tokens)?;
        v.named(Spec("finish", "", "Why it ended"), &mut self.finish)?;
        v.whole(Spec("scheduled_ns", NS, "When it was due to start; latencies count from here"), &mut self.scheduled)?;
        let target = Spec("latency_target_ns", NS, "The latency per token that its user wants; 0 for none");
        v.whole(target, &mut self.latency_target)?;
        v.whole(Spec("started_ns", NS, "When it started, since the start of the run"), &mut self.started)?;
        v.maybe(
            Spec("first_token_ns", NS, "When its first token was committed; NULL without one"),
            &mut self.first_token,
        )?;
        v.whole(Spec("ended_ns", NS, "When it ended"), &mut self.ended)?;
        let times = &mut self.times;
        v.whole(Spec("draft_ns", NS, "Device time in draft steps, prefill included"), &mut times.draft)?;
        v.whole(Spec("uncertainty_ns", NS, "Device time estimating u(t)"), &mut times.uncertainty)?;
        v.whole(Spec("importance_ns", NS, "Device time computing I(t)"), &mut times.importance)?;
        v.whole(Spec("overrun_ns", NS, "Device time beyond what its profile declares"), &mut times.overrun)?;
        v.whole(Spec("waiting_ns", NS, "Device time charged as waiting for the pool"), &mut times.waiting)?;
        let late = Spec("waiting_overrun_ns", NS, "Device time waiting beyond what is charged");
        v.whole_since(late, &mut times.waiting_overrun, Span::ZERO)?;
        v.whole(Spec("idle_ns", NS, "Device time with nothing to do"), &mut times.idle)?;
        v.whole(Spec("airtime_up_ns", NS, "Airtime of the radio, up"), &mut self.airtime_up)?;
        v.whole(Spec("airtime_down_ns", NS, "Airtime of the radio, down"), &mut self.airtime_down)?;
        let counts = &mut self.counts;
        v.whole(Spec("draft_steps", "", "Draft steps, one new token each"), &mut counts.draft_steps)?;
        v.whole(Spec("prefill_tokens", "token", "Tokens fed beyond the one per step"), &mut counts.prefill_tokens)?;
        v.whole(Spec("uncertainty_estimates", "", "Estimates of u(t)"), &mut counts.uncertainty)?;
        v.whole(Spec("importance_estimates", "", "Computations of I(t)"), &mut counts.importance)?;
        v.whole(Spec("wasted_drafts", "token", "Drafts thrown away"), &mut counts.wasted_drafts)?;
        v.whole(
            Spec("stale_results", "", "Step results and verdicts that came too late to matter"),
            &mut counts.stale,
        )?;
        let uploads = &mut self.uploads;
        v.whole(Spec("uploads_sent", "", "Upload attempts that left the device"), &mut uploads.sent)?;
        v.whole(Spec("uploads_verdicts", "", "Attempts ended by a verdict"), &mut uploads.verdicts)?;
        v.whole(Spec("uploads_refused", "", "Attempts ended by a refusal"), &mut uploads.refused)?;
        v.whole(Spec("uploads_cancelled", "", "Attempts ended by anything else"), &mut uploads.cancelled)?;
        let energy = &mut self.energy;
        v.whole(Spec("device_nanojoules", NJ, "The device's processor"), &mut energy.device)?;
        v.whole(Spec("radio_nanojoules", NJ, "The device's radio, both ways"), &mut energy.radio)?;
        v.whole(Spec("cloud_nanojoules", NJ, "The verifier's share, catch-up included"), &mut energy.cloud)?;
        let paper = "The verifier's share as the papers count it: another view of the cloud's, not a part of the sum";
        v.whole(Spec("cloud_paper_nanojoules", NJ, paper), &mut energy.cloud_paper)?;
        v.named(Spec("device_provenance", "", "Where the device's joules come from"), &mut self.device_provenance)?;
        v.named(Spec("radio_provenance", "", "Where the radio's joules come from"), &mut self.radio_provenance)?;
        v.named(Spec("cloud_provenance", "", "Where the cloud's joules come from"), &mut self.cloud_provenance)
    }
}

impl ExportRow for BatchRecord {
    const TABLE: ExportTable = ExportTable::Batches;

    fn blank() -> BatchRecord {
        BatchRecord {
            method: 0,
            pass: 0,
            batch: 0,
            verifier: VerifierId(0),
            started: Time::ZERO,
            compute: Span::ZERO,
            measured: Span::ZERO,
            overrun: Span::ZERO,
            estimate: Span::ZERO,
            price: f32::NAN,
            sequences: 0,
            work: 0,
            catch_up: 0,
            drafts: 0,
            cached: 0,
            nanojoules: 0,
            measured_nanojoules: 0,
            unclaimed_nanojoules: 0,
            completed: false,
        }
    }

    fn visit(&mut self, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
        visit_method(&mut self.method, names, v)?;
        v.whole_since(PASS, &mut self.pass, 0)?;
        v.whole(Spec("batch", "", "Number of the batch, from 0, over all verifiers"), &mut self.batch)?;
        v.whole(Spec("verifier", "", "Number of the verifier, from 0"), &mut self.verifier)?;
        v.whole(
            Spec("started_ns", NS, "When its computation was asked for, since the start of the run"),
            &mut self.started,
        )?;
        v.whole(Spec("compute_ns", NS, "How long it took: as charged, where the pool is emulated"), &mut self.compute)?;
        let measured = Spec("measured_ns", NS, "How long it took, as the verifier's thread measured it");
        v.whole_since(measured, &mut self.measured, self.compute)?;
        let late = Spec("overrun_ns", NS, "How much later than charged its verdicts left; charged to nobody");
        v.whole_since(late, &mut self.overrun, Span::ZERO)?;
        v.whole(Spec("estimate_ns", NS, "How long the pool thought it would take"), &mut self.estimate)?;
        v.float(Spec("price", "1", "The pool's price when it was started; NULL without one"), &mut self.price)?;
        v.whole(Spec("sequences", "", "Sequences in it"), &mut self.sequences)?;
        v.whole(Spec("work", "token", "Tokens fed, catch-up and drafts"), &mut self.work)?;
        v.whole(Spec("catch_up", "token", "The catch-up part of work"), &mut self.catch_up)?;
        v.whole(Spec("drafts", "token", "Drafts judged"), &mut self.drafts)?;
        v.whole(Spec("cached", "token", "Tokens already in the KV caches of its sequences"), &mut self.cached)?;
        v.whole(Spec("nanojoules", NJ, "Its energy over compute_ns"), &mut self.nanojoules)?;
        let measured = Spec("measured_nanojoules", NJ, "Its energy over measured_ns; beside the accounts");
        v.whole_since(measured, &mut self.measured_nanojoules, self.nanojoules)?;
        let unclaimed = "The part of it whose upload nobody waited for any more";
        v.whole(Spec("unclaimed_nanojoules", NJ, unclaimed), &mut self.unclaimed_nanojoules)?;
        v.boolean(Spec("completed", "", "False if the verifier failed in it"), false, &mut self.completed)
    }
}

const OWNERS: &[&str] = &["generation", "verifier"];

impl ExportRow for EnergyRow {
    const TABLE: ExportTable = ExportTable::Energy;

    fn blank() -> EnergyRow {
        let owner = EnergyOwner::Verifier { method: 0, pass: 0, verifier: VerifierId(0) };
        EnergyRow { owner, part: EnergyPart::Device, nanojoules: 0, provenance: Provenance::Modelled }
    }

    fn visit(&mut self, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
        // Written only: an import makes these rows from generations and verifiers.
        let (mut owner, mut method, mut pass, id, mut device, mut verifier) = match self.owner {
            EnergyOwner::Generation { id, device } => (0, id.method, id.pass, Some(id), Some(device), None),
            EnergyOwner::Verifier { method, pass, verifier } => (1, method, pass, None, None, Some(verifier)),
        };
        v.word(Spec("owner", "", "Who spent it: a generation or a verifier"), false, OWNERS, &mut owner)?;
        visit_method(&mut method, names, v)?;
        let prompt = Spec("prompt", "", "Line of the generation's prompt; NULL for a verifier");
        v.maybe(prompt, &mut id.map(|id| id.prompt))?;
        let repetition = Spec("repetition", "", "Repetition of the prompt; NULL for a verifier");
        v.maybe(repetition, &mut id.map(|id| id.repetition))?;
        v.whole_since(PASS, &mut pass, 0)?;
        v.maybe(Spec("device", "", "Number of the device; NULL for a verifier"), &mut device)?;
        v.maybe(Spec("verifier", "", "Number of the verifier; NULL for a generation"), &mut verifier)?;
        let part = "On what; `cloud-paper` is another view of `cloud`, not a part of the sum";
        v.named(Spec("part", "", part), &mut self.part)?;
        v.whole(Spec("nanojoules", NJ, "How much"), &mut self.nanojoules)?;
        v.named(Spec("provenance", "", "How it is known"), &mut self.provenance)
    }
}

impl ExportRow for AuditRecord {
    const TABLE: ExportTable = ExportTable::Audits;

    fn blank() -> AuditRecord {
        AuditRecord { id: GenerationId::default(), positions: Vec::new(), accept_probabilities: Vec::new() }
    }

    fn visit(&mut self, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
        visit_id(&mut self.id, names, v)?;
        v.integers(
            Spec("positions", "", "Positions of the skipped tokens among the generated ones"),
            &mut self.positions,
        )?;
        let probabilities = "What the verifier would have accepted each of them with: min(1, y/x)";
        v.floats(Spec("accept_probabilities", "1", probabilities), &mut self.accept_probabilities)
    }
}

/// A verifier's record with how its idle energy is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VerifierRow {
    pub(crate) record: VerifierRecord,
    pub(crate) provenance: Provenance,
}

impl ExportRow for VerifierRow {
    const TABLE: ExportTable = ExportTable::Verifiers;

    fn blank() -> VerifierRow {
        let (busy, idle, off) = (Span::ZERO, Span::ZERO, Span::ZERO);
        let verifier = VerifierId(0);
        let record = VerifierRecord { method: 0, pass: 0, verifier, busy, idle, off, idle_nanojoules: 0, restarts: 0 };
        VerifierRow { record, provenance: Provenance::Modelled }
    }

    fn visit(&mut self, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
        let r = &mut self.record;
        visit_method(&mut r.method, names, v)?;
        v.whole_since(PASS, &mut r.pass, 0)?;
        v.whole(Spec("verifier", "", "Number of the verifier, from 0"), &mut r.verifier)?;
        v.whole(Spec("busy_ns", NS, "Time in batches"), &mut r.busy)?;
        v.whole(Spec("idle_ns", NS, "Time without one"), &mut r.idle)?;
        v.whole(Spec("off_ns", NS, "Time for which it was scaled away"), &mut r.off)?;
        v.whole(Spec("idle_nanojoules", NJ, "Energy of the idle time"), &mut r.idle_nanojoules)?;
        v.whole(Spec("restarts", "", "Times it was restarted"), &mut r.restarts)?;
        v.named(Spec("idle_provenance", "", "How the idle energy is known"), &mut self.provenance)
    }
}

impl ExportRow for ScoreRow {
    const TABLE: ExportTable = ExportTable::Scores;

    fn blank() -> ScoreRow {
        ScoreRow { id: GenerationId::default(), scorer: 0, value: f32::NAN }
    }

    fn visit(&mut self, names: &Names, v: &mut impl Visit) -> Result<(), Misfit> {
        visit_id(&mut self.id, names, v)?;
        let scorer = "Name of the metric; NULL if the run does not name it";
        v.word(Spec("scorer", "", scorer), true, &names.scorers, &mut self.scorer.into())?;
        v.word(Spec("unit", "", "Unit of the value"), true, &names.units, &mut self.scorer.into())?;
        let index = "Index in `meta.scorers` of `run.json`, which says how the value was computed";
        v.whole(Spec("scorer_index", "", index), &mut self.scorer)?;
        v.float(
            Spec("value", "as its scorer", "The value; NULL where the scorer looked and there is none"),
            &mut self.value,
        )
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
