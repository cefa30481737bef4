//! Profiles: what a device, a link or a verifier costs, as TOML in human units.

mod device;
mod link;
mod model;
mod trace;
mod verifier;

pub use model::DeclaredModel;
pub(crate) use verifier::DeclaredVerifier;
pub use verifier::VerifierSpeed;

use std::path::Path;

use specfleet_engine::device::energy::DeviceProfile;
use specfleet_engine::device::link::LinkProfile;
use toml::Value;

use crate::ConfigError;
use crate::presets::ShippedFile;
use crate::read::{Document, Section, is_url, split_commas, without_mark};

type ProfileReader<T> = fn(&Section<'_>) -> Result<T, ConfigError>;

const DEVICES: Presets = ("devices", ShippedFile::DEVICES);
const LINKS: Presets = ("links", ShippedFile::LINKS);

/// Device profiles at `name`: one or several presets, files or tables.
pub(crate) fn devices(section: &Section<'_>, name: &str, default: &str) -> Result<Vec<DeviceProfile>, ConfigError> {
    several(section, name, default, DEVICES, device::read)
}

/// The device profile at `name`: a preset, a file or a table.
pub(crate) fn device(section: &Section<'_>, name: &str, default: &str) -> Result<DeviceProfile, ConfigError> {
    single(section, name, default, DEVICES, device::read)
}

/// Link profiles at `name`: one or several presets, files or tables.
pub(crate) fn links(section: &Section<'_>, name: &str, default: &str) -> Result<Vec<LinkProfile>, ConfigError> {
    several(section, name, default, LINKS, link::read)
}

/// The link profile at `name`: a preset, a file or a table.
pub(crate) fn link(section: &Section<'_>, name: &str, default: &str) -> Result<LinkProfile, ConfigError> {
    single(section, name, default, LINKS, link::read)
}

/// The verifier profile at `name`: a preset, a file or a table.
pub(crate) fn verifier(section: &Section<'_>, name: &str, default: &str) -> Result<DeclaredVerifier, ConfigError> {
    single(section, name, default, ("verifiers", ShippedFile::VERIFIERS), verifier::read)
}

/// The model sizes at `name`, which must be there: a preset, a file or a table.
pub(crate) fn model(section: &Section<'_>, name: &str) -> Result<DeclaredModel, ConfigError> {
    let valid = || format!("{}, a path to a .toml file or a table", ShippedFile::names(ShippedFile::MODELS));
    let value = section.value(name).ok_or_else(|| section.missing(name, valid()))?;
    one(section, name, value, ("models", ShippedFile::MODELS), model::read)
}

/// Longest name of a profile, in bytes.
const LONGEST_NAME: usize = 128;

/// The name of a profile, which stands in tables, files and groups of queries: one line that means nothing to a terminal or a
/// spreadsheet.
fn name_of(section: &Section<'_>) -> Result<String, ConfigError> {
    let name = section.required_text("name")?;
    let plain = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation();
    if name.len() <= LONGEST_NAME && name.starts_with(char::is_alphanumeric) && name.chars().all(plain) {
        return Ok(name.to_owned());
    }
    let allowed = "may have letters, digits, spaces and punctuation, and must start with a letter or digit";
    Err(section.conflict("name", format!("{name:?} is no name: it {allowed}, at most {LONGEST_NAME} bytes")))
}

type Presets = (&'static str, &'static [ShippedFile]);

fn single<T>(
    section: &Section<'_>,
    name: &str,
    default: &str,
    presets: Presets,
    read: ProfileReader<T>,
) -> Result<T, ConfigError> {
    match section.value(name) {
        None => named(section, name, default, presets, read),
        Some(value) => one(section, name, value, presets, read),
    }
}

fn several<T>(
    section: &Section<'_>,
    name: &str,
    default: &str,
    presets: Presets,
    read: ProfileReader<T>,
) -> Result<Vec<T>, ConfigError> {
    let profiles: Vec<T> = match section.value(name) {
        None => vec![named(section, name, default, presets, read)?],
        Some(Value::Array(items)) => {
            items.iter().map(|item| one(section, name, item, presets, read)).collect::<Result<_, _>>()?
        }
        Some(Value::String(text)) => {
            section.mark_list(name);
            split_commas(text).iter().map(|text| named(section, name, text, presets, read)).collect::<Result<_, _>>()?
        }
        Some(value) => vec![one(section, name, value, presets, read)?],
    };
    if profiles.is_empty() {
        return Err(section.conflict(name, "must name at least one profile"));
    }
    Ok(profiles)
}

fn one<T>(
    section: &Section<'_>,
    name: &str,
    value: &Value,
    presets: Presets,
    read: ProfileReader<T>,
) -> Result<T, ConfigError> {
    match value {
        Value::String(text) => named(section, name, text, presets, read),
        Value::Table(_) => read(&section.inline(name, value)?),
        other => Err(section.wrong_type(name, "the name of a profile, a path to a .toml file or a table", other)),
    }
}

fn named<T>(
    section: &Section<'_>,
    name: &str,
    text: &str,
    (folder, presets): Presets,
    read: ProfileReader<T>,
) -> Result<T, ConfigError> {
    let document = if let Some(preset) = ShippedFile::find(presets, text) {
        Document::parse(format!("{folder}/{text}.toml"), None, preset.text)?
    } else if is_path(text, "toml") {
        let path = section.resolve(name, text);
        let contents = section.read_file(name, &path)?;
        Document::parse(path.display().to_string(), path.parent().map(Path::to_owned), without_mark(&contents))?
    } else {
        let valid = format!("{}, or a path to a .toml file", ShippedFile::names(presets));
        return Err(section.unknown_name(name, text, valid));
    };
    let profile = read(&document.root())?;
    document.refuse_unknown()?;
    section.adopt_files(name, &document);
    Ok(profile)
}

/// Whether a text is meant as a path rather than as the name of a preset.
pub(crate) fn is_path(text: &str, extension: &str) -> bool {
    is_url(text) || text.contains(['/', '\\']) || Path::new(text).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load<T>(presets: Presets, read: ProfileReader<T>) -> Vec<T> {
        let document = Document::parse("test".into(), None, "").expect("valid");
        let root = document.root();
        presets.1.iter().map(|preset| named(&root, "key", preset.name, presets, read).expect(preset.name)).collect()
    }

    #[test]
    fn every_profile_that_ships_is_read_and_bears_its_name() {
        let devices = load(("devices", ShippedFile::DEVICES), device::read);
        let links = load(("links", ShippedFile::LINKS), link::read);
        let verifiers = load(("verifiers", ShippedFile::VERIFIERS), verifier::read);
        let models = load(("models", ShippedFile::MODELS), model::read);
        let names: Vec<&str> = devices
            .iter()
            .map(|profile| profile.name.as_str())
            .chain(links.iter().map(|profile| profile.name.as_str()))
            .chain(verifiers.iter().map(|verifier| verifier.profile.name.as_str()))
            .chain(models.iter().map(|model| model.size.name.as_str()))
            .collect();
        let files = [ShippedFile::DEVICES, ShippedFile::LINKS, ShippedFile::VERIFIERS, ShippedFile::MODELS].concat();
        assert_eq!(names, files.iter().map(|preset| preset.name).collect::<Vec<_>>());
        assert!(links.iter().all(|link| link.emulated == (link.name != "real")));
        assert!(verifiers.iter().all(|v| v.speed.is_some() && v.profile.source.contains("declared")));
        let memory: Vec<Option<u64>> = verifiers.iter().map(|verifier| verifier.memory_bytes).collect();
        let gigabytes = |count: u64| Some(count * 1_000_000_000);
        // host-cpu, a100, h100, h200: nobody has said how much of a server's memory one thread has.
        assert_eq!(memory, [None, gigabytes(80), gigabytes(80), gigabytes(141)]);
    }
}
