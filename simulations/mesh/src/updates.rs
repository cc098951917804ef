//! What is written: agents with numbered names, padded to the size of the workload.

use aop::proto::card::{AgentCard, Offer, Scope};
use aop::proto::codec;
use aop::proto::identity::Identity;
use aop::proto::limits::DESCRIPTION_BYTES_MAX;
use aop::proto::name::{AgentName, NameError, ZoneName};
use aop::proto::record::{Author, Header, RecordKind, SignedRecord};
use aop::proto::time::{Stamp, Timestamp};

/// The name of the simulated world.
pub const NETWORK: &str = "simulated";
const PREFIX: &str = "update-";

/// The number in the name of an update, given alone or in full; none for other agents.
pub fn number(name: &str) -> Option<usize> {
    let label = name.split('@').next()?;
    label.strip_prefix(PREFIX)?.parse().ok()
}

/// The offer whose record is as long as the workload says, as nearly as its parts allow.
pub fn offer(number: usize, record_bytes: usize, author: &Identity) -> Result<Offer, NameError> {
    let name: AgentName = format!("{PREFIX}{number:06}").parse()?;
    let bare = record(&name, &card(0), author);
    let mut padding = record_bytes.saturating_sub(bare);
    // The lengths of texts are written down too, in more bytes for longer texts.
    padding = padding.saturating_sub(record(&name, &card(padding), author).saturating_sub(record_bytes));
    Ok(Offer { name, zone: None, scope: Scope::Public, card: card(padding), grants: Vec::new() })
}

/// Text of a length: a description, and beyond its limit an imported document.
fn card(padding: usize) -> AgentCard {
    let description = "x".repeat(padding.min(DESCRIPTION_BYTES_MAX));
    let rest = padding - description.len();
    AgentCard {
        description,
        callable: true,
        original: (rest > 0).then(|| "x".repeat(rest)),
        ..AgentCard::default()
    }
}

/// Bytes of the record that an author makes of a card.
fn record(name: &AgentName, card: &AgentCard, author: &Identity) -> usize {
    let wall = Timestamp(1 << 40);
    let header = Header {
        network: NETWORK.into(),
        zone: ZoneName::root(),
        kind: RecordKind::Agent,
        name: name.clone(),
        owner: author.key(),
        host: author.key(),
        author: Author { key: author.key(), epoch: u64::MAX },
        seq: 1,
        stamp: Stamp { wall, counter: 0 },
        generation: 0,
        expires_at: wall,
        scope: Scope::Public,
        slot: 0,
        grants: Vec::new(),
    };
    SignedRecord::sign(header, &codec::encode(card), author).map_or(0, |record| record.bytes().len())
}
