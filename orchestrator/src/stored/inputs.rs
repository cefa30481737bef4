//! What a stored run was made from, as far as it can still be had.

use sha2::{Digest, Sha256};
use specfleet_config::{ConfigError, InputFile, Scenario, Settings, WorkloadPart, short};
use specfleet_files::hex;
use specfleet_ledger::{InputDigest, Meta};
use specfleet_model::{ModelError, Tokenizer};

use crate::pair::{self, PARTS, TOKENIZER, TOKENIZER_VERSION, load_tokenizer};

/// The prompts that a stored run was made from.
#[derive(Debug)]
pub(crate) struct StoredInputs {
    /// The settings that the run was made with, the prompts loaded as far as they are what they were.
    pub(crate) settings: Result<Settings, ConfigError>,
    /// Why prompts are not at hand, one line for each data set.
    pub(crate) problems: Vec<String>,
    /// What nobody can tell, because the run does not record it.
    pub(crate) unrecorded: Option<String>,
}

impl StoredInputs {
    /// Those of a run. What the run itself recorded goes first; files are read for prompts alone.
    pub(crate) fn of(meta: &Meta) -> StoredInputs {
        let recorded = meta.inputs.settings.as_deref();
        match recorded.and_then(|text| Settings::from_canonical_toml(text).ok()) {
            Some(settings) => StoredInputs::recorded(meta, settings),
            None => StoredInputs::read_again(meta),
        }
    }

    fn recorded(meta: &Meta, mut settings: Settings) -> StoredInputs {
        let mut problems = Vec::new();
        for part in settings.workload.iter_mut().filter(|part| !part.is_loaded()) {
            let mut known = meta.inputs.workload.iter();
            let input = known.find(|input| input.data_set == part.data_set && input.sha256 == part.sha256);
            let path = input.and_then(|input| input.path.as_deref()).map(InputFile::path_of);
            if let Err(error) = part.reopen(path.as_deref()) {
                problems.push(error.to_string());
            }
        }
        set_too_long(meta, &mut settings);
        StoredInputs { settings: Ok(settings), problems, unrecorded: None }
    }

    /// For runs that recorded no settings: from their scenario and its files.
    fn read_again(meta: &Meta) -> StoredInputs {
        let mut settings = scenario_of(meta).and_then(|scenario| scenario.settings());
        let (mut problems, mut unrecorded) = (Vec::new(), None);
        if let Ok(settings) = &mut settings {
            problems = changes(meta, settings);
            if problems.is_empty() && is_another(meta, settings) {
                unrecorded = Some(format!(
                    "run {}: the digests of its files are not recorded; they are taken as they are now",
                    meta.run
                ));
            }
            if !problems.is_empty() {
                settings.workload.iter_mut().for_each(WorkloadPart::unload);
            }
            set_too_long(meta, settings);
        }
        StoredInputs { settings, problems, unrecorded }
    }
}

/// Takes out of the workload what the run skipped.
fn set_too_long(meta: &Meta, settings: &mut Settings) {
    for (part, input) in settings.workload.iter_mut().zip(&meta.inputs.workload) {
        part.set_too_long(input.too_long.iter().copied());
    }
}

/// The scenario of a run, to be run again.
pub(crate) fn scenario_of(meta: &Meta) -> Result<Scenario, ConfigError> {
    Scenario::parse(&format!("the scenario of run {}", meta.run), &meta.scenario, None)
}

/// The settings of a run whose scenario is read again, if every file is what it was; else why not.
pub(crate) fn unchanged(meta: &Meta) -> Result<Settings, String> {
    let settings = scenario_of(meta).and_then(|scenario| scenario.settings()).map_err(|error| error.to_string())?;
    match changes(meta, &settings).into_iter().next() {
        Some(change) => Err(change),
        None => Ok(settings),
    }
}

/// Files that are no longer what they were when the run read them.
fn changes(meta: &Meta, settings: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    for file in &settings.files {
        let path = file.path_text();
        let recorded =
            meta.inputs.digests.iter().find(|digest| digest.of == file.key && digest.path.as_deref() == Some(&path));
        if let Some(recorded) = recorded.filter(|recorded| recorded.sha256 != file.sha256) {
            changes.push(changed(recorded, &file.sha256));
        }
    }
    // Another version may write the same settings in another way.
    let same_program = meta.versions.get("specfleet").is_some_and(|version| version == env!("CARGO_PKG_VERSION"));
    if same_program && is_another(meta, settings) {
        changes.push("a file of its scenario has changed since the run, which does not record the digests".to_owned());
    }
    changes
}

/// Whether a run that recorded no digests has another hash of its scenario than these settings.
fn is_another(meta: &Meta, settings: &Settings) -> bool {
    // The first version counted folders of models with the way there.
    let first_hash = || hex(Sha256::digest(settings.to_canonical_toml().as_bytes()).as_slice());
    let is_same = settings.scenario_hash() == meta.scenario_hash || first_hash() == meta.scenario_hash;
    meta.inputs.workload.is_empty() && !is_same
}

/// The part of the pair that is no longer what it was when the run loaded it, if any. `now`: the digests of the same models.
pub(crate) fn changed_model(meta: &Meta, now: &[InputDigest]) -> Option<String> {
    differing_models(&meta.inputs.digests, now).map(|(recorded, found)| changed(recorded, &found.sha256))
}

/// The first part of a pair of models that two lists of digests both name and have differently.
pub(crate) fn differing_models<'a>(
    one: &'a [InputDigest],
    other: &'a [InputDigest],
) -> Option<(&'a InputDigest, &'a InputDigest)> {
    let of_models = one.iter().filter(|digest| PARTS.contains(&digest.of.as_str()));
    let mut both = of_models.filter_map(|digest| Some((digest, other.iter().find(|same| same.of == digest.of)?)));
    both.find(|(one, other)| one.sha256 != other.sha256)
}

/// The same, by the files of the models that the run's own settings name.
pub(crate) fn changed_pair(meta: &Meta, settings: &Settings) -> Result<Option<String>, ModelError> {
    Ok(changed_model(meta, &pair::digests(&settings.model)?))
}

/// The run's tokenizer, or why it is not at hand.
pub(crate) fn tokenizer_of(meta: &Meta, settings: &Settings) -> Result<Tokenizer, String> {
    let tokenizer = load_tokenizer(&settings.model).map_err(|error| error.to_string())?;
    let found = hex(&tokenizer.digest());
    let recorded = meta.inputs.digest(TOKENIZER).cloned().or_else(|| {
        let sha256 = meta.versions.get(TOKENIZER_VERSION)?.clone();
        Some(InputDigest { of: TOKENIZER.to_owned(), path: None, sha256 })
    });
    match recorded.filter(|recorded| recorded.sha256 != found) {
        Some(recorded) => Err(changed(&recorded, &found)),
        None => Ok(tokenizer),
    }
}

/// What has changed, in words.
fn changed(recorded: &InputDigest, found: &str) -> String {
    let InputDigest { of, path, sha256 } = recorded;
    let what = match path {
        Some(path) if PARTS.contains(&of.as_str()) => format!("the {of} in {path}"),
        Some(path) => path.clone(),
        None => format!("the {of}"),
    };
    format!("{what} changed since the run: SHA-256 {} then, {} now", short(sha256), short(found))
}
