//! Dates of RFC 3339, as registries write them.

use std::time::SystemTime;

use crate::proto::time::Timestamp;

/// The time that a date of RFC 3339 tells; none where it is no such date or before 1970.
pub fn parse_date(text: &str) -> Option<Timestamp> {
    let (local, ahead_s) = without_offset(text)?;
    let date = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let since = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let ms = i64::try_from(since.as_millis()).ok()? - ahead_s * 1_000;
    u64::try_from(ms).ok().map(Timestamp)
}

/// A date without its offset, and how many seconds that is ahead of UTC.
fn without_offset(date: &str) -> Option<(&str, i64)> {
    if let Some(local) = date.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let (local, offset) = date.split_at_checked(date.len().checked_sub(6)?)?;
    // A plus sign that was not encoded is read as a space.
    let sign = match offset.as_bytes()[0] {
        b'+' | b' ' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some((local, sign * (hours * 3_600 + minutes * 60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_offsets() {
        let read = |date: &str| parse_date(date).map(|at| at.0);
        let nine = Some(1_796_029_200_000);
        assert_eq!(read("2026-11-30T09:00:00Z"), nine);
        assert_eq!(read("2026-11-30T09:00:00.000z"), nine);
        assert_eq!(read("2026-11-30T11:30:00+02:30"), nine);
        assert_eq!(read("2026-11-30T11:30:00 02:30"), nine);
        assert_eq!(read("2026-11-30T04:00:00-05:00"), nine);
        for bad in [
            "2026-11-30",
            "2026-11-30T09:00:00",
            "2026-11-30T09:00:00+2:00",
            "2026-11-30T09:00:00+24:00",
            "é",
            "1969-01-01T00:00:00Z",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
