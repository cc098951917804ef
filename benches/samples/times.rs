//! Percentiles and one readable line each.

use std::time::Duration;

/// Measured durations.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The duration that this share of all does not exceed.
    pub(crate) fn at(&mut self, share: f64) -> Duration {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }

    /// Count, median, 99th percentile and maximum.
    pub(crate) fn line(&mut self, name: &str) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (p50, p99, max) = (ms(self.at(0.5)), ms(self.at(0.99)), ms(self.at(1.0)));
        println!("  {name:<44} p50 {p50:>9.3} ms  p99 {p99:>9.3} ms  max {max:>9.3} ms  n {}", self.0.len());
    }
}

/// The machine's load, as figures depend on it.
pub(crate) fn head(command: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{command}    (load average {})", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
}
