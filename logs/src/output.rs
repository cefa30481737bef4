//! Standard output, where results go. It can be a disk that is full or a reader that has gone (`| head`), and then
//! `println!` panics; this says so instead, and leaves it to the program whether to go on.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::visible::visible;

/// Prints to standard output until that fails, and nothing from then on: for a program that goes on without it.
#[derive(Debug, Default)]
pub struct Printer {
    failure: Option<io::Error>,
}

impl Printer {
    /// Prints a text at once, without a line break of its own. Control characters in it are shown, not obeyed.
    pub fn write(&mut self, text: impl Display) {
        if self.failure.is_none() {
            let mut output = io::stdout().lock();
            self.failure = write!(output, "{}", visible(&text.to_string())).and_then(|()| output.flush()).err();
        }
    }

    /// Why not everything was printed. A reader that has gone has seen what it wanted, and is no failure.
    pub fn finish(self) -> io::Result<()> {
        match self.failure {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// Prints a line.
pub fn print_line(line: impl Display) -> io::Result<()> {
    let mut printer = Printer::default();
    printer.write(format_args!("{line}\n"));
    printer.finish()
}

/// Prints the help or the version that somebody asked clap for; what [`crate::say!`] says of a failure begins with `name`.
pub fn print_help(name: &str, asked: &clap::Error) -> ExitCode {
    match asked.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            crate::say!("{name}: cannot print: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
