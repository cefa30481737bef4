//! The documents name things that exist.

use std::collections::BTreeSet;
use std::fs;

use crate::workspace::*;

/// What stands between single backticks in `text`, without code blocks.
fn quoted(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

/// Whether the workspace has a file or folder of this path.
fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// Fails if `reference`, a `path` or `path.rs::function`, names what is not there.
fn check_reference(document: &str, reference: &str) {
    let (path, function) = reference.split_once("::").map_or((reference, None), |(path, f)| (path, Some(f)));
    assert!(exists(path), "{document} names `{reference}`, but there is no {path}: correct the document");
    if let Some(function) = function {
        let text = fs::read_to_string(root().join(path)).expect("a Rust file");
        assert!(
            has_word(&text, &format!("fn {function}")),
            "{document} names `{reference}`, but {path} has no function of that name: correct the document"
        );
    }
}

/// A quotation that means a file of this workspace: it starts with a folder of the workspace, or ends like a source.
fn is_reference(quotation: &str, folders: &BTreeSet<String>) -> bool {
    let path = quotation.split("::").next().unwrap_or_default();
    let plain = path.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
    let ours = path.split_once('/').is_some_and(|(first, _)| folders.contains(first));
    plain && ours && (path.ends_with('/') || path.rsplit('/').next().is_some_and(|name| name.contains('.')))
}

/// Every document for people, by its path.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).expect("the folder of documents") {
        paths.push(relative(&entry.expect("an entry").path()));
    }
    paths.sort();
    let read = |path: &String| fs::read_to_string(root().join(path)).unwrap_or_else(|_| panic!("{path} is missing"));
    paths.iter().map(|path| (path.clone(), read(path))).collect()
}

#[test]
fn documents_name_what_exists() {
    let metadata = metadata();
    let folders: BTreeSet<String> = members(&metadata).into_values().collect();
    for (document, text) in documents() {
        for quotation in quoted(&text).into_iter().filter(|quotation| is_reference(quotation, &folders)) {
            check_reference(&document, quotation);
        }
    }
}

/// Most bytes of README: a stranger reads it to the end.
const MOST_README: usize = 9_216;

/// Most characters of one of its lines, a terminal's.
const MOST_WIDTH: usize = 130;

#[test]
fn readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md is there");
    assert!(text.len() <= MOST_README, "README.md has {} bytes, more than {MOST_README}: docs/ has room", text.len());
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    assert!(widest <= MOST_WIDTH, "README.md has a line of {widest} characters, more than {MOST_WIDTH}");
}

#[test]
fn links_lead_somewhere() {
    for (document, text) in documents() {
        let folder = root().join(&document);
        let folder = folder.parent().expect("a document lies in a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.contains(' ');
            assert!(elsewhere || folder.join(path).exists(), "{document} links to {target}, which is not there");
        }
    }
}

#[test]
fn every_invariant_names_its_test() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let paragraphs: Vec<&str> = text.split("\n\n").filter(|part| part.contains("Architecture Invariant:")).collect();
    assert!(paragraphs.len() >= 7, "ARCHITECTURE.md lists {} invariants; the project has more", paragraphs.len());
    for paragraph in paragraphs {
        let tests = quoted(paragraph).into_iter().filter(|quotation| quotation.contains(".rs::")).count();
        let title = paragraph.lines().next().unwrap_or_default();
        let owed = paragraph.split_once("Owed: ").and_then(|(_, rest)| rest.split_whitespace().next());
        if let Some(path) = owed {
            assert!(!exists(path), "\"{title}\" still owes {path}, which is there now: name its test instead");
        }
        assert!(
            tests > 0 || owed.is_some(),
            "\"{title}\" names no test: an invariant that nothing proves is a wish (`path/file.rs::test`)"
        );
    }
}

#[test]
fn every_crate_is_on_the_map() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    for folder in members(&metadata()).into_values() {
        assert!(
            text.contains(&format!("`{folder}/`")),
            "ARCHITECTURE.md does not say what `{folder}/` is for: add it to the map of folders"
        );
    }
}

#[test]
fn code_blocks_are_no_quotations() {
    assert_eq!(quoted("a `b` c\n```\n`d`\n```\n`e/f.rs`"), ["b", "e/f.rs"]);
}
