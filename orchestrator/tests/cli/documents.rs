//! What the documents and the help say of the command line is what the program takes: every command in them is parsed by the
//! program's own parser, and those in blocks that are marked `run` are run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{Command, CommandFactory, Parser};
use specfleet::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the workspace").to_path_buf()
}

/// The documents that show commands, by their paths from the root.
fn documents() -> BTreeMap<String, String> {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut documents: BTreeMap<String, String> =
        ["README.md", "CONTRIBUTING.md"].map(|name| (name.to_owned(), read(&root().join(name)))).into();
    for entry in fs::read_dir(root().join("docs")).expect("the folder of documents") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = format!("docs/{}", path.file_name().expect("a name").to_string_lossy());
            documents.insert(name, read(&path));
        }
    }
    documents
}

/// The lines of the blocks in `sh`, and whether their block is marked `run`. A line that ends with a backslash goes on.
fn command_lines(text: &str) -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    // Of another language, in `sh`, or in `sh` to be run.
    let mut block: Option<Option<bool>> = None;
    let mut begun = String::new();
    for line in text.lines() {
        match (block, line.trim().strip_prefix("```")) {
            (None, Some("sh")) => block = Some(Some(false)),
            (None, Some("sh run")) => block = Some(Some(true)),
            (None, Some(_)) => block = Some(None),
            (Some(_), Some("")) => block = None,
            (Some(Some(runs)), None) => {
                begun.push_str(line.trim());
                match begun.strip_suffix('\\') {
                    Some(more) => begun = more.to_owned(),
                    None => lines.push((runs, std::mem::take(&mut begun))),
                }
            }
            _ => {}
        }
    }
    lines
}

/// The words of a line as a shell would pass them on, without a comment at its end; variables and pipes are not known.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c == '#' && word.is_none() => break,
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The arguments of the program in a line, if it calls the program: what follows a pipe or redirects is not its.
fn call(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    let start = words.iter().position(|word| !word.contains('=') || word.starts_with("--"))?;
    let arguments = match words.get(start)?.as_str() {
        "specfleet" => &words[start + 1..],
        "cargo" => &words[words.iter().position(|word| word == "--")? + 1..],
        _ => return None,
    };
    let cargo_of_others = words[start] == "cargo"
        && (words.get(start + 1).is_none_or(|word| word != "run")
            || words.iter().any(|word| word == "--bin" || word == "--manifest-path"));
    if cargo_of_others {
        return None;
    }
    let end = arguments.iter().position(|word| ["|", ">", "2>", "&", "&&", ";"].contains(&word.as_str()));
    Some(arguments[..end.unwrap_or(arguments.len())].to_vec())
}

/// What is wrong with a call of the program, if anything is. Help is an answer too.
fn mistake(arguments: &[String]) -> Option<String> {
    let words = std::iter::once("specfleet".to_owned()).chain(arguments.iter().cloned());
    Cli::try_parse_from(words).err().filter(clap::Error::use_stderr).map(|error| error.to_string())
}

#[test]
fn every_command_of_the_documents_is_parsed() {
    let (mut calls, mut wrong) = (0, Vec::new());
    for (document, text) in documents() {
        for (_, line) in command_lines(&text) {
            if let Some(arguments) = call(&line) {
                calls += 1;
                wrong.extend(mistake(&arguments).map(|why| format!("{document}: {line}\n{why}")));
            }
        }
    }
    assert!(calls > 60, "only {calls} calls were found in the documents");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_that_are_marked_run_do_run() {
    let mut ran = 0;
    for (document, text) in documents() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (_, line) in command_lines(&text).into_iter().filter(|(runs, _)| *runs) {
            if words(&line).is_empty() {
                continue;
            }
            let Some(arguments) = call(&line) else { panic!("{document}: {line}: only calls of specfleet can be run") };
            let mut process = Process::new(env!("CARGO_BIN_EXE_specfleet"));
            let output = process.args(&arguments).current_dir(folder.path()).output().expect("the binary starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: {line}: {}\n{said}", output.status);
            ran += 1;
        }
    }
    assert!(ran > 15, "only {ran} commands are marked as to be run");
}

fn commands() -> Vec<Command> {
    let mut root = Cli::command();
    root.build();
    root.get_subcommands().filter(|command| command.get_name() != "help").cloned().collect()
}

/// The long flags of a command, without those that every command has.
fn flags(command: &Command) -> BTreeSet<String> {
    let long = |argument: &clap::Arg| argument.get_long().map(str::to_owned);
    let common = ["help", "version", "log", "log-format"];
    command.get_arguments().filter_map(long).filter(|flag| !common.contains(&flag.as_str())).collect()
}

#[test]
fn every_command_has_an_example_that_is_parsed() {
    for command in commands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<&str> = help.lines().map(str::trim).filter(|line| line.starts_with("specfleet")).collect();
        assert!(!examples.is_empty(), "{} has no example", command.get_name());
        for example in examples {
            let arguments = call(example).expect("a call of specfleet");
            assert_eq!(mistake(&arguments), None, "{}: {example}", command.get_name());
            let named = arguments.first().map(String::as_str) == Some(command.get_name());
            assert!(named, "{}: {example} is an example of another command", command.get_name());
        }
    }
}

/// The flags in the first cells of a section's tables, such as ``| `--out FILE` | …``.
fn flags_in_tables(section: &str) -> BTreeSet<String> {
    let cells = section.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let flag = |span: &str| {
        let name = span.strip_prefix("--")?;
        Some(name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
    };
    spans.filter_map(flag).collect()
}

#[test]
fn the_document_of_the_command_line_is_that_of_the_parser() {
    let text = fs::read_to_string(root().join("docs/cli.md")).expect("docs/cli.md is there");
    let sections: BTreeMap<&str, &str> = text
        .split("\n## specfleet ")
        .skip(1)
        .map(|section| (section.lines().next().unwrap_or_default(), section.split("\n## ").next().unwrap_or_default()))
        .collect();
    let commands = commands();
    let names: BTreeSet<&str> = commands.iter().map(Command::get_name).collect();
    let described: BTreeSet<&str> = sections.keys().copied().collect();
    assert_eq!(
        described, names,
        "docs/cli.md has one section per command: left what it has, right what the program has"
    );
    let of_a_run = flags_in_tables(sections["run"]);
    for command in &commands {
        let (name, has) = (command.get_name(), flags(command));
        let listed = flags_in_tables(sections[name]);
        let other_names: BTreeSet<String> =
            command.get_arguments().filter_map(clap::Arg::get_all_aliases).flatten().map(str::to_owned).collect();
        let invented: Vec<&String> =
            listed.iter().filter(|flag| !has.contains(*flag) && !other_names.contains(*flag)).collect();
        assert!(invented.is_empty(), "docs/cli.md gives {name} flags that it does not have: {invented:?}");
        // What simulate, capacity and sweep share with run stands there once.
        let missing: Vec<&String> =
            has.iter().filter(|flag| !listed.contains(*flag) && !of_a_run.contains(*flag)).collect();
        assert!(missing.is_empty(), "docs/cli.md does not say what {name} does with {missing:?}");
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let specfleet = |arguments: &[&str]| {
        let output = Process::new(env!("CARGO_BIN_EXE_specfleet")).args(arguments).output().expect("the binary starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("pages");
    specfleet(&["man", &pages.display().to_string()]);
    let scripts = ["bash", "zsh", "fish"].map(|shell| specfleet(&["completions", shell]));
    let page = specfleet(&["man"]);
    for command in commands() {
        let name = command.get_name();
        assert!(scripts.iter().all(|script| script.contains(name)), "a script does not know {name}");
        assert!(page.contains(name), "the manual page does not know {name}");
        let own = fs::read_to_string(pages.join(format!("specfleet-{name}.1"))).expect("a page of its own");
        for flag in flags(&command) {
            assert!(own.contains(&flag.replace('-', "\\-")), "the page of {name} does not know --{flag}");
        }
    }
}

#[test]
fn lines_are_divided_as_by_a_shell() {
    let joined = command_lines("```sh run\na \\\n b # c\n```\n```text\nd\n```\n");
    assert_eq!(joined[0], (true, "a b # c".to_owned()));
    assert_eq!(words("a 'b c' --d=\"e # f\" # g"), ["a", "b c", "--d=e # f"]);
    assert_eq!(call("X=1 specfleet runs | head"), Some(vec!["runs".to_owned()]));
    assert_eq!(call("cargo run --release -- check paper"), Some(vec!["check".to_owned(), "paper".to_owned()]));
    assert_eq!(call("cargo test --workspace"), None);
}
