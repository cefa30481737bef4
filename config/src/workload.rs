//! Data sets: JSON lines to prompts.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::ConfigError;
use crate::presets::Preset;
use crate::read::read_text;

/// One task: what the models read, and what the text is judged against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Line number in its data set, from 0.
    pub line: u32,
    /// Name of its data set.
    pub data_set: String,
    /// What the models read, without the begin-of-text token.
    pub text: String,
    /// The question without the prompt's form; the whole prompt where the line gives a prompt.
    pub question: String,
    /// The reference completion.
    pub reference: String,
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
struct Line {
    question: Option<String>,
    answer: Option<String>,
    prompt: Option<String>,
    reference: Option<String>,
}

impl Workload {
    /// A data set that ships.
    pub fn preset(name: &str) -> Option<Result<Workload, ConfigError>> {
        Preset::find(Preset::WORKLOADS, name)
            .map(|preset| Workload::parse(&format!("workloads/{name}.jsonl"), name, preset.text))
    }

    /// A file.
    pub fn open(path: &Path) -> Result<Workload, ConfigError> {
        let name = path.file_stem().map_or_else(|| "workload".into(), |stem| stem.to_string_lossy());
        Workload::parse(&path.display().to_string(), &name, &read_text(path)?)
    }

    /// Parses JSON lines; `origin` is for messages.
    pub fn parse(origin: &str, name: &str, text: &str) -> Result<Workload, ConfigError> {
        let prompts = text
            .lines()
            .enumerate()
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
    if line.trim().is_empty() {
        return Err("the line is empty; it needs one JSON object".into());
    }
    let number = u32::try_from(index).map_err(|_| "too many lines")?;
    let line: Line = serde_json::from_str(line).map_err(|error| json_problem(&error))?;
    let prompt = |text: String, question: String, reference: String| {
        if question.trim().is_empty() || reference.trim().is_empty() {
            return Err("question, answer, prompt and reference must not be empty".to_owned());
        }
        Ok(Prompt { line: number, data_set: data_set.to_owned(), text, question, reference })
    };
    match (line.question, line.answer, line.prompt, line.reference) {
        (Some(question), Some(answer), None, None) => {
            if answer.trim().is_empty() {
                return Err("question, answer, prompt and reference must not be empty".into());
            }
            prompt(format!("Question: {question}\nAnswer:"), question, format!(" {}", strip_marks(&answer)))
        }
        (None, None, Some(text), Some(reference)) => prompt(text.clone(), text, reference),
        _ => Err("needs either question and answer, or prompt and reference".into()),
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

/// SHA-256 in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
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
        assert_eq!(first.reference, " It is 4.\n#### 4");
        assert_eq!((second.text.as_str(), second.reference.as_str(), second.line), ("Say", " hi", 1));
    }

    #[test]
    fn mistakes_name_their_line() {
        refused("", expect!["data.jsonl: the file is empty; it needs one JSON object per line"]);
        refused(
            "{\"prompt\": \"a\", \"reference\": \"b\"}\n\n",
            expect!["data.jsonl:2: the line is empty; it needs one JSON object"],
        );
        refused(
            "{\"prompt\": \"a\", \"reference\": \"b\"}\n{\"prompt\": \"a\"",
            expect!["data.jsonl:2: not a valid prompt: EOF while parsing an object (column 14)"],
        );
        refused(
            "{\"question\": \"a\", \"reference\": \"b\"}",
            expect!["data.jsonl:1: needs either question and answer, or prompt and reference"],
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
                assert!(prompt.reference.contains("#### ") && !prompt.reference.contains("<<"), "{prompt:?}");
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
