//! argv to subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
