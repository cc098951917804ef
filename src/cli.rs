//! The command line: parse, run one command, turn its outcome into an exit code.
//!
//! Data goes to stdout, console to stderr. A command returns how it ended or a failure that says what, why and what
//! to do next; only this file prints failures. Text that came from other hosts is cleaned before a terminal sees it.

mod adopt;
mod agent;
mod args;
mod call;
mod client;
mod dev;
mod doctor;
mod excerpt;
mod failure;
mod import;
mod keys;
mod log;
mod mcp;
mod node;
mod output;
mod owner;
mod process;
mod queue;
mod read;
mod register;
mod settings;
mod shell;
#[cfg(feature = "lab")]
mod sim;
mod supervisor;
mod task;
mod time;
mod usage;
mod watch;
mod zone;

use std::ffi::OsString;
use std::process::ExitCode;

use self::args::{
    AgentCommand, AgentsArgs, AgentsCommand, Command, ConfigCommand, KeysCommand, OwnerCommand, ZoneCommand,
};
pub use self::failure::Exit;
use self::failure::Failure;
use self::output::Console;

/// Runs the command of this process and says how it ended.
pub fn main() -> ExitCode {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let exit = match usage::parse(&typed) {
        Err(exit) => exit,
        Ok(aop) => {
            let is_node = matches!(aop.command, Command::Node(_) | Command::Dev(_));
            let console = Console { quiet: aop.quiet };
            run(aop.command, aop.verbose, console)
                .unwrap_or_else(|failure| tell(failure, usage::wants_json(&typed), is_node))
        }
    };
    ExitCode::from(exit as u8)
}

/// Tells people or programs; of a node that ended both, for its stderr is its log whoever reads its ready line.
fn tell(failure: Failure, to_program: bool, is_node: bool) -> Exit {
    let exit = failure.exit;
    if !to_program || is_node {
        failure.print();
    }
    if to_program {
        usage::print_error(failure);
    }
    exit
}

fn run(command: Command, verbose: u8, console: Console) -> Result<Exit, Failure> {
    match command {
        Command::Dev(args) => dev::dev(&args, verbose, console),
        Command::Node(args) => node::node(&args, verbose, console),
        Command::Find(args) => read::find(&args, verbose, console),
        Command::Show(args) => read::show(&args),
        Command::Call(args) => call::call(&args, console),
        Command::Task { command } => task::task(&command, console),
        Command::Queue { command } => queue::queue(&command, console),
        Command::Agents(AgentsArgs { command: Some(AgentsCommand::Adopt(args)), .. }) => {
            register::adopt(&args)
        }
        Command::Agents(args) => read::agents(&args, console),
        Command::Owner { command: OwnerCommand::List(client) } => owner::list(&client),
        Command::Owner { command: OwnerCommand::Trust(args) } => owner::trust(&args),
        Command::Owner { command: OwnerCommand::Forget(args) } => owner::forget(&args),
        Command::Zones(client) => read::zones(&client),
        Command::Zone { command: ZoneCommand::Join(args) } => zone::join(&args, console),
        Command::Zone { command: ZoneCommand::Leave(args) } => zone::leave(&args, console),
        Command::Zone { command: ZoneCommand::Dns(args) } => zone::domain::dns(&args, console),
        Command::Zone { command: ZoneCommand::Check(args) } => zone::domain::check(&args, console),
        Command::Zone { command: ZoneCommand::Init(args) } => zone::init(&args, console),
        Command::Zone { command: ZoneCommand::Delegate(args) } => zone::delegate(&args, console),
        Command::Peers(client) => read::peers(&client),
        Command::Status(args) => read::status(&args),
        Command::Doctor(args) => doctor::doctor(&args, console),
        Command::Watch(args) => watch::watch(&args, console),
        Command::Mcp(args) => mcp::mcp(&args),
        Command::Adopt(args) => adopt::adopt(&args, console),
        Command::Import(args) => import::import(&args, console),
        Command::Agent { command: AgentCommand::New(args) } => agent::new(&args, console),
        Command::Register(args) => register::register(&args, verbose, console),
        Command::Deregister(args) => register::deregister(&args),
        Command::Keys { command: KeysCommand::Show(args) } => keys::show(&args),
        Command::Keys { command: KeysCommand::New(args) } => keys::new(&args, console),
        Command::Keys { command: KeysCommand::Grant(args) } => keys::write_grant(&args, console),
        #[cfg(feature = "lab")]
        Command::Sim { command } => sim::sim(&command, console),
        Command::Config { command: ConfigCommand::Show(args) } => settings::show(&args),
        Command::Config { command: ConfigCommand::Check(args) } => settings::check(&args, console),
        Command::Config { command: ConfigCommand::Init } => settings::init(),
        Command::Config { command: ConfigCommand::Schema } => settings::schema(),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}
