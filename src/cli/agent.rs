//! `aop agent new`: two files to start an own agent from, and the command that runs it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::args::AgentNewArgs;
use super::failure::{Exit, Failure};
use super::output::{Console, write};
use crate::document::similar_name;
use crate::proto::name::{AgentName, NameError};

/// The agent's file; `NAME` is its name.
const FILE: &str = include_str!("agent/NAME.toml");
/// Its program, which is started for each call.
const PROGRAM: &str = include_str!("agent/NAME.py");

/// Writes both files, or none where one is there already.
pub(super) fn new(args: &AgentNewArgs, console: Console) -> Result<Exit, Failure> {
    let name: AgentName = args.name.parse().map_err(|error: NameError| {
        let fix = format!("write for example `aop agent new {}`", similar_name(&args.name));
        Failure::new(Exit::Usage, error.to_string(), fix)
    })?;
    let files = [("toml", FILE), ("py", PROGRAM)]
        .map(|(kind, text)| (args.dir.join(format!("{name}.{kind}")), text.replace("NAME", name.as_str())));
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        let fix = "choose another name, or another folder with `--dir`";
        return Err(Failure::new(Exit::Failure, format!("{} exists already", path.display()), fix));
    }
    for (path, text) in &files {
        write_new(path, text)?;
        write(&format!("{}\n", path.display()))?;
    }
    console.print("run it in a world to try, and call it from another terminal:");
    console.print(&format!("  aop dev --agents {}", files[0].0.display()));
    console.print(&format!("  aop call {name} --task \"one two three\""));
    Ok(Exit::Done)
}

/// Writes a file that is not there yet.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    // Never over a file that came in between.
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let fix = "check the folder, or give another with `--dir`";
        Failure::new(Exit::Failure, format!("cannot write {}: {error}", path.display()), fix)
    })
}
