//! Data sets: JSON lines to prompts.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::ConfigError;
use crate::presets::ShippedFile;
use crate::read::{read_text_as_it_is, without_mark};

/// One task: what the models read, and what the text is judged against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Number of its line in the file, from 0; blank lines count.
    pub line: u32,
    /// Name of its data set.
    pub data_set: String,
    /// What the models read, without the begin-of-text token.
    pub text: String,
    /// The question without the prompt's form; the whole prompt where the line gives a prompt.
    pub question: String,
    /// The reference completion; without one there is nothing to score a text against.
    pub reference: Option<String>,
}

/// A data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name: the preset's, or the file's without folder and extension.
    pub name: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Its prompts, in the order of the lines; at least one.
    pub prompts: Vec<Prompt>,
}

/// A line of a data set; keys beside these are ignored, as data sets often carry more.
#[derive(Deserialize)]
struct WorkloadLine {
    question: Option<String>,
    answer: Option<Reference>,
    prompt: Option<String>,
    reference: Option<Reference>,
}

/// What a line gives as right: a text, or a bare number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a number")]
enum Reference {
    Text(String),
    Number(serde_json::Number),
}

impl Reference {
    /// As a completion. A bare number is the final answer itself, so it gets the mark of one.
    fn completion(self) -> Result<String, String> {
        match self {
            Reference::Text(text) if text.trim().is_empty() => Err(EMPTY.to_owned()),
            Reference::Text(text) => Ok(text),
            Reference::Number(number) => Ok(format!("#### {number}")),
        }
    }
}

/// Longest line, in bytes: more than any model's context takes, and little enough to be turned into tokens in a moment.
const LONGEST_LINE: usize = 1 << 20;

const EMPTY: &str = "question, answer, prompt and reference must not be empty";

impl Workload {
    /// A data set that ships.
    pub fn preset(name: &str) -> Option<Result<Workload, ConfigError>> {
        ShippedFile::find(ShippedFile::WORKLOADS, name)
            .map(|preset| Workload::parse(&format!("workloads/{name}.jsonl"), name, preset.text))
    }

    /// A file.
    pub fn open(path: &Path) -> Result<Workload, ConfigError> {
        Workload::of_file(path, &read_text_as_it_is(path)?)
    }

    /// A file whose contents are at hand.
    pub(crate) fn of_file(path: &Path, text: &str) -> Result<Workload, ConfigError> {
        let name = path.file_stem().map_or_else(|| "workload".into(), |stem| stem.to_string_lossy());
        Workload::parse(&path.display().to_string(), &name, text)
    }

    /// Parses JSON lines, passing over blank ones; `origin` is for messages.
    pub fn parse(origin: &str, name: &str, text: &str) -> Result<Workload, ConfigError> {
        let prompts = without_mark(text)
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| {
                parse_line(name, index, line).map_err(|problem| ConfigError::Line {
                    origin: origin.to_owned(),
                    line: index + 1,
                    problem,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if prompts.is_empty() {
            return Err(ConfigError::EmptyWorkload { origin: origin.to_owned() });
        }
        Ok(Workload { name: name.to_owned(), sha256: sha256_hex(text.as_bytes()), prompts })
    }
}

fn parse_line(data_set: &str, index: usize, line: &str) -> Result<Prompt, String> {
    let number = u32::try_from(index).map_err(|_| "too many lines")?;
    if line.len() > LONGEST_LINE {
        return Err(format!("the line has {} bytes, at most {LONGEST_LINE} are taken", line.len()));
    }
    let line: WorkloadLine = serde_json::from_str(line).map_err(|error| json_problem(&error))?;
    let prompt = |text: String, question: String, reference: Option<String>| {
        if question.trim().is_empty() {
            return Err(EMPTY.to_owned());
        }
        Ok(Prompt { line: number, data_set: data_set.to_owned(), text, question, reference })
    };
    match (line.question, line.answer, line.prompt, line.reference) {
        (Some(question), answer, None, None) => {
            let answer = answer.map(Reference::completion).transpose()?;
            let reference = answer.map(|answer| format!(" {}", strip_marks(&answer)));
            prompt(format!("Question: {question}\nAnswer:"), question, reference)
        }
        (None, None, Some(text), reference) => {
            let reference = reference.map(Reference::completion).transpose()?;
            prompt(text.clone(), text, reference)
        }
        _ => Err("needs either question and perhaps answer, or prompt and perhaps reference".into()),
    }
}

/// What the parser says, without its own line number: each line is a document of its own to it.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("not a valid prompt: {what} (column {})", error.column())
}

/// Takes out GSM8K's calculator marks, `<<48/2=24>>`. A mark that does not close stays.
fn strip_marks(answer: &str) -> String {
    let mut out = String::with_capacity(answer.len());
    let mut rest = answer;
    while let Some((before, after)) = rest.split_once("<<") {
        let Some((_, behind)) = after.split_once(">>") else { break };
        out.push_str(before);
        rest = behind;
    }
    out.push_str(rest);
    out
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    specfleet_files::hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn refused(text: &str, message: Expect) {
        let error = Workload::parse("data.jsonl", "data", text).expect_err("refused");
        message.assert_eq(&error.to_string());
    }

    #[test]
    fn both_kinds_of_lines() {
        let text = "{\"question\": \"2+2?\", \"answer\": \"It is <<2+2=4>>4.\\n#### 4\"}\r\n\
                    {\"prompt\": \"Say\", \"reference\": \" hi\", \"id\": 7}\n";
        let workload = Workload::parse("data.jsonl", "data", text).expect("valid");
        let [first, second] = &workload.prompts[..] else { panic!("two prompts") };
        assert_eq!(first.text, "Question: 2+2?\nAnswer:");
        assert_eq!(first.question, "2+2?");
        assert_eq!(first.reference.as_deref(), Some(" It is 4.\n#### 4"));
        assert_eq!((second.text.as_str(), second.reference.as_deref(), second.line), ("Say", Some(" hi"), 1));
    }

    #[test]
    fn marks_blank_lines_numbers_and_missing_references() {
        let text = "\u{feff}{\"prompt\": \"a\"}\r\n \r\n{\"question\": \"b\", \"answer\": 7}\n\n{\"prompt\": \"c\", \"reference\": null}";
        let workload = Workload::parse("data.jsonl", "data", text).expect("valid");
        let read: Vec<_> =
            workload.prompts.iter().map(|p| (p.line, p.question.as_str(), p.reference.as_deref())).collect();
        assert_eq!(read, [(0, "a", None), (2, "b", Some(" #### 7")), (4, "c", None)]);
        assert_eq!(workload.sha256, sha256_hex(text.as_bytes()), "the digest is the file's");
    }

    #[test]
    fn mistakes_name_their_line() {
        refused("", expect!["data.jsonl: the file is empty; it needs one JSON object per line"]);
        refused("\u{feff}\n \n", expect!["data.jsonl: the file is empty; it needs one JSON object per line"]);
        refused(
            "{\"prompt\": \"a\", \"reference\": \"b\"}\n{\"prompt\": \"a\"",
            expect!["data.jsonl:2: not a valid prompt: EOF while parsing an object (column 14)"],
        );
        refused(
            "{\"question\": \"a\", \"reference\": \"b\"}",
            expect!["data.jsonl:1: needs either question and perhaps answer, or prompt and perhaps reference"],
        );
        refused(
            "{\"question\": 1, \"answer\": \"b\"}",
            expect!["data.jsonl:1: not a valid prompt: invalid type: integer `1`, expected a string (column 14)"],
        );
        refused(
            "{\"question\": \"a\", \"answer\": \" \"}",
            expect!["data.jsonl:1: question, answer, prompt and reference must not be empty"],
        );
    }

    #[test]
    fn marks_are_taken_out() {
        assert_eq!(strip_marks("a <<1+1=2>>2 b <<x>>"), "a 2 b ");
        assert_eq!(strip_marks("1 << 2"), "1 << 2");
    }

    #[test]
    fn what_ships_loads() {
        for (name, count) in [("word-problems", 400), ("gsm8k", 200), ("calibration", 200)] {
            let workload = Workload::preset(name).expect("ships").expect("valid");
            assert_eq!(workload.prompts.len(), count, "{name}");
            for prompt in &workload.prompts {
                let reference = prompt.reference.as_deref().expect("all that ship have one");
                assert!(reference.contains("#### ") && !reference.contains("<<"), "{prompt:?}");
            }
        }
    }

    #[test]
    fn calibration_prompts_are_not_in_the_workload() {
        let of = |name| Workload::preset(name).expect("ships").expect("valid").prompts;
        let work = of("word-problems");
        for prompt in of("calibration") {
            assert!(work.iter().all(|other| other.question != prompt.question), "{}", prompt.question);
        }
    }
}
