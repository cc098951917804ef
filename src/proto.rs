//! The protocol, free of clock, random source, IO and async: the paper's registry (sections 4.2, 6.2, 7.6) made safe.
//!
//! Everything that spreads is a signed [`record`]. Its key is `(zone, kind, name, owner, host)`; of the records of one
//! key the greatest by content wins ([`registry`]), so every node agrees in any order of arrival. Authority comes with
//! the record, as a chain of [`grant`]s. What was seen of each author is a gap-free [`version`] prefix, not the
//! paper's maximum, which forgets what was overtaken.
//!
//! Gossip is the hint, [`sync`] is the truth: two registries compare hash trees ([`fingerprint`]) and exchange what
//! differs. Beacons ([`liveness`]) tell who is there and who has written more. Searches are answered from the
//! [`search`]. The [`node`] is where these machines meet: inputs in, outputs out, performed in order by an interpreter.
//!
//! Values (`time name address_block identity signature card grant record message config limits codec
//! version verification_cache`) know no machine. A zone is made of machines; zones and what stands beside them know each other
//! through the node alone.
//!
//! # Papers
//!
//! What each gave us; docs/protocol.md says where we differ.
//!
//! - *Agent Orchestration Protocol* (The Swarms Corporation, 2025): the registry, its claims, and the names of its parts.
//! - [Demers et al., *Epidemic algorithms for replicated database maintenance*](https://doi.org/10.1145/41840.41841): rumours for
//!   speed and anti-entropy for certainty; death certificates, here tombstones.
//! - [Vyzovitis et al., *GossipSub*](https://arxiv.org/abs/2007.02754): the mesh under the gossip, and why it stands adversaries.
//! - [Meyer, *Range-based set reconciliation*](https://arxiv.org/abs/2212.13567): two sets compared from the root down, and why
//!   fingerprints that add up can be forged; [Merkle](https://doi.org/10.1007/3-540-48184-2_32): the tree of hashes.
//! - [Parker et al., *Detection of mutual inconsistency in distributed systems*](https://doi.org/10.1109/TSE.1983.236733):
//!   version vectors.
//! - [Shapiro et al., *Conflict-free replicated data types*](https://doi.org/10.1007/978-3-642-24550-3_29): a merge that is the
//!   greatest of a total order agrees in any order of arrival.
//! - [Kulkarni et al., *Logical physical clocks*](https://doi.org/10.1007/978-3-319-14472-6_2): stamps that follow the wall clock
//!   and never go back.
//! - [Gray and Cheriton, *Leases*](https://doi.org/10.1145/74850.74870): what nobody renews ends by itself.
//! - [Birrell and Nelson, *Implementing remote procedure calls*](https://doi.org/10.1145/2080.357392): ids of calls and runs, so
//!   that a call that is repeated runs at most once.
//! - [Maymounkov and Mazières, *Kademlia*](https://doi.org/10.1007/3-540-45748-8_5): how the live node finds peers of a zone.

pub mod address_block;
mod agenda;
pub mod ahead;
pub mod alert;
pub mod arrival;
pub mod ask;
mod backlog;
pub mod call;
pub mod card;
mod clock;
pub mod code;
pub mod codec;
pub mod config;
mod context;
mod directory;
pub mod documents;
pub mod fingerprint;
mod forks;
pub mod grant;
pub mod identity;
pub mod import;
pub mod io;
pub mod limits;
mod links;
pub mod liveness;
pub mod message;
pub mod name;
pub mod node;
pub mod node_name;
mod overlay;
mod own_records;
mod owners;
pub mod persistence;
pub mod query;
pub mod record;
pub mod registration;
pub mod registry;
mod resolver;
pub mod search;
pub mod signature;
pub mod sorted;
pub mod sync;
pub mod task;
pub mod time;
pub mod verification_cache;
pub mod version;
pub mod zone;
