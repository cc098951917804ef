//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// What is put before the arguments to run this program again.
pub const PROGRAM: &str = "cargo run --release --manifest-path simulations/mesh/Cargo.toml --";

const EXAMPLES: &str = "Examples:
  cargo run --release --manifest-path simulations/mesh/Cargo.toml -- simulations/calibration.toml
  cargo run --release --manifest-path simulations/mesh/Cargo.toml -- FILE --set network.nodes=250 --out mesh.json
  aop sim compare mesh.json DIR                  # beside results of other tiers";

const AFTER: &str = "\
Each run is a process of its own, and gives the same trace hash again with the same lock file. Exit codes: 0 all met, 1 an \
expectation failed or a run could not be made, 2 usage, 6 a checker failed, 7 the world did not come to agree.";

/// Plays scenarios of tier `mesh`: whole live aop nodes over real libp2p, in virtual time.
#[derive(Parser)]
#[command(name = "aop-mesh", version, before_help = EXAMPLES, after_help = AFTER)]
pub struct Arguments {
    /// Scenario files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The first seed, in place of the file's; alone it is the only one.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How many seeds, in place of the file's.
    #[arg(long, value_name = "N")]
    pub seeds: Option<NonZeroUsize>,
    /// Runs beside each other; by default as many as there are processors. A run of 1,000 nodes takes 3 GB.
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Sets a key of every file, for example network.nodes=250.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Writes the results as JSON to a file too.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Plays one cell with one seed and prints what it found, for the process that asked.
    #[arg(long, hide = true, value_name = "CELL", requires = "seed")]
    play: Option<usize>,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// The document that `aop sim run --format json` prints.
    Json,
}

impl Arguments {
    /// The cell to play, if this process is to play one.
    pub fn child(&self) -> Option<usize> {
        self.play
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("a setting is KEY=VALUE, for example network.nodes=250".into()),
    }
}
