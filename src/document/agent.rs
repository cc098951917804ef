//! `{"agent": {…}}`: an agent's file as JSON. Unlike imported formats it is ours, so every unknown key is an error.
//!
//! Of `run`, `callers` and the other settings of the host only the shape is checked: they never enter the card, for
//! commands, prompts and parameters stay on the host (paper eq. 2).

use data_encoding::BASE64;
use serde_json::{Map, Value};

use super::Offer;
use super::check::check_card;
use super::field::{Fields, JsonPath, MemberPart, Violation, bad_name, compact, quoted_text};
use super::name::similar_name;
use super::run_config::{Rate, check_env, check_headers, check_process_limits};
use super::schema::Schema;
use crate::proto::card::{AgentCard, Balance, CallLimits, Origin, Scope};
use crate::proto::code::Code;
use crate::proto::limits::GRANTS_MAX;
use crate::proto::name::{AgentName, NameError, ZoneName};

/// Keys of `[agent]`.
const AGENT_KEYS: [&str; 30] = [
    "name",
    "description",
    "zone",
    "tags",
    "capabilities",
    "version",
    "role",
    "model",
    "region",
    "residency",
    "input_schema",
    "output_schema",
    "timeout_s",
    "max_retries",
    "max_concurrency",
    "max_queue",
    "max_memory",
    "max_processes",
    "rate_limit",
    "weight",
    "balance",
    "min_replicas",
    "idempotent",
    "verbose",
    "traceback_enabled",
    "scope",
    "callers",
    "run",
    "title",
    "grants",
];
/// Keys that name files of the host; only an agent's file may have them.
const FILE_KEYS: [&str; 2] = ["owner_key", "grant"];
/// Ways to run an agent, of which `[agent.run]` has exactly one.
const RUNNERS: [&str; 6] = ["command", "mcp", "http", "chat", "a2a", "builtin"];
/// Most MCP servers of one agent: each may be a process.
const SERVERS_MAX: usize = 16;

/// Longest attempt, seconds: a day. What may take longer than a call that is waited for is called as a task.
const TIMEOUT_S_MAX: u32 = 86_400;
/// Most attempts after the first; more only keep a failing agent busy.
const RETRIES_MAX: u32 = 100;
/// Most calls at once on one host: about what one process can have open.
const CONCURRENCY_MAX: u32 = 10_000;
/// Longest queue of one agent, calls.
const QUEUE_MAX: u32 = 1_000_000;
/// Greatest weight and replica count.
const SHARE_MAX: u32 = 10_000;
/// Most turns of a chat agent for one task.
const LOOPS_MAX: u32 = 1_000;

/// Limits where the document gives none.
pub const DEFAULT_LIMITS: CallLimits = CallLimits::DEFAULT;

/// Reads the document; `root` holds `agent`.
pub(super) fn read(root: &Map<String, Value>) -> Result<Offer, Violation> {
    let root = Fields::new(root, JsonPath::default());
    refuse_keys_outside(&root)?;
    root.only(&["agent"])?;
    let fields =
        root.object("agent")?.ok_or_else(|| Violation::missing(root.path_of("agent"), "write `[agent]`"))?;
    // Before the look for unknown keys: these two are known, and the message says where they belong.
    refuse_file_keys(&fields)?;
    fields.only(&AGENT_KEYS)?;
    // None of these enters the card, yet a mistake in them is refused here and not only where the agent runs.
    check_host_settings(&fields)?;
    let (name, zone) = (read_name(&fields)?, read_zone(&fields)?);
    let card = read_card(&fields)?;
    check_card(&card).map_err(|violation| violation.within("agent"))?;
    Ok(Offer { name, zone, scope: read_scope(&fields)?, card, grants: read_grants(&fields)? })
}

/// A file whose keys stand above `[agent]`, or without it.
fn refuse_keys_outside(root: &Fields<'_>) -> Result<(), Violation> {
    let Some(key) = root.first_of(&AGENT_KEYS).or_else(|| root.first_of(&FILE_KEYS)) else { return Ok(()) };
    let problem = "stands outside of `[agent]`".into();
    let fix = "put it below a line `[agent]`".into();
    Err(Violation { path: root.path_of(key), part: MemberPart::Key, code: Code::UnknownKey, problem, fix })
}

fn refuse_file_keys(fields: &Fields<'_>) -> Result<(), Violation> {
    let Some(key) = fields.first_of(&FILE_KEYS) else { return Ok(()) };
    let fix = "put it into the agent's file on the host and register that file there";
    Err(Violation::bad(fields.path_of(key), "names a file of the host, which a sent document cannot do", fix))
}

fn read_name(fields: &Fields<'_>) -> Result<AgentName, Violation> {
    let text = fields.required_text("name", "write `name = \"summarizer\"`")?;
    text.parse().map_err(|error: NameError| {
        bad_name(fields.path_of("name"), &error, &format!("write for example `{}`", similar_name(text)))
    })
}

fn read_zone(fields: &Fields<'_>) -> Result<Option<ZoneName>, Violation> {
    let Some(text) = fields.text("zone")? else { return Ok(None) };
    let fix = "write a zone such as `research.acme.org`, or `.` for the root";
    let zone = text.parse().map_err(|error: NameError| bad_name(fields.path_of("zone"), &error, fix))?;
    Ok(Some(zone))
}

fn read_scope(fields: &Fields<'_>) -> Result<Scope, Violation> {
    Ok(match fields.choice("scope", &["public", "zone", "node"])? {
        Some("zone") => Scope::Zone,
        Some("node") => Scope::Node,
        _ => Scope::Public,
    })
}

/// Signed grants from the owner to the host, each as base64 text: what `owner_key` and `grant` of a file become when
/// the document is sent. Whether they carry the record is judged with the record.
fn read_grants(fields: &Fields<'_>) -> Result<Vec<Vec<u8>>, Violation> {
    let texts = fields.texts("grants")?;
    // Counted before any is decoded: a document may hold megabytes of them.
    if texts.len() > GRANTS_MAX {
        let problem = format!("holds {} grants", texts.len());
        return Err(Violation::bad(
            fields.path_of("grants"),
            problem,
            format!("at most {GRANTS_MAX} make a chain"),
        ));
    }
    let decode = |text: &str| {
        BASE64.decode(text.as_bytes()).map_err(|_| {
            Violation::bad(
                fields.path_of("grants"),
                "is not base64",
                "use the line that `aop keys grant` prints",
            )
        })
    };
    texts.into_iter().map(decode).collect()
}

fn read_card(fields: &Fields<'_>) -> Result<AgentCard, Violation> {
    let owned = |key| Ok(fields.text(key)?.filter(|text| !text.is_empty()).map(str::to_owned));
    let labels = |key| Ok::<_, Violation>(fields.texts(key)?.into_iter().map(str::to_owned).collect());
    Ok(AgentCard {
        description: fields.prose("description")?.unwrap_or_default().to_owned(),
        title: owned("title")?,
        tags: labels("tags")?,
        capabilities: labels("capabilities")?,
        input_schema: read_schema(fields, "input_schema")?,
        output_schema: read_schema(fields, "output_schema")?,
        role: owned("role")?,
        model: owned("model")?,
        version: owned("version")?,
        region: owned("region")?,
        residency: owned("residency")?,
        limits: read_limits(fields)?,
        origin: Origin::Native,
        ..AgentCard::default()
    })
}

fn read_schema(fields: &Fields<'_>, key: &str) -> Result<Option<String>, Violation> {
    match fields.value(key) {
        None => Ok(None),
        Some(schema @ Value::Object(_)) => {
            // Compiled to be judged and dropped: a schema that no caller can use must not spread.
            Schema::compile(schema).map_err(|why| {
                let fix = "correct it; JSON Schema 2020-12 is read unless `$schema` names another dialect";
                Violation::bad(fields.path_of(key), why, fix)
            })?;
            Ok(Some(compact(schema)))
        }
        Some(Value::String(file)) => {
            let problem = format!("is the file name {}, which a sent document cannot use", quoted_text(file));
            Err(Violation::bad(fields.path_of(key), problem, "put the JSON Schema itself here"))
        }
        Some(_) => Err(Violation::bad(fields.path_of(key), "is not a JSON Schema", "write an object")),
    }
}

/// A listing has no limits; an agent that runs, or names one of them, has them all.
fn read_limits(fields: &Fields<'_>) -> Result<Option<CallLimits>, Violation> {
    let timeout_s = fields.count("timeout_s", 1..=TIMEOUT_S_MAX)?;
    let max_retries = fields.count("max_retries", 0..=RETRIES_MAX)?;
    let max_concurrency = fields.count("max_concurrency", 1..=CONCURRENCY_MAX)?;
    let (weight, min_replicas) =
        (fields.count("weight", 0..=SHARE_MAX)?, fields.count("min_replicas", 0..=SHARE_MAX)?);
    let balance = fields.choice("balance", &Balance::ALL.map(Balance::text))?;
    let idempotent = fields.flag("idempotent")?;
    let numbers = [timeout_s, max_retries, max_concurrency, weight, min_replicas];
    let given = numbers.iter().any(Option::is_some)
        || balance.is_some()
        || idempotent.is_some()
        || fields.value("run").is_some();
    // Filled in here, so that every node reads the same limits from the card, whatever its own defaults are.
    Ok(given.then(|| CallLimits {
        timeout_s: timeout_s.unwrap_or(DEFAULT_LIMITS.timeout_s),
        max_retries: max_retries.unwrap_or(DEFAULT_LIMITS.max_retries),
        max_concurrency: max_concurrency.unwrap_or(DEFAULT_LIMITS.max_concurrency),
        idempotent: idempotent.unwrap_or(DEFAULT_LIMITS.idempotent),
        balance: balance.and_then(|text| text.parse().ok()).unwrap_or_default(),
        weight: weight.unwrap_or(DEFAULT_LIMITS.weight),
        min_replicas: min_replicas.unwrap_or(DEFAULT_LIMITS.min_replicas),
    }))
}

fn check_host_settings(fields: &Fields<'_>) -> Result<(), Violation> {
    fields.count("max_queue", 0..=QUEUE_MAX)?;
    for key in ["verbose", "traceback_enabled"] {
        fields.flag(key)?;
    }
    for (index, caller) in fields.texts("callers")?.into_iter().enumerate() {
        if caller.trim().is_empty() {
            let path = fields.path_of("callers").index(index);
            return Err(Violation::bad(path, "is empty", "write a peer, an owner or a zone"));
        }
    }
    check_rate(fields)?;
    check_process_limits(fields)?;
    fields.object("run")?.map_or(Ok(()), |run| check_run(&run))
}

fn check_rate(fields: &Fields<'_>) -> Result<(), Violation> {
    let Some(text) = fields.text("rate_limit")? else { return Ok(()) };
    if Rate::parse(text).is_some() {
        return Ok(());
    }
    let fix = "write calls per second, minute or hour: `10/s`, `10/min` or `10/h`";
    Err(Violation::bad(fields.path_of("rate_limit"), format!("is {}", quoted_text(text)), fix))
}

fn check_run(run: &Fields<'_>) -> Result<(), Violation> {
    run.only(&["command", "env", "mcp", "http", "chat", "a2a", "builtin", "tool"])?;
    let given: Vec<&str> = RUNNERS.into_iter().filter(|key| run.value(key).is_some()).collect();
    match given[..] {
        ["command"] => check_command(run)?,
        ["mcp"] => check_mcp(run)?,
        ["http"] => check_http(run)?,
        ["chat"] => check_chat(run)?,
        ["a2a"] => check_a2a(run)?,
        ["builtin"] => drop(run.choice("builtin", &["echo", "sleep", "fail"])?),
        _ => {
            let problem = match given.len() {
                0 => "says no way to run the agent".to_owned(),
                _ => format!("says {} ways to run the agent: {}", given.len(), given.join(", ")),
            };
            return Err(Violation::bad(
                run.path(),
                problem,
                format!("write exactly one of {}", RUNNERS.join(", ")),
            ));
        }
    }
    for (key, runner) in [("tool", "mcp"), ("env", "command")] {
        if run.value(key).is_some() && given != [runner] {
            let fix = "remove it, or write it where the program or the server is named";
            return Err(Violation::bad(run.path_of(key), format!("stands without `{runner}`"), fix));
        }
    }
    Ok(())
}

fn check_command(fields: &Fields<'_>) -> Result<(), Violation> {
    let command = fields.texts("command")?;
    if command.first().is_none_or(|program| program.trim().is_empty()) {
        let fix = "write the program and its arguments: `[\"python3\", \"agent.py\"]`";
        return Err(Violation::bad(fields.path_of("command"), "names no program", fix));
    }
    check_env(fields)
}

fn check_mcp(run: &Fields<'_>) -> Result<(), Violation> {
    check_tool(run)?;
    // A lone server stands without an array, and only there `tool` may stand inside: it is clear whose it is.
    if !run.value("mcp").is_some_and(Value::is_array) {
        let Some(mcp) = run.object("mcp")? else { return Ok(()) };
        mcp.only(&["command", "env", "url", "headers", "header_env", "tool"])?;
        check_tool(&mcp)?;
        return check_server(&mcp);
    }
    let servers = run.objects("mcp")?;
    if servers.is_empty() || servers.len() > SERVERS_MAX {
        let fix = format!("write 1 to {SERVERS_MAX} of `{{ command = […] }}` or `{{ url = \"…\" }}`");
        return Err(Violation::bad(run.path_of("mcp"), format!("holds {} servers", servers.len()), fix));
    }
    for server in servers {
        // One tool of all servers is named beside `mcp`.
        server.only(&["command", "env", "url", "headers", "header_env"])?;
        check_server(&server)?;
    }
    Ok(())
}

fn check_tool(fields: &Fields<'_>) -> Result<(), Violation> {
    match fields.text("tool")? {
        Some(tool) if tool.trim().is_empty() => Err(Violation::bad(
            fields.path_of("tool"),
            "is empty",
            "name a tool, or remove it to offer all tools",
        )),
        _ => Ok(()),
    }
}

fn check_server(server: &Fields<'_>) -> Result<(), Violation> {
    match (server.value("command"), server.value("url")) {
        (Some(_), None) => {
            refuse_keys(server, &["headers", "header_env"], "url")?;
            check_command(server)
        }
        (None, Some(_)) => {
            refuse_keys(server, &["env"], "command")?;
            check_endpoint(server, "url")
        }
        _ => Err(Violation::bad(
            server.path(),
            "says not exactly one server",
            "write either `command` or `url`",
        )),
    }
}

fn check_http(run: &Fields<'_>) -> Result<(), Violation> {
    let Some(http) = run.object("http")? else { return Ok(()) };
    http.only(&["url", "headers", "header_env"])?;
    check_endpoint(&http, "url")
}

fn check_chat(run: &Fields<'_>) -> Result<(), Violation> {
    let Some(chat) = run.object("chat")? else { return Ok(()) };
    chat.only(&[
        "base_url",
        "headers",
        "header_env",
        "model",
        "api_key_env",
        "system_prompt",
        "temperature",
        "max_loops",
    ])?;
    check_endpoint(&chat, "base_url")?;
    chat.required_text("model", "write the model's name")?;
    chat.text("api_key_env")?;
    chat.prose("system_prompt")?;
    chat.count("max_loops", 1..=LOOPS_MAX)?;
    // The range that OpenAI-compatible APIs take.
    match chat.value("temperature") {
        Some(value) if !value.as_f64().is_some_and(|number| (0.0..=2.0).contains(&number)) => Err(
            Violation::bad(chat.path_of("temperature"), "is not a temperature", "write a number from 0 to 2"),
        ),
        _ => Ok(()),
    }
}

fn check_a2a(run: &Fields<'_>) -> Result<(), Violation> {
    let Some(a2a) = run.object("a2a")? else { return Ok(()) };
    a2a.only(&["card", "headers", "header_env"])?;
    check_endpoint(&a2a, "card")
}

/// A key that belongs to another kind of server would be passed over without a word.
fn refuse_keys(server: &Fields<'_>, keys: &[&str], kind: &str) -> Result<(), Violation> {
    match keys.iter().find(|key| server.value(key).is_some()) {
        Some(key) => {
            Err(Violation::bad(server.path_of(key), format!("stands without `{kind}`"), "remove it"))
        }
        None => Ok(()),
    }
}

fn check_endpoint(fields: &Fields<'_>, key: &str) -> Result<(), Violation> {
    let fix = "write a URL that starts with `http://` or `https://`";
    let url = fields.required_text(key, fix)?;
    // The scheme alone: whether anybody answers there is found out when the agent is called.
    if url.starts_with("http://") || url.starts_with("https://") {
        return check_headers(fields);
    }
    Err(Violation::bad(fields.path_of(key), format!("is {}", quoted_text(url)), fix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Refusal, read_documents};
    use serde_json::json;

    fn read_agent(agent: Value) -> Result<Offer, Refusal> {
        read_documents(json!({ "agent": agent })).remove(0)
    }

    fn refused(key: &str, value: Value) -> (&'static str, String) {
        let mut agent = json!({"name": "a"});
        agent[key] = value;
        let refusal = read_agent(agent).unwrap_err();
        (refusal.code.text(), refusal.message)
    }

    #[test]
    fn every_field_of_the_file_is_read() {
        let one = read_agent(json!({
            "name": "summarizer", "description": "Summarises\nlong documents", "zone": "research.acme.org",
            "tags": ["text"], "capabilities": ["summarize"], "version": "1", "role": "r", "model": "m",
            "region": "eu", "residency": "de", "input_schema": {"type": "object"}, "output_schema": {},
            "timeout_s": 5, "max_retries": 0, "max_concurrency": 2, "max_queue": 10, "rate_limit": "10/s",
            "weight": 1, "balance": "latency", "min_replicas": 1, "idempotent": true, "verbose": false,
            "traceback_enabled": true, "scope": "zone", "callers": ["acme.org"], "run": {"builtin": "echo"},
        }))
        .unwrap();
        assert_eq!((one.name.as_str(), one.scope), ("summarizer", Scope::Zone));
        assert_eq!(one.zone.unwrap().as_str(), "research.acme.org");
        let card = one.card;
        assert_eq!(
            card.limits,
            Some(CallLimits {
                timeout_s: 5,
                max_retries: 0,
                max_concurrency: 2,
                idempotent: true,
                balance: Balance::Latency,
                weight: 1,
                min_replicas: 1,
            })
        );
        assert_eq!(card.input_schema.as_deref(), Some("{\"type\":\"object\"}"));
        let short = [card.version, card.role, card.model, card.region, card.residency].map(Option::unwrap);
        assert_eq!(short, ["1", "r", "m", "eu", "de"]);
        assert_eq!((card.origin, card.callable, card.original), (Origin::Native, false, None));
    }

    #[test]
    fn nothing_of_the_host_enters_the_card() {
        let one = read_agent(json!({
            "name": "a", "callers": ["SECRET"], "rate_limit": "7/s",
            "run": {"chat": {"base_url": "http://SECRET", "model": "SECRET", "api_key_env": "SECRET",
                             "system_prompt": "SECRET", "temperature": 0.5, "max_loops": 2}},
        }))
        .unwrap();
        assert!(!format!("{one:?}").contains("SECRET"));
        assert_eq!(one.card.limits, Some(DEFAULT_LIMITS));
        assert_eq!(read_agent(json!({"name": "a"})).unwrap().card.limits, None, "a listing has none");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_closest_known_one() {
        let (code, message) = refused("descripton", json!("x"));
        assert_eq!(code, "unknown_key");
        assert!(
            message.starts_with("`agent.descripton`") && message.ends_with("did you mean `description`?")
        );
        assert!(refused("run", json!({"comand": ["x"]})).1.contains("did you mean `command`?"));
        assert!(refused("zzz", json!(1)).1.contains("known here: `name`"));
        let refusal = read_documents(json!({"agent": {"name": "a"}, "agents": {}})).remove(0).unwrap_err();
        assert!(refusal.message.contains("did you mean `agent`?"), "{}", refusal.message);
    }

    #[test]
    fn exactly_one_way_to_run_is_accepted() {
        let good = [
            json!({"command": ["python3", "agent.py"]}),
            json!({"mcp": {"command": ["uvx", "some-server"]}, "tool": "name"}),
            json!({"mcp": {"url": "http://127.0.0.1:9000/mcp"}}),
            json!({"mcp": [{"url": "http://127.0.0.1:9000/mcp"}, {"command": ["server"]}], "tool": "name"}),
            json!({"http": {"url": "http://127.0.0.1:9000/run"}}),
            json!({"command": ["x"], "env": ["API_KEY"]}),
            json!({"command": ["x"], "env": {"API_KEY": "x"}}),
            json!({"mcp": {"command": ["x"], "env": ["API_KEY"]}}),
            json!({"mcp": {"url": "http://x", "headers": {"A": "b"}, "header_env": {"B": "VAR"}}}),
            json!({"http": {"url": "http://x", "header_env": {"Authorization": "VAR"}}}),
            json!({"chat": {"base_url": "http://127.0.0.1:8080/v1", "model": "m"}}),
            json!({"builtin": "sleep"}),
        ];
        for run in good {
            read_agent(json!({"name": "a", "run": run})).unwrap();
        }
        let bad = [
            (json!({}), "says no way"),
            (json!({"builtin": "echo", "command": ["x"]}), "says 2 ways"),
            (json!({"builtin": "ecko"}), "did you mean `echo`?"),
            (json!({"command": []}), "names no program"),
            (json!({"command": "python3"}), "write an array"),
            (json!({"mcp": {}}), "either `command` or `url`"),
            (json!({"mcp": {"url": "x"}}), "http://"),
            (json!({"mcp": []}), "holds 0 servers"),
            (json!({"mcp": [{"url": "http://x"}, {}]}), "`agent.run.mcp[1]` says not exactly one server"),
            (
                json!({"mcp": [{"url": "http://x", "tool": "t"}]}),
                "`agent.run.mcp[0].tool` is not a known key",
            ),
            (json!({"mcp": [{"command": []}]}), "`agent.run.mcp[0].command` names no program"),
            (json!({"mcp": "x"}), "write an object"),
            (json!({"mcp": {"url": "http://x"}, "tool": " "}), "`agent.run.tool` is empty"),
            (json!({"http": {}}), "`agent.run.http.url` is missing"),
            (json!({"chat": {"base_url": "http://x"}}), "`agent.run.chat.model` is missing"),
            (json!({"chat": {"base_url": "http://x", "model": "m", "temperature": 9}}), "from 0 to 2"),
            (json!({"builtin": "echo", "tool": "x"}), "without `mcp`"),
            (json!({"builtin": "echo", "env": ["A"]}), "without `command`"),
            (json!({"command": ["x"], "env": ["A=B"]}), "`agent.run.env[0]` is no name of a variable"),
            (json!({"command": ["x"], "env": {"A": 1}}), "`agent.run.env.A` is 1"),
            (json!({"mcp": {"url": "http://x", "env": ["A"]}}), "without `command`"),
            (json!({"mcp": {"command": ["x"], "headers": {"A": "b"}}}), "without `url`"),
            (json!({"http": {"url": "http://x", "headers": {"Host": "b"}}}), "the node writes itself"),
            (json!({"http": {"url": "http://x", "headers": {"A b": "c"}}}), "no name of a header"),
            (json!({"http": {"url": "http://x", "headers": {"Aop-Caller": "b"}}}), "the node writes itself"),
            (
                json!({"chat": {"base_url": "http://x", "header_env": {"traceparent": "B"}}}),
                "the node writes",
            ),
            (json!({"command": ["x"], "env": ["AOP_CALL_ID"]}), "`agent.run.env[0]` is a variable that"),
            (json!({"mcp": {"command": ["x"], "env": {"TRACEPARENT": "x"}}}), "the node writes itself"),
            (
                json!({"http": {"url": "http://x", "headers": {"A": "b"}, "header_env": {"a": "B"}}}),
                "`agent.run.http.header_env.a` is given twice",
            ),
            (json!("echo"), "write an object"),
        ];
        for (run, words) in bad {
            let message = refused("run", run).1;
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn values_outside_their_range_are_refused_with_the_range() {
        assert_eq!(
            refused("timeout_s", json!(0)).1,
            "`agent.timeout_s` is 0; write a whole number from 1 to 86400"
        );
        assert_eq!(refused("max_retries", json!(-1)).0, "bad_field");
        assert_eq!(refused("timeout_s", json!(1.5)).0, "bad_field");
        assert!(refused("scope", json!("publc")).1.contains("did you mean `public`?"));
        assert!(refused("rate_limit", json!("0/s")).1.contains("10/s"));
        assert!(refused("max_memory", json!("512M")).1.contains("stands without `command`"));
        let limited = |key: &str, value: Value| {
            let mut agent = json!({"name": "a", "run": {"command": ["x"]}});
            agent[key] = value;
            read_agent(agent).map_err(|refusal| refusal.message)
        };
        for size in ["512M", "2G", "65536K", "1 M"] {
            limited("max_memory", json!(size)).unwrap();
        }
        for size in [
            json!("512"),
            json!("512MB"),
            json!("1K"),
            json!("0G"),
            json!("-1G"),
            json!(""),
            json!("99999999999999999999G"),
        ] {
            assert!(limited("max_memory", size).unwrap_err().contains("`512M` or `2G`"));
        }
        assert!(limited("max_memory", json!(512)).is_err() && limited("max_processes", json!(0)).is_err());
        assert!(refused("zone", json!("Acme")).0 == "bad_name");
        assert!(refused("name", json!("Sum")).1.contains("write for example `sum`"));
        assert_eq!(refused("tags", json!(["a", ""])).1, "`agent.tags[1]` is empty; remove it");
        assert_eq!(refused("input_schema", json!([1])).0, "bad_field");
        let message = refused("input_schema", json!({"properties": {"a": {"type": "strin"}}})).1;
        assert!(
            message.starts_with("`agent.input_schema` is no valid JSON Schema at `/properties/a/type`"),
            "{message}"
        );
    }

    #[test]
    fn a_sent_document_cannot_name_files_of_the_host() {
        for key in ["owner_key", "grant", "input_schema", "output_schema"] {
            assert_eq!(refused(key, json!("/etc/passwd")).0, "bad_field", "{key}");
        }
    }
}
