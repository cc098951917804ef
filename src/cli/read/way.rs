//! `aop find -v`: the way of an answer, zone by zone.

use super::{PeerNames, age};
use crate::api::ZoneAnswer;
use crate::cli::output::Rows;

/// Who answered for each zone, how, and as of when.
pub(super) fn way(zones: &[ZoneAnswer], names: &PeerNames) -> Rows {
    let mut rows = Rows::new(&["ZONE", "ANSWER", "AS OF", "BY", "STANDS FOR"]);
    zones.iter().for_each(|zone| rows.push(row(zone, names)));
    rows
}

fn row(zone: &ZoneAnswer, names: &PeerNames) -> [String; 5] {
    let by = match &zone.by {
        Some(peer) => names.shortened(peer),
        None if zone.age_ms.is_some() => "this node".into(),
        None => "nobody".into(),
    };
    let stands_for = match zone.count {
        Some(count) if zone.status.is_whole() => format!("{count} zones of {} and below", zone.zone),
        Some(count) => format!("{count} more zones below"),
        None => "itself".into(),
    };
    [zone.zone.clone(), zone.status.to_string(), age(zone.age_ms), by, stands_for]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ZoneStatus;

    #[test]
    fn each_zone_says_who_answered_how_long_ago_and_for_how_many() {
        let zone = |zone: &str, status, age_ms| ZoneAnswer {
            zone: zone.into(),
            status,
            age_ms,
            ..ZoneAnswer::default()
        };
        let held = zone(".", ZoneStatus::Held, Some(0));
        let by = Some("12D3KooWabcdefgh".into());
        let fine = ZoneAnswer { by, count: Some(7), ..zone("org", ZoneStatus::Answered, Some(18_000)) };
        let beyond = ZoneAnswer { count: Some(2), ..zone("net", ZoneStatus::Unreachable, None) };
        let rows = [held, fine, beyond].map(|zone| row(&zone, &PeerNames::default()).join("|"));
        assert_eq!(
            rows,
            [
                ".|held|0.0 s ago|this node|itself",
                "org|answered|18 s ago|…cdefgh|7 zones of org and below",
                "net|unreachable|never|nobody|2 more zones below",
            ]
        );
    }
}
