//! Zones on the command line: joined and left while a node runs, shown as a tree, with keys and grants of their own.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use aop::proto::grant::{Grant, Reach};
use aop::proto::identity::Identity;
use aop::proto::record::RecordKind;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::commands::{Started, aop_in, code, err, out, start};
use crate::processes::PATIENCE;

/// A folder, and the node that runs in it.
struct Desk {
    folder: TempDir,
    started: Option<Started>,
}

impl Desk {
    fn new(settings: &[&str]) -> Desk {
        let mut desk = Desk { folder: tempfile::tempdir().unwrap(), started: None };
        desk.start(settings);
        desk
    }

    /// Starts the node; one that runs is killed first.
    fn start(&mut self, settings: &[&str]) {
        self.started = None;
        let listen = "/ip4/127.0.0.1/tcp/0";
        let args = ["node", "--json", "--data-dir", "d", "--http", "127.0.0.1:0", "--listen", listen];
        self.started = Some(start(self.folder.path(), &[&args[..], settings].concat()));
    }

    fn ready(&self) -> &Value {
        &self.started.as_ref().unwrap().ready
    }

    fn aop(&self, args: &[&str]) -> Output {
        let node =
            self.started.as_ref().map_or("http://127.0.0.1:1", |it| it.ready["http"].as_str().unwrap());
        aop_in(self.folder.path(), args, &[("AOP_NODE", node)])
    }

    /// What a command prints that does what was asked.
    fn does(&self, args: &[&str]) -> String {
        let output = self.aop(args);
        assert_eq!(code(&output), 0, "{args:?}: {}", err(&output));
        out(&output)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.does(&[args, &["--json"]].concat())).unwrap()
    }

    /// The zones of the node with its roles.
    fn zones(&self) -> Vec<(String, String)> {
        let tree = self.json(&["zones"]);
        let text = |zone: &Value, field: &str| zone[field].as_str().unwrap().to_owned();
        tree["zones"]
            .as_array()
            .unwrap()
            .iter()
            .map(|zone| (text(zone, "zone"), text(zone, "role")))
            .collect()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// An agent's file, with what else its table says.
    fn register(&self, name: &str, more: &str) -> Output {
        self.write("agent.toml", &format!("[agent]\nname = '{name}'\ndescription = 'd'\n{more}\n"));
        self.aop(&["register", "agent.toml"])
    }
}

fn zones(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(zone, role)| ((*zone).to_owned(), (*role).to_owned())).collect()
}

/// A key file of a fixed key.
fn write_key(folder: &Path, name: &str, seed: u8) -> String {
    let path = folder.join(name);
    std::fs::write(&path, format!("{}\n", format!("{seed:02x}").repeat(32))).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Identity::from_seed([seed; 32]).key().to_string()
}

fn grants(lines: &str) -> Vec<Grant> {
    let signed = lines.lines().map(|line| data_encoding::BASE64.decode(line.as_bytes()).unwrap());
    signed.map(|signed| Grant::read(&signed).unwrap()).collect()
}

#[test]
fn a_zone_that_was_joined_is_joined_again_at_the_next_start_until_it_is_left() {
    let mut desk = Desk::new(&[]);
    assert_eq!(desk.json(&["zone", "join", "lab"]), json!({"zone": "lab", "role": "member"}));
    desk.does(&["zone", "join", "lab"]);
    let followed = desk.json(&["zone", "join", "acme.org", "--follow"]);
    assert_eq!(followed, json!({"zone": "acme.org", "role": "follower"}));
    assert_eq!(code(&desk.register("mine", "zone = 'lab'")), 0);
    let all = zones(&[(".", "member"), ("lab", "member"), ("acme.org", "follower")]);
    let mut shown = desk.zones();
    shown.sort();
    let mut expected = all.clone();
    expected.sort();
    assert_eq!(shown, expected);

    desk.start(&[]);
    assert_eq!(desk.ready()["zones"], json!([".", "lab"]));
    let mut shown = desk.zones();
    shown.sort();
    assert_eq!(shown, expected);
    assert_eq!(desk.json(&["show", "mine@lab"])["agent"], "mine@lab");

    assert_eq!(desk.json(&["zone", "leave", "lab"]), json!({"zone": "lab", "role": null}));
    desk.does(&["zone", "leave", "acme.org"]);
    assert_eq!(desk.zones(), zones(&[(".", "member")]));
    desk.start(&[]);
    assert_eq!(desk.zones(), zones(&[(".", "member")]));
}

#[test]
fn a_zone_of_the_settings_is_left_until_the_next_start_which_is_said() {
    let settings = ["--zone", "acme.org", "--zone", "."];
    let mut desk = Desk::new(&settings);
    let left = desk.aop(&["zone", "leave", "."]);
    assert_eq!(code(&left), 0, "{}", err(&left));
    assert!(err(&left).contains("next start joins it again"), "{}", err(&left));
    assert_eq!(desk.zones(), zones(&[("acme.org", "member")]));
    // In another role it is what the settings say from the next start on.
    let followed = desk.json(&["zone", "join", ".", "--follow"]);
    assert!(followed["notes"][0].as_str().unwrap().contains("other role"), "{followed}");
    assert_eq!(desk.zones(), zones(&[(".", "follower"), ("acme.org", "member")]));
    desk.start(&settings);
    assert_eq!(desk.zones(), zones(&[(".", "member"), ("acme.org", "member")]));
}

#[test]
fn a_zone_that_cannot_be_joined_or_left_is_refused_with_the_rule() {
    let desk = Desk::new(&[]);
    let deep = "1.2.3.4.5.6.7.8.9";
    let long = "a".repeat(64);
    for (args, exit, told) in [
        (&["join", "Acme.org"][..], 2, "lower-case letters, digits and inner `-`"),
        (&["join", "аcme.org"], 2, "lower-case letters, digits and inner `-`"),
        (&["join", "acme..org"], 2, "empty label"),
        (&["join", ""], 2, "empty label"),
        (&["join", &long], 2, "longer than 63 bytes"),
        (&["join", deep], 2, "at most 8 labels"),
        (&["join", "xn--80ak6aa92e.com"], 2, "punycode"),
        (&["leave", "xn--80ak6aa92e.com"], 2, "punycode"),
        (&["leave", "."], 1, "home zone"),
        (&["leave", "lab"], 1, "no part in the zone lab"),
    ] {
        let output = desk.aop(&[&["zone"], args].concat());
        assert_eq!(code(&output), exit, "{args:?}: {}", err(&output));
        assert!(err(&output).contains(told), "{args:?}: {}", err(&output));
    }
    desk.does(&["zone", "join", "lab"]);
    let other = desk.aop(&["zone", "join", "lab", "--follow"]);
    assert_eq!(code(&other), 1);
    assert!(err(&other).contains("another way") && err(&other).contains("aop zone leave"), "{}", err(&other));
    assert_eq!(desk.zones(), zones(&[(".", "member"), ("lab", "member")]), "nothing was changed");
}

/// The file cannot be replaced where a folder stands.
#[test]
fn a_data_folder_that_takes_no_writes_is_told_and_the_same_command_helps_later() {
    let mut desk = Desk::new(&[]);
    desk.does(&["zone", "join", "lab"]);
    let file = desk.folder.path().join("d/zones.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    for (what, told) in [("join", "joined until this node ends"), ("leave", "lab is not left")] {
        let zone = if what == "join" { "acme.org" } else { "lab" };
        let output = desk.aop(&["zone", what, zone]);
        assert_eq!(code(&output), 1, "{}", err(&output));
        assert!(err(&output).contains(told) && err(&output).contains("store_failed"), "{}", err(&output));
    }
    assert_eq!(desk.zones().len(), 3, "{:?}", desk.zones());
    std::fs::remove_dir(&file).unwrap();
    desk.does(&["zone", "join", "acme.org"]);
    desk.does(&["zone", "leave", "lab"]);
    desk.start(&[]);
    assert_eq!(desk.ready()["zones"], json!([".", "acme.org"]));
}

#[test]
fn a_node_does_not_start_without_the_zones_that_it_cannot_read() {
    let mut desk = Desk::new(&[]);
    desk.does(&["zone", "join", "lab"]);
    desk.started = None;
    desk.write("d/zones.json", "{\"zones\": [");
    let output =
        desk.aop(&["node", "--data-dir", "d", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert!(
        err(&output).contains("d/zones.json") && err(&output).contains("aop zone join"),
        "{}",
        err(&output)
    );
}

#[test]
fn the_tree_is_shown_from_the_root_down_with_keys() {
    let folder = tempfile::tempdir().unwrap();
    let key = write_key(folder.path(), "acme.key", 3);
    let config = folder.path().join("aop.toml");
    std::fs::write(&config, format!("[[anchor]]\nzone = 'acme.org'\nkey = '{key}'\n")).unwrap();
    let config = config.to_str().unwrap();
    let settings = ["--config", config, "--zone", ".", "--zone", "research.acme.org", "--follow", "acme.org"];
    let desk = Desk::new(&settings);
    assert_eq!(code(&desk.register("mine", "")), 0);
    let rows = desk.does(&["zones"]);
    let fields = |row: &str| row.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = rows.lines().map(fields).collect();
    let firsts: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(firsts, [".", "  acme.org", "    research.acme.org"]);
    assert_eq!((rows[1][1].as_str(), rows[1][7].as_str()), ("follower", key.as_str()));
    assert_eq!((rows[0][4].as_str(), rows[0][5].as_str(), rows[0][7].as_str()), ("1", "1", "-"));

    let tree = desk.json(&["zones"]);
    let zone = &tree["zones"][0];
    let names: Vec<&String> = zone.as_object().unwrap().keys().collect();
    for name in ["zone", "role", "status", "age_ms", "agents", "bytes", "members", "gateways", "gateway"] {
        assert!(names.iter().any(|it| *it == name), "{name}: {zone}");
    }
    assert!(zone.get("key").is_none() && zone["bytes"].as_u64() > Some(100), "{zone}");
    assert_eq!(tree["zones"][1]["key"], key.as_str());
    let status = desk.json(&["status"]);
    let roles: Vec<&Value> = status["zones"].as_array().unwrap().iter().map(|zone| &zone["role"]).collect();
    assert_eq!(roles, ["member", "follower", "member"]);
}

/// The tree of a node once it is as wanted; asked for until then.
fn tree_with(node: &str, is_wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = aop_in(Path::new("."), &["zones", "--json", "--node", node], &[]);
        let tree: Value = serde_json::from_str(&out(&output)).unwrap();
        let tree = tree["zones"].as_array().unwrap().clone();
        if is_wanted(&tree) {
            return tree;
        }
        assert!(Instant::now() < deadline, "{tree:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_gateway_shows_what_lies_below_its_zone_and_status_does_not() {
    let above = Desk::new(&["--gateway", "yes"]);
    let address = above.ready()["listen"][0].as_str().unwrap();
    let below = Desk::new(&["--zone", "acme.org", "--bootstrap", address]);
    assert_eq!(code(&below.register("mine", "")), 0);
    let url = |desk: &Desk| desk.ready()["http"].as_str().unwrap().to_owned();
    let id = |desk: &Desk| desk.ready()["peer_id"].as_str().unwrap().to_owned();
    let seen = tree_with(&url(&above), |tree| tree.get(1).is_some_and(|zone| zone["agents"] == 1));
    let (root, zone) = (&seen[0], &seen[1]);
    assert_eq!((&root["gateway"], &root["gateways"]), (&json!(true), &json!([id(&above)])));
    assert_eq!(
        (&zone["zone"], &zone["role"], &zone["gateway"]),
        (&json!("acme.org"), &json!("below"), &json!(false))
    );
    assert_eq!((&zone["gateways"], zone.get("members")), (&json!([id(&below)]), None));
    let is_own = |zone: &Value| zone["zone"] == "acme.org" && zone["parent"] == ".";
    let own = tree_with(&url(&below), |tree| tree.iter().any(is_own));
    let own = own.iter().find(|zone| is_own(zone)).unwrap();
    assert_eq!((&own["role"], &own["gateway"]), (&json!("member"), &json!(true)));
    let rows = above.does(&["zones"]);
    assert!(rows.starts_with(".\tmember, gateway\t") && rows.contains("\n  acme.org\tbelow\t"), "{rows}");
    let status = above.json(&["status"]);
    assert_eq!(status["zones"].as_array().unwrap().len(), 1, "{status}");
}

#[test]
fn a_zone_with_a_key_takes_only_what_its_key_granted() {
    let mut desk = Desk::new(&[]);
    let node = desk.ready()["peer_id"].as_str().unwrap().to_owned();
    let anchor = desk.does(&["zone", "init", "acme.org", "--out", "acme.key"]);
    let key = desk.does(&["keys", "show", "acme.key"]);
    assert_eq!(anchor, format!("[[anchor]]\nzone = \"acme.org\"\nkey = \"{}\"\n", key.trim()));
    desk.write("aop.toml", &anchor);
    desk.start(&["--config", "aop.toml", "--zone", "acme.org"]);

    let refused = desk.register("mine", "");
    assert_eq!(code(&refused), 1);
    let told = err(&refused);
    assert!(
        told.contains("bad_grant") && told.contains("aop keys grant") && told.contains("`grant`"),
        "{told}"
    );

    let to = ["keys", "grant", "--key", "acme.key", "--zone", "acme.org", "--to"];
    desk.does(&[&to[..], &[&node, "--out", "host.grant"]].concat());
    let registered = desk.register("mine", "grant = 'host.grant'");
    assert_eq!(code(&registered), 0, "{}", err(&registered));
    assert_eq!(desk.json(&["show", "mine"])["owner"], node.as_str(), "whom the zone grants is the owner");

    // Whom the zone grants may pass it on, where the zone says so.
    let owner = write_key(desk.folder.path(), "owner.key", 9);
    let of_zone = |more: &[&str]| desk.does(&[&to[..], &[&owner], more].concat());
    let of_owner = desk.does(&["keys", "grant", "--key", "owner.key", "--zone", "acme.org", "--to", &node]);
    desk.write("chain.grant", &(of_zone(&[]) + &of_owner));
    assert_eq!(code(&desk.register("ours", "grant = 'chain.grant'")), 1, "it was not to be passed on");
    desk.write("chain.grant", &(of_zone(&["--pass-on", "--slots", "1", "--days", "60"]) + &of_owner));
    let registered = desk.register("ours", "grant = 'chain.grant'");
    assert_eq!(code(&registered), 0, "{}", err(&registered));
    assert_eq!(desk.json(&["show", "ours"])["owner"], owner.as_str());
    let second = desk.register("more", "grant = 'chain.grant'");
    assert_eq!(code(&second), 1, "one slot was granted");
    let told = err(&second);
    assert!(told.contains("quota_exceeded") && told.contains("a grant of more slots"), "{told}");
}

#[test]
fn a_grant_says_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write_key(folder.path(), "acme.key", 3);
    let host = Identity::from_seed([4; 32]).key();
    let to = ["keys", "grant", "--key", "acme.key", "--zone", "acme.org", "--to", &host.to_string()]
        .map(str::to_owned);
    let aop = |more: &[&str]| {
        let args: Vec<&str> = to.iter().map(String::as_str).chain(more.iter().copied()).collect();
        aop_in(folder.path(), &args, &[])
    };
    let plain = grants(&out(&aop(&[])));
    assert_eq!(
        (&plain[0].kinds[..], plain[0].may_delegate, plain[0].slots),
        (&[RecordKind::Agent][..], false, None)
    );
    let wide =
        ["--kind", "delegation", "--kind", "agent", "--kind", "agent", "--slots", "20000", "--pass-on"];
    let wide = grants(&out(&aop(&wide)));
    assert_eq!(wide[0].kinds, [RecordKind::Agent, RecordKind::Delegation]);
    assert_eq!((wide[0].may_delegate, wide[0].slots), (true, Some(20_000)));
    for (more, told) in [
        (&["--slots", "0"][..], "1..=20000"),
        (&["--slots", "20001"], "1..=20000"),
        (&["--kind", "king"], "agent, delegation, revocation"),
        (&["--kind", "delegation", "--name", "x"], "no delegation has"),
    ] {
        let output = aop(more);
        assert_eq!(code(&output), 2, "{more:?}: {}", err(&output));
        assert!(err(&output).contains(told), "{more:?}: {}", err(&output));
    }
}

#[test]
fn a_zone_vouches_for_the_key_of_one_below_and_that_for_a_node() {
    let mut desk = Desk::new(&[]);
    let node = desk.ready()["peer_id"].as_str().unwrap().to_owned();
    let (acme, research) =
        (write_key(desk.folder.path(), "acme.key", 3), write_key(desk.folder.path(), "research.key", 4));
    let vouch = ["zone", "delegate", "research.acme.org", "--key-file", "acme.key", "--to"];
    let line = desk.does(&[&vouch[..], &[&research]].concat());
    let grant = &grants(&line)[0];
    assert_eq!((grant.issuer.to_string(), grant.subject.to_string()), (acme, research.clone()));
    assert_eq!((grant.zone.as_str(), &grant.reach), ("research.acme.org", &Reach::Subtree));
    assert_eq!((&grant.kinds[..], grant.may_delegate), (&[RecordKind::Delegation][..], true));
    let told = desk.json(&[&vouch[..], &[&research]].concat());
    assert_eq!((&told["zone"], &told["key"]), (&json!("research.acme.org"), &json!(research)));

    let zone = ["--zone", "research.acme.org", "--kind", "delegation", "--to", &node];
    let own = desk.does(&[&["keys", "grant", "--key", "research.key"], &zone[..]].concat());
    let anchor =
        format!("[[anchor]]\nzone = 'research.acme.org'\nkey = '{research}'\ngrant = 'research.grant'\n");
    desk.write("aop.toml", &anchor);
    for lines in [own.clone(), format!("{line}{own}")] {
        desk.write("research.grant", &lines);
        desk.does(&["config", "check", "aop.toml"]);
        desk.start(&["--config", "aop.toml", "--zone", "research.acme.org"]);
    }
    // What leads to another node is of no use here.
    desk.write("research.grant", &line);
    desk.started = None;
    let args = ["node", "--config", "aop.toml", "--data-dir", "d", "--http", "127.0.0.1:0"];
    let other = desk.aop(&args);
    assert_eq!(code(&other), 2, "{}", err(&other));
    assert!(err(&other).contains(&node) && err(&other).contains(&research), "{}", err(&other));
    for (args, told) in [
        (&["zone", "delegate", ".", "--key-file", "acme.key", "--to", &research][..], "above the root"),
        (&["zone", "delegate", "b.c", "--key-file", "research.key", "--to", &research], "is the key in"),
        (&["zone", "delegate", "b.c", "--key-file", "acme.key", "--to", "12D3x"], "PeerId"),
        (&["zone", "delegate", "b.c", "--key-file", "acme.key", "--to", &research, "--days", "91"], "1..=90"),
        (&["zone", "init", "xn--a.org", "--out", "x.key"], "punycode"),
    ] {
        let output = desk.aop(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
        assert!(err(&output).contains(told), "{args:?}: {}", err(&output));
    }
    assert!(!desk.folder.path().join("x.key").exists());
    assert_eq!(
        code(&desk.aop(&["zone", "init", "acme.org", "--out", "acme.key"])),
        1,
        "no key is overwritten"
    );
}

#[test]
fn what_is_wrong_with_an_anchor_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (acme, host) =
        (write_key(folder.path(), "acme.key", 3), Identity::from_seed([7; 32]).key().to_string());
    let grant = |more: &[&str]| {
        let args = ["keys", "grant", "--key", "acme.key", "--zone", "acme.org", "--to", &host];
        out(&aop_in(folder.path(), &[&args[..], more].concat(), &[]))
    };
    write("agents.grant", &grant(&[]));
    write("foreign.grant", &grant(&["--kind", "delegation", "--network", "lab"]));
    write("good.grant", &grant(&["--kind", "delegation"]));
    write("damaged.grant", &format!("{}\nnonsense\n", grant(&["--kind", "delegation"])));
    let named =
        |zone: &str, grant: &str| format!("[[anchor]]\nzone = '{zone}'\nkey = '{acme}'\ngrant = '{grant}'\n");
    let cases = [
        "anchor = 'acme.org'\n".to_owned(),
        "[anchor]\nzone = 'acme.org'\n".to_owned(),
        format!("[[anchor]]\nzone = 'acme.org'\nkye = '{acme}'\n"),
        "[[anchor]]\nzone = 'acme.org'\nkey = 7\n".to_owned(),
        "name = 'n'\n[[anchor]]\nzone = 'acme.org'\n".to_owned(),
        "[[anchor]]\nzone = 'Acme.org'\nkey = '12D3x'\n".to_owned(),
        format!("{0}\n{0}", format!("[[anchor]]\nzone = 'acme.org'\nkey = '{acme}'\n")),
        named("acme.org", "nowhere.grant"),
        named("acme.org", "damaged.grant"),
        named("acme.org", "agents.grant"),
        named("acme.org", "foreign.grant"),
        named("other.net", "good.grant"),
        named(".", "good.grant"),
        "gateway = 'maybe'\n".to_owned(),
    ];
    let mut told = String::new();
    for text in cases {
        write("aop.toml", &text);
        let output = aop_in(folder.path(), &["config", "check", "aop.toml"], &[]);
        assert_eq!(code(&output), 2, "{text}: {}", err(&output));
        told += &err(&output);
        told += "\n";
    }
    insta::assert_snapshot!(told);
    write("aop.toml", &named("acme.org", "good.grant"));
    assert_eq!(code(&aop_in(folder.path(), &["config", "check", "aop.toml"], &[])), 0);
    let args = ["config", "show", "--config", "aop.toml", "--gateway", "yes", "--data-dir", "d", "--json"];
    let shown = aop_in(folder.path(), &args, &[]);
    let shown: Value = serde_json::from_str(&out(&shown)).unwrap();
    let settings = shown["settings"].as_array().unwrap();
    let setting = |key: &str| settings.iter().find(|setting| setting["key"] == key).unwrap();
    assert_eq!(
        (&setting("gateway")["value"], &setting("gateway")["origin"]),
        (&json!("yes"), &json!("--gateway"))
    );
    let value = json!({"zone": "acme.org", "key": acme, "grant": "good.grant"});
    assert_eq!((&setting("anchor")["value"], &setting("anchor")["origin"]), (&value, &json!("aop.toml:1")));
}

/// A name server that has these texts at `_aop.acme.org` and nothing at any other name.
fn name_server(texts: &[String]) -> String {
    const NAME: &[u8] = b"\x04_aop\x04acme\x03org\0";
    let texts = texts.to_vec();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut asked = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut asked) {
            // The name ends with an empty label; type and class follow.
            let end = asked[12..length].iter().position(|byte| *byte == 0).unwrap() + 12 + 5;
            let is_there = asked[12..end].starts_with(NAME);
            let mut answer = asked[..end].to_vec();
            // An authoritative answer, one question, and a record for each text.
            let records = if is_there { texts.len() as u8 } else { 0 };
            answer[2..12].copy_from_slice(&[0x84, 0, 0, 1, 0, records, 0, 0, 0, 0]);
            for text in texts.iter().filter(|_| is_there) {
                let length = text.len() as u8;
                answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, length + 1, length]);
                answer.extend(text.as_bytes());
            }
            socket.send_to(&answer, client).unwrap();
        }
    });
    address.to_string()
}

/// The line by which a domain speaks for a key.
fn line_of(key: &str) -> String {
    format!("v=aop1; k=ed25519; p={key}")
}

#[test]
fn a_domain_speaks_for_the_key_of_its_zone_and_is_believed_by_nobody_who_does_not_write_it_down() {
    let [key, second, other] = [4, 5, 6].map(|seed| Identity::from_seed([seed; 32]).key().to_string());
    let desk = Desk::new(&[]);
    let anchor = |key: &str| format!("[[anchor]]\nzone = \"acme.org\"\nkey = \"{key}\"\n");
    let check = |server: &str, more: &[&str]| {
        desk.aop(&[&["zone", "check", "acme.org", "--nameserver", server], more].concat())
    };

    let server = name_server(&["v=spf1 -all".to_owned(), line_of(&key)]);
    let believed = check(&server, &[]);
    assert_eq!((code(&believed), out(&believed)), (0, anchor(&key)), "{}", err(&believed));
    assert!(err(&believed).contains("write this into the configuration"), "{}", err(&believed));
    assert!(
        err(&believed).contains("aop-zone: not asked for"),
        "a trial asks nobody else: {}",
        err(&believed)
    );
    let refused = check(&server, &["--key", &other]);
    assert_eq!((code(&refused), out(&refused)), (3, String::new()));
    assert!(err(&refused).contains("does not name the key"), "{}", err(&refused));
    for (more, exit, proved) in
        [(&[][..], 0, true), (&["--key", &key], 0, true), (&["--key", &other], 3, false)]
    {
        let told = check(&server, &[&["--json"], more].concat());
        let shown: Value = serde_json::from_str(&out(&told)).unwrap();
        assert_eq!((code(&told), &shown["proved"]), (exit, &json!(proved)), "{shown}");
        assert_eq!((&shown["keys"], &shown["dns"]["keys"]), (&json!([key]), &json!([key])), "{shown}");
        assert_eq!(shown["file"]["keys"], json!([]));
    }

    // A key that is about to take the place of another is named beside it.
    let server = name_server(&[line_of(&key), line_of(&second)]);
    let several = check(&server, &[]);
    assert!(code(&several) == 0 && out(&several).contains(&anchor(&key)), "{}", out(&several));
    assert!(
        out(&several).contains(&anchor(&second)) && err(&several).contains("choose one"),
        "{}",
        err(&several)
    );
    let chosen = check(&server, &["--key", &second]);
    assert_eq!((code(&chosen), out(&chosen)), (0, anchor(&second)), "the one that was asked about");

    let nothing = check(&name_server(&["v=spf1 -all".to_owned()]), &[]);
    assert!(code(&nothing) == 3 && err(&nothing).contains("names no key"), "{}", err(&nothing));
    assert_eq!(code(&desk.aop(&["zone", "check", "."])), 2);
}

#[test]
fn what_a_domain_places_is_printed_for_the_key_that_is_given_or_that_the_node_knows() {
    let mut desk = Desk::new(&[]);
    let [key, other] = [4, 5].map(|seed| Identity::from_seed([seed; 32]).key().to_string());
    let record = |key: &str| format!("_aop.acme.org. 300 IN TXT \"{}\"", line_of(key));
    let records = desk.json(&["zone", "dns", "acme.org", "--key", &key]);
    assert_eq!(records["records"], json!([["the key of acme.org", record(&key)]]));
    assert_eq!(records["file"]["line"], line_of(&key).as_str());
    let said = desk.aop(&["zone", "dns", "acme.org"]);
    assert_eq!(out(&said), "", "no key, and no address that others can dial");
    assert!(err(&said).contains("no key here") && err(&said).contains("--announce"), "{}", err(&said));

    desk.write("aop.toml", &format!("[[anchor]]\nzone = 'acme.org'\nkey = '{key}'\n"));
    desk.start(&["--config", "aop.toml", "--zone", "acme.org"]);
    assert!(desk.does(&["zone", "dns", "acme.org"]).contains(&record(&key)));
    let given = desk.does(&["zone", "dns", "acme.org", "--key", &other]);
    assert!(given.contains(&record(&other)) && !given.contains(&key), "{given}");
    let named = desk.does(&["zone", "dns", "acme.org", "--http-name", "www.acme.org"]);
    assert!(named.contains("_entries._agents.acme.org. 3600 IN SVCB 1 www.acme.org."), "{named}");
    assert_eq!(code(&desk.aop(&["zone", "dns", "."])), 2);
}
