//! CPU time: other programs on the machine do not count.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of all threads of this process.
pub(crate) fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
