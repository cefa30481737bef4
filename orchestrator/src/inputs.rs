//! What a run is made from, as it is stored with the run.

use specfleet_config::{InputFile, Settings, WorkloadPart};
use specfleet_ledger::{InputDigest, Inputs, WorkloadInput};

/// Longest settings that a run keeps, in bytes: recorded arrivals of millions of requests would make each listing slow.
const LONGEST_SETTINGS: usize = 1 << 20;

/// What these settings were read from. The digests of the models are the caller's to add.
pub(crate) fn inputs(settings: &Settings) -> Inputs {
    let text = InputFile::path_text;
    let digest =
        |file: &InputFile| InputDigest { of: file.key.clone(), path: Some(text(file)), sha256: file.sha256.clone() };
    let workload = |part: &WorkloadPart| WorkloadInput {
        data_set: part.data_set.clone(),
        path: file_of(settings, part).map(text),
        sha256: part.sha256.clone(),
        first_id: part.first_id,
        // A data set that is asked for more often than it is long repeats itself.
        prompts: part.prompts.min(u32::try_from(part.data().len()).unwrap_or(u32::MAX)),
        requests: u64::from(part.requests()),
        too_long: part.too_long().copied().collect(),
    };
    Inputs {
        settings: Some(settings.to_recorded_toml()).filter(|text| text.len() <= LONGEST_SETTINGS),
        workload: settings.workload.iter().map(workload).collect(),
        digests: settings.files.iter().map(digest).collect(),
    }
}

/// The file that a data set was read from; `None` for one that ships.
fn file_of<'a>(settings: &'a Settings, part: &WorkloadPart) -> Option<&'a InputFile> {
    let named = |file: &InputFile| file.path.file_stem().is_some_and(|stem| stem.to_string_lossy() == part.data_set);
    let of_workload = settings.files.iter().filter(|file| file.key.starts_with("run.workload"));
    of_workload.into_iter().find(|file| file.sha256 == part.sha256 && named(file))
}
