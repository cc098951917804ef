//! Memory and processes of command agents, watched while they run.
//!
//! One task looks at all process groups that have limits, and there is none while no group has any. A look reads the group of
//! each process of this host, some ten microseconds a process, for no list of a group's processes is to be had. An excess is told
//! to the call that started the group, which ends it. Processes that leave their group are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::document::run_config::ProcessLimits;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// Time between two looks: a program touches some hundred megabytes in it, and a look costs milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much more than its `max_memory` each process may have as data, whether it touches it or not: more than it can touch
/// between two looks, and the stacks of its threads, which count though they are mostly empty.
const DATA_BEYOND: u64 = 2 * 1024 * 1024 * 1024;

/// The process groups with limits. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ResourceWatch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    /// By their leaders; at most as many as processes may be started at once.
    groups: BTreeMap<u32, WatchedGroup>,
    is_looking: bool,
}

struct WatchedGroup {
    limits: ProcessLimits,
    /// Taken by the first excess.
    told: Option<oneshot::Sender<Excess>>,
}

/// What a group has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    processes: u32,
    /// Resident, bytes. What processes share counts for each.
    memory: u64,
}

/// Which limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excess {
    Memory { max: u64 },
    Processes { max: u32 },
}

/// A watched group. Dropping it ends the watch and not the group.
pub(super) struct GroupWatch {
    watch: ResourceWatch,
    leader: u32,
    excess: oneshot::Receiver<Excess>,
}

impl ResourceWatch {
    /// Watches the group of this leader, which has just been started.
    pub(super) fn watch(&self, leader: u32, limits: ProcessLimits) -> GroupWatch {
        if let Some(max) = limits.max_memory {
            bound_data(leader, max.saturating_add(DATA_BEYOND));
        }
        let (told, excess) = oneshot::channel();
        let mut watched = self.lock();
        watched.groups.insert(leader, WatchedGroup { limits, told: Some(told) });
        if !std::mem::replace(&mut watched.is_looking, true) {
            tokio::spawn(self.clone().look());
        }
        GroupWatch { watch: self.clone(), leader, excess }
    }

    /// Looks until there is no group.
    async fn look(self) {
        loop {
            sleep(LOOK_EVERY).await;
            let leaders: BTreeSet<u32> = {
                let mut watched = self.lock();
                watched.is_looking = !watched.groups.is_empty();
                if !watched.is_looking {
                    return;
                }
                watched.groups.keys().copied().collect()
            };
            let usages = tokio::task::spawn_blocking(move || usages(&leaders)).await.unwrap_or_default();
            let mut watched = self.lock();
            for (leader, usage) in usages {
                let Some(group) = watched.groups.get_mut(&leader) else { continue };
                if let Some(excess) = usage.beyond(&group.limits)
                    && let Some(told) = group.told.take()
                {
                    // Nobody hears it where the call has just ended.
                    let _ended = told.send(excess);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupWatch {
    /// Waits until the group is beyond a limit: the failure of its call.
    pub(super) async fn exceeded(&mut self) -> CallFailure {
        match (&mut self.excess).await {
            Ok(excess) => excess.failure(),
            // The other end is kept as long as there is this watch, or was used.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for GroupWatch {
    fn drop(&mut self) {
        self.watch.lock().groups.remove(&self.leader);
    }
}

impl Usage {
    fn beyond(self, limits: &ProcessLimits) -> Option<Excess> {
        let memory = limits.max_memory.filter(|max| self.memory > *max);
        let processes = limits.max_processes.filter(|max| self.processes > *max);
        memory.map(|max| Excess::Memory { max }).or_else(|| processes.map(|max| Excess::Processes { max }))
    }
}

impl Excess {
    fn failure(self) -> CallFailure {
        let what = match self {
            Excess::Memory { max } => format!("memory than its `max_memory`, {} MiB", max / (1024 * 1024)),
            Excess::Processes { max } => format!("processes than its `max_processes`, {max}"),
        };
        let message = format!("the agent was stopped: it took more {what}; ask for less, or raise the limit");
        CallFailure::new(Code::TooHungry, Outcome::Done, message)
    }
}

/// What each of these groups has now; none of those that have ended.
#[cfg(target_os = "linux")]
fn usages(leaders: &BTreeSet<u32>) -> BTreeMap<u32, Usage> {
    let mut usages: BTreeMap<u32, Usage> = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for process in numbers {
        // Some end while they are looked at.
        if let Some(group) = group_of(process).filter(|group| leaders.contains(group)) {
            let usage = usages.entry(group).or_default();
            usage.processes += 1;
            usage.memory += resident(process).unwrap_or_default();
        }
    }
    usages
}

#[cfg(not(target_os = "linux"))]
fn usages(_leaders: &BTreeSet<u32>) -> BTreeMap<u32, Usage> {
    BTreeMap::new()
}

/// The group of a process.
#[cfg(target_os = "linux")]
fn group_of(process: u32) -> Option<u32> {
    let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may hold anything: state, parent, group.
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[after_name..]).ok()?;
    fields.split(' ').nth(3)?.parse().ok()
}

/// Bytes of a process in memory.
#[cfg(target_os = "linux")]
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Bounds the data of a process, and of those that it starts from now on.
#[cfg(target_os = "linux")]
fn bound_data(process: u32, bytes: u64) {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    // Never more than this process has, for its own bound is its operator's word.
    let bytes = getrlimit(Resource::Data).maximum.map_or(bytes, |own| own.min(bytes));
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let Some(process) = process
        && let Err(error) = prlimit(Some(process), Resource::Data, limit)
    {
        tracing::debug!(%error, "the data of a program is not bounded");
    }
}

#[cfg(not(target_os = "linux"))]
fn bound_data(_process: u32, _bytes: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_limit_names_it_and_what_is_at_it_does_not() {
        let limits = ProcessLimits { max_memory: Some(64 * 1024 * 1024), max_processes: Some(3) };
        let usage = |memory, processes| Usage { processes, memory };
        assert_eq!(usage(64 * 1024 * 1024, 3).beyond(&limits), None);
        assert_eq!(usage(0, 4).beyond(&limits), Some(Excess::Processes { max: 3 }));
        let failure = usage(64 * 1024 * 1024 + 1, 9).beyond(&limits).unwrap().failure();
        assert_eq!((failure.code.text(), failure.outcome), ("too_hungry", Outcome::Done));
        assert!(failure.message.contains("`max_memory`, 64 MiB"), "{failure}");
        assert_eq!(usage(u64::MAX, u32::MAX).beyond(&ProcessLimits::default()), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_look_sees_this_process_in_its_group() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
        let seen = usages(&BTreeSet::from([own]));
        assert!(seen[&own].processes >= 1 && seen[&own].memory > 1024 * 1024, "{seen:?}");
    }
}
