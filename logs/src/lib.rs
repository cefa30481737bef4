//! What the programs say about themselves: the flags `--log` and `--log-format` of `specfleet`, `verifier-pool` and
//! `device-agent`, and where it goes.
//!
//! Everything goes to standard error; standard output is for results ([`print_line`], [`Printer`]). Without a flag only warnings of our own crates are
//! shown: what is not shown costs a comparison of two numbers, and nothing is formatted or allocated for it.

mod output;
mod visible;

use std::env;
use std::io::Write;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use thiserror::Error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub use output::{Printer, print_help, print_line};
pub use visible::{visible, visible_name};

/// Names the filter where no flag does.
pub const VARIABLE: &str = "SPECFLEET_LOG";

/// What is shown unless somebody asks for more: libraries' errors, and warnings of ours.
const QUIET: &str = "error,specfleet=warn,device_agent=warn,verifier_pool=warn";

/// The flags.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Diagnostics")]
pub struct LogArgs {
    /// What to log to standard error: a level (error, warn, info, debug, trace, off), or levels by crate, such as
    /// warn,verifier_pool=debug; the variable SPECFLEET_LOG does the same
    #[arg(long, value_name = "FILTER", global = true)]
    pub log: Option<String>,
    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line to read.
    #[default]
    Text,
    /// A JSON object per line, with the fields of the event and of the spans around it.
    Json,
}

/// Why nothing can be logged as asked.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter is none.
    #[error(
        "{place} {filter:?}: {reason}; it takes error, warn, info, debug, trace or off, or such levels by crate \
         (warn,verifier_pool=debug)"
    )]
    Filter {
        /// The flag or the variable.
        place: &'static str,
        /// What it said.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Tells the user something on standard error, as `eprintln!` does. A line that cannot be written, because the disk behind it
/// is full or its reader has gone, is lost: what the program does goes on. Control characters are shown, not obeyed.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::say_line(::std::format_args!($($words)*)) };
}

/// What [`say!`] does.
pub fn say_line(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", visible(&line.to_string()));
}

impl LogArgs {
    /// Starts logging. Call it once, first thing; a second call changes nothing.
    pub fn start(&self) -> Result<(), LogError> {
        let filter = self.filter()?;
        // What cannot be written is lost; saying so would need the same standard error.
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).log_internal_errors(false);
        let lines = match self.log_format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().with_current_span(true).with_span_list(true).boxed(),
        };
        // The error is a logger that somebody (a test's harness) has started before: it stays.
        let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
        Ok(())
    }

    fn filter(&self) -> Result<Targets, LogError> {
        match (&self.log, env::var(VARIABLE)) {
            (Some(filter), _) => parse("--log", filter),
            (None, Ok(filter)) if !filter.trim().is_empty() => parse(VARIABLE, &filter),
            (None, _) => parse("--log", QUIET),
        }
    }
}

fn parse(place: &'static str, filter: &str) -> Result<Targets, LogError> {
    let wrong = |reason: String| LogError::Filter { place, filter: filter.to_owned(), reason };
    // Blanks after commas are no part of a crate's name.
    let parts: Vec<&str> = filter.split(',').map(str::trim).collect();
    // A word that is no level would be taken for the name of a crate, and everything of it shown.
    for part in parts.iter().filter(|part| !part.contains('=')) {
        tracing::level_filters::LevelFilter::from_str(part)
            .ok()
            .filter(|_| part.parse::<usize>().is_err() && !part.is_empty())
            .ok_or_else(|| wrong(format!("{part:?} is no level")))?;
    }
    Targets::from_str(&parts.join(",")).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_says_what_is_shown() {
        let quiet = parse("--log", QUIET).expect("ours");
        assert!(quiet.would_enable("verifier_pool::pool_actor", &Level::WARN));
        assert!(!quiet.would_enable("verifier_pool::pool_actor", &Level::INFO));
        assert!(!quiet.would_enable("quinn::connection", &Level::WARN));
        let some = parse("--log", "warn, device_agent=debug").expect("valid");
        assert!(some.would_enable("device_agent::actor", &Level::DEBUG));
        assert!(!some.would_enable("verifier_pool::door", &Level::INFO));
        assert!(!parse("--log", "off").expect("valid").would_enable("specfleet", &Level::ERROR));
    }

    #[test]
    fn mistakes_name_the_flag_and_what_it_takes() {
        for wrong in ["loud", "debg,verifier_pool=debug", "verifier_pool=loud", "5", "", "warn,,info", "a=b=c"] {
            let error = parse("--log", wrong).expect_err(wrong).to_string();
            assert!(error.starts_with(&format!("--log {wrong:?}: ")) && error.contains("trace or off"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
