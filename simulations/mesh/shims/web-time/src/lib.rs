//! web-time's names; its `Instant` is tokio's, which a paused runtime moves.

pub use std::time::{Duration, SystemTime, SystemTimeError, TryFromFloatSecsError, UNIX_EPOCH};
pub use tokio::time::Instant;
