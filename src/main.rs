//! The `aop` binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    aop::cli::main()
}
