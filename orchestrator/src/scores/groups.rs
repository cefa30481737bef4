//! The groups of scorers: what each of them computes of a block of generations.

use std::path::Path;

use sha2::{Digest, Sha256};
use specfleet_analysis::{Idf, Matching, exact_match, final_answer, first_divergence, rouge_l, token_agreement};
use specfleet_config::PrecisionChoice;
use specfleet_files::hex;
use specfleet_ledger::Scorer;
use specfleet_model::{Embedded, Encoder, Model};

use super::asked::{BaselineFile, ScoreOptions};
use super::likelihood::{Behind, perplexities};
use super::matching::{Bank, DecoderStates, Embed, document_frequencies};
use super::metric;
use super::texts::{ScoredText, Texts};
use crate::error::Error;

/// Scorers that work on the same states: a figure each, in their order; NaN where one does not apply.
pub(super) struct ScoreGroup<'a> {
    pub(super) name: &'static str,
    pub(super) scorers: Vec<Scorer>,
    /// Numbers of states that a generation takes, at least: bounds a block.
    pub(super) weight: Box<dyn Fn(&ScoredText) -> usize + 'a>,
    pub(super) compute: Compute<'a>,
}

/// The figures of a block of generations, in their order.
type Compute<'a> = Box<dyn FnMut(&[&ScoredText]) -> Result<Vec<Vec<f32>>, Error> + 'a>;

/// A scorer of a metric of ours.
fn scorer(name: &str, label: &str, settings: &[(&str, String)]) -> Scorer {
    Scorer {
        name: name.to_owned(),
        unit: metric(name).map_or("ratio", |metric| metric.unit).to_owned(),
        label: label.to_owned(),
        settings: settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    }
}

/// What needs no model: tokens, words and answers beside those of `llm-only`.
pub(super) fn plain(texts: &Texts) -> ScoreGroup<'_> {
    let names = ["rouge_l_llm_only", "exact_match_llm_only", "token_agreement_llm_only", "first_divergence_llm_only"];
    let one = |generation: &ScoredText| {
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
    ScoreGroup {
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
    block: &[&ScoredText],
    targets: &[Target<'_>],
) -> Result<Vec<Vec<Option<Matching>>>, Error> {
    let other = |generation: &ScoredText, target: &Target<'_>| {
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
    /// Comes after the metric's name.
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
fn states_of(generation: &ScoredText, width: usize, targets: usize) -> usize {
    (generation.tokens.len() + 2) * width * (targets + 1)
}

/// Greedy matching over the embedded verifier's states: `embedding_f1`.
pub(super) fn embedding<'a>(
    texts: &'a Texts,
    states: &'a DecoderStates,
    reference: bool,
    llm_only: bool,
) -> ScoreGroup<'a> {
    let targets = targets_of(reference, llm_only);
    let digest = hex(Sha256::digest(Embedded::Verifier.weights()).as_slice());
    let label = "final states of the embedded verifier";
    let scorers = targets
        .iter()
        .map(|target| scorer(&format!("embedding_f1{}", target.suffix), label, &[("verifier_sha256", digest.clone())]))
        .collect();
    let (width, count) = (states.width(), targets.len());
    ScoreGroup {
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
pub(super) fn bert<'a>(
    texts: &'a Texts,
    encoder: &'a Encoder,
    baseline: Option<&'a BaselineFile>,
    options: &ScoreOptions<'_>,
    reference: bool,
    llm_only: bool,
) -> Result<ScoreGroup<'a>, Error> {
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
    Ok(ScoreGroup {
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
pub(super) fn perplexity<'a>(texts: &'a Texts, verifier: &'a Model, digest: &str, threads: usize) -> ScoreGroup<'a> {
    let precision = match texts.settings.model.verifier_precision {
        PrecisionChoice::F32 => "f32",
        PrecisionChoice::Q8_0 => "q8_0",
        PrecisionChoice::Q4K => "q4_k",
    };
    let settings = [("verifier_sha256", digest.to_owned()), ("precision", precision.to_owned())];
    ScoreGroup {
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
