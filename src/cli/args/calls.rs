//! What can be typed to call agents, and to look at calls later.

use clap::{Args, Subcommand};

use super::{ClientArgs, agent_name};
use crate::proto::card::Balance;

#[derive(Args, Debug)]
pub(in crate::cli) struct CallArgs {
    /// Full name, bare name, id, or name in the original document
    #[arg(
        value_name = "AGENT", allow_hyphen_values = true, value_parser = agent_name, required_unless_present = "batch"
    )]
    pub(in crate::cli) agent: Option<String>,
    /// The agent's input document; - is stdin; the default is {}
    #[arg(value_name = "JSON")]
    pub(in crate::cli) input: Option<String>,
    /// Short for {"task": TEXT}
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    pub(in crate::cli) task: Option<String>,
    /// Seconds the call may take, at most 300, with --async 86400; the default is what the agent's limits add up to
    #[arg(long, value_name = "S")]
    pub(in crate::cli) timeout: Option<f64>,
    /// Do not wait: print the id of a task, for `aop task show`
    #[arg(long = "async", conflicts_with_all = ["stream", "batch"])]
    pub(in crate::cli) is_async: bool,
    /// Print the answer piece by piece as it comes; ctrl-c ends the call
    #[arg(long, conflicts_with = "batch")]
    pub(in crate::cli) stream: bool,
    /// Name of a conversation, whose calls go to the same host
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) conversation: Option<String>,
    /// Which of your waiting calls goes first: -128 to 127, the default is 0
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(in crate::cli) priority: Option<i8>,
    /// In which order hosts are asked: load, round_robin, least_connections, weighted or latency; the default is the agent's
    #[arg(long, value_name = "ORDER")]
    pub(in crate::cli) balance: Option<Balance>,
    /// Send the input only to hosts whose cards say that data stays there, and let the agent's own calls go no further
    #[arg(long, value_name = "RESIDENCY")]
    pub(in crate::cli) residency: Option<String>,
    /// Make many calls: a file of lines of JSON {"agent", "input"}; - is stdin; answers come one a line, in order
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent", "input", "task"])]
    pub(in crate::cli) batch: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TaskCommand {
    /// Show how a task stands, or what it answered; exits 1 if it failed, 4 if nobody knows
    #[command(before_help = "Examples:\n\
            \x20 aop task show 0f3a…                 # how it stands now\n\
            \x20 aop task show 0f3a… --wait 600      # its answer, as soon as it is there")]
    Show(TaskShowArgs),
    /// List the tasks of the node, newest first
    #[command(before_help = "Examples:\n  aop task list\n  aop task list --json | jq '.tasks[].task_id'")]
    List(TaskListArgs),
    /// End a task
    #[command(before_help = "Examples:\n  aop task cancel 0f3a…\n  aop task cancel 0f3a… --json")]
    Cancel(TaskCancelArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct TaskShowArgs {
    /// The id, as `aop call --async` prints it
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// Seconds to wait for its end
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub(in crate::cli) wait: f64,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct TaskListArgs {
    /// Most tasks, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) limit: u16,
    /// Where an earlier answer stopped
    #[arg(long, value_name = "CURSOR")]
    pub(in crate::cli) cursor: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct TaskCancelArgs {
    /// The id, as `aop call --async` prints it
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum QueueCommand {
    /// Show how much the node's agents have to do, and how their runs ended
    #[command(before_help = "Examples:\n\
            \x20 aop queue show\n\
            \x20 aop queue show summarizer --json | jq .queued")]
    Show(QueueArgs),
    /// Begin no more calls: what has a place comes to its end, what comes waits; holds until the node ends
    #[command(before_help = "Examples:\n\
            \x20 aop queue pause summarizer\n\
            \x20 aop queue pause                     # of all agents, as before a restart")]
    Pause(QueueArgs),
    /// Begin calls again
    #[command(before_help = "Examples:\n  aop queue resume summarizer\n  aop queue resume")]
    Resume(QueueArgs),
    /// End all calls that wait, as `busy`; what has a place comes to its end
    #[command(
        before_help = "Examples:\n  aop queue clear summarizer\n  aop queue clear --json | jq .cleared"
    )]
    Clear(QueueArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct QueueArgs {
    /// Full name, bare name or id of an agent that the node runs; without it all of them
    #[arg(value_name = "AGENT", allow_hyphen_values = true, value_parser = agent_name)]
    pub(in crate::cli) agent: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}
