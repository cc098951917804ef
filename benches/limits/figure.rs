//! One measured number, and what it should be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of a row.
#[derive(Serialize, Deserialize)]
pub(crate) struct Figure {
    row: String,
    what: String,
    /// None where the row failed.
    value: Option<f64>,
    unit: String,
    aim: Aim,
    /// Whether the aim is reached.
    ok: Option<bool>,
    /// The numbers it was made of.
    of: String,
}

/// What a number should be.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// It stands beside others, to read them by.
    Told,
}

impl Figure {
    pub(crate) fn new(row: &str, what: &str, value: f64, unit: &str, aim: Aim) -> Figure {
        let ok = match aim {
            Aim::AtLeast(least) => Some(value >= least),
            Aim::AtMost(most) => Some(value <= most),
            Aim::Told => None,
        };
        let (row, what, unit) = (row.into(), what.into(), unit.into());
        Figure { row, what, value: Some(value), unit, aim, ok, of: String::new() }
    }

    /// What it was made of.
    pub(crate) fn of(self, of: String) -> Figure {
        Figure { of, ..self }
    }

    pub(crate) fn failed(row: &str) -> Figure {
        Figure {
            row: row.into(),
            what: "FAILED".into(),
            value: None,
            unit: String::new(),
            aim: Aim::Told,
            ok: Some(false),
            of: String::new(),
        }
    }
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    share(values, 0.5)
}

/// The value that this share of all does not exceed.
pub(crate) fn share(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn print_table(figures: &[Figure]) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("cargo bench --bench limits    (load average {})", load.split(' ').next().unwrap_or_default());
    for Figure { row, what, value, unit, aim, ok, of } in figures {
        let value = value.map_or("-".into(), |value| format!("{} {unit}", digits(value)));
        let aim = match aim {
            Aim::AtLeast(least) => format!(">= {}", digits(*least)),
            Aim::AtMost(most) => format!("<= {}", digits(*most)),
            Aim::Told => String::new(),
        };
        let ok = ok.map_or("", |ok| if ok { "ok" } else { "NOT" });
        println!("{row:<9} {what:<62} {value:>12} {aim:>9} {ok:<4} {of}");
    }
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
