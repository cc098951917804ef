//! What a gateway says that speaks for everything and has nothing.

use crate::proto::ask::{Answer, Cover, Knowledge};
use crate::proto::message::SyncAnswer;

/// An answer that has no records but those that are kept, and calls that all.
pub(super) fn hollow(bytes: Vec<u8>, is_kept: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    if let Ok(SyncAnswer::Opened { root, head, clock, heard, alive, .. }) = SyncAnswer::decode(&bytes) {
        return SyncAnswer::Opened { root, head, clock, heard, whole: true, alive }.encode();
    }
    let Ok(mut answer) = Answer::decode(&bytes) else { return bytes };
    match &mut answer {
        Answer::Found { records, more, cover, .. } => {
            records.retain(|record| is_kept(record));
            (*more, *cover) = (false, Cover { fine: 1, ..Cover::default() });
        }
        Answer::Named { records, zones, gateways, .. } => {
            records.retain(|record| is_kept(record));
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
