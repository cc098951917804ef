//! Times as people read them: dates of RFC 3339, and how long something is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, which is the last that the format can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// The wall time in milliseconds.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A wall time in milliseconds as `2026-12-06T09:30:00Z`.
pub(super) fn date(wall_ms: u64) -> String {
    // A stranger may write any time.
    let since = Duration::from_secs((wall_ms / 1000).min(LAST_SECOND));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// A length of time in its two greatest units: `6 d 23 h`, `3 min 20 s`, `0.4 s`.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(at) = units.iter().position(|(length, _)| seconds >= (*length).max(10)) else {
        return format!("{:.1} s", ms as f64 / 1000.0);
    };
    let (length, unit) = units[at];
    match units.get(at + 1).map(|(lesser, unit)| (seconds % length / lesser, unit)) {
        Some((rest, lesser)) if rest > 0 => format!("{} {unit} {rest} {lesser}", seconds / length),
        _ => format!("{} {unit}", seconds / length),
    }
}

/// How far a wall time lies ahead or behind.
pub(super) fn distance(wall_ms: u64, now_ms: u64) -> String {
    match wall_ms.checked_sub(now_ms) {
        Some(ahead) => format!("in {}", span(ahead)),
        None => format!("{} ago", span(now_ms - wall_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar_up_to_its_last_year() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59Z"),
            (1_796_491_961_596, "2026-12-05T17:32:41Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(ms), shown);
        }
        assert_eq!(date(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_length_of_time_has_two_units_at_most() {
        let minute = 60_000;
        for (ms, shown) in [
            (0, "0.0 s"),
            (9_900, "9.9 s"),
            (59_999, "59 s"),
            (minute, "1 min"),
            (3 * minute + 20_000, "3 min 20 s"),
            (60 * minute, "1 h"),
            (7 * 24 * 60 * minute - minute, "6 d 23 h"),
        ] {
            assert_eq!(span(ms), shown);
        }
        assert_eq!((distance(70_000, 10_000), distance(0, minute)), ("in 1 min".into(), "1 min ago".into()));
    }
}
