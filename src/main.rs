//! argv -> subcommand -> exit code (0 yes or done, 1 no, 2 could not).

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(encamp::shell::commands::main())
}
