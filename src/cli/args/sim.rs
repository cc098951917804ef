//! What can be typed after `aop sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SimCommand {
    /// Play scenarios and answer their questions
    ///
    /// Every cell of a scenario's sweep is played once for each seed; equal seeds give equal runs. The first run of each
    /// scenario is played twice and compared, unless it is large (1,000,000 nodes of the model, 300 real ones).
    /// Ctrl-c finishes the runs that have begun and keeps what is finished; a second one does not wait.
    #[command(before_help = "Examples:\n\
            \x20 aop sim run simulations/*.toml\n\
            \x20 aop sim run simulations/loss-push.toml --seeds 5 --out report\n\
            \x20 aop sim run one.toml --set network.nodes=1e6 --set \"network.loss.rate=[0, 0.1, 0.3]\"")]
    #[command(
        after_help = "Exit codes: 0 all expectations were met, 1 one was not, 2 usage or a flaw in a file, \
            6 a checker failed, 7 no progress after healing, 130 interrupted."
    )]
    Run(SimRunArgs),
    /// Compare results with a baseline; exits 1 if something got worse by more than --fail-on
    ///
    /// Runs are matched by scenario and swept values. A change is marked when it is beyond the threshold and each mean lies
    /// outside of the other's 95 % interval. Results of different tiers are laid over one another: there, every
    /// difference counts, for better or worse.
    #[command(before_help = "Examples:\n\
            \x20 aop sim compare simulations/baselines/default.json report --fail-on 5%\n\
            \x20 aop sim compare model/ core/ mesh/           # folders of --out: three tiers side by side")]
    Compare(SimCompareArgs),
    /// Print what the formulas say
    #[command(before_help = "Examples:\n\
            \x20 aop sim theory -n 10000 -k 3\n\
            \x20 aop sim theory -n 1e6 -k 3 --loss 0.1 --rounds 5\n\
            \x20 aop sim theory -n 1000 --degree 6 --json")]
    Theory(SimTheoryArgs),
    /// Play one run again and print what it measured; exits 6 or 7 if a checker fails
    #[command(before_help = "Examples:\n\
            \x20 aop sim replay simulations/fanout-once.toml --seed 7 --set network.nodes=1000\n\
            \x20 aop sim replay report --seed 7 --trace       # from a folder of --out")]
    Replay(SimReplayArgs),
    /// List scenarios and their questions
    #[command(before_help = "Examples:\n\
            \x20 aop sim list                                 # simulations/*.toml\n\
            \x20 aop sim list --metrics                       # what can be measured and expected")]
    List(SimListArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// For people
    Table,
    /// One document with everything
    Json,
    /// One row a run
    Csv,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SimRunArgs {
    /// Scenarios, or folders of them
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Play this seed only
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(in crate::cli) seed: Option<u64>,
    /// Play this many seeds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::cli) seeds: Option<u32>,
    /// Runs that are played at the same time; the default is one for each core. Results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) jobs: Option<u16>,
    /// Set a key of every file; a list sweeps it
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub(in crate::cli) settings: Vec<(String, String)>,
    /// What to print on stdout
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(in crate::cli) format: Format,
    /// Folder to write report.html, result.json, baseline.json, runs.csv, curve.csv and charts to
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SimCompareArgs {
    /// result.json, or the folder that has it
    #[arg(value_name = "BASE")]
    pub(in crate::cli) base: PathBuf,
    /// What to compare with it, likewise
    #[arg(value_name = "NEW", required = true)]
    pub(in crate::cli) new: Vec<PathBuf>,
    /// Exit 1 if a metric got worse by more than this; without it, 5 % is marked and nothing fails
    #[arg(long, value_name = "N%", value_parser = percentage)]
    pub(in crate::cli) fail_on: Option<f64>,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SimTheoryArgs {
    /// Nodes; 1e6 is a number too
    #[arg(short, long, value_name = "N", value_parser = count)]
    pub(in crate::cli) nodes: u64,
    /// Peers a node sends to in a round (the paper's k)
    #[arg(short = 'k', long, value_name = "K", default_value_t = 3)]
    pub(in crate::cli) fanout: u64,
    /// Share of messages that are lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(in crate::cli) loss: f64,
    /// Links of a node of a mesh
    #[arg(long, value_name = "D", default_value_t = 6)]
    pub(in crate::cli) degree: u64,
    /// In how many rounds a node sends an update where it stops then; the paper's Algorithm 4 says 1
    #[arg(long, value_name = "A", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) rounds: u32,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SimReplayArgs {
    /// A scenario, or a folder of --out
    #[arg(value_name = "FILE|DIR")]
    pub(in crate::cli) from: PathBuf,
    /// The seed of the run
    #[arg(long, value_name = "N")]
    pub(in crate::cli) seed: u64,
    /// Set a key; a sweep needs one value for each of its keys
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub(in crate::cli) settings: Vec<(String, String)>,
    /// Which scenario of a folder that has several
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) scenario: Option<String>,
    /// Print what happened, too
    #[arg(long)]
    pub(in crate::cli) trace: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SimListArgs {
    /// Scenarios, or folders of them
    #[arg(value_name = "FILE|DIR", default_value = "simulations")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// List the metrics instead
    #[arg(long)]
    pub(in crate::cli) metrics: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    // At the first `=`: a value may hold more of them.
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.trim().into())),
        _ => Err("write KEY=VALUE, for example network.nodes=1000".into()),
    }
}

/// A share from `5%`.
fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    // A threshold that is no number would never be exceeded.
    match number.filter(|number| number.is_finite() && *number >= 0.0) {
        Some(number) => Ok(number / 100.0),
        None => Err("write a percentage, for example 5%".into()),
    }
}

fn count(text: &str) -> Result<u64, String> {
    // Read as a float, so that `1e6` is a number; whole ones are exact far beyond the bound.
    match text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && (2.0..=1e12).contains(number)) {
        Some(number) => Ok(number as u64),
        None => Err("a whole number, at least 2".into()),
    }
}
