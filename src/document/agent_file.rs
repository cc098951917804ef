//! `agent.toml`: an agent's file on its host, read into the JSON form that [`super::read_documents`] takes.
//!
//! The rules are those of the JSON form, checked by the same code; this file adds what only a file has: lines and
//! columns, schemas in files beside it, and the paths of the owner's key and grant.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::agent;
use super::field::{Fields, JsonPath, MemberPart, PathStep, Violation};
use super::redaction::without_keys;
use super::run_config::{ProcessLimits, Rate, RunConfig, Runner, check_is_seen};
use crate::proto::code::Code;

/// An agent's file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFile {
    /// `{"agent": {…}}` with schema files inlined, without `owner_key` and `grant`; a document for
    /// [`super::read_documents`].
    pub document: Value,
    /// How this host runs it; none for a listing.
    pub run_config: Option<RunConfig>,
    /// The owner's key file, with which the node grants itself; absolute if the file's own path is.
    pub owner_key: Option<PathBuf>,
    /// A grant made elsewhere; absolute if the file's own path is.
    pub grant: Option<PathBuf>,
}

/// Why an agent's file is not taken.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum FileError {
    /// The file, or a schema file it names, could not be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        reason: String,
        /// What to do.
        #[help]
        fix: String,
    },
    /// Something in the file is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Invalid(Box<FileDiagnostic>),
}

/// A violation in an agent's file and where it stands.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{}:{line}:{column}: {problem}", path.display())]
pub struct FileDiagnostic {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, as `agent.run.command`; empty where the text is no TOML.
    pub key: String,
    /// A refusal code, as for a document; `bad_field` where the text is no TOML.
    pub code: Code,
    /// What is wrong, with the key.
    pub problem: String,
    /// What to do.
    #[help]
    pub fix: String,
    /// The file's text, for the excerpt in a report.
    #[source_code]
    pub text: miette::NamedSource<String>,
    /// What to underline.
    #[label("here")]
    pub span: miette::SourceSpan,
}

/// Reads an `agent.toml` into the JSON document form: schema files inlined, paths relative to the file, `owner_key`
/// and `grant` left out (see [`AgentFile::read`]).
///
/// # Errors
/// As [`AgentFile::read`].
pub fn read_agent_file(path: &Path) -> Result<Value, FileError> {
    Ok(AgentFile::read(path)?.document)
}

impl AgentFile {
    /// Reads and checks an `agent.toml`.
    ///
    /// # Errors
    /// [`FileError::Unreadable`] for this file or a schema file, [`FileError::Invalid`] with line and column for
    /// anything that [`super::read_documents`] would refuse.
    pub fn read(path: &Path) -> Result<AgentFile, FileError> {
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        AgentFile::parse(path, text)
    }

    /// The text of an `agent.toml`, which names its files as one at `path` does.
    ///
    /// # Errors
    /// As [`AgentFile::read`].
    pub fn parse(path: &Path, text: String) -> Result<AgentFile, FileError> {
        let mut document = parse(path, &text)?;
        // The parent of a bare name is empty, and paths joined to it stay relative, as the name itself is.
        let folder = path.parent().unwrap_or(Path::new(""));
        let invalid = |violation: Violation| located(path, &text, violation);
        // Taken out before the checks, which refuse both: a document that is sent names no files.
        let owner_key = take_path(&mut document, "owner_key", folder).map_err(invalid)?;
        let grant = take_path(&mut document, "grant", folder).map_err(invalid)?;
        if owner_key.is_some() && grant.is_some() {
            let json_path = JsonPath::default().key("agent").key("grant");
            return Err(invalid(Violation::bad(
                json_path,
                "stands beside `owner_key`",
                "keep one of the two",
            )));
        }
        // Put in before the checks, so that a schema from a file passes the same limits as one written here.
        for key in ["input_schema", "output_schema"] {
            inline_schema(&mut document, key, folder, &invalid)?;
        }
        agent::read(&document).map_err(invalid)?;
        if let Some(Value::Object(agent)) = document.get("agent") {
            check_is_seen(&Fields::new(agent, JsonPath::default().key("agent"))).map_err(invalid)?;
        }
        let mut run_config = read_run_config(&document, folder);
        if let Some(run_config) = &mut run_config {
            run_config.file = Some(path.into());
        }
        Ok(AgentFile { document: Value::Object(document), run_config, owner_key, grant })
    }
}

/// The files that an agent's file names: its schemas, the owner's key and the grant. None if it is no TOML.
pub fn files_named_in(text: &str, folder: &Path) -> Vec<PathBuf> {
    let document: Map<String, Value> = toml::from_str(text).unwrap_or_default();
    let named = ["input_schema", "output_schema", "owner_key", "grant"];
    let named = named.iter().filter_map(|key| document.get("agent")?.get(key)?.as_str());
    named.map(|name| folder.join(name)).collect()
}

impl FileDiagnostic {
    /// A violation found after reading, at the value that `keys` lead to.
    pub(crate) fn at(path: &Path, keys: &[&str], problem: String, fix: &str) -> FileDiagnostic {
        // The text was not kept. If the file is gone by now, the message stands without an excerpt.
        let text = fs::read_to_string(path).unwrap_or_default();
        let json_path = keys.iter().fold(JsonPath::default(), |json_path, key| json_path.key(key));
        let span = find_span(&text, &json_path, MemberPart::Value);
        diagnostic_at(path, &text, span, json_path.to_string(), Code::BadField, problem, fix.into())
    }
}

/// What `{"agent": {…}}` says of its run, in `folder`; the document has passed the checks. None for a listing.
pub fn read_run_config(document: &Map<String, Value>, folder: &Path) -> Option<RunConfig> {
    let agent = document.get("agent")?;
    let callers = agent.get("callers").and_then(Value::as_array).into_iter().flatten();
    let mut run_config = RunConfig::new(Runner::read(agent.get("run")?)?, folder);
    run_config.callers = callers.filter_map(Value::as_str).map(str::to_owned).collect();
    let flag = |key: &str, default| agent.get(key).and_then(Value::as_bool).unwrap_or(default);
    run_config.rate_limit = agent.get("rate_limit").and_then(Value::as_str).and_then(Rate::parse);
    run_config.process_limits = ProcessLimits::read(agent);
    run_config.verbose = flag("verbose", run_config.verbose);
    run_config.traceback_enabled = flag("traceback_enabled", run_config.traceback_enabled);
    if let Some(max) = agent.get("max_queue").and_then(Value::as_u64) {
        // Within the limit of the checks, so the cast cuts nothing off.
        run_config.max_queue = max as usize;
    }
    Some(run_config)
}

fn unreadable(path: &Path, error: &std::io::Error) -> FileError {
    let fix = match error.kind() {
        std::io::ErrorKind::NotFound => {
            "check the path; a schema's path starts at the folder of its agent.toml"
        }
        _ => "check that it is a UTF-8 text file this user may read",
    };
    FileError::Unreadable { path: path.into(), reason: error.to_string(), fix: fix.into() }
}

fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, FileError> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let problem = format!("not valid TOML: {}", error.message());
        let fix = "correct the syntax here".to_owned();
        FileError::Invalid(Box::new(diagnostic_at(
            path,
            text,
            span,
            String::new(),
            Code::BadField,
            problem,
            fix,
        )))
    })
}

/// Takes a path out of `[agent]`.
fn take_path(
    document: &mut Map<String, Value>,
    key: &str,
    folder: &Path,
) -> Result<Option<PathBuf>, Violation> {
    let Some(Value::Object(agent)) = document.get_mut("agent") else { return Ok(None) };
    let path = Fields::new(agent, JsonPath::default().key("agent")).text(key)?.map(|path| folder.join(path));
    // A plain `remove` swaps the last key into the gap, and the document would change its order.
    agent.shift_remove(key);
    Ok(path)
}

/// Puts the content of a schema file where its name stands.
fn inline_schema(
    document: &mut Map<String, Value>,
    key: &str,
    folder: &Path,
    invalid: &impl Fn(Violation) -> FileError,
) -> Result<(), FileError> {
    let Some(Value::Object(agent)) = document.get_mut("agent") else { return Ok(()) };
    // Of another kind it is the schema itself, or wrong in a way that the checks describe.
    let Some(Value::String(name)) = agent.get(key) else { return Ok(()) };
    let file = folder.join(name);
    let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
    let schema: Value = serde_json::from_str(&text).map_err(|error| {
        let json_path = JsonPath::default().key("agent").key(key);
        let problem = format!("names {}, which is not JSON: {error}", file.display());
        invalid(Violation::bad(json_path, problem, "correct that file"))
    })?;
    agent.insert(key.to_owned(), schema);
    Ok(())
}

fn located(path: &Path, text: &str, violation: Violation) -> FileError {
    let span = find_span(text, &violation.path, violation.part);
    let problem = format!("`{}` {}", violation.path, violation.problem);
    FileError::Invalid(Box::new(diagnostic_at(
        path,
        text,
        span,
        violation.path.to_string(),
        violation.code,
        problem,
        violation.fix,
    )))
}

fn diagnostic_at(
    path: &Path,
    text: &str,
    span: std::ops::Range<usize>,
    key: String,
    code: Code,
    problem: String,
    fix: String,
) -> FileDiagnostic {
    // A span that lies outside, or within a character, names the end of the text instead of panicking.
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    FileDiagnostic {
        path: path.into(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        key,
        code,
        problem,
        fix,
        text: miette::NamedSource::new(path.display().to_string(), without_keys(text)),
        span: span.into(),
    }
}

/// The bytes of the key or value at `json_path`, or of the innermost thing around it that is there.
fn find_span(text: &str, json_path: &JsonPath, part: MemberPart) -> std::ops::Range<usize> {
    // Values lose their places on the way to JSON, so the text is parsed again, but only for a mistake.
    let Ok(root) = DeTable::parse(text) else { return 0..0 };
    let mut span = 0..0;
    let mut here = DeValue::Table(root.into_inner());
    for (depth, step) in json_path.0.iter().enumerate() {
        let next = match (step, here) {
            (PathStep::Key(key), DeValue::Table(table)) => table
                .into_iter()
                .find(|(name, _)| name.get_ref() == key)
                .map(|(name, value)| (name.span(), value)),
            (PathStep::Index(index), DeValue::Array(items)) => {
                items.into_iter().nth(*index).map(|value| (value.span(), value))
            }
            _ => None,
        };
        let Some((name, value)) = next else { break };
        let is_key = part == MemberPart::Key && depth + 1 == json_path.0.len();
        // A table's own span may be its header; its key is always the nearer thing to point at.
        span = if is_key || matches!(value.get_ref(), DeValue::Table(_)) { name } else { value.span() };
        here = value.into_inner();
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read_documents;
    use serde_json::json;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn violation(text: &str) -> FileDiagnostic {
        let folder = folder_with(&[("agent.toml", text)]);
        match read_agent_file(&folder.path().join("agent.toml")).unwrap_err() {
            FileError::Invalid(violation) => *violation,
            error => panic!("{error}"),
        }
    }

    /// Line, column and the underlined text.
    fn pointed(text: &str) -> (usize, usize, String) {
        let violation = violation(text);
        let span = violation.span.offset()..violation.span.offset() + violation.span.len();
        (violation.line, violation.column, text[span].to_owned())
    }

    #[test]
    fn a_file_becomes_a_document_with_its_schemas_and_without_its_keys() {
        let text = "[agent]\nname = \"a\"\ninput_schema = \"in.json\"\noutput_schema = { type = \"object\" }\n\
                    owner_key = \"owner.key\"\n[agent.run]\ncommand = [\"./a\"]\n";
        let folder = folder_with(&[("agent.toml", text), ("in.json", "{\"type\": \"string\"}")]);
        let path = folder.path().join("agent.toml");
        let file = AgentFile::read(&path).unwrap();
        assert_eq!(file.owner_key, Some(folder.path().join("owner.key")));
        assert_eq!(file.grant, None);
        assert_eq!(
            file.document,
            json!({"agent": {"name": "a", "input_schema": {"type": "string"}, "output_schema": {"type": "object"},
                   "run": {"command": ["./a"]}}})
        );
        assert_eq!(read_agent_file(&path).unwrap(), file.document);
        let one = read_documents(file.document).remove(0).unwrap();
        assert_eq!(one.card.input_schema.as_deref(), Some("{\"type\":\"string\"}"));
    }

    #[test]
    fn a_violation_points_at_its_line_and_column() {
        let unknown = "[agent]\nname = \"a\"\n  descripton = \"x\"\n";
        assert_eq!(pointed(unknown), (3, 3, "descripton".into()));
        let error = violation(unknown);
        assert_eq!((error.code, error.key.as_str()), (Code::UnknownKey, "agent.descripton"));
        assert!(error.fix.contains("did you mean `description`?"));
        assert!(
            error.to_string().contains("agent.toml:3:3: `agent.descripton` is not a known key"),
            "{error}"
        );

        assert_eq!(pointed("[agent]\nname = \"ü\"\ntimeout_s = 0"), (2, 8, "\"ü\"".into()));
        assert_eq!(pointed("[agent]\nname = \"a\"\ntags = [\"é\", 7]"), (3, 14, "7".into()));
        assert_eq!(pointed("[agent]\nname = \"a\"\n[agent.run]\ncommand = []"), (4, 11, "[]".into()));
        assert_eq!(pointed("[agent]\nname = \"a\"\n[agent.run]\nbuiltn = \"echo\""), (4, 1, "builtn".into()));
        assert_eq!(pointed("[agent]\nname = \"a\"\n\n[agent.run]\n"), (4, 8, "run".into()));
        assert_eq!(pointed("[agent]\ndescription = \"d\""), (1, 2, "agent".into()));
        assert_eq!(pointed("name = \"a\"\n"), (1, 1, "name".into()));
        assert_eq!(pointed("[agent]\nname = \"a\"\nwhen = 2026-01-01\n"), (3, 1, "when".into()));
        let server =
            "[agent]\nname = \"a\"\n[agent.run]\nmcp = [{ url = \"http://x\" },\n  { url = \"x\" }]\n";
        assert_eq!(pointed(server), (5, 11, "\"x\"".into()));
        let schema = "[agent]\nname = \"a\"\noutput_schema = { type = \"x\" }\n";
        assert_eq!(pointed(schema), (3, 1, "output_schema".into()));
    }

    #[test]
    fn what_is_no_toml_points_at_the_place_too() {
        let error = violation("[agent]\nname = \"a\"\ntags = [\"x\"\nzone = 1\n");
        assert!(error.problem.starts_with("not valid TOML: ") && error.line >= 3, "{error}");
        assert_eq!(violation("[agent]\nname = \"a\"\nname = \"b\"").line, 3);
    }

    #[test]
    fn a_file_that_cannot_be_read_says_which() {
        let folder = folder_with(&[("agent.toml", "[agent]\nname = \"a\"\ninput_schema = \"no.json\"")]);
        let missing = read_agent_file(&folder.path().join("agent.toml")).unwrap_err().to_string();
        assert!(missing.contains("no.json"), "{missing}");
        assert!(matches!(read_agent_file(&folder.path().join("x.toml")), Err(FileError::Unreadable { .. })));
        let folder = folder_with(&[
            ("agent.toml", "[agent]\nname = \"a\"\ninput_schema = \"bad.json\""),
            ("bad.json", "{"),
        ]);
        let error = read_agent_file(&folder.path().join("agent.toml")).unwrap_err();
        assert!(
            error.to_string().contains("agent.toml:3:16") && error.to_string().contains("not JSON"),
            "{error}"
        );
    }

    #[test]
    fn a_report_shows_the_excerpt_and_the_remedy() {
        let error = FileError::Invalid(Box::new(violation("[agent]\nname = \"a\"\nscop = \"node\"\n")));
        let mut report = String::new();
        miette::NarratableReportHandler::new().render_report(&mut report, &error).unwrap();
        assert!(report.contains("scop = \"node\"") && report.contains("did you mean `scope`?"), "{report}");
    }
}
