//! Times as people read them: dates of RFC 3339, and how long something is.

/// A wall time in milliseconds as `2026-12-06T09:30:00Z`.
pub(super) fn date(wall_ms: u64) -> String {
    let seconds = wall_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
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

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar, which repeats itself every 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March end with the leap day, so months before it have one length each year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let of_era_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + of_era_year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59Z"),
            (1_796_491_961_596, "2026-12-05T17:32:41Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(ms), shown);
        }
        assert!(!date(u64::MAX).is_empty(), "a stranger may write any time");
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
