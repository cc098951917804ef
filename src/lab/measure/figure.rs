//! A metric's value as people read it, and which way is worse.

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Number,
    /// A share, 0 to 1, read in percent.
    Share,
    /// Milliseconds, read in the unit that keeps the number small.
    Ms,
    /// Bytes, likewise.
    Bytes,
}

/// What a change of a metric means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    More,
    /// Less is better.
    Less,
    /// It describes the run and judges nothing.
    Neither,
}

impl Better {
    /// Of a metric.
    pub fn of(metric: &str) -> Better {
        match metric {
            "coverage" | "complete" | "forks_seen" | "questions_complete" | "questions_decided" => {
                Better::More
            }
            "calls_ok" | "calls_others_ok" | "calls_goodput" | "calls_after_crowd_ok" | "calls_late_ok" => {
                Better::More
            }
            "node_hours" | "repaired" | "refused_writes" | "questions" | "calls" => Better::Neither,
            // All others count delays, costs or losses.
            _ => Better::Less,
        }
    }
}

impl Unit {
    /// Of a metric.
    pub fn of(metric: &str) -> Unit {
        match metric {
            "coverage" | "complete" | "holes" | "stale" | "forks_seen" => Unit::Share,
            "questions_complete" | "questions_decided" => Unit::Share,
            "calls_ok" | "calls_others_ok" | "calls_goodput" | "calls_after_crowd_ok" | "calls_late_ok" => {
                Unit::Share
            }
            "calls_wasted" => Unit::Share,
            "healed_ms" => Unit::Ms,
            _ if metric.starts_with("latency_ms") || metric.starts_with("question_ms") => Unit::Ms,
            _ if metric.ends_with("_ms") || metric.contains("wait_ms.") => Unit::Ms,
            _ if metric.contains("bytes") => Unit::Bytes,
            _ => Unit::Number,
        }
    }

    /// From a hint in a template: `%`, `ms` or `B`.
    pub fn hinted(hint: &str) -> Option<Unit> {
        match hint {
            "%" => Some(Unit::Share),
            "ms" => Some(Unit::Ms),
            "B" => Some(Unit::Bytes),
            _ => None,
        }
    }

    /// `94.08 %`, `3.45 s`, `1.5 kB`, `10,000`: four digits that count, and never a full share that is not full.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Number => number(value),
            Unit::Share => format!("{} %", percent(value)),
            // A larger unit begins at twice its length: 90 s read better than 1.5 min.
            Unit::Ms => scaled(
                value,
                &[("ms", 1e3), ("s", 120.0), ("min", 120.0), ("h", 48.0), ("d", f64::INFINITY)],
                &[1e3, 60.0, 60.0, 24.0],
            ),
            Unit::Bytes => scaled(
                value,
                &[("B", 1e3), ("kB", 1e3), ("MB", 1e3), ("GB", f64::INFINITY)],
                &[1e3, 1e3, 1e3],
            ),
        }
    }
}

/// Divides by each of `steps` until the number is below the bound of its unit.
fn scaled(value: f64, units: &[(&str, f64)], steps: &[f64]) -> String {
    let mut value = value;
    let mut steps = steps.iter();
    for (unit, below) in units {
        match steps.next() {
            Some(step) if value.abs() >= *below => value /= step,
            _ => return format!("{} {unit}", number(value)),
        }
    }
    number(value)
}

/// Decimals are added until a share below one no longer reads as one, nor one above nothing as nothing.
fn percent(share: f64) -> String {
    const DECIMALS_MAX: usize = 7;
    let value = share * 100.0;
    let fits = |text: &str| {
        let shown: f64 = text.parse().unwrap_or(value);
        (shown != 100.0 || share == 1.0) && (shown != 0.0 || share == 0.0)
    };
    let mut texts = (2..=DECIMALS_MAX).map(|decimals| format!("{value:.decimals$}"));
    let text = texts.clone().find(|text| fits(text)).or(texts.next_back()).unwrap_or_default();
    trimmed(&text).into()
}

fn number(value: f64) -> String {
    /// Digits that count.
    const DIGITS: i32 = 4;
    if value == 0.0 || !value.is_finite() {
        return format!("{value:.0}");
    }
    let before_point = value.abs().log10().floor() as i32 + 1;
    // So many zeros behind the point cannot be counted at a glance.
    if before_point < -DIGITS {
        return format!("{value:.1e}");
    }
    // Digits before the point are never cut, however many they are.
    let decimals = (DIGITS - before_point).max(0) as usize;
    let text = format!("{value:.decimals$}");
    // Zeros at the end of a whole number are its own.
    let text = if decimals > 0 { trimmed(&text) } else { &text };
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, rest) = digits.split_once('.').map_or((digits, ""), |(whole, rest)| (whole, rest));
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{rest}", grouped(whole))
}

fn trimmed(text: &str) -> &str {
    text.trim_end_matches('0').trim_end_matches('.')
}

/// `10000` as `10,000`.
fn grouped(whole: &str) -> String {
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_people_write_them() {
        let shown = [
            (Unit::Number, 10.664, "10.66"),
            (Unit::Number, 10_000.0, "10,000"),
            (Unit::Number, 1_234_567.8, "1,234,568"),
            (Unit::Number, 0.0, "0"),
            (Unit::Number, 0.001_234_6, "0.001235"),
            (Unit::Number, 3.0, "3"),
            (Unit::Number, -1234.5, "-1,234"),
            (Unit::Number, 2e-9, "2.0e-9"),
            (Unit::Share, 0.9408, "94.08 %"),
            (Unit::Share, 1.0, "100 %"),
            (Unit::Share, 0.5, "50 %"),
            (Unit::Ms, 211.0, "211 ms"),
            (Unit::Ms, 3_450.0, "3.45 s"),
            (Unit::Ms, 150_000.0, "2.5 min"),
            (Unit::Ms, 5_184_000_000.0, "60 d"),
            (Unit::Bytes, 1_500.0, "1.5 kB"),
            (Unit::Bytes, 250.0, "250 B"),
        ];
        for (unit, value, text) in shown {
            assert_eq!(unit.show(value), text);
        }
    }

    #[test]
    fn a_share_that_is_almost_full_is_not_shown_as_full() {
        assert_eq!(Unit::Share.show(0.999_993), "99.999 %");
        assert_eq!(Unit::Share.show(0.000_001), "0.0001 %");
    }
}
