//! What a gateway says that speaks for everything and has nothing.

use crate::proto::ask::{Answer, Cover, Knowledge, Way};
use crate::proto::message::SyncAnswer;

/// An answer that has nothing and calls that all.
pub(super) fn hollow(bytes: Vec<u8>) -> Vec<u8> {
    if let Ok(SyncAnswer::Opened { root, head, clock, heard, alive, .. }) = SyncAnswer::decode(&bytes) {
        return SyncAnswer::Opened { root, head, clock, heard, whole: true, alive }.encode();
    }
    match Answer::decode(&bytes) {
        Ok(Answer::Found { statistics, .. }) => {
            let cover = Cover { fine: 1, ..Cover::default() };
            Answer::Found { records: Vec::new(), more: false, statistics, cover, alive: Vec::new() }.encode()
        }
        Ok(Answer::Named { zones, .. }) => {
            let zones = vec![Knowledge::Whole; zones.len()];
            let (records, gateways, alive) = Default::default();
            Answer::Named { records, zones, gateways, alive }.encode()
        }
        Ok(Answer::Way(way)) => {
            let way = Way { whole: true, way: Vec::new(), below: Vec::new(), ..*way };
            Answer::Way(Box::new(way)).encode()
        }
        Ok(Answer::Elsewhere { .. } | Answer::Refused | Answer::Busy { .. }) | Err(_) => bytes,
    }
}
