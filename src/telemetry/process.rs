//! What the operating system says of this process, by the names that client libraries of Prometheus use. Linux tells it; of other
//! systems nothing is told.

use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;

use super::exposition::Readings;

/// Ticks of a second in `/proc/self/stat`; Linux tells programs no other.
const TICKS: f64 = 100.0;

/// What one look at the process found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    started: f64,
    pub(crate) open_files: u64,
    /// None is told where there is no limit, which is 0.
    pub(crate) max_files: u64,
}

impl Process {
    /// Looks; none where the system does not tell.
    pub(crate) fn look() -> Option<Process> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold anything, parentheses too.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |at: usize| fields.get(at - 3).and_then(|text| text.parse::<u64>().ok());
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let booted = fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime "));
        Some(Process {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS,
            resident_bytes: first_number(resident)? * 1024,
            virtual_bytes: field(23)?,
            threads: field(20)?,
            started: booted.and_then(first_number)? as f64 + field(22)? as f64 / TICKS,
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            max_files: files.and_then(first_number).unwrap_or(0),
        })
    }

    /// As metrics.
    pub(crate) fn tell(&self, readings: &mut Readings) {
        let cpu: Counter<f64, AtomicU64> = Counter::default();
        cpu.inc_by(self.cpu_seconds);
        readings.metric("process_cpu_seconds", "User and system time of this process", cpu);
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use", self.resident_bytes as f64),
            ("process_virtual_memory_bytes", "Address space in use", self.virtual_bytes as f64),
            ("process_threads", "Threads", self.threads as f64),
            ("process_start_time_seconds", "Start, seconds since the Unix epoch", self.started),
            ("process_open_fds", "Open files and sockets", self.open_files as f64),
            ("process_max_fds", "Open files and sockets that are allowed", self.max_files as f64),
        ] {
            readings.gauge(name, help, &[], value);
        }
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_files_and_a_start_in_the_past() {
        let process = Process::look().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(
            process.resident_bytes > 1 << 20 && process.virtual_bytes >= process.resident_bytes,
            "{process:?}"
        );
        assert!(process.open_files >= 3 && process.max_files >= process.open_files, "{process:?}");
        assert!(process.threads >= 1, "{process:?}");
        assert!(process.started <= now + 1.0 && process.started > now - 86_400.0, "{process:?} {now}");
    }
}
