//! The binary starts with 100,000 records.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::agents::{NETWORK, fill, records, zones};
use crate::figure::{Aim, Figure, median};
use crate::process::NodeProcess;

const HELD: usize = 100_000;
const STARTS: usize = 3;
/// It rests when it works less than this in a second, and is waited for so long.
const RESTING_CPU: f64 = 0.02;
const REST_WAIT_S: usize = 20;

pub(crate) fn with_many() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 100, HELD);
    write_key(dir.path(), 100);
    let sample = 1_000;
    let bytes = records(sample).map(|record| record.len()).sum::<usize>() / sample * HELD;
    let names: Vec<String> = zones(HELD).iter().map(|zone| format!("--zone={zone}")).collect();
    let mut arguments = vec!["--network", NETWORK];
    arguments.extend(names.iter().map(String::as_str));
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let node = NodeProcess::start(dir.path(), &arguments);
        ready.push(node.ready.as_secs_f64());
        rest(&node);
        resident.push(node.resident_mib() as f64);
    }
    let records_mib = bytes as f64 / f64::from(1 << 20);
    vec![
        Figure::new("start", "ready with 100,000 records", median(&ready), "s", Aim::AtMost(1.5)),
        Figure::new(
            "start",
            "resident at rest with them",
            median(&resident),
            "MiB",
            Aim::AtMost(2.2 * records_mib + 40.0),
        )
        .of(format!("the records themselves {records_mib:.0} MiB")),
    ]
}

fn rest(node: &NodeProcess) {
    for _ in 0..REST_WAIT_S {
        let before = node.cpu();
        std::thread::sleep(Duration::from_secs(1));
        if node.cpu() - before < RESTING_CPU {
            return;
        }
    }
}

/// The key of the node with this seed, where the binary looks for it.
pub(crate) fn write_key(dir: &Path, seed: u8) {
    let mut file = OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600).open(dir.join("node.key"));
    writeln!(file.expect("created"), "{}", format!("{seed:02x}").repeat(32)).expect("written");
}
