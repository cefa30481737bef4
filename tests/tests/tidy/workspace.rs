//! Reading the workspace: what cargo says of it, and its sources as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in a folder of the workspace");
    root.to_path_buf()
}

/// `cargo metadata`, without the network if what it needs is there.
pub(crate) fn metadata() -> Value {
    let ask = |offline: &[&str]| {
        let command = ["metadata", "--format-version", "1", "--locked"];
        Command::new(env!("CARGO")).args(command).args(offline).current_dir(root()).output().expect("cargo runs")
    };
    // Packages of other platforms may be missing offline: their manifests are fetched then.
    let mut answer = ask(&["--offline"]);
    if !answer.status.success() {
        answer = ask(&[]);
    }
    assert!(answer.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).expect("cargo metadata prints JSON")
}

pub(crate) fn text_of(value: &Value) -> &str {
    value.as_str().expect("a string, by the format of cargo metadata")
}

pub(crate) fn list_of(value: &Value) -> &[Value] {
    value.as_array().expect("a list, by the format of cargo metadata")
}

/// A Rust file, by its path from the root.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Without comments.
    pub(crate) code: String,
}

/// The Rust files below these folders of the workspace.
pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        let mut open = vec![root().join(folder)];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(
                    fs::read_dir(&path).expect("a readable folder").map(|entry| entry.expect("an entry").path()),
                );
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push(Source { path: relative(&path), code: without_comments(&text), text });
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file below {folders:?}: the rule looks in the wrong place");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

pub(crate) fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("a file of the workspace");
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Line comments go; `//` in a string that is not an address (`://`) goes with its rest, which no rule here minds.
pub(crate) fn without_comments(text: &str) -> String {
    let code = |line: &'_ str| {
        let cut = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        line[..cut.map_or(line.len(), |(at, _)| at)].to_owned() + "\n"
    };
    text.lines().map(code).collect()
}

/// The members of the workspace: name of the package and folder.
pub(crate) fn members(metadata: &Value) -> BTreeMap<String, String> {
    let members: BTreeSet<&str> = list_of(&metadata["workspace_members"]).iter().map(text_of).collect();
    let folder = |package: &Value| {
        let manifest = Path::new(text_of(&package["manifest_path"]));
        relative(manifest.parent().expect("a manifest lies in a folder"))
    };
    list_of(&metadata["packages"])
        .iter()
        .filter(|package| members.contains(text_of(&package["id"])))
        .map(|package| (text_of(&package["name"]).to_owned(), folder(package)))
        .collect()
}

/// Whether `code` has `word`, not as a part of a longer one.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let starts = word.starts_with(part);
    let ends = word.ends_with(part);
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = code[at + word.len()..].chars().next().is_some_and(part);
        !(starts && before || ends && after)
    })
}

/// Fails if one of `sources` has one of `words`.
pub(crate) fn ban(sources: &[Source], words: &[&str], why: &str) {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.code.lines().enumerate() {
            let banned = words.iter().filter(|word| has_word(line, word));
            found.extend(banned.map(|word| format!("{}:{}: `{word}`", source.path, number + 1)));
        }
    }
    assert!(found.is_empty(), "{}\n{why}", found.join("\n"));
}

/// The `src` folders of all members, without the crate of tests.
pub(crate) fn production() -> Vec<Source> {
    let folders: Vec<String> = members(&metadata())
        .into_values()
        .filter(|folder| folder != "tests")
        .map(|folder| format!("{folder}/src"))
        .collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    sources(&folders)
}

#[test]
fn words_and_comments_are_told_apart() {
    assert!(has_word("gate::decide(x)", "decide") && !has_word("undecided", "decide"));
    assert!(has_word("self.retry.delay()", ".retry") && !has_word("self.retry_after", ".retry"));
    assert_eq!(without_comments("a // b\nlet u = \"http://c\";"), "a \nlet u = \"http://c\";\n");
}
