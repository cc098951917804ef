//! What a gateway says that speaks for everything and has nothing.

use crate::proto::ask::{Answer, Cover, Knowledge};
use crate::proto::message::SyncAnswer;

/// An answer that has nothing and calls that all.
pub(super) fn hollow(bytes: Vec<u8>) -> Vec<u8> {
    if let Ok(SyncAnswer::Opened { root, head, clock, heard, alive, .. }) = SyncAnswer::decode(&bytes) {
        return SyncAnswer::Opened { root, head, clock, heard, whole: true, alive }.encode();
    }
    let Ok(mut answer) = Answer::decode(&bytes) else { return bytes };
    match &mut answer {
        Answer::Found { records, more, cover, .. } => {
            records.clear();
            (*more, *cover) = (false, Cover { fine: 1, ..Cover::default() });
        }
        Answer::Named { records, zones, gateways, .. } => {
            records.clear();
            zones.fill(Knowledge::Whole);
            gateways.clear();
        }
        Answer::Way(way) => {
            way.whole = true;
            way.way.clear();
            way.below.clear();
        }
        _ => return bytes,
    }
    answer.encode()
}
