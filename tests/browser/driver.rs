//! A real Chromium, driven over WebDriver.
//!
//! Needs `chromedriver` and Chromium on the PATH. Without them the tests say so and pass, but fail where `CI` is set.
//! `AOP_SCREENSHOTS=DIR` keeps pictures of what was seen.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wide and narrow, CSS pixels.
pub(crate) const SIZES: [(u32, u32); 2] = [(1280, 900), (390, 844)];
/// One browser at a time: several take each other's processor until they time out.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Reads the child's stdout up to a line that holds `mark`; the rest must stay open, or the child's next line fails.
pub(crate) fn first_line_with(child: &mut Child, mark: &str) -> (String, BufReader<ChildStdout>) {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(mark) {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended without saying `{mark}`");
    }
    (line, out)
}

/// A browser with one window, driven over WebDriver.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _out: BufReader<ChildStdout>,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// `None` where there is no browser to test with.
    pub(crate) fn open() -> Option<Browser> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(driver), Some(chromium)) =
            (on_path(&["chromedriver"]), on_path(&["chromium", "chromium-browser", "google-chrome"]))
        else {
            assert!(std::env::var_os("CI").is_none(), "chromium and chromedriver must be on the PATH");
            // Past the harness, which hides what a passing test prints.
            let _told = std::io::stderr().write_all(
                b"SKIPPED: no page is tested, for chromium and chromedriver are not both on the PATH\n",
            );
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(driver);
        let mut driver =
            command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (line, out) = first_line_with(&mut driver, "successfully on port ");
        let port = line.trim_end().trim_end_matches('.').rsplit(' ').next().unwrap();
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let mut browser = Browser {
            session: format!("http://127.0.0.1:{port}/session"),
            driver,
            agent: config.timeout_global(Some(2 * PATIENCE)).build().into(),
            _out: out,
            _profile: profile,
            _turn: turn,
        };
        let wanted = capabilities(&chromium, &browser._profile);
        let session = browser.command("", &wanted);
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    pub(crate) fn command(&self, path: &str, body: &Value) -> Value {
        let answer = self.agent.post(format!("{}{path}", self.session)).send_json(body);
        let mut answer = answer.unwrap();
        let value: Value = answer.body_mut().read_json().unwrap();
        assert!(answer.status().is_success(), "{path}: {value}");
        value["value"].clone()
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    pub(crate) fn go(&self, url: &str) {
        // Only from another document does a changed fragment load the page anew.
        self.command("/url", &json!({"url": "about:blank"}));
        self.command("/url", &json!({"url": url}));
    }

    /// Value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.command("/execute/sync", &json!({"script": format!("return ({expression});"), "args": []}))
    }

    /// Waits in the page until the expression is true, looking at each change of the document.
    pub(crate) fn until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0]; const met = () => ({expression});
             if (met()) return done(true);
             const seen = new MutationObserver(() => {{ if (met()) {{ seen.disconnect(); done(true); }} }});
             seen.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
             setTimeout(() => {{ seen.disconnect(); done(met()); }}, {});",
            PATIENCE.as_millis()
        );
        let met = self.command("/execute/async", &json!({"script": script, "args": []}));
        assert_eq!(
            met,
            true,
            "not within {PATIENCE:?}: {expression}; the page: {}",
            self.value("document.body.innerText")
        );
    }

    pub(crate) fn element(&self, selector: &str) -> String {
        let found = self.command("/element", &json!({"using": "css selector", "value": selector}));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) fn click(&self, selector: &str) {
        self.command(&format!("/element/{}/click", self.element(selector)), &json!({}));
    }

    /// Sends a key to whatever has the focus.
    pub(crate) fn press(&self, key: &str) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.command("/actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }

    pub(crate) fn dress(&self, (width, height): (u32, u32), scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", size);
        // Without motion, so that what is clicked has arrived where it is shown.
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Whatever the page complained of since the last look, and that nothing sticks out to the right.
    pub(crate) fn assert_well(&self) {
        let log = self.command("/se/log", &json!({"type": "browser"}));
        assert_eq!(log, json!([]), "the console stays silent");
        let [wide, room] = ["scrollWidth", "clientWidth"]
            .map(|size| self.value(&format!("document.documentElement.{size}")).as_u64().unwrap());
        assert!(wide <= room, "{wide} pixels in {room}");
        self.assert_named();
    }

    /// Everything that can be used has a name for those who do not see it.
    fn assert_named(&self) {
        let tree = self.devtools("Accessibility.getFullAXTree", json!({}));
        for node in tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false) {
            let (role, name) = (&node["role"]["value"], &node["name"]["value"]);
            let used = [
                "button",
                "checkbox",
                "combobox",
                "form",
                "link",
                "radio",
                "search",
                "searchbox",
                "slider",
                "textbox",
            ];
            let named = name.as_str().is_some_and(|name| !name.trim().is_empty());
            assert!(named || !used.contains(&role.as_str().unwrap_or_default()), "{node}");
        }
    }

    pub(crate) fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("AOP_SCREENSHOTS").map(PathBuf::from) else { return };
        let page = self.devtools("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip = json!({"x": 0, "y": 0, "width": page["width"], "height": page["height"], "scale": 1});
        let whole = json!({"captureBeyondViewport": true, "clip": clip});
        let taken = self.devtools("Page.captureScreenshot", whole);
        fs::create_dir_all(&folder).unwrap();
        let bytes = BASE64.decode(taken["data"].as_str().unwrap().as_bytes()).unwrap();
        fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; the driver alone would leave it behind.
        let _ended = self.agent.delete(&self.session).call();
        let _killed = self.driver.kill();
        let _reaped = self.driver.wait();
    }
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}

fn capabilities(chromium: &std::path::Path, profile: &TempDir) -> Value {
    let switches = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ];
    let mut args: Vec<String> = switches.map(str::to_owned).into();
    args.push(format!("--user-data-dir={}", profile.path().display()));
    json!({"capabilities": {"alwaysMatch": {
        "goog:chromeOptions": {"binary": chromium, "args": args},
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": 2 * PATIENCE.as_millis() as u64},
    }}})
}
