//! `aop adopt`: the file that makes a listing callable through this host.
//!
//! What the file will run or ask is shown first, and written only when the operator says so. Nothing is run, and nobody but the
//! node is asked: what comes of the file is up to whoever gives it to a node.

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::agent::write_new;
use super::args::AdoptArgs;
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, clean, print_json, shown_name, write};
use crate::agents::names_own_network;
use crate::api::{AgentDetail, ChosenBy, Owners};
use crate::document::{Adoption, AgentFile};
use crate::proto::name::{AgentName, FullName};

/// What `--json` prints.
#[derive(Serialize)]
struct Adopted<'a> {
    file: String,
    run: &'a Value,
    variables: Vec<&'a str>,
    notes: &'a [String],
}

/// Shows what a listing would run or ask, and writes its file.
pub(super) fn adopt(args: &AdoptArgs, console: Console) -> Result<Exit, Failure> {
    let client = Client::new(&args.client)?;
    let detail: AgentDetail = client.get(&format!("/v1/agents/{}", segment(&args.agent)?), &[])?;
    let owners: Owners = client.get("/v1/owners", &[])?;
    let name = name_of(args, &detail)?;
    let adoption = adoption_of(&detail, &name)?;
    let path = args.dir.join(format!("{name}.toml"));
    let text = file_text(&name, &detail, &adoption);
    // As a node will read it: what it would refuse is told now, and what is checked is what is written.
    AgentFile::parse(&path, text.clone()).map_err(|error| {
        let fix = "write the file by hand: `aop agent new` begins one, and docs/operations.md has every key";
        Failure::new(Exit::Failure, format!("the listing gives no file that a node would take: {error}"), fix)
    })?;
    if path.exists() {
        let fix = "choose another name with `--name`, or another folder with `--dir`";
        return Err(Failure::new(Exit::Failure, format!("{} exists already", path.display()), fix));
    }
    plan(&detail, &owners, &adoption).iter().for_each(|line| console.warn(line));
    if !args.yes {
        confirm(&path)?;
    }
    write_new(&path, &text)?;
    tell(&path, &adoption, args, console)
}

fn name_of(args: &AdoptArgs, detail: &AgentDetail) -> Result<AgentName, Failure> {
    if let Some(name) = &args.name {
        return name.parse().map_err(|error| Failure::plain(Exit::Usage, &error));
    }
    let full: FullName = detail.agent.agent.parse().map_err(|error| Failure::plain(Exit::Failure, &error))?;
    Ok(full.agent)
}

fn adoption_of(detail: &AgentDetail, name: &AgentName) -> Result<Adoption, Failure> {
    let agent = &detail.agent;
    if agent.callable {
        let shown = shown_name(&agent.agent);
        let message = format!("{shown} is no listing: it is callable already");
        return Err(Failure::new(Exit::Failure, message, format!("call it: `aop call {shown}`")));
    }
    // A card without an origin is native.
    let origin = serde_json::from_value(detail.card["origin"].clone()).unwrap_or_default();
    Adoption::of(origin, &detail.card["original"], name.as_str()).map_err(|reasons| {
        let reasons =
            if reasons.is_empty() { "it names nothing to run or to ask".into() } else { reasons.join("; ") };
        let message = format!("{} cannot be adopted: {reasons}", shown_name(&agent.agent));
        Failure::new(Exit::Failure, message, format!("look with `aop show {}`", shown_name(&agent.agent)))
    })
}

/// The file's text. Whatever comes from the listing stands in it as a TOML text or in a comment of one line.
fn file_text(name: &AgentName, detail: &AgentDetail, adoption: &Adoption) -> String {
    let agent = &detail.agent;
    let mut document = json!({"name": name.as_str(), "description": agent.description});
    if !agent.tags.is_empty() {
        document["tags"] = json!(agent.tags);
    }
    if let Some(version) = detail.card["version"].as_str() {
        document["version"] = json!(version);
    }
    document["run"] = adoption.run.clone();
    let from = agent.original_name.as_deref().unwrap_or(&agent.agent);
    let source = format!(
        "Adopted from the listing {} ({} {from}) of {}, version {} of its record.",
        agent.agent, agent.origin, agent.owner, detail.version.seq
    );
    let mut text = format!("# {}\n", clean(&source));
    for note in &adoption.notes {
        text += &format!("# {}.\n", clean(note));
    }
    // Texts, lists and tables of them always have a form in TOML.
    text + &toml::to_string(&json!({ "agent": document })).unwrap_or_default()
}

/// What is to be known before the file is written, line by line.
fn plan(detail: &AgentDetail, owners: &Owners, adoption: &Adoption) -> Vec<String> {
    let agent = &detail.agent;
    let mut lines = vec![format!("{}: {}", shown_name(&agent.agent), agent.description)];
    let mut put = |what: &str, value: String| lines.push(format!("  {what:<10} {value}"));
    let trusted = owners.owners.iter().find(|it| it.name == agent.agent && it.owner == agent.owner);
    let trust = match trusted.map(|it| it.by) {
        Some(ChosenBy::Operator) => "trusted for this name by the operator",
        Some(ChosenBy::FirstCall) => "whom this name means since the first call by it; nobody has looked",
        None => "nobody here has said whom this name means",
    };
    put("owner", format!("{} ({trust})", agent.owner));
    put("zone", agent.agent.rsplit('@').next().unwrap_or_default().to_owned());
    put("origin", format!("{} {}", agent.origin, agent.original_name.as_deref().unwrap_or_default()));
    if let Some(why) = &agent.deprecated {
        put("deprecated", why.clone());
    }
    let (mcp, a2a) = (&adoption.run["mcp"], &adoption.run["a2a"]);
    if mcp["command"].is_array() {
        put("RUNS", format!("{}", mcp["command"]));
        put("", "as a program of the node's user, on the node's machine".into());
    }
    for url in [&mcp["url"], &a2a["card"]].into_iter().filter_map(Value::as_str) {
        put("ASKS", url.to_owned());
        if names_own_network(url) {
            put("", "an address of the node's own machine or network".into());
        }
    }
    for (header, value) in mcp["headers"].as_object().into_iter().flatten() {
        put("header", format!("{header}: {value}"));
    }
    for variable in &adoption.variables {
        put("needs", format!("{} ({})", variable.name, variable.purpose));
    }
    for note in &adoption.notes {
        put("note", note.clone());
    }
    lines
}

/// Asks on a terminal; without one the operator says it beforehand.
fn confirm(path: &Path) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let fix = "read what it runs or asks, and give `--yes`";
        return Err(Failure::new(Exit::Usage, "nothing was written: nobody can be asked here", fix));
    }
    eprint!("write {}? [y/N] ", path.display());
    let mut answer = String::new();
    // An answer that cannot be read is none.
    let _unread = stdin.lock().read_line(&mut answer);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::plain(Exit::Failure, &"nothing was written")),
    }
}

fn tell(path: &Path, adoption: &Adoption, args: &AdoptArgs, console: Console) -> Result<Exit, Failure> {
    let variables: Vec<&str> = adoption.variables.iter().map(|it| it.name.as_str()).collect();
    let file = path.display().to_string();
    if args.client.json {
        print_json(&Adopted { file, run: &adoption.run, variables, notes: &adoption.notes })?;
        return Ok(Exit::Done);
    }
    write(&format!("{file}\n"))?;
    if !variables.is_empty() {
        console.print(&format!("start the node with these variables set: {}", variables.join(" ")));
    }
    console.print("give it to a node, or put it into a folder that one watches:");
    console.print(&format!("  aop node --agents {file}"));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Agent;
    use crate::document::{read_all, similar_name};

    /// The listing of a document, as a node shows it.
    fn shown(document: &Value) -> Option<AgentDetail> {
        let offer = read_all(std::slice::from_ref(document)).remove(0).ok()?.offer;
        let mut card = serde_json::to_value(&offer.card).unwrap();
        card["original"] = serde_json::from_str(offer.card.original.as_deref()?).unwrap();
        let agent = Agent {
            agent: format!("{}@.", offer.name),
            description: offer.card.description,
            tags: offer.card.tags,
            ..Agent::default()
        };
        Some(AgentDetail { agent, card, ..AgentDetail::default() })
    }

    #[test]
    fn every_published_listing_is_refused_for_a_reason_or_becomes_a_file_that_a_node_takes() {
        let published = [
            include_str!("../../tests/data/mcp-servers.json"),
            include_str!("../../tests/data/a2a-cards.json"),
        ];
        let mut counts = [0, 0];
        for documents in published.map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap()) {
            for detail in documents.iter().filter_map(shown) {
                let name: AgentName =
                    similar_name(detail.agent.agent.trim_end_matches("@.")).parse().unwrap();
                let Ok(adoption) = adoption_of(&detail, &name) else {
                    counts[1] += 1;
                    continue;
                };
                let text = file_text(&name, &detail, &adoption);
                let file = AgentFile::parse(Path::new("a.toml"), text.clone());
                let file = file.unwrap_or_else(|error| panic!("{error}\n{text}"));
                assert_eq!(file.document["agent"]["run"], adoption.run, "{text}");
                assert!(plan(&detail, &Owners::default(), &adoption).len() > 4);
                counts[0] += 1;
            }
        }
        // Of what is published most can be adopted; if that falls, a form is no longer understood.
        assert!(counts[0] > 3 * counts[1] && counts[1] > 0, "{counts:?}");
    }
}
