//! Names of events in the log: whoever watches a log looks for these, so they stay as they are.

/// Every name that a line of the log may have as its `event`, in the order of the alphabet; other lines have none.
pub const EVENTS: [&str; 38] = [
    "agent_deregistered",
    "agent_last_words",
    "agent_refused",
    "agent_registered",
    "bootstrap_reached",
    "call_answered",
    "call_completed",
    "call_ended",
    "call_failed",
    "collector_back",
    "collector_lost",
    "hole_punched",
    "import_ended",
    "import_failed",
    "lines_left_out",
    "mcp_server_down",
    "mcp_server_up",
    "network_problem",
    "node_started",
    "node_stopped",
    "peer_blocked",
    "peer_connected",
    "peer_disconnected",
    "peer_of_other_network",
    "peer_offended",
    "problem_began",
    "problem_ended",
    "queue_changed",
    "relay_found",
    "relay_lost",
    "store_failed",
    "store_short",
    "store_well",
    "task_unreadable",
    "traces_off",
    "zone_joined",
    "zone_left",
    "zone_not_joined",
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn each_name_stands_at_one_place_and_in_the_documentation_and_there_is_no_other() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut text = String::new();
        sources(&root.join("src"), &mut text);
        // Written so that this place is none of them.
        let mark = concat!("event", " = \"");
        let mut found: Vec<&str> =
            text.split(mark).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        found.sort_unstable();
        assert_eq!(found, EVENTS);
        let told = fs::read_to_string(root.join("docs/operations.md")).unwrap();
        for name in EVENTS {
            assert!(told.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
        }
    }
}
