//! Whole live nodes over real libp2p, in virtual time: the `mesh` tier of `aop sim`. README.md says how and why.

use std::process::ExitCode;

use clap::Parser;

mod arguments;
mod entropy;
mod links;
mod notebook;
mod plan;
mod refusals;
mod runs;
mod show;
mod tap;
mod transport;
mod updates;
mod wire;
mod world;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.child() {
        Some(cell) => runs::play_one(&arguments, cell),
        None => runs::play_all(&arguments),
    };
    match ended {
        // Threads of abandoned runs are not waited for.
        Ok(code) => std::process::exit(code.into()),
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
