//! Paths as texts. TOML holds Unicode, and a path on Unix holds any bytes but zero: a path that is no Unicode stands in a
//! scenario as a `file:` URL, whose percent signs hold bytes (`file:///data/%FF.jsonl`), so that what a run stores of its
//! scenario still finds the file.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

const SCHEME: &str = "file:";

/// What is no part of a path in a URL, and what TOML or a list with commas would read otherwise.
const ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'\'').add(b',').add(b'?').add(b'\\').add(b'`');

/// The text that stands for `path`: itself where it can, a `file:` URL where it is no Unicode or would be read as one.
pub(crate) fn path_to_text(path: &Path) -> Cow<'_, str> {
    match path.to_str() {
        Some(text) if !is_url(text) => Cow::Borrowed(text),
        _ => {
            // An absolute path comes after the empty name of a host.
            let host = if path.has_root() { "//" } else { "" };
            Cow::Owned(format!("{SCHEME}{host}{}", percent_encode(path.as_os_str().as_encoded_bytes(), ENCODED)))
        }
    }
}

/// The path that `text` stands for. A URL may name this machine (`file:///data`, `file://localhost/data`) or be relative.
pub(crate) fn text_to_path(text: &str) -> PathBuf {
    let Some(url) = text.strip_prefix(SCHEME) else { return PathBuf::from(text) };
    let after = |host: &str| url.strip_prefix(host).filter(|path| path.starts_with('/'));
    let local = after("//localhost").or(after("//"));
    bytes_to_path(percent_decode_str(local.unwrap_or(url)).collect())
}

/// Whether a text stands for a path whatever it looks like.
pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with(SCHEME)
}

#[cfg(unix)]
fn bytes_to_path(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    PathBuf::from(OsString::from_vec(bytes))
}

/// Elsewhere a path is no list of bytes: one that is no Unicode is not found under this name, and so refused.
#[cfg(not(unix))]
fn bytes_to_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unicode_stays_as_it_is() {
        for text in ["w.jsonl", "/data/ü ß,%41.jsonl", "../x", "embedded", "C:\\models"] {
            assert_eq!((path_to_text(Path::new(text)).as_ref(), text_to_path(text).as_path()), (text, Path::new(text)));
        }
    }

    #[test]
    fn urls_name_files_of_this_machine() {
        for (url, path) in [
            ("file:/data/a%20b", "/data/a b"),
            ("file:///data/x", "/data/x"),
            ("file://localhost/data/x", "/data/x"),
            ("file:w.jsonl", "w.jsonl"),
            ("file:odd%zz", "odd%zz"),
        ] {
            assert_eq!(text_to_path(url), Path::new(path), "{url}");
        }
        assert_eq!(path_to_text(Path::new("file:x")), "file:file:x");
    }

    #[cfg(unix)]
    proptest::proptest! {
        #[test]
        fn every_path_comes_back(bytes in proptest::collection::vec(1u8.., 0..40), absolute in proptest::bool::ANY) {
            let bytes = if absolute { [b"/".to_vec(), bytes].concat() } else { bytes };
            let path = bytes_to_path(bytes);
            let text = path_to_text(&path).into_owned();
            proptest::prop_assert_eq!(text_to_path(&text).into_os_string(), path.into_os_string(), "{}", text);
        }
    }
}
