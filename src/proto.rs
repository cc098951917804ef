//! The protocol, free of clock, random source, IO and async: the paper's registry (sections 4.2, 6.2, 7.6) made safe.
//!
//! Everything that spreads is a signed [`record`]. Its key is `(zone, kind, name, owner, host)`; of the records of one
//! key the greatest by content wins ([`registry`]), so every node agrees in any order of arrival. Authority comes with
//! the record, as a chain of [`grant`]s. What was seen of each author is a gap-free [`version`] prefix, not the
//! paper's maximum, which forgets what was overtaken.
//!
//! Gossip is the hint, [`sync`] is the truth: two registries compare hash trees ([`fingerprint`]) and exchange what
//! differs. Beacons ([`liveness`]) tell who is there and who has written more. Searches are answered from the
//! [`index`]. The [`node`] is where these machines meet: inputs in, outputs out, performed in order by an interpreter.
//!
//! Values (`time name identity card grant record message memo config codec version`) know no machine; machines know no
//! other machine but through `node`.

pub mod call;
pub mod card;
mod clock;
pub mod codec;
pub mod config;
mod context;
pub mod directory;
pub mod fingerprint;
pub mod grant;
pub mod identity;
pub mod index;
pub mod io;
pub mod liveness;
pub mod memo;
pub mod message;
pub mod name;
pub mod node;
pub mod own_records;
pub mod persistence;
pub mod record;
pub mod registry;
pub mod sync;
pub mod time;
pub mod version;
pub mod zone;
