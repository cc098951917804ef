//! How a host could make a listing callable: what its document says is to be run or asked, as the `[agent.run]` of a file.
//!
//! The document is a stranger's. What it names is taken over only where it can be shown as it is: no character that nobody
//! sees, no package that is more than a name in its registry. Arguments for the program that starts a package are left out, for
//! they decide what it may do to this machine.

use serde_json::{Map, Value, json};

use super::a2a_endpoints;
use crate::proto::card::Origin;
use crate::sanitize::is_unseen;

/// What a file needs beside its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Adoption {
    /// `[agent.run]`.
    pub run: Value,
    /// Environment variables of the node that the file names.
    pub variables: Vec<Variable>,
    /// What the document asks for otherwise, or leaves open; one sentence each.
    pub notes: Vec<String>,
}

/// A variable that the operator sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: String,
}

impl Adoption {
    /// How a listing is adopted whose document came from `origin`. The variables of headers begin with `name`.
    ///
    /// # Errors
    /// Why it cannot be, one sentence for each way that its document names.
    pub fn of(origin: Origin, document: &Value, name: &str) -> Result<Adoption, Vec<String>> {
        let mut reasons = Vec::new();
        let found = match origin {
            Origin::Native => None,
            Origin::A2a => a2a(document, name, &mut reasons),
            Origin::ServerJson | Origin::ServerCard => server(document, name, &mut reasons),
            Origin::Oasf => oasf(document, name, &mut reasons),
        };
        found.ok_or(reasons)
    }
}

fn objects<'a>(from: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    from.get(key).and_then(Value::as_array).into_iter().flatten().filter(|item| item.is_object())
}

fn text<'a>(from: &'a Value, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| from.get(key)?.as_str()).filter(|text| !text.is_empty())
}

fn flag(from: &Value, keys: &[&str]) -> bool {
    keys.iter().any(|key| from.get(key) == Some(&Value::Bool(true)))
}

/// Whether a person sees all of a text.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(is_unseen)
}

/// An address that can be asked as it is, or why not.
fn address(url: &str) -> Result<&str, String> {
    if !is_plain(url) || !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(format!("{url:?} is no http address"));
    }
    match url.contains(['{', '}']) {
        true => Err(format!("the address {url} has places to be filled in: write the file by hand")),
        false => Ok(url),
    }
}

fn a2a(card: &Value, name: &str, reasons: &mut Vec<String>) -> Option<Adoption> {
    let endpoints = a2a_endpoints(card).map_err(|why| reasons.push(why)).ok()?;
    for endpoint in endpoints {
        if !["JSONRPC", "HTTP+JSON"].contains(&endpoint.kind.to_ascii_uppercase().as_str()) {
            reasons.push(format!("{:?} is spoken by no agent of this node", endpoint.kind));
            continue;
        }
        match address(&endpoint.address) {
            Ok(url) => {
                let (headers, variables) = credentials(card, name);
                let mut run = json!({"card": url});
                put(&mut run, "header_env", headers);
                let notes = vec![format!("its card is looked for below {url}, or at the top of that host")];
                return Some(Adoption { run: json!({"a2a": run}), variables, notes });
            }
            Err(why) => reasons.push(why),
        }
    }
    None
}

/// The headers by which a card wants its clients to say who they are.
fn credentials(card: &Value, name: &str) -> (Map<String, Value>, Vec<Variable>) {
    let is_asked = ["security", "securityRequirements"]
        .iter()
        .any(|key| card.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty()));
    let schemes = card.get("securitySchemes").and_then(Value::as_object).into_iter().flatten();
    let (mut headers, mut variables) = (Map::new(), Vec::new());
    for (_, scheme) in schemes.filter(|_| is_asked) {
        // 1.0 wraps each kind into a member of its own, 0.3 names it by `type`.
        let key = scheme.get("apiKeySecurityScheme").unwrap_or(scheme);
        let place = text(key, &["location", "in"]);
        let header = match (place, text(key, &["name"])) {
            (Some("header"), Some(name)) => name,
            (Some(_), _) => continue,
            _ => "Authorization",
        };
        need_header(header, "as the card asks for", name, &mut headers, &mut variables);
    }
    (headers, variables)
}

/// Has a header come from a variable.
fn need_header(
    header: &str,
    purpose: &str,
    agent: &str,
    headers: &mut Map<String, Value>,
    variables: &mut Vec<Variable>,
) {
    if !is_plain(header) || headers.contains_key(header) {
        return;
    }
    let name = variable_of(agent, header);
    headers.insert(header.to_owned(), json!(name));
    variables.push(Variable { name, purpose: format!("the whole header {header}: {purpose}") });
}

/// A variable for a header of an agent, such as `EXA_AUTHORIZATION`.
fn variable_of(agent: &str, header: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = format!("{agent}_{header}").chars().map(letter).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn server(server: &Value, name: &str, reasons: &mut Vec<String>) -> Option<Adoption> {
    // The newer transport first, and what is asked before what is run.
    for kind in ["streamable-http", "sse"] {
        for remote in
            objects(server, "remotes").filter(|it| text(it, &["type", "transport_type"]) == Some(kind))
        {
            match text(remote, &["url"]).ok_or_else(|| "a remote has no `url`".to_owned()).and_then(address) {
                Ok(url) => return Some(remote_adoption(url, remote, name)),
                Err(why) => reasons.push(why),
            }
        }
    }
    for package in objects(server, "packages") {
        match package_adoption(package) {
            Ok(adoption) => return Some(adoption),
            Err(why) => reasons.push(why),
        }
    }
    // The draft of server cards.
    let transport = server.get("transport")?;
    match text(transport, &["url", "endpoint"]).map(address)? {
        Ok(url) => Some(remote_adoption(url, transport, name)),
        Err(why) => {
            reasons.push(why);
            None
        }
    }
}

fn remote_adoption(url: &str, remote: &Value, name: &str) -> Adoption {
    let (mut values, mut headers) = (Map::new(), Map::new());
    let (mut variables, mut notes) = (Vec::new(), Vec::new());
    for header in objects(remote, "headers") {
        let Some(key) = text(header, &["name"]).filter(|key| is_plain(key)) else { continue };
        let value = text(header, &["value"]);
        let is_secret = flag(header, &["isSecret", "is_secret"]);
        match value.filter(|value| is_plain(value) && !value.contains('{') && !is_secret) {
            Some(value) => drop(values.insert(key.to_owned(), json!(value))),
            None if is_secret || flag(header, &["isRequired", "is_required"]) => {
                let form = value.map(|value| format!("`{value}`; ")).unwrap_or_default();
                let purpose =
                    format!("{form}{}", text(header, &["description"]).unwrap_or("not said what for"));
                need_header(key, &purpose, name, &mut headers, &mut variables);
            }
            None => notes.push(format!("the header {key} may be given, and is left out")),
        }
    }
    let mut run = json!({"url": url});
    put(&mut run, "headers", values);
    put(&mut run, "header_env", headers);
    Adoption { run: json!({"mcp": run}), variables, notes }
}

fn put(into: &mut Value, key: &str, members: Map<String, Value>) {
    if !members.is_empty() {
        into[key] = Value::Object(members);
    }
}

/// The command that runs a package over stdio.
fn package_adoption(package: &Value) -> Result<Adoption, String> {
    let registry = text(package, &["registryType", "registry_type", "registry_name"]).unwrap_or_default();
    let identifier = text(package, &["identifier", "name"]).unwrap_or_default();
    let transport = package.get("transport").and_then(|transport| text(transport, &["type"]));
    if transport.is_some_and(|kind| kind != "stdio") {
        return Err(format!("the package {identifier:?} is a server to be started by hand"));
    }
    let base = text(package, &["registryBaseUrl", "registry_base_url"]);
    let mut notes = Vec::new();
    let (needs, optional) = needs(package)?;
    if !optional.is_empty() {
        notes.push(format!("variables that may be set are left out: {}", optional.join(" ")));
    }
    let mut command = command(registry, identifier, base, package, &needs, &mut notes)?;
    for argument in objects(package, "packageArguments").chain(objects(package, "package_arguments")) {
        add_argument(argument, &mut command, &mut notes)?;
    }
    let asked = objects(package, "runtimeArguments").chain(objects(package, "runtime_arguments"));
    let asked: Vec<_> = asked
        .flat_map(|it| ["name", "value"].map(|key| text(it, &[key])))
        .flatten()
        .filter(|it| is_plain(it))
        .collect();
    if !asked.is_empty() {
        notes.push(format!("what it asks of the program that starts it is left out: {}", asked.join(" ")));
    }
    Ok(with_env(command, needs, notes))
}

fn with_env(command: Vec<String>, needs: Vec<Variable>, notes: Vec<String>) -> Adoption {
    let mut run = json!({"command": command});
    if !needs.is_empty() {
        run["env"] = needs.iter().map(|need| json!(need.name)).collect();
    }
    Adoption { run: json!({"mcp": run}), variables: needs, notes }
}

/// The program that installs and runs a package of this registry, and the package.
fn command(
    registry: &str,
    identifier: &str,
    base: Option<&str>,
    package: &Value,
    needs: &[Variable],
    notes: &mut Vec<String>,
) -> Result<Vec<String>, String> {
    let is_elsewhere = |own: &str| base.is_some_and(|base| base.trim_end_matches('/') != own);
    let elsewhere =
        || Err(format!("{identifier:?} lies in a registry of its own, {:?}", base.unwrap_or_default()));
    Ok(match registry {
        "npm" | "pypi" if !is_package(identifier, registry == "npm") => {
            return Err(format!("{identifier:?} is no name of a package"));
        }
        "npm" if is_elsewhere("https://registry.npmjs.org") => return elsewhere(),
        "pypi" if is_elsewhere("https://pypi.org") => return elsewhere(),
        "npm" => ["npx".into(), "-y".into(), versioned(identifier, "@", package, notes)].into(),
        "pypi" => ["uvx".into(), versioned(identifier, "==", package, notes)].into(),
        "oci" => {
            let mut words: Vec<String> = ["docker", "run", "--rm", "-i"].map(str::to_owned).into();
            for need in needs {
                words.extend(["-e".to_owned(), need.name.clone()]);
            }
            let version = text(package, &["version"]).filter(|version| is_exact(version));
            words.push(image(identifier, base, version, notes)?);
            words
        }
        other => return Err(format!("packages of {other:?} are installed by hand")),
    })
}

/// What becomes of a version that is none.
const NEWEST: &str = "whatever is the newest is run at each start";

/// The package with its version behind `at`, if that means one thing for ever; anything else is told and left out.
fn versioned(identifier: &str, at: &str, package: &Value, notes: &mut Vec<String>) -> String {
    let said = match text(package, &["version"]) {
        Some(version) if is_exact(version) => return format!("{identifier}{at}{version}"),
        Some(version) => format!("{version:?} is no exact version and left out"),
        None => "it names no version".into(),
    };
    notes.push(format!("{said}: {NEWEST}"));
    identifier.to_owned()
}

fn is_exact(version: &str) -> bool {
    let rest = version.strip_prefix('v').unwrap_or(version);
    rest.starts_with(|first: char| first.is_ascii_digit())
        && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".+-_!".contains(c))
        && !rest.split('.').any(|part| part.eq_ignore_ascii_case("x"))
}

/// Whether it is a name in a registry and no option, path or address.
fn is_package(identifier: &str, may_have_scope: bool) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    match identifier.strip_prefix('@').filter(|_| may_have_scope).and_then(|scoped| scoped.split_once('/')) {
        Some((scope, name)) => is_word(scope) && is_word(name),
        None => is_word(identifier),
    }
}

/// An image with its registry and version.
fn image(
    identifier: &str,
    base: Option<&str>,
    version: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<String, String> {
    let is_image = identifier.starts_with(|first: char| first.is_ascii_alphanumeric())
        && identifier.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c));
    if !is_image {
        return Err(format!("{identifier:?} is no name of an image"));
    }
    let host = base.and_then(|base| base.split_once("://")).map(|(_, host)| host.trim_end_matches('/'));
    let has_host = identifier.split('/').next().is_some_and(|first| first.contains(['.', ':']));
    let whole = match host.filter(|_| !has_host) {
        Some(host)
            if !host.starts_with('-')
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c)) =>
        {
            format!("{host}/{identifier}")
        }
        Some(host) => return Err(format!("{host:?} is no registry of images")),
        None => identifier.to_owned(),
    };
    let last = whole.rsplit('/').next().unwrap_or_default();
    let image = match version.filter(|_| !last.contains([':', '@'])) {
        Some(version) => format!("{whole}:{version}"),
        None => whole,
    };
    let tag = image.rsplit('/').next().and_then(|last| last.split_once([':', '@'])).map(|(_, tag)| tag);
    if !tag.is_some_and(|tag| tag.starts_with("sha256:") || is_exact(tag)) {
        notes.push(format!("{image:?} names no exact version: {NEWEST}"));
    }
    Ok(image)
}

/// The variables that a package must have, and those that it may have besides.
fn needs(package: &Value) -> Result<(Vec<Variable>, Vec<String>), String> {
    let (mut needs, mut optional) = (Vec::new(), Vec::new());
    let variables = ["environmentVariables", "environment_variables", "env_vars"];
    for variable in variables.iter().flat_map(|key| objects(package, key)) {
        let name = text(variable, &["name"]).unwrap_or_default();
        // Of OASF: a default of nothing is to be filled in.
        let is_blank = variable.get("default_value").is_some_and(|value| value == "");
        match flag(variable, &["isRequired", "is_required", "required"]) || is_blank {
            true => needs.push(Variable { name: variable_named(name)?, purpose: purpose(variable) }),
            false if is_plain(name) => optional.push(name.to_owned()),
            false => {}
        }
    }
    Ok((needs, optional))
}

fn purpose(variable: &Value) -> String {
    text(variable, &["description"]).unwrap_or("not said what for").to_owned()
}

/// A name that a variable of the node may have for a stranger's program: the node's own are not for it.
fn variable_named(name: &str) -> Result<String, String> {
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match is_name && !name.to_ascii_uppercase().starts_with("AOP_") {
        true => Ok(name.to_owned()),
        false => Err(format!("it asks for the variable {name:?}, which no program of a listing is given")),
    }
}

/// Adds an argument that the document fills in itself.
fn add_argument(argument: &Value, command: &mut Vec<String>, notes: &mut Vec<String>) -> Result<(), String> {
    let name = text(argument, &["name"]);
    let is_required = flag(argument, &["isRequired", "is_required"]);
    let given = text(argument, &["value"]).or_else(|| text(argument, &["default"]).filter(|_| is_required));
    if [name, given].into_iter().flatten().any(|it| !is_plain(it)) {
        return Err("an argument of it has characters that nobody sees".into());
    }
    match (name, given) {
        (_, Some(value)) if value.contains(['{', '}']) => {
            notes.push(format!("an argument is to be filled in: {} {value}", name.unwrap_or_default()));
        }
        (Some(name), Some(value)) => command.extend([name.to_owned(), value.to_owned()]),
        (None, Some(value)) => command.push(value.to_owned()),
        (name, None) if is_required => {
            let what =
                name.or_else(|| text(argument, &["valueHint", "value_hint"])).unwrap_or("without a name");
            notes.push(format!("an argument is to be filled in: {what:?}"));
        }
        (_, None) => {}
    }
    Ok(())
}

fn oasf(record: &Value, name: &str, reasons: &mut Vec<String>) -> Option<Adoption> {
    for module in objects(record, "modules") {
        let data = module.get("data").unwrap_or(&Value::Null);
        let found = match text(module, &["name"]) {
            Some("integration/a2a") => a2a(data.get("card_data").unwrap_or(data), name, reasons),
            Some("integration/mcp") => objects(data, "connections").find_map(|connection| {
                connection_adoption(connection, name).map_err(|why| reasons.push(why)).ok()
            }),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn connection_adoption(connection: &Value, name: &str) -> Result<Adoption, String> {
    if let Some(url) = text(connection, &["url"]) {
        return address(url).map(|url| remote_adoption(url, connection, name));
    }
    let program = text(connection, &["command"]).ok_or("a connection names neither `url` nor `command`")?;
    let arguments = connection.get("args").and_then(Value::as_array).into_iter().flatten();
    let command: Vec<String> =
        std::iter::once(program).chain(arguments.filter_map(Value::as_str)).map(str::to_owned).collect();
    if !command.iter().all(|word| is_plain(word)) {
        return Err("its command has characters that nobody sees".into());
    }
    let (needs, _) = needs(connection)?;
    Ok(with_env(command, needs, vec!["the listing names the program itself".into()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(package: Value) -> Result<Adoption, Vec<String>> {
        Adoption::of(Origin::ServerJson, &json!({"name": "a.b/c", "packages": [package]}), "c")
    }

    fn command(of: Value) -> Vec<String> {
        let adoption = package(of).unwrap();
        serde_json::from_value(adoption.run["mcp"]["command"].clone()).unwrap()
    }

    #[test]
    fn a_package_is_run_by_the_program_of_its_registry() {
        let npm = json!({"registryType": "npm", "identifier": "@a-b/c", "version": "1.2.3", "transport": {"type": "stdio"},
                         "packageArguments": [{"type": "positional", "value": "--privileged; rm -rf /"},
                                              {"type": "named", "name": "--mode", "value": "read only"},
                                              {"type": "named", "name": "--maybe"}],
                         "environmentVariables": [{"name": "KEY", "isRequired": true, "isSecret": true, "description": "the key"},
                                                  {"name": "LEVEL"}]});
        let adoption = package(npm.clone()).unwrap();
        let words = ["npx", "-y", "@a-b/c@1.2.3", "--privileged; rm -rf /", "--mode", "read only"];
        assert_eq!(adoption.run, json!({"mcp": {"command": words, "env": ["KEY"]}}));
        assert_eq!(adoption.variables, [Variable { name: "KEY".into(), purpose: "the key".into() }]);
        assert_eq!(adoption.notes, ["variables that may be set are left out: LEVEL"]);
        let pypi = json!({"registry_type": "pypi", "identifier": "c", "version": "0.1.0rc1"});
        assert_eq!(command(pypi), ["uvx", "c==0.1.0rc1"]);
        let image = |identifier: &str, base: Option<&str>| {
            let mut image = json!({"registryType": "oci", "identifier": identifier, "version": "1.0.0",
                                   "environmentVariables": [{"name": "KEY", "isRequired": true}],
                                   "runtimeArguments": [{"type": "named", "name": "--privileged"},
                                                        {"type": "named", "name": "--mount", "value": "/:/host"}]});
            base.iter().for_each(|base| image["registryBaseUrl"] = json!(base));
            package(image).unwrap()
        };
        let run = image("ghcr.io/a/c:2", None);
        assert_eq!(
            run.run["mcp"]["command"],
            json!(["docker", "run", "--rm", "-i", "-e", "KEY", "ghcr.io/a/c:2"])
        );
        assert!(run.notes[0].ends_with("is left out: --privileged --mount /:/host"), "{:?}", run.notes);
        assert!(image("a/c:latest", None).notes[0].contains("no exact version"));
        assert_eq!(image("a/c@sha256:0a", None).notes.len(), 1);
        assert_eq!(image("a/c", Some("https://docker.io")).run["mcp"]["command"][6], "docker.io/a/c:1.0.0");
    }

    #[test]
    fn a_version_that_moves_is_told_and_not_followed() {
        for version in ["^1.2", "latest", ">=1 <2", "1.x", "*", "--help"] {
            let adoption =
                package(json!({"registryType": "npm", "identifier": "c", "version": version})).unwrap();
            assert_eq!(adoption.run["mcp"]["command"], json!(["npx", "-y", "c"]), "{version}");
            assert!(adoption.notes[0].contains("no exact version"), "{:?}", adoption.notes);
        }
        let adoption = package(json!({"registryType": "pypi", "identifier": "c"})).unwrap();
        assert!(adoption.notes[0].contains("names no version"), "{:?}", adoption.notes);
    }

    #[test]
    fn what_is_more_than_the_name_of_a_package_is_refused() {
        for (registry, identifier) in [
            ("npm", "--call=reboot"),
            ("npm", "git+https://evil.example/x"),
            ("npm", "../x"),
            ("npm", "a/b"),
            ("npm", "a b"),
            ("pypi", "@a/b"),
            ("pypi", "c @ https://evil.example/x.whl"),
            ("oci", "--privileged"),
            ("oci", "a b"),
            ("nuget", "c"),
            ("npm", ""),
        ] {
            let refused =
                package(json!({"registryType": registry, "identifier": identifier, "version": "1"}));
            assert_eq!(refused.unwrap_err().len(), 1, "{registry} {identifier}");
        }
        let c = |more: Value| {
            let mut package = json!({"registryType": "npm", "identifier": "c", "version": "1"});
            package.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            package
        };
        for more in [
            json!({"registryBaseUrl": "https://npm.evil.example"}),
            json!({"transport": {"type": "streamable-http", "url": "http://127.0.0.1:1"}}),
            json!({"environmentVariables": [{"name": "AOP_TOKEN", "isRequired": true}]}),
            json!({"environmentVariables": [{"name": "A=B", "isRequired": true}]}),
            json!({"packageArguments": [{"type": "positional", "value": "a\u{202e}b"}]}),
            json!({"packageArguments": [{"type": "positional", "value": "a\nb"}]}),
        ] {
            package(c(more.clone())).expect_err(&more.to_string());
        }
    }

    #[test]
    fn a_remote_is_asked_with_headers_from_variables() {
        let server = json!({"name": "a.b/c", "remotes": [
            {"type": "sse", "url": "https://c.example/sse"},
            {"type": "streamable-http", "url": "https://{tenant}.example/mcp"},
            {"type": "streamable-http", "url": "https://c.example/mcp", "headers": [
                {"name": "Authorization", "value": "Bearer {key}", "isSecret": true, "description": "your key"},
                {"name": "X-Region", "value": "eu"},
                {"name": "X-Maybe"}]}]});
        let adoption = Adoption::of(Origin::ServerJson, &server, "my-c").unwrap();
        assert_eq!(
            adoption.run,
            json!({"mcp": {"url": "https://c.example/mcp", "headers": {"X-Region": "eu"},
                           "header_env": {"Authorization": "MY_C_AUTHORIZATION"}}})
        );
        assert!(
            adoption.variables[0].purpose.contains("`Bearer {key}`; your key"),
            "{:?}",
            adoption.variables
        );
        assert_eq!(adoption.notes, ["the header X-Maybe may be given, and is left out"]);
        let only = json!({"name": "a.b/c", "remotes": [{"type": "sse", "url": "file:///x"}]});
        assert_eq!(Adoption::of(Origin::ServerCard, &only, "c").unwrap_err().len(), 1);
        let sse = json!({"name": "a.b/c", "remotes": [server["remotes"][0]]});
        let run = Adoption::of(Origin::ServerCard, &sse, "c").unwrap().run;
        assert_eq!(run, json!({"mcp": {"url": "https://c.example/sse"}}));
    }

    #[test]
    fn an_agent_is_asked_by_its_address_and_as_its_card_wants() {
        let mut card = json!({"name": "Echo", "skills": [], "supportedInterfaces": [
            {"url": "https://a.example/grpc", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
            {"url": "https://a.example/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
            "securitySchemes": {"key": {"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}},
                                "token": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}});
        let of = |card: &Value| Adoption::of(Origin::A2a, card, "echo").unwrap();
        assert_eq!(of(&card).run, json!({"a2a": {"card": "https://a.example/rpc"}}));
        card["securityRequirements"] = json!([{"schemes": {"key": {}}}]);
        let headers = json!({"X-Key": "ECHO_X_KEY", "Authorization": "ECHO_AUTHORIZATION"});
        assert_eq!(of(&card).run["a2a"]["header_env"], headers);
        let record = json!({"name": "r", "modules": [
            {"name": "integration/mcp", "data": {"connections": [{"type": "sse"}]}},
            {"name": "integration/a2a", "data": {"card_data": {"name": "Echo", "url": "http://10.0.0.1/"}}}]});
        let adopted = Adoption::of(Origin::Oasf, &record, "r").unwrap();
        assert_eq!(adopted.run, json!({"a2a": {"card": "http://10.0.0.1/"}}));
        let record = json!({"name": "r", "modules": [{"name": "integration/mcp", "data": {"connections": [
            {"type": "stdio", "command": "docker", "args": ["run", "-e", "KEY", "x"],
             "env_vars": [{"name": "KEY", "default_value": ""}]}]}}]});
        let adopted = Adoption::of(Origin::Oasf, &record, "r").unwrap();
        assert_eq!(
            adopted.run,
            json!({"mcp": {"command": ["docker", "run", "-e", "KEY", "x"], "env": ["KEY"]}})
        );
    }
}
