//! `specfleet score RUN`: adds scores to a run that has ended.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::opened::OpenedRuns;
use crate::progress::{Progress, Ui};
use crate::scores::{Against, ScoreOptions, figures, score, table};
use anyhow::Context;
use clap::Args;

use super::{LEDGER, find, print};

/// Flags of `score`.
#[derive(Args)]
pub(crate) struct ScoreArgs {
    /// The run: its name in the ledger, or its folder
    run: PathBuf,
    /// Folder of a BERT, RoBERTa or XLM-RoBERTa, for BERTScore
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
    /// The encoder's layer to take states after; 0 is the embeddings [default: bert-score's for its name, else the last]
    #[arg(long, value_name = "N", requires = "encoder")]
    layer: Option<usize>,
    /// Weigh tokens by their inverse document frequency among the references
    #[arg(long, requires = "encoder")]
    idf: bool,
    /// Baselines to rescale BERTScore with: CSV of LAYER,P,R,F, one row per layer
    #[arg(long, value_name = "FILE", requires = "encoder")]
    baseline: Option<PathBuf>,
    /// What to compare texts with [default: both, as far as the run has them]
    #[arg(long, value_enum)]
    against: Option<Against>,
    /// Also the perplexity of each text under the run's verifier
    #[arg(long)]
    perplexity: bool,
    /// Only these methods, separated by commas
    #[arg(long, value_name = "a,b", value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Print JSON and nothing else
    #[arg(long)]
    json: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto")]
    ui: Ui,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = LEDGER)]
    ledger: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &ScoreArgs, opened: &OpenedRuns) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(if args.json { Ui::None } else { args.ui });
    let folder = find(&args.ledger, &args.run)?;
    let scored = score(
        opened,
        &folder,
        &ScoreOptions {
            encoder: args.encoder.as_deref(),
            layer: args.layer,
            idf: args.idf,
            baseline: args.baseline.as_deref(),
            against: args.against,
            perplexity: args.perplexity,
            methods: args.methods.clone(),
            progress: &progress,
            interrupted: specfleet_signals::flag(),
        },
    )?;
    let figures = figures(&scored);
    if args.json {
        print(serde_json::to_string_pretty(&figures).context("writing the scores")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(table(&figures))?;
    print(match (scored.added, scored.kept) {
        (0, kept) => format!("all {kept} scores were there already: nothing was replaced"),
        (added, 0) => format!("{added} scores added to {}", folder.display()),
        (added, kept) => format!("{added} scores added to {}; {kept} were there already and stay", folder.display()),
    })?;
    scored.notes.iter().try_for_each(|note| print(format!("note: {note}")))?;
    Ok(ExitCode::SUCCESS)
}
