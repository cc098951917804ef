//! The command line: parse, run one command, turn its outcome into an exit code.
//!
//! Data goes to stdout, talk to stderr. A command returns how it ended or a failure that says what, why and what
//! to do next; only this file prints failures. Text that came from other hosts is cleaned before a terminal sees it.

mod args;
mod call;
mod client;
mod dev;
mod failure;
mod keys;
mod life;
mod mcp;
mod node;
mod output;
mod read;
mod register;
mod settings;
#[cfg(feature = "lab")]
mod sim;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Aop, Command, ConfigCommand, KeysCommand};
pub use self::failure::Exit;
use self::failure::Failure;
use self::output::Talk;

/// Runs the command of this process and says how it ended.
pub fn main() -> ExitCode {
    let aop = Aop::parse();
    let talk = Talk { quiet: aop.quiet };
    let exit = run(aop.command, aop.verbose, talk).unwrap_or_else(|failure| {
        failure.tell();
        failure.exit
    });
    ExitCode::from(exit as u8)
}

fn run(command: Command, verbose: u8, talk: Talk) -> Result<Exit, Failure> {
    match command {
        Command::Dev(args) => dev::dev(&args, verbose, talk),
        Command::Node(args) => node::node(&args, verbose, talk),
        Command::Find(args) => read::find(&args, talk),
        Command::Show(args) => read::show(&args),
        Command::Call(args) => call::call(&args, talk),
        Command::Agents(args) => read::agents(&args, talk),
        Command::Peers(client) => read::peers(&client),
        Command::Status(client) => read::status(&client),
        Command::Watch(args) => watch::watch(&args, talk),
        Command::Mcp(args) => mcp::mcp(&args),
        Command::Register(args) => register::register(&args, talk),
        Command::Deregister(args) => register::deregister(&args),
        Command::Keys { command: KeysCommand::Show(args) } => keys::show(&args),
        Command::Keys { command: KeysCommand::New(args) } => keys::new(&args, talk),
        Command::Keys { command: KeysCommand::Grant(args) } => keys::write_grant(&args, talk),
        #[cfg(feature = "lab")]
        Command::Sim { command } => sim::sim(&command, talk),
        Command::Config { command: ConfigCommand::Show(args) } => settings::show(&args),
        Command::Config { command: ConfigCommand::Check(args) } => settings::check(&args, talk),
    }
}
