//! The name of a run as it comes from an address: it becomes a path, so it is checked before anything looks at a disk.

use std::path::{Path, PathBuf};

use super::refusal::PageRefusal;

/// The longest name that the ledger gives or takes.
const LONGEST: usize = 128;

/// A name that stays inside the ledger folder: no separator, no `..`, nothing hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunName(String);

impl RunName {
    /// Takes the names that the ledger takes.
    pub(super) fn parse(text: &str) -> Result<RunName, PageRefusal> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good =
            text.len() <= LONGEST && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain);
        if good {
            return Ok(RunName(text.to_owned()));
        }
        let shown: String = text.chars().take(LONGEST).collect();
        Err(PageRefusal::bad_request(format!(
            "{shown:?} is no run name: letters, digits, '-', '_' and '.', a letter or digit first, at most {LONGEST}"
        )))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn folder(&self, ledger: &Path) -> PathBuf {
        ledger.join(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_the_ledger() {
        let long = "a".repeat(129);
        for bad in
            ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "a\0b", "a b", "ä", "-a", "_calibration", &long]
        {
            assert!(RunName::parse(bad).is_err(), "{bad:?}");
        }
        let name = RunName::parse("20261124-014210-1f3a").expect("a usual name");
        assert_eq!(name.folder(Path::new("runs")), Path::new("runs/20261124-014210-1f3a"));
        // Dots inside are harmless: there is no separator.
        assert!(RunName::parse("a..b").is_ok());
    }
}
