//! What the system lets a process have, as checks: the node tells its own, and `aop doctor` that of whoever would start one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::api::{Check, CheckGroup, Finding};
use crate::telemetry::process::Process;

/// Open files below which a node has not enough for its agents' processes alone.
const FILES_MIN: u64 = 1_024;
/// Open files from which on every place that a node gives away fits.
const FILES_AMPLE: u64 = 4_096;
/// Share of the memory that a process may have, percent, above which it is told.
const MEMORY_PERCENT_MAX: u64 = 80;

/// The limits of this process.
pub fn limits() -> Vec<Check> {
    let Some(process) = Process::look() else {
        return vec![Finding::skip("this system does not tell").of(CheckGroup::Limits, "open_files")];
    };
    vec![
        open_files(process.open_files, process.max_files).of(CheckGroup::Limits, "open_files"),
        memory(process.resident_bytes, memory_max()).of(CheckGroup::Limits, "memory"),
    ]
}

fn open_files(open: u64, most: u64) -> Finding {
    let evidence = format!("{most} files and sockets may be open, and {open} are");
    let fix = "start it after `ulimit -n 65536`, or with LimitNOFILE=65536 in its unit";
    match most {
        0 => Finding::ok(format!("any number of files and sockets may be open, and {open} are")),
        1..FILES_MIN => Finding::fail(evidence, fix),
        FILES_MIN..FILES_AMPLE => Finding::warn(evidence, fix),
        _ => Finding::ok(evidence),
    }
}

fn memory(resident: u64, most: Option<u64>) -> Finding {
    let mib = |bytes: u64| bytes / (1 << 20);
    let Some(most) = most else { return Finding::ok("no control group limits the memory") };
    let evidence =
        format!("the control group may have {} MiB, and this process has {}", mib(most), mib(resident));
    if resident.saturating_mul(100) > most.saturating_mul(MEMORY_PERCENT_MAX) {
        return Finding::warn(evidence, "raise MemoryMax of the unit, or the memory limit of the container");
    }
    Finding::ok(evidence)
}

/// The least that this process's control group or one above may have, bytes; none where none is limited, or all are of version 1.
fn memory_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let max_of = |group: &Path| fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok();
    let group: PathBuf = root.join(own);
    group.ancestors().take_while(|group| group.starts_with(root)).filter_map(max_of).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CheckStatus::{self, Fail, Ok, Warn};

    #[test]
    fn few_files_are_told_before_a_node_runs_out_of_them() {
        let status = |most| open_files(20, most).status;
        let told: [CheckStatus; 5] = [0, 1_023, 1_024, 4_095, 4_096].map(status);
        assert_eq!(told, [Ok, Fail, Warn, Warn, Ok]);
    }

    #[test]
    fn memory_is_told_when_little_is_left_of_it() {
        let status = |resident: u64, most| memory(resident << 20, most).status;
        assert_eq!(status(400, None), Ok);
        assert_eq!(status(400, Some(512 << 20)), Ok);
        assert_eq!(status(500, Some(512 << 20)), Warn);
    }
}
