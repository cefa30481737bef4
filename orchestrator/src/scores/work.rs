//! Which figures the run lacks of those that are wanted, and the loop that computes them.

use std::path::Path;
use std::sync::atomic::Ordering;

use specfleet_ledger::{ScoreRow, ScoreWriter};
use specfleet_model::{Embedded, Encoder, Model, Tokenizer};

use super::asked::{BaselineFile, ScoreOptions, chosen_methods, targets, verifier_of};
use super::groups::{ScoreGroup, bert, embedding, perplexity, plain};
use super::matching::DecoderStates;
use super::texts::{ScoredText, Texts};
use super::{RunScores, load};
use crate::cores::cores;
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::stored::unfinished_note;

/// Generations between two looks at Ctrl-C and two flushes.
const BLOCK: usize = 256;

/// Most numbers of states that a block may hold: 256 MiB.
const BLOCK_STATES: usize = 64 << 20;

/// What was done.
#[derive(Clone, Debug)]
pub struct Scored {
    pub run: String,
    /// Its methods, in order.
    pub methods: Vec<String>,
    /// All its scores by now.
    pub scores: RunScores,
    pub added: u64,
    /// Figures that were asked for and there already.
    pub kept: u64,
    /// What there is to say beside the figures.
    pub notes: Vec<String>,
}

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

    let wanted: Vec<&ScoredText> =
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
    group: &mut ScoreGroup<'_>,
    wanted: &[&ScoredText],
    writer: &mut ScoreWriter,
    options: &ScoreOptions<'_>,
    folder: &Path,
) -> Result<(u64, u64), Error> {
    let places = group.scorers.iter().map(|scorer| writer.scorer(scorer)).collect::<Result<Vec<u16>, _>>()?;
    let lacks = |generation: &&&ScoredText| places.iter().any(|place| !writer.has(*place, generation.id));
    let missing: Vec<&ScoredText> = wanted.iter().filter(lacks).copied().collect();
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
