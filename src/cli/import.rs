//! `aop import`: has a node read another registry, tells how far it is, and takes imports away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::args::ImportArgs;
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json};
use super::time::{distance, now_ms};
use crate::api::{Import, ImportRun, Imports, StartImport};
use crate::proto::code::Code;

/// How often a reading is asked how far it is, and how often that is told.
const ASK_EVERY: Duration = Duration::from_millis(300);
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Runs the command.
pub(super) fn import(args: &ImportArgs, console: Console) -> Result<Exit, Failure> {
    let client = Client::new(&args.client)?;
    match &args.url {
        None => list(args, &client),
        Some(url) if args.remove => remove(args, &client, url, console),
        Some(url) => read(args, &client, url, console),
    }
}

fn list(args: &ImportArgs, client: &Client) -> Result<Exit, Failure> {
    let imports: Imports = client.get("/v1/imports", &[])?;
    if args.client.json {
        print_json(&imports)?;
        return Ok(Exit::Done);
    }
    let (now, mut rows) = (now_ms(), Rows::new(&["REGISTRY", "KIND", "ZONES", "HELD", "READ", "OUTCOME"]));
    for import in imports.imports {
        let read = import.last.as_ref().and_then(|last| last.ended_ms).map(|at| distance(at, now));
        rows.push([
            import.url.clone(),
            import.kind.map_or_else(|| "-".into(), |kind| kind.to_string()),
            import.zones.join(","),
            import.held.to_string(),
            read.unwrap_or_else(|| "-".into()),
            standing(&import),
        ]);
    }
    rows.print()?;
    Ok(Exit::Done)
}

/// How an import stands, in words.
fn standing(import: &Import) -> String {
    match (&import.run, &import.last) {
        (Some(run), _) => format!("reading: {}", progress(run)),
        (None, Some(ImportRun { error: Some(error), .. })) => format!("failed: {}", error.message),
        (None, Some(last)) => summary(last),
        (None, None) => "not read yet".into(),
    }
}

fn remove(args: &ImportArgs, client: &Client, url: &str, console: Console) -> Result<Exit, Failure> {
    let removed: Import = client.delete(&format!("/v1/imports/{}", segment(url)?))?;
    if args.client.json {
        print_json(&removed)?;
    }
    console.print(&format!("{} is imported no more; what it offered is withdrawn", removed.url));
    Ok(Exit::Done)
}

fn read(args: &ImportArgs, client: &Client, url: &str, console: Console) -> Result<Exit, Failure> {
    let wanted = StartImport { url: url.to_owned(), zones: args.zones.clone(), kind: args.kind };
    let body = serde_json::to_vec(&wanted).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let mut import: Import = client.post("/v1/imports", &[], &body)?;
    let number = import.run.as_ref().map(|run| run.number);
    let mut told_at = Instant::now();
    while let Some(run) = import.run.as_ref().filter(|run| Some(run.number) == number) {
        if told_at.elapsed() >= TELL_EVERY {
            console.print(&progress(run));
            told_at = Instant::now();
        }
        std::thread::sleep(ASK_EVERY);
        let url = import.url.clone();
        let all: Imports = client.get("/v1/imports", &[])?;
        let found = all.imports.into_iter().find(|import| import.url == url);
        import = found.ok_or_else(|| {
            Failure::new(Exit::Failure, format!("the import of {url} was removed meanwhile"), "")
        })?;
    }
    let Some(last) = import.last.as_ref().filter(|last| Some(last.number) == number) else {
        let fix = "`aop import` tells how it stands; give the same command again";
        return Err(Failure::new(Exit::Unreachable, "the node was started again meanwhile", fix));
    };
    tell(last, console);
    if args.client.json {
        print_json(&import)?;
    }
    match &last.error {
        None => Ok(Exit::Done),
        Some(error) => {
            // A registry that gives no answer is out of reach, whatever its reason.
            let exit = if error.code == Code::UpstreamFailed { Exit::Unreachable } else { error.code.exit() };
            let message = format!("{}: {}", import.url, error.message);
            let fix = "what was imported before stays as it is; give the same command again later";
            Err(Failure::new(exit, message, fix).coded(error.code))
        }
    }
}

fn progress(run: &ImportRun) -> String {
    let written = run.new + run.changed + run.unchanged + run.withdrawn + run.renewed;
    match written {
        0 => format!("{} pages, {} documents read", run.pages, run.documents),
        _ => format!("{} pages, {} documents read, {}", run.pages, run.documents, summary(run)),
    }
}

fn summary(run: &ImportRun) -> String {
    let parts = [
        (run.new, "new"),
        (run.changed, "changed"),
        (run.unchanged, "unchanged"),
        (run.renewed, "renewed"),
        (run.withdrawn, "withdrawn"),
        (run.skipped.values().sum(), "left out"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() { "nothing new".into() } else { parts.join(", ") }
}

fn tell(run: &ImportRun, console: Console) {
    for skipped in &run.examples {
        console.warn(&format!("left out: {}: {} ({})", skipped.name, skipped.message, skipped.code));
    }
    let reasons: BTreeMap<&String, &usize> = run.skipped.iter().collect();
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if !reasons.is_empty() {
        console.print(&format!("left out: {}", reasons.join(", ")));
    }
    if run.error.is_none() {
        console.print(&summary(run));
    }
}
