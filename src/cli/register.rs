//! `aop register` and `aop deregister`: files to documents, documents to requests that stay under the node's limit,
//! and answers back to the file and place that each document came from.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::args::{AgentNamesArgs, RegisterArgs};
use super::client::{Client, segment};
use super::failure::{Exit, Failure, report};
use super::output::{Console, clean, print_json, write};
use crate::agents::grants::{OfferingNode, with_grants};
use crate::api::{RegisterAnswer, Registered, Status};
use crate::document::{self, AgentFile, documents_in};
use crate::proto::code::Code;

/// Bytes of documents in one request. The node takes 32 MiB; less shows progress and costs it less memory at once.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one request that must not be exceeded even to keep the versions of one server together.
const REQUEST_BYTES_MAX: usize = 31 * 1024 * 1024;
/// Largest file read, bytes: five times the public MCP registry with all versions.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// One document and where it came from.
struct Document {
    file: PathBuf,
    index: usize,
    /// Documents of one name stay in one request: the node keeps the greatest version of a request.
    name: String,
    json: String,
}

impl Document {
    /// Its bytes in a request, with the comma.
    fn bytes(&self) -> usize {
        self.json.len() + 1
    }
}

/// What `--json` prints: the node's answers with the places in the files.
#[derive(Default, Serialize)]
struct Outcome {
    registered: Vec<Registered>,
    refused: Vec<RefusedPlace>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    withdrawn: Vec<Registered>,
}

impl Outcome {
    /// What is counted in one line, unless `-v` asks for each: nobody wants the older ones of a registry's list.
    fn skipped(&self) -> usize {
        self.refused.iter().filter(|refused| refused.code == Code::OlderVersion).count()
    }

    /// One line: what came out.
    fn summary(&self) -> String {
        let skipped = self.skipped();
        let counts = [
            (self.registered.len(), "registered"),
            (self.withdrawn.len(), "withdrawn"),
            (skipped, if skipped == 1 { "older version skipped" } else { "older versions skipped" }),
            (self.refused.len() - skipped, "refused"),
        ];
        let told = counts.iter().enumerate().filter(|(at, (count, _))| *at == 0 || *count > 0);
        told.map(|(_, (count, what))| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }
}

/// A refused document.
#[derive(Serialize)]
struct RefusedPlace {
    file: String,
    index: usize,
    name: String,
    code: Code,
    message: String,
}

impl RefusedPlace {
    fn new(file: &Path, index: usize, code: Code, message: String) -> RefusedPlace {
        RefusedPlace { file: file.display().to_string(), index, name: String::new(), code, message }
    }
}

/// Registers every document of every file that can be registered.
pub(super) fn register(args: &RegisterArgs, verbose: u8, console: Console) -> Result<Exit, Failure> {
    let client = Client::new(&args.client)?;
    let mut outcome = Outcome::default();
    let documents = read_files(&args.files, &|| ask_host(&client), &mut outcome);
    let total = documents.len();
    let mut query: Vec<_> = args.zone.iter().map(|zone| ("zone", zone.clone())).collect();
    query.extend(args.replace.then(|| ("replace", "true".into())));
    let batches = batches(documents);
    let several = batches.len() > 1;
    for batch in batches {
        match client.post("/v1/agents", &query, body(&batch).as_bytes()) {
            Ok(answer) => place(&batch, answer, args.client.json, verbose, &mut outcome)?,
            Err(failure) => {
                // What was sent before is registered already, so the failure alone would be misleading.
                console
                    .print(&format!("{} of {total} were registered before this:", outcome.registered.len()));
                return Err(failure);
            }
        }
        if several {
            console.print(&format!("{} of {total} registered", outcome.registered.len()));
        }
    }
    if args.client.json {
        print_json(&outcome)?;
    } else {
        console.print(&outcome.summary());
    }
    Ok(if outcome.refused.len() == outcome.skipped() { Exit::Done } else { Exit::Failure })
}

/// `aop deregister`.
pub(super) fn deregister(args: &AgentNamesArgs) -> Result<Exit, Failure> {
    each(args, "deregistered", |client, agent| client.delete(&format!("/v1/agents/{agent}")))
}

/// `aop agents adopt`.
pub(super) fn adopt(args: &AgentNamesArgs) -> Result<Exit, Failure> {
    each(args, "adopted", |client, agent| client.post(&format!("/v1/adopt/{agent}"), &[], b"{}"))
}

/// Does the same to each agent; the worst outcome is the exit code.
fn each(
    args: &AgentNamesArgs,
    done_key: &str,
    act: impl Fn(&Client, &str) -> Result<Registered, Failure>,
) -> Result<Exit, Failure> {
    let client = Client::new(&args.client)?;
    let mut done = Vec::new();
    let (mut exit, mut failed) = (Exit::Done, None);
    for agent in args.agents() {
        match segment(agent).and_then(|agent| act(&client, &agent)) {
            Ok(acted) if args.client.json => done.push(acted),
            Ok(acted) => write(&format!("{}\t{}\n", acted.agent, acted.id))?,
            // The others would meet the same; any other failure concerns one agent.
            Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
            Err(failure) => {
                exit = failure.exit;
                if args.client.json { failed = failed.or(failure.into_body()) } else { failure.print() }
            }
        }
    }
    if args.client.json {
        let mut document = serde_json::json!({done_key: done});
        // One document for all: what was done, and the first thing that was not.
        if let Some(body) = failed {
            document["error"] = serde_json::to_value(body.error).unwrap_or_default();
        }
        print_json(&document)?;
    }
    Ok(exit)
}

/// The documents of all files; a file that cannot be read is told, counted as refused, and stops no other.
fn read_files(
    files: &[PathBuf],
    host: &dyn Fn() -> Result<OfferingNode, Failure>,
    outcome: &mut Outcome,
) -> Vec<Document> {
    let mut documents = Vec::new();
    for file in files {
        match read_file(file, host) {
            Ok(values) => documents.extend(values.into_iter().enumerate().map(|(index, value)| Document {
                file: file.clone(),
                index,
                name: name_of(&value),
                json: value.to_string(),
            })),
            Err(diagnostic) => {
                report(&*diagnostic);
                outcome.refused.push(RefusedPlace::new(file, 0, Code::BadFile, diagnostic.to_string()));
            }
        }
    }
    // Found out here, because the node would refuse a request as a whole.
    let (fit, large): (Vec<_>, Vec<_>) =
        documents.into_iter().partition(|document| document.bytes() <= REQUEST_BYTES_MAX);
    for Document { file, index, .. } in large {
        let message = format!("more than {REQUEST_BYTES_MAX} bytes");
        let refused = RefusedPlace::new(&file, index, Code::TooLarge, message);
        print_refused(&refused);
        outcome.refused.push(refused);
    }
    fit
}

/// The documents of one file.
fn read_file(
    path: &Path,
    host: &dyn Fn() -> Result<OfferingNode, Failure>,
) -> Result<Vec<Value>, Box<dyn miette::Diagnostic>> {
    let unreadable = |why: String| Box::<dyn miette::Diagnostic>::from(UnreadableFile(path.into(), why));
    if path.extension().is_some_and(|extension| extension == "toml") {
        return Ok(vec![with_own_grants(AgentFile::read(path)?, path, host)?]);
    }
    let text = read_text(path).map_err(|error| unreadable(error.to_string()))?;
    // What stdin brings has no name that says what it is.
    if path.to_str() == Some("-")
        && let Some(toml) = as_toml(&text)
    {
        return Ok(vec![with_own_grants(AgentFile::parse(path, toml)?, path, host)?]);
    }
    let body = document::parse(&text).map_err(|why| unreadable(format!("it is {why}")))?;
    Ok(documents_in(body))
}

/// The text, if it is rather TOML than JSON. Both may begin with `[`.
fn as_toml(text: &[u8]) -> Option<String> {
    let text = String::from_utf8(text.to_vec()).ok()?;
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let is_json = start.starts_with('{')
        || start.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['{', '[', ']', '"']));
    (!is_json && !start.is_empty()).then_some(text)
}

/// An agent's file as a document, with the grants that its `owner_key` or `grant` stands for. The host is asked for
/// only where there is one of these.
fn with_own_grants(
    file: AgentFile,
    path: &Path,
    host: &dyn Fn() -> Result<OfferingNode, Failure>,
) -> Result<Value, Box<dyn miette::Diagnostic>> {
    if file.owner_key.is_none() && file.grant.is_none() {
        return Ok(file.document);
    }
    let host = host().map_err(|failure| UnreadableFile(path.into(), failure.to_string()))?;
    Ok(with_grants(file, &host)?)
}

/// The node that is to offer the agents of files with an owner of their own.
fn ask_host(client: &Client) -> Result<OfferingNode, Failure> {
    let status: Status = client.get("/v1/status", &[])?;
    let unusable =
        || Failure::new(Exit::Failure, "the node's status names no key or zone", "update the node");
    Ok(OfferingNode {
        key: status.peer_id.parse().map_err(|_| unusable())?,
        home: status.zones.first().and_then(|zone| zone.zone.parse().ok()).ok_or_else(unusable)?,
        network: status.network,
    })
}

/// Why a file gives no documents.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{}: {_1}", _0.display())]
#[diagnostic(help("give agent.toml files, JSON files, or - for either from stdin"))]
struct UnreadableFile(PathBuf, String);

fn read_text(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more than allowed shows that there is more, without reading all of it.
    let size = match path.to_str() {
        Some("-") => std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?,
        _ => std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?,
    };
    match size as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!("more than {FILE_BYTES_MAX} bytes: split the file"))),
        false => Ok(text),
    }
}

/// The name a document goes by, folded as the mapping of names folds letters.
fn name_of(document: &Value) -> String {
    let inner = ["server", "card", "agent", "serverInfo"]
        .iter()
        .find_map(|key| document.get(key).filter(|value| value.is_object()));
    let name = inner.unwrap_or(document).get("name").and_then(Value::as_str);
    name.unwrap_or_default().to_ascii_lowercase()
}

/// Cuts documents into requests. What fits into one request keeps its order; otherwise documents of one name are
/// brought together and not cut apart.
fn batches(mut documents: Vec<Document>) -> Vec<Vec<Document>> {
    let total: usize = documents.iter().map(Document::bytes).sum();
    if total > BATCH_BYTES_MAX {
        // The sort is stable, so versions of one name stay in their order.
        documents.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let mut batches: Vec<Vec<Document>> = Vec::new();
    let mut filled = 0;
    for document in documents {
        let previous = batches.last().and_then(|batch| batch.last());
        let same_name = previous.is_some_and(|previous| previous.name == document.name);
        let limit = if same_name { REQUEST_BYTES_MAX } else { BATCH_BYTES_MAX };
        filled += document.bytes();
        match batches.last_mut() {
            Some(batch) if filled <= limit => batch.push(document),
            _ => {
                filled = document.bytes();
                batches.push(vec![document]);
            }
        }
    }
    batches
}

/// One request: a JSON array.
fn body(batch: &[Document]) -> String {
    let documents: Vec<_> = batch.iter().map(|document| document.json.as_str()).collect();
    format!("[{}]", documents.join(","))
}

/// Gives every refusal its file and place, and prints what came out.
fn place(
    batch: &[Document],
    answer: RegisterAnswer,
    json: bool,
    verbose: u8,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let told = outcome.refused.len();
    for refused in answer.refused {
        // A position that was never sent is the node's mistake and must not end the command.
        let Some(document) = batch.get(refused.index) else { continue };
        outcome.refused.push(RefusedPlace {
            file: document.file.display().to_string(),
            index: document.index,
            name: refused.name,
            code: refused.code,
            message: refused.message,
        });
    }
    // Only those of this batch: earlier ones were told with theirs.
    let is_told = |refused: &&RefusedPlace| verbose > 0 || refused.code != Code::OlderVersion;
    outcome.refused[told..].iter().filter(is_told).for_each(print_refused);
    for registered in &answer.registered {
        for note in &registered.notes {
            eprintln!("{}", clean(&format!("note: {}: {note}", registered.agent)));
        }
    }
    for withdrawn in &answer.withdrawn {
        let agent = &withdrawn.agent;
        eprintln!("{}", clean(&format!("withdrawn: {agent}: its registry has deleted this version")));
    }
    let rows =
        answer.registered.iter().map(|registered| format!("{}\t{}\n", registered.agent, registered.id));
    if !json {
        write(&rows.collect::<String>())?;
    }
    outcome.registered.extend(answer.registered);
    outcome.withdrawn.extend(answer.withdrawn);
    Ok(())
}

fn print_refused(refused: &RefusedPlace) {
    let RefusedPlace { file, index, name, code, message } = refused;
    eprintln!("{}", clean(&format!("refused: {file}[{index}] {name}: {message} ({code})")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(index: usize, name: &str, bytes: usize) -> Document {
        Document { file: "f".into(), index, name: name.into(), json: " ".repeat(bytes) }
    }

    fn names(batches: &[Vec<Document>]) -> Vec<Vec<&str>> {
        batches.iter().map(|batch| batch.iter().map(|document| document.name.as_str()).collect()).collect()
    }

    #[test]
    fn what_fits_in_one_request_keeps_its_order() {
        let batches = batches(vec![document(0, "b", 10), document(1, "a", 10)]);
        assert_eq!(names(&batches), [["b", "a"]]);
    }

    #[test]
    fn versions_of_one_server_stay_in_one_request() {
        let big = BATCH_BYTES_MAX / 2;
        let batches = batches(vec![
            document(0, "a", big),
            document(1, "b", big),
            document(2, "a", big),
            document(3, "c", 1),
        ]);
        assert_eq!(names(&batches), [vec!["a", "a"], vec!["b", "c"]]);
    }

    #[test]
    fn a_refusal_names_the_place_in_its_file() {
        let batch = [document(4, "a", 1), document(0, "b", 1)];
        let refused = |index| crate::api::Refused { index, code: Code::BadName, ..Default::default() };
        let answer =
            RegisterAnswer { refused: vec![refused(0), refused(1), refused(9)], ..RegisterAnswer::default() };
        let mut outcome = Outcome::default();
        place(&batch, answer, true, 0, &mut outcome).unwrap();
        assert_eq!(outcome.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [4, 0]);
    }

    #[test]
    fn older_versions_are_counted_apart_from_refusals() {
        let refused = |code| RefusedPlace::new(Path::new("f"), 0, code, String::new());
        let mut outcome = Outcome { registered: vec![Registered::default(); 2], ..Outcome::default() };
        assert_eq!(outcome.summary(), "2 registered");
        outcome.refused = vec![refused(Code::OlderVersion), refused(Code::OlderVersion)];
        assert_eq!(outcome.summary(), "2 registered, 2 older versions skipped");
        outcome.refused.push(refused(Code::Superseded));
        assert_eq!(outcome.summary(), "2 registered, 2 older versions skipped, 1 refused");
    }

    #[test]
    fn toml_is_told_from_json_by_its_beginning() {
        for toml in ["[agent]\nname = \"a\"", "\u{feff}# c\n[agent]", "name = 1", "[ agent ]"] {
            assert!(as_toml(toml.as_bytes()).is_some(), "{toml}");
        }
        for json in ["{}", "[]", " [ {", "[\n[", "\u{feff}{}", "", " ", "[\"agent\"]"] {
            assert!(as_toml(json.as_bytes()).is_none(), "{json}");
        }
    }

    #[test]
    fn names_are_found_in_every_format() {
        for text in [r#"{"name":"A/b"}"#, r#"{"server":{"name":"a/B"}}"#, r#"{"agent":{"name":"a/b"}}"#] {
            assert_eq!(name_of(&serde_json::from_str(text).unwrap()), "a/b", "{text}");
        }
        assert_eq!(name_of(&Value::Null), "");
    }
}
