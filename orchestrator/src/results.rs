//! What comes out of a run: read back from its stored rows, so that the figures are those of the ledger.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use specfleet_analysis::{GenerationView, PoolAccount, RunHeader, Summary, SummaryBuilder, exact_match, rouge_l};
use specfleet_engine::id::GenerationId;
use specfleet_engine::record::{ACCOUNTING, AuditRecord, FinishReason, GenerationRecord, RoundRecord};
use specfleet_ledger::{Machine, Meta, RunKind, RunReader, RunState};
use specfleet_model::Tokenizer;

use crate::error::Error;
use crate::paired::{Comparison, Pairing, Runs};
use crate::standstills;
use crate::work::{PromptJob, WorkPlan};

/// One line of `generations.jsonl`.
#[derive(Debug, Serialize)]
struct GenerationLine<'a> {
    method: &'a str,
    prompt_id: u32,
    repetition: u16,
    pass: u16,
    data_set: &'a str,
    device: u32,
    prompt: &'a str,
    reference: Option<&'a str>,
    text: &'a str,
    token_ids: &'a [u32],
    uploaded_positions: Vec<u32>,
    finish_reason: FinishReason,
    exact_match: Option<bool>,
    energy_joules: Joules,
}

#[derive(Debug, Serialize)]
struct Joules {
    device: f64,
    radio: f64,
    cloud: f64,
    cloud_paper: f64,
}

/// What tells one run from another with the same results: `run.json`.
#[derive(Debug, Serialize)]
struct RunIdentity<'a> {
    run: &'a str,
    started: u64,
    wall_seconds: Option<f64>,
    kind: &'a RunKind,
    machine: &'a Machine,
    versions: &'a BTreeMap<String, String>,
}

/// What names a run in its summary.
pub(crate) fn header(meta: &Meta) -> RunHeader {
    RunHeader {
        run: meta.run.clone(),
        seed: meta.seed,
        scenario_hash: meta.scenario_hash.clone(),
        faults_injected: meta.faults_injected,
        accounting: meta.accounting,
        pool_cost: meta.pool_cost.clone(),
        clock: meta.clock,
        repeat: meta.repeat,
        seeds: meta.seeds,
        noise: meta.noise(),
    }
}

/// What a run lacks, in words: generations that were asked for, ends of others, and its own end. Each makes it invalid.
pub(crate) fn shortfalls(missing: usize, open: usize, state: &RunState) -> Vec<String> {
    let missing = (missing > 0).then(|| format!("{missing} generations are missing"));
    let open = (open > 0).then(|| format!("{open} generations did not come to an end"));
    let end = match state {
        RunState::Completed => None,
        RunState::Running | RunState::Interrupted => Some("the run was interrupted".to_owned()),
        RunState::Failed { reason } => Some(format!("the run failed: {reason}")),
    };
    [missing, open, end].into_iter().flatten().collect()
}

/// What of the pool's work was not paid for, in words; nothing where the stored rows do not say it: of devices that are kept in
/// part, of an older accounting, of an import that holds generations alone.
pub(crate) fn unpaid(meta: &Meta, account: &PoolAccount) -> Vec<String> {
    let in_part = matches!(meta.kind, RunKind::Simulated { keep_every: 2.., .. });
    let alone = meta.imported_from.is_some() && !account.has_batches();
    if in_part || alone || meta.accounting != ACCOUNTING {
        return Vec::new();
    }
    account.problems(&meta.methods, meta.passes())
}

/// Sums up the run in `run_dir`; with `out`, also writes `generations.jsonl`, `summary.json`, `paired.json` and
/// `run.json` there.
pub fn results(
    run_dir: &Path,
    work: &WorkPlan,
    tokenizer: &Tokenizer,
    problems: &[String],
    out: Option<&Path>,
) -> Result<(Summary, Vec<Comparison>), Error> {
    let reader = RunReader::open(run_dir)?;
    let meta = reader.meta();
    let mut summary = SummaryBuilder::new(header(meta), &meta.methods, &meta.data_sets);
    let mut lines = out.map(Lines::create).transpose()?;
    let mut pairing = Pairing::default();
    let mut account = PoolAccount::default();
    let jobs: BTreeMap<(u32, u16), &PromptJob> =
        work.jobs.iter().map(|job| ((job.prompt_id, job.repetition), job)).collect();
    let audits: BTreeMap<GenerationId, AuditRecord> =
        reader.audits().map(|audit| audit.map(|audit| (audit.id, audit))).collect::<Result<_, _>>()?;
    for record in reader.generations() {
        let record = record?;
        let rounds = reader.rounds(record.id)?;
        account.generation(&record);
        let Some(job) = jobs.get(&(record.id.prompt, record.id.repetition)) else { continue };
        let text = tokenizer.decode(&record.tokens)?;
        let exact_match = job.reference.as_deref().and_then(|reference| exact_match(&text, reference));
        pairing.add(&record, exact_match);
        let view = GenerationView {
            record: &record,
            rounds: &rounds,
            audit: audits.get(&record.id),
            exact_match,
            rouge_l: job.reference.as_deref().map(|reference| rouge_l(&text, reference)),
        };
        if let Err(error) = summary.add(view) {
            summary.problem(error.to_string());
        }
        if let Some(lines) = &mut lines {
            lines.write(&line(meta, job, &record, &rounds, &text, exact_match))?;
        }
    }
    for batch in reader.batches() {
        let batch = batch?;
        account.batch(&batch);
        if let Err(error) = summary.batch(&batch) {
            summary.problem(error.to_string());
        }
    }
    for verifier in reader.verifiers() {
        if let Err(error) = summary.verifier(&verifier?) {
            summary.problem(error.to_string());
        }
    }
    reasons(&reader, work, problems, &account).into_iter().for_each(|reason| summary.problem(reason));
    let summary = summary.finish();
    let names: Vec<&str> = meta.methods.iter().map(|method| method.name.as_str()).collect();
    let comparisons = pairing.compare(&names, &Runs::of(meta));
    if let Some(lines) = lines {
        lines.finish(meta, &summary, &comparisons)?;
    }
    Ok((summary, comparisons))
}

/// Why the figures of a run cannot be trusted, beside generations whose books do not close.
fn reasons(reader: &RunReader, work: &WorkPlan, problems: &[String], account: &PoolAccount) -> Vec<String> {
    let meta = reader.meta();
    let missing = if work.all_asked {
        (work.jobs.len() * meta.methods.len() * usize::from(meta.passes())).saturating_sub(reader.closed_generations())
    } else {
        0
    };
    // What the caller knows already need not be said twice.
    let state = match &meta.state {
        RunState::Failed { reason } if problems.contains(reason) => &RunState::Completed,
        state => state,
    };
    let mut reasons = shortfalls(missing, reader.open_generations().len(), state);
    reasons.extend(reader.damaged().iter().map(ToString::to_string));
    reasons.extend_from_slice(problems);
    // Of a run that is not whole, what is missing in the account is what is missing in the run.
    if reasons.is_empty() {
        reasons = unpaid(meta, account);
    }
    reasons.extend(standstills::reasons(meta));
    reasons
}

fn line<'a>(
    meta: &'a Meta,
    job: &'a PromptJob,
    record: &'a GenerationRecord,
    rounds: &[RoundRecord],
    text: &'a str,
    exact_match: Option<bool>,
) -> GenerationLine<'a> {
    let joules = |nanojoules: u64| nanojoules as f64 * 1e-9;
    let name = |names: &'a [String], index: u16| names.get(usize::from(index)).map_or("", String::as_str);
    GenerationLine {
        method: meta.methods.get(usize::from(record.id.method)).map_or("", |method| &method.name),
        prompt_id: record.id.prompt,
        repetition: record.id.repetition,
        pass: record.id.pass,
        data_set: name(&meta.data_sets, record.data_set),
        device: record.device.0,
        prompt: &job.prompt,
        reference: job.reference.as_deref(),
        text,
        token_ids: &record.tokens,
        uploaded_positions: rounds.iter().filter(|round| round.is_judged_draft()).map(|round| round.position).collect(),
        finish_reason: record.finish,
        exact_match,
        energy_joules: Joules {
            device: joules(record.energy.device),
            radio: joules(record.energy.radio),
            cloud: joules(record.energy.cloud),
            cloud_paper: joules(record.energy.cloud_paper),
        },
    }
}

/// The files of `--out`.
struct Lines {
    folder: std::path::PathBuf,
    generations: BufWriter<File>,
}

impl Lines {
    fn create(folder: &Path) -> Result<Lines, Error> {
        let failed = |source| Error::Output { path: folder.to_path_buf(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join("generations.jsonl");
        let file = File::create(&path).map_err(|source| Error::Output { path, source })?;
        Ok(Lines { folder: folder.to_path_buf(), generations: BufWriter::new(file) })
    }

    fn write(&mut self, line: &GenerationLine<'_>) -> Result<(), Error> {
        serde_json::to_writer(&mut self.generations, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.generations.write_all(b"\n"))
            .map_err(|source| Error::Output { path: self.folder.join("generations.jsonl"), source })
    }

    fn finish(mut self, meta: &Meta, summary: &Summary, comparisons: &[Comparison]) -> Result<(), Error> {
        let path = self.folder.join("generations.jsonl");
        self.generations.flush().map_err(|source| Error::Output { path, source })?;
        documents(&self.folder, meta, summary)?;
        document(&self.folder, "paired.json", &comparisons)
    }
}

/// The files of `--out` for a run whose rows are not all kept.
pub fn streamed(folder: &Path, summary: &Summary, meta: &Meta, wall_seconds: f64) -> Result<(), Error> {
    let failed = |source| Error::Output { path: folder.to_path_buf(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    documents(folder, &Meta { wall_seconds: Some(wall_seconds), ..meta.clone() }, summary)
}

/// `run.json`, and `summary.json` without what tells this run from another with the same results.
fn documents(folder: &Path, meta: &Meta, summary: &Summary) -> Result<(), Error> {
    document(folder, "summary.json", &Summary { run: String::new(), ..summary.clone() })?;
    let identity = RunIdentity {
        run: &meta.run,
        started: meta.started,
        wall_seconds: meta.wall_seconds,
        kind: &meta.kind,
        machine: &meta.machine,
        versions: &meta.versions,
    };
    document(folder, "run.json", &identity)
}

fn document(folder: &Path, name: &str, content: &impl Serialize) -> Result<(), Error> {
    let path = folder.join(name);
    serde_json::to_string_pretty(content)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(&path, text + "\n"))
        .map_err(|source| Error::Output { path, source })
}
