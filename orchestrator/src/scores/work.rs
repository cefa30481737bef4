//! Which figures are wanted, which of them the run lacks, and the loop that computes those.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use sha2::{Digest, Sha256};
use specfleet_analysis::{
    Baseline, Idf, Matching, exact_match, final_answer, first_divergence, rouge_l, token_agreement,
};
use specfleet_config::{Precision, short};
use specfleet_engine::calibration::Calibration;
use specfleet_files::hex;
use specfleet_ledger::{Meta, ScoreRow, ScoreWriter, Scorer};
use specfleet_model::{Embedded, Encoder, Model, Tokenizer};

use super::likelihood::{Behind, perplexities};
use super::matching::{Bank, DecoderStates, Embed, document_frequencies};
use super::texts::{Generation, Texts};
use super::{RunScores, load, metric};
use crate::cores::cores;
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::pair::{VERIFIER_VERSION, load_verifier};
use crate::progress::Progress;
use crate::stored::unfinished_note;

/// Generations between two looks at Ctrl-C and two flushes.
const BLOCK: usize = 256;

/// Most numbers of states that a block may hold: 256 MiB.
const BLOCK_STATES: usize = 64 << 20;

/// What texts are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// The references of the workload.
    Reference,
    /// What `llm-only` wrote for the same prompt.
    LlmOnly,
    /// Both.
    Both,
}

/// What to compute, and how to say so.
pub struct ScoreOptions<'a> {
    /// Folder of an encoder, for BERTScore.
    pub encoder: Option<&'a Path>,
    /// Layer of its states; without one the reference's choice for its name, else the last.
    pub layer: Option<usize>,
    /// Whether tokens weigh by their inverse document frequency.
    pub idf: bool,
    /// File of baselines, for rescaled figures too.
    pub baseline: Option<&'a Path>,
    /// What to compare with; without one both, as far as the run has them.
    pub against: Option<Against>,
    /// Whether to compute perplexities.
    pub perplexity: bool,
    /// Only generations of these methods; all without any.
    pub methods: Option<Vec<String>>,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Set when somebody wants it to end.
    pub interrupted: &'a AtomicBool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Scored {
    /// The run's name.
    pub run: String,
    /// Its methods, in order.
    pub methods: Vec<String>,
    /// All its scores by now.
    pub scores: RunScores,
    /// Figures added.
    pub added: u64,
    /// Figures that were asked for and there already.
    pub kept: u64,
    /// What there is to say beside the figures.
    pub notes: Vec<String>,
}

/// Scorers that work on the same states: a figure each, in their order; NaN where one does not apply.
struct Group<'a> {
    name: &'static str,
    scorers: Vec<Scorer>,
    /// Numbers of states that a generation takes, at least: bounds a block.
    weight: Box<dyn Fn(&Generation) -> usize + 'a>,
    compute: Compute<'a>,
}

/// The figures of a block of generations, in their order.
type Compute<'a> = Box<dyn FnMut(&[&Generation]) -> Result<Vec<Vec<f32>>, Error> + 'a>;

/// Adds what the run in `folder` lacks of the figures that were asked for. What is there stays.
///
/// Everything that can be wrong with the flags, the encoder and the run is found before anything is written.
pub fn score(opened: &OpenedRuns, folder: &Path, options: &ScoreOptions<'_>) -> Result<Scored, Error> {
    let reader = opened.open(folder)?;
    let meta = reader.meta().clone();
    let chosen = chosen_methods(&meta, options)?;
    let load_encoder =
        |dir| Encoder::load_dir(dir, options.layer).map_err(|error| Error::Score(format!("--encoder: {error}")));
    let encoder = options.encoder.map(load_encoder).transpose()?;
    let baseline = match (options.baseline, &encoder) {
        (Some(path), Some(encoder)) => Some(BaselineFile::read(path, encoder.layer())?),
        _ => None,
    };
    let texts = Texts::of(&reader)?;
    let mut notes: Vec<String> = unfinished_note(&reader).into_iter().collect();
    // sled lets one opener at a time have a store.
    drop(reader);
    notes.extend(texts.damage.iter().map(|damage| format!("not scored: {damage}")));
    let (reference, llm_only) = targets(&meta, &texts, options, &mut notes)?;
    let threads = cores();

    let states = DecoderStates {
        model: Model::embedded(Embedded::Verifier, specfleet_model::Precision::F32)?,
        tokenizer: Tokenizer::embedded()?,
    };
    let verifier = if options.perplexity { Some(verifier_of(&meta, &texts)?) } else { None };
    let mut groups = Vec::new();
    if llm_only {
        groups.push(plain(&texts));
    }
    if reference || llm_only {
        groups.push(embedding(&texts, &states, reference, llm_only));
    }
    if let Some(encoder) = encoder.as_ref().filter(|_| reference || llm_only) {
        groups.push(bert(&texts, encoder, baseline.as_ref(), options, reference, llm_only)?);
    }
    if let Some((model, digest)) = &verifier {
        groups.push(perplexity(&texts, model, digest, threads));
    }

    let wanted: Vec<&Generation> =
        texts.generations.iter().filter(|generation| chosen.contains(&generation.id.method)).collect();
    let mut writer = ScoreWriter::open(folder)?;
    let (mut added, mut kept) = (0, 0);
    for group in &mut groups {
        let (new, old) = run_group(group, &wanted, &mut writer, options, folder)?;
        added += new;
        kept += old;
    }
    writer.finish()?;
    if let Some(encoder) = &encoder {
        let empty = wanted.iter().filter(|g| encoder.tokens(&g.text).is_ok_and(|tokens| tokens.len() <= 2)).count();
        if empty > 0 {
            notes.push(format!("{empty} texts are empty: their BERTScore is 0, as in the reference implementation"));
        }
    }
    let scores = load(&opened.open(folder)?)?;
    notes.extend(scores.notes(&meta.run));
    let methods = meta.methods.iter().map(|method| method.name.clone()).collect();
    Ok(Scored { run: meta.run, methods, scores, added, kept, notes })
}

/// Computes what is missing, block by block; how many figures were added, and how many were there.
fn run_group(
    group: &mut Group<'_>,
    wanted: &[&Generation],
    writer: &mut ScoreWriter,
    options: &ScoreOptions<'_>,
    folder: &Path,
) -> Result<(u64, u64), Error> {
    let places = group.scorers.iter().map(|scorer| writer.scorer(scorer)).collect::<Result<Vec<u16>, _>>()?;
    let lacks = |generation: &&&Generation| places.iter().any(|place| !writer.has(*place, generation.id));
    let missing: Vec<&Generation> = wanted.iter().filter(lacks).copied().collect();
    let all = (wanted.len() * places.len()) as u64;
    if missing.is_empty() {
        return Ok((0, all));
    }
    let phase = options.progress.phase_of(group.name, missing.len(), "texts");
    let mut added = 0;
    let mut rest = &missing[..];
    while !rest.is_empty() {
        if options.interrupted.load(Ordering::Relaxed) {
            writer.flush()?;
            return Err(Error::Interrupted(folder.to_path_buf()));
        }
        let mut held = 0;
        let fits = rest.iter().take(BLOCK).take_while(|generation| {
            held += (group.weight)(generation);
            held <= BLOCK_STATES
        });
        let (block, later) = rest.split_at(fits.count().max(1));
        rest = later;
        for (generation, values) in block.iter().zip((group.compute)(block)?) {
            for (scorer, value) in places.iter().zip(values) {
                added += u64::from(writer.append(ScoreRow { id: generation.id, scorer: *scorer, value })?);
            }
        }
        writer.flush()?;
        phase.advance(block.len() as u64);
    }
    phase.finish();
    Ok((added, all - added))
}

// ---- what was asked for --------------------------------------------------------------------------------------------

fn refuse(meta: &Meta, why: &str) -> Error {
    Error::Score(format!("run {}: {why}", meta.run))
}

/// Indices of the methods to score.
fn chosen_methods(meta: &Meta, options: &ScoreOptions<'_>) -> Result<BTreeSet<u16>, Error> {
    let names: Vec<&str> = meta.methods.iter().map(|method| method.name.as_str()).collect();
    let index = |name: &str| names.iter().position(|known| *known == name).map(|index| index as u16);
    match &options.methods {
        None => Ok((0..names.len() as u16).collect()),
        Some(asked) => asked
            .iter()
            .map(|name| {
                index(name).ok_or_else(|| {
                    Error::Score(format!(
                        "--methods: run {} has no method {name:?}; it has {}",
                        meta.run,
                        names.join(", ")
                    ))
                })
            })
            .collect(),
    }
}

/// Whether to compare with the references, and whether with `llm-only`.
fn targets(
    meta: &Meta,
    texts: &Texts,
    options: &ScoreOptions<'_>,
    notes: &mut Vec<String>,
) -> Result<(bool, bool), Error> {
    let reference = texts.references().next().is_some();
    let llm_only = texts.llm_only_texts().next().is_some();
    match options.against {
        Some(Against::Reference | Against::Both) if !reference => {
            Err(refuse(meta, "--against: its workload has no references to compare with; use llm-only"))
        }
        Some(Against::LlmOnly | Against::Both) if !llm_only => {
            Err(refuse(meta, "--against: it has no answers of llm-only to compare with; use reference"))
        }
        Some(Against::Reference) => Ok((true, false)),
        Some(Against::LlmOnly) => Ok((false, true)),
        Some(Against::Both) => Ok((true, true)),
        None if !reference && !llm_only && !options.perplexity => {
            Err(refuse(meta, "it has neither references nor answers of llm-only to compare with; use --perplexity"))
        }
        None => {
            if !reference {
                notes.push("nothing is compared with references: the run's workload has none".to_owned());
            }
            if !llm_only {
                notes.push("nothing is compared with llm-only: the run has no answers of it".to_owned());
            }
            Ok((reference, llm_only))
        }
    }
}

/// The verifier that the run had in its pool. One that has changed since is refused, as far as the run can tell.
fn verifier_of(meta: &Meta, texts: &Texts) -> Result<(Model, String), Error> {
    let loaded = load_verifier(&texts.settings.model)
        .map_err(|error| refuse(meta, &format!("--perplexity: its verifier cannot be loaded: {error}")))?;
    // Runs of before digests were kept may still have a calibration that names them.
    let calibrations = || {
        let stored = meta.calibration.clone()?;
        Some(serde_json::from_value::<Vec<Calibration>>(stored).ok()?.into_iter().next()?.key.verifier)
    };
    let recorded = meta.versions.get(VERIFIER_VERSION).cloned().or_else(calibrations);
    if let Some(recorded) = recorded.filter(|recorded| *recorded != loaded.digest) {
        let (then, now) = (short(&recorded), short(&loaded.digest));
        let why = format!("--perplexity: its verifier changed since the run: SHA-256 {then} then, {now} now");
        return Err(refuse(meta, &why));
    }
    Ok((loaded.model, loaded.digest))
}

/// A file of baselines and the row that counts.
struct BaselineFile {
    row: Baseline,
    digest: String,
}

impl BaselineFile {
    fn read(path: &Path, layer: usize) -> Result<BaselineFile, Error> {
        let refuse = |why: String| Error::Score(format!("--baseline: {}: {why}", path.display()));
        let bytes = specfleet_files::read(path, specfleet_files::DATA).map_err(|error| refuse(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
        let row = Baseline::parse(&text, layer).map_err(refuse)?;
        Ok(BaselineFile { row, digest: hex(Sha256::digest(text.as_bytes()).as_slice()) })
    }
}

/// A scorer of a metric of ours.
fn scorer(name: &str, label: &str, settings: &[(&str, String)]) -> Scorer {
    Scorer {
        name: name.to_owned(),
        unit: metric(name).map_or("ratio", |metric| metric.unit).to_owned(),
        label: label.to_owned(),
        settings: settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    }
}

// ---- the groups ----------------------------------------------------------------------------------------------------

/// What needs no model: tokens, words and answers beside those of `llm-only`.
fn plain(texts: &Texts) -> Group<'_> {
    let names = ["rouge_l_llm_only", "exact_match_llm_only", "token_agreement_llm_only", "first_divergence_llm_only"];
    let one = |generation: &Generation| {
        let Some(other) = texts.llm_only_of(generation) else { return vec![f32::NAN; 4] };
        // Where llm-only gives no answer there is none to agree with.
        let answer = final_answer(&other.text).and_then(|_| exact_match(&generation.text, &other.text));
        // Equal texts diverge nowhere: they agree as far as they go.
        let divergence = first_divergence(&generation.tokens, &other.tokens).unwrap_or(generation.tokens.len());
        vec![
            rouge_l(&generation.text, &other.text) as f32,
            answer.map_or(f32::NAN, |same| f32::from(u8::from(same))),
            token_agreement(&generation.tokens, &other.tokens) as f32,
            divergence as f32,
        ]
    };
    Group {
        name: "llm-only",
        scorers: names.iter().map(|name| scorer(name, "tokens and words", &[])).collect(),
        weight: Box::new(|_| 0),
        compute: Box::new(move |block| Ok(block.iter().map(|generation| one(generation)).collect())),
    }
}

/// Greedy matching of states, against what was asked for: for each generation of a block one matching per target.
fn matchings(
    texts: &Texts,
    source: &dyn Embed,
    block: &[&Generation],
    targets: &[Target<'_>],
) -> Result<Vec<Vec<Option<Matching>>>, Error> {
    let other = |generation: &Generation, target: &Target<'_>| {
        if target.llm_only {
            return texts.llm_only_of(generation).map(|other| other.text.clone());
        }
        texts.reference_of(generation).map(str::to_owned)
    };
    let others: Vec<Vec<Option<String>>> =
        targets.iter().map(|target| block.iter().map(|generation| other(generation, target)).collect()).collect();
    let own = block.iter().map(|generation| generation.text.as_str());
    let bank = Bank::embed(source, own.chain(others.iter().flatten().flatten().map(String::as_str)))?;
    let mut found: Vec<Vec<Option<Matching>>> = vec![Vec::with_capacity(targets.len()); block.len()];
    for (target, others) in targets.iter().zip(&others) {
        let pairs: Vec<(&str, &str)> = block
            .iter()
            .zip(others)
            .filter_map(|(generation, other)| Some((generation.text.as_str(), other.as_deref()?)))
            .collect();
        let mut matched = bank.match_all(&pairs, target.idf.as_ref()).into_iter();
        for (found, other) in found.iter_mut().zip(others) {
            found.push(other.as_ref().and_then(|_| matched.next().flatten()));
        }
    }
    Ok(found)
}

/// What texts are compared with, and the weights of tokens in that comparison.
struct Target<'a> {
    llm_only: bool,
    idf: Option<Idf>,
    /// Behind the metric's name.
    suffix: &'a str,
}

fn targets_of(reference: bool, llm_only: bool) -> Vec<Target<'static>> {
    let mut targets = Vec::new();
    if reference {
        targets.push(Target { llm_only: false, idf: None, suffix: "" });
    }
    if llm_only {
        targets.push(Target { llm_only: true, idf: None, suffix: "_llm_only" });
    }
    targets
}

/// Numbers of states that a generation and what it is compared with take, at least.
fn states_of(generation: &Generation, width: usize, targets: usize) -> usize {
    (generation.tokens.len() + 2) * width * (targets + 1)
}

/// Greedy matching over the embedded verifier's states: `embedding_f1`.
fn embedding<'a>(texts: &'a Texts, states: &'a DecoderStates, reference: bool, llm_only: bool) -> Group<'a> {
    let targets = targets_of(reference, llm_only);
    let digest = hex(Sha256::digest(Embedded::Verifier.weights()).as_slice());
    let label = "final states of the embedded verifier";
    let scorers = targets
        .iter()
        .map(|target| scorer(&format!("embedding_f1{}", target.suffix), label, &[("verifier_sha256", digest.clone())]))
        .collect();
    let (width, count) = (states.width(), targets.len());
    Group {
        name: "embedding",
        scorers,
        weight: Box::new(move |generation| states_of(generation, width, count)),
        compute: Box::new(move |block| {
            let found = matchings(texts, states, block, &targets)?;
            let f1 = |matching: Option<Matching>| matching.map_or(f32::NAN, |matching| matching.f1);
            Ok(found.into_iter().map(|row| row.into_iter().map(f1).collect()).collect())
        }),
    }
}

/// BERTScore: precision, recall and F1, raw and, with a baseline, rescaled.
fn bert<'a>(
    texts: &'a Texts,
    encoder: &'a Encoder,
    baseline: Option<&'a BaselineFile>,
    options: &ScoreOptions<'_>,
    reference: bool,
    llm_only: bool,
) -> Result<Group<'a>, Error> {
    let mut targets = targets_of(reference, llm_only);
    if options.idf {
        for target in &mut targets {
            // Each reference once, whatever methods are scored: the weights are the run's.
            target.idf = Some(if target.llm_only {
                document_frequencies(encoder, texts.llm_only_texts())?
            } else {
                document_frequencies(encoder, texts.references())?
            });
        }
    }
    let folder = options.encoder.unwrap_or(Path::new(""));
    // Something like `.` has no name of its own.
    let named =
        if folder.file_name().is_some() { folder.to_path_buf() } else { folder.canonicalize().unwrap_or_default() };
    let folder = named.file_name().unwrap_or_default().to_string_lossy();
    let weights = if options.idf { ", idf" } else { "" };
    let label = format!("{folder}, layer {} of {}{weights}", encoder.layer(), encoder.layers());
    let settings = [
        ("encoder_sha256", hex(&encoder.digest())),
        ("layer", encoder.layer().to_string()),
        ("weights", if options.idf { "idf" } else { "none" }.to_owned()),
    ];
    let mut scorers = Vec::new();
    for target in &targets {
        for part in ["precision", "recall", "f1"] {
            scorers.push(scorer(&format!("bertscore_{part}{}", target.suffix), &label, &settings));
        }
        if let Some(baseline) = baseline {
            let settings = [&settings[..], &[("baseline_sha256", baseline.digest.clone())]].concat();
            for part in ["precision", "recall", "f1"] {
                let name = format!("bertscore_{part}{}_rescaled", target.suffix);
                scorers.push(scorer(&name, &format!("{label}, rescaled"), &settings));
            }
        }
    }
    let figures = move |matching: Option<Matching>| {
        let list = |matching: Option<Matching>| {
            let value = |of: fn(Matching) -> f32| matching.map_or(f32::NAN, of);
            [value(|m| m.precision), value(|m| m.recall), value(|m| m.f1)]
        };
        let mut figures = list(matching).to_vec();
        if let Some(baseline) = baseline {
            figures.extend(list(matching.map(|matching| matching.rescaled(baseline.row))));
        }
        figures
    };
    let (width, count) = (encoder.width(), targets.len());
    Ok(Group {
        name: "BERTScore",
        scorers,
        weight: Box::new(move |generation| states_of(generation, width, count)),
        compute: Box::new(move |block| {
            let found = matchings(texts, encoder, block, &targets)?;
            Ok(found.into_iter().map(|row| row.into_iter().flat_map(figures).collect()).collect())
        }),
    })
}

/// Perplexity under the run's verifier.
fn perplexity<'a>(texts: &'a Texts, verifier: &'a Model, digest: &str, threads: usize) -> Group<'a> {
    let precision = match texts.settings.model.verifier_precision {
        Precision::F32 => "f32",
        Precision::Q8_0 => "q8_0",
        Precision::Q4K => "q4_k",
    };
    let settings = [("verifier_sha256", digest.to_owned()), ("precision", precision.to_owned())];
    Group {
        name: "perplexity",
        scorers: vec![scorer("perplexity", &format!("the run's verifier, {precision}"), &settings)],
        weight: Box::new(|_| 0),
        compute: Box::new(move |block| {
            let cases: Vec<Behind<'_>> = block
                .iter()
                .map(|generation| Behind {
                    prompt: &texts.prompts[generation.prompt].tokens,
                    tokens: &generation.tokens,
                })
                .collect();
            let values = perplexities(verifier, &cases, threads)?;
            Ok(values.into_iter().map(|value| vec![value]).collect())
        }),
    }
}
