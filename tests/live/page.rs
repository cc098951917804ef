//! The page at `/` in a real Chromium, over a real node: what it shows, wide and narrow, light and dark.
//!
//! What it needs of the machine stands in `tests/browser/driver.rs`.

#[path = "../browser/driver.rs"]
mod driver;

use std::fs;
use std::process::{Child, Command, Stdio};

use aop::api::{Ready, RegisterAnswer};
use driver::{Browser, SIZES, first_line_with};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A node in a process of its own.
struct Node {
    child: Child,
    http: String,
}

impl Node {
    fn start(args: &[&str]) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.args(args).args(["--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let line = first_line_with(&mut child, "ready").0;
        let ready: Ready = serde_json::from_str(&line).unwrap();
        Node { child, http: ready.http }
    }

    /// Five nodes with samples.
    fn dev() -> Node {
        Node::start(&["dev", "--http", "127.0.0.1:0"])
    }

    /// A node without peers, its data in `folder`.
    fn alone(folder: &TempDir, http: &str, further: &[&str]) -> Node {
        let data = folder.path().join("data");
        let args = ["node", "--http", http, "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir"];
        Node::start(&[&args[..], &[data.to_str().unwrap()], further].concat())
    }

    fn register(&self, documents: &Value) {
        let mut answer = ureq::post(format!("{}/v1/agents", self.http)).send_json(documents).unwrap();
        let answer: RegisterAnswer = answer.body_mut().read_json().unwrap();
        assert!(answer.refused.is_empty(), "{:?}", answer.refused);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Asked to stop, so that it removes its folders; killed where it does not.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ended = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}

fn write(browser: &Browser, selector: &str, text: &str) {
    let element = browser.element(selector);
    browser.command(&format!("/element/{element}/clear"), &json!({}));
    browser.command(&format!("/element/{element}/value"), &json!({"text": text}));
}

const ROWS: &str = "Array.from(document.querySelectorAll('#list a.row'), row => row.textContent)";

#[test]
fn the_page_shows_node_agents_and_peers_wide_and_narrow_light_and_dark() {
    let Some(browser) = Browser::open() else { return };
    let node = Node::dev();
    for size in SIZES {
        for (scheme, ground) in [("light", "rgb(246, 246, 243)"), ("dark", "rgb(15, 17, 19)")] {
            browser.dress(size, scheme);
            browser.go(&node.http);
            browser.until("document.querySelectorAll('#list a.row').length === 12");
            browser.until(
                "document.querySelectorAll('#peers li').length === 4 && document.title.includes('dev')",
            );
            browser.until("document.getElementById('stream').textContent === 'connected'");
            browser.until("document.getElementById('completeness').textContent.startsWith('complete')");
            assert_eq!(browser.value("document.getElementById('health').textContent"), "healthy");
            assert_eq!(browser.value("document.getElementById('figure-agents').textContent"), "12");
            let zones =
                "Array.from(document.querySelectorAll('#zones .name'), zone => zone.textContent).join()";
            assert_eq!(browser.value(zones), "root,acme.org,research.acme.org");
            assert_eq!(browser.value("document.getElementById('zones-count').textContent"), "3 of 3 whole");
            let join = browser.value("document.querySelector('#join code').textContent");
            assert!(join.as_str().unwrap().starts_with("aop node --bootstrap /ip4/127.0.0.1/"), "{join}");
            assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), ground);
            browser.picture(&format!("list-{}-{scheme}", size.0));
            browser.press("\u{E004}");
            assert_eq!(browser.value("document.activeElement.textContent"), "Skip to the agents");
            assert!(
                browser.value("document.activeElement.getBoundingClientRect().left").as_f64().unwrap() >= 0.0
            );
            browser.assert_well();
        }
    }
}

#[test]
fn search_narrows_and_an_agent_opens_in_full() {
    let Some(browser) = Browser::open() else { return };
    let node = Node::dev();
    for size in SIZES {
        browser.dress(size, "light");
        browser.go(&node.http);
        browser.until("document.querySelectorAll('#list a.row').length === 12");
        browser.press("/");
        write(&browser, "#query", "summarise a document");
        browser.until(&format!("{ROWS}[0] === 'summarizer' && {ROWS}.length < 12"));
        browser.picture(&format!("search-{}", size.0));
        write(&browser, "#query", "zzzz");
        browser.until("document.getElementById('list').textContent.includes('Nothing matches')");
        browser.click("#list button");
        browser.until("document.querySelectorAll('#list a.row').length === 12");
        browser.click("#list .chip[title$='tag count']");
        browser.until(&format!("{ROWS}.join() === 'word-counter'"));
        browser.click("#list a.row");
        browser.until("document.querySelector('#agent h2')?.textContent === 'word-counter'");
        browser.until("document.activeElement === document.querySelector('#agent h2')");
        let shown = browser.value("document.getElementById('agent').innerText");
        for part in [
            "Counts the words of a text",
            "callable",
            "count-words",
            "5 s an attempt",
            "\"additionalProperties\"",
        ] {
            assert!(shown.as_str().unwrap().contains(part), "{part} in {shown}");
        }
        assert!(shown.as_str().unwrap().contains("active"), "{shown}");
        assert_eq!(browser.value("document.querySelectorAll('#try textarea').length"), 1);
        browser.picture(&format!("agent-{}", size.0));
        browser.assert_well();
        browser.press("\u{E00C}");
        browser.until("!document.getElementById('agents').hidden");
        assert_eq!(browser.value("document.activeElement.textContent"), "word-counter", "where it was left");
        browser.go(&format!("{}/#agent=translator", node.http));
        browser.until("document.querySelector('#agent h2')?.textContent === 'translator'");
        let shown = browser.value("document.getElementById('agent').innerText");
        assert!(shown.as_str().unwrap().contains("https://translator.example.com/a2a"), "{shown}");
        assert_eq!(
            browser.value("document.getElementById('try')"),
            Value::Null,
            "a listing cannot be called"
        );
        browser.picture(&format!("listing-{}", size.0));
        browser.assert_well();
    }
}

#[test]
fn a_new_agent_appears_at_once_and_its_text_stays_text() {
    let Some(browser) = Browser::open() else { return };
    let node = Node::dev();
    let unseen = "\u{202E}\u{2066}\u{200B}\u{200D}\u{FEFF}\u{AD}\u{E0041}\u{E0001}\u{FE0F}\u{3164}";
    let markup = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">";
    let description = format!("{markup} {unseen}shown{unseen} {} end", "A".repeat(2_000));
    for size in SIZES {
        let name = format!("hostile-{}", size.0);
        browser.dress(size, "light");
        browser.go(&node.http);
        browser.until("document.getElementById('stream').textContent === 'connected'");
        browser.until("document.querySelectorAll('#list a.row').length >= 12");
        node.register(&json!({"agent": {"name": name, "description": description, "tags": ["<b>bold</b>"]}}));
        browser.until(&format!("document.getElementById('events').textContent.includes('{name}')"));
        browser.until(&format!("{ROWS}.includes('{name}')"));
        browser.picture(&format!("live-{}", size.0));
        browser.click("#events a");
        browser.until(&format!("document.querySelector('#agent h2')?.textContent === '{name}'"));
        let says = browser.value("document.querySelector('#agent .says').textContent");
        assert_eq!(says, format!("{markup} shown {}… end", "A".repeat(12)));
        assert_eq!(browser.value("document.querySelectorAll('main script, main img, main b').length"), 0);
        assert_ne!(browser.value("document.title"), "owned");
        let seen = browser
            .value("/[\\u202e\\u2066\\u200b\\ufeff\\u00ad\\u3164]|\\udb40/.test(document.body.textContent)");
        assert_eq!(seen, false, "no unseen character anywhere");
        browser.picture(&format!("hostile-{}", size.0));
        browser.assert_well();
    }
    let tried = "(() => { try { document.body.innerHTML = '<i>x</i>'; return 'made'; } catch { return 'refused'; } })()";
    assert_eq!(
        browser.value(tried),
        "refused",
        "even a careless line of script could not make markup from text"
    );
}

#[test]
fn a_long_list_is_read_page_by_page_and_stays_true() {
    let Some(browser) = Browser::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(&folder, "127.0.0.1:0", &[]);
    let agents: Vec<Value> = (10..55)
        .map(|number| json!({"agent": {"name": format!("agent-{number}"), "description": "d"}}))
        .collect();
    node.register(&agents.into());
    browser.dress(SIZES[0], "light");
    browser.go(&node.http);
    browser.until("document.getElementById('stream').textContent === 'connected'");
    browser.until(&format!(
        "{ROWS}.length === 20 && document.getElementById('count').textContent.includes('first 20')"
    ));
    browser.click("#more");
    browser.until(&format!("{ROWS}.length === 40"));
    browser.click("#more");
    browser.until(&format!("{ROWS}.length === 45 && document.getElementById('more').hidden"));
    assert_eq!(browser.value(&format!("new Set({ROWS}).size")), 45, "none is shown twice");
    ureq::delete(format!("{}/v1/agents/agent-30", node.http)).call().unwrap();
    browser.until(&format!("{ROWS}.length === 44 && !{ROWS}.includes('agent-30')"));
    browser.until("document.getElementById('events').textContent.includes('agent-30 left')");
    browser.assert_well();
}

#[test]
fn a_guarded_node_shows_its_page_and_asks_for_the_token_in_it() {
    let Some(browser) = Browser::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "open-sesame\n").unwrap();
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let node = Node::alone(&folder, "127.0.0.1:0", &["--http-token-file", token.to_str().unwrap()]);
    browser.dress(SIZES[1], "dark");
    browser.go(&node.http);
    browser.until("!document.getElementById('lock').hidden");
    browser.picture("token");
    write(&browser, "#token", "wrong");
    browser.click("#lock button");
    browser.until("document.getElementById('token-refused').textContent.includes('did not accept')");
    write(&browser, "#token", "open-sesame");
    browser.click("#lock button");
    browser.until("document.getElementById('stream').textContent === 'connected'");
    browser.until("document.getElementById('list').textContent.includes('No agents are registered yet')");
    browser.picture("empty");
    browser.command("/refresh", &json!({}));
    browser.until("document.getElementById('stream').textContent === 'connected'");
    assert_eq!(browser.value("document.getElementById('lock').hidden"), true, "this tab remembers it");
    assert!(!browser.value("document.documentElement.outerHTML").as_str().unwrap().contains("sesame"));
}

#[test]
fn a_node_that_stops_is_told_and_seen_again_when_it_is_back() {
    let Some(browser) = Browser::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(&folder, "127.0.0.1:0", &[]);
    node.register(&json!({"agent": {"name": "first", "description": "d"}}));
    browser.dress(SIZES[0], "light");
    browser.go(&node.http);
    browser.until("document.getElementById('stream').textContent === 'connected'");
    browser.until(&format!("{ROWS}.join() === 'first'"));
    let address = node.http.trim_start_matches("http://").to_owned();
    drop(node);
    browser.until("document.getElementById('health').textContent === 'no answer'");
    browser.until("document.getElementById('stream').textContent.includes('trying again')");
    browser.until("document.getElementById('outage').textContent.includes('The node does not answer')");
    assert_eq!(browser.value(ROWS), json!(["first"]), "what was known stays");
    browser.picture("stopped");
    let node = Node::alone(&folder, &address, &[]);
    browser.until("document.getElementById('stream').textContent === 'connected'");
    browser.until("document.getElementById('outage').textContent === ''");
    node.register(&json!({"agent": {"name": "second", "description": "d"}}));
    browser.until(&format!("{ROWS}.join() === 'first,second'"));
}

#[test]
fn an_agent_is_called_from_the_page_and_says_how_it_ended() {
    let Some(browser) = Browser::open() else { return };
    let node = Node::dev();
    for size in SIZES {
        browser.dress(size, "light");
        browser.go(&format!("{}/#agent=echo", node.http));
        browser.until("document.getElementById('try') !== null");
        write(&browser, "#input", "hello <b>mesh</b>");
        browser.click("#try button[type=submit]");
        browser.until("document.getElementById('result')?.textContent === 'hello <b>mesh</b>'");
        let told = browser.value("document.getElementById('outcome').innerText");
        assert!(
            told.as_str().unwrap().starts_with("Done") && told.as_str().unwrap().contains("by 12D3"),
            "{told}"
        );
        browser.picture(&format!("called-{}", size.0));
        browser.click("#try label:last-child");
        browser.until("document.getElementById('input').value.includes('\"task\"')");
        write(&browser, "#input", "{\"task\": ");
        browser.click("#try button[type=submit]");
        browser.until("document.getElementById('outcome').textContent.includes('This is not JSON')");
        write(&browser, "#input", "{\"task\": \"as JSON\"}");
        browser.click("#try button[type=submit]");
        browser.until("document.getElementById('result')?.textContent === 'as JSON'");
        browser.go(&format!("{}/#agent=failing", node.http));
        browser.until("document.querySelector('#agent h2')?.textContent === 'failing'");
        write(&browser, "#input", "anything");
        browser.click("#try button[type=submit]");
        browser.until("document.getElementById('outcome').textContent.startsWith('Failed: agent_failed')");
        browser.picture(&format!("failed-{}", size.0));
        browser.go(&format!("{}/#agent=sleeper", node.http));
        browser.until("document.querySelector('#agent h2')?.textContent === 'sleeper'");
        write(&browser, "#input", "9000");
        browser.click("#try button[type=submit]");
        browser.click("#try .go button.quiet");
        browser
            .until("document.getElementById('outcome').textContent.includes('may still have done the work')");
        browser.assert_well();
    }
}
