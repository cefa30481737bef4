//! The `specfleet` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    specfleet_files::room::on_own_stack(specfleet::cli::program).unwrap_or_else(|full| {
        specfleet_logs::say!("specfleet: {full}");
        ExitCode::FAILURE
    })
}
