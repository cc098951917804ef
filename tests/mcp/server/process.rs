//! A real `aop node` process: its agents' files become tools while it runs, and it stops in time with streams open.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::fixture::{Messages, PATIENCE, Site};

async fn node(folder: &Path, agents: &Path) -> (Child, Site) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.args(["node", "--json", "--http", "127.0.0.1:0", "--network", "test"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
        .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
        .arg("--data-dir")
        .arg(folder)
        .arg("--agents")
        .arg(agents);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    (child, Site::new(ready["http"].as_str().unwrap().to_owned()))
}

fn write_agent(folder: &Path, name: &str) {
    let text = format!(
        "[agent]\nname = \"{name}\"\ndescription = \"Says {name}\"\n[agent.run]\ncommand = [\"sh\", \"-c\", \"echo {name}\"]\n"
    );
    std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

async fn own_tools(site: &Site) -> Vec<String> {
    site.tools().await[17..].iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_file_that_comes_or_goes_is_a_tool_or_none_and_the_node_stops_with_streams_open() {
    let (folder, agents) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_agent(agents.path(), "first");
    let (mut child, site) = node(folder.path(), agents.path()).await;
    assert_eq!(own_tools(&site).await, ["first"]);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut changes = Messages::of(site.modern_request("subscriptions/listen", wanted).send().await.unwrap());
    let session = site.session().await;
    let mut events = Messages::of(session.listen().await);

    write_agent(agents.path(), "second");
    changes.find(|message| message["method"] == "notifications/tools/list_changed").await;
    events.find(|message| message["method"] == "notifications/tools/list_changed").await;
    assert_eq!(own_tools(&site).await, ["first", "second"]);
    let answer = site.call("second", json!({"task": "x"})).await;
    assert_eq!(answer["structuredContent"]["success"], true, "{answer}");
    std::fs::remove_file(agents.path().join("first.toml")).unwrap();
    changes.find(|message| message["method"] == "notifications/tools/list_changed").await;
    assert_eq!(own_tools(&site).await, ["second"]);

    let started = Instant::now();
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    while timeout(PATIENCE, events.next()).await.unwrap().is_some() {}
}
