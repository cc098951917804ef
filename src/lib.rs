//! aop: the missing DNS for agents. A peer-to-peer registry node that implements the Agent Orchestration Protocol.
//!
//! One pure state machine, [`proto::node::Node`], takes every decision. Two interpreters drive it: the live one ([`net`]:
//! tokio, libp2p, sled) and the simulated one ([`sim`]: virtual time, faults). The surfaces (`cli`, `http`, `mcp`)
//! hold a `host::Handle` and never see the node, the swarm or the store. `agents` runs what this host offers. The laboratory
//! (`lab`) plays scenarios in simulated worlds and measures them.
//!
//! The layer rule, top to bottom: surfaces → interpreters → machines → values. `tests/tidy.rs` checks it.
//!
//! # Two nodes without a network
//!
//! The node is a value: inputs and the time go in, outputs come out, and whoever performs them decides what a network is. Here
//! it is a loop that hands one node's messages to the other:
//!
//! ```
//! use aop::proto::card::{AgentCard, Offer, Scope};
//! use aop::proto::config::Config;
//! use aop::proto::identity::Identity;
//! use aop::proto::io::{Command, GossipId, Input, Output, Reply};
//! use aop::proto::node::Node;
//! use aop::proto::persistence::Stored;
//! use aop::proto::query::Find;
//! use aop::proto::search::Query;
//! use aop::proto::time::Timestamp;
//!
//! let now = Timestamp(1_800_000_000_000);
//! let node = |seed| {
//!     Node::new(Identity::from_seed([seed; 32]), Config::default(), [seed; 32], Stored::default(), now)
//! };
//! let (mut ada, mut bob) = (node(1), node(2));
//!
//! let card = AgentCard { description: "Summarises long documents".into(), ..AgentCard::default() };
//! let offer =
//!     Offer { name: "summarizer".parse()?, zone: None, scope: Scope::Public, card, grants: Vec::new() };
//! ada.handle(now, Input::Command { id: 1, command: Command::Register(vec![offer]) });
//! while let Some(output) = ada.poll_output() {
//!     match output {
//!         Output::Persist(_) => {} // Ada's disk comes before whatever follows.
//!         Output::Publish { zone, bytes } => {
//!             let peer = Identity::from_seed([1; 32]).key();
//!             bob.handle(now, Input::Gossip { id: GossipId([7; 20]), peer, zone, bytes });
//!         }
//!         Output::Reply { reply: Reply::Registered(results), .. } => assert!(results[0].is_ok()),
//!         _ => {}
//!     }
//! }
//!
//! let query = Query { text: "summarise a document".into(), ..Query::default() };
//! let find = Find { query, limit: 10, ..Find::default() };
//! bob.handle(now, Input::Command { id: 2, command: Command::Find(find) });
//! let answer = std::iter::from_fn(|| bob.poll_output()).find_map(|output| match output {
//!     Output::Reply { reply: Reply::Found(answer), .. } => Some(answer),
//!     _ => None,
//! });
//! assert_eq!(answer.expect("a reply").found[0].record.name.to_string(), "summarizer@.");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "net")]
pub mod a2a;
#[cfg(feature = "net")]
pub mod agents;
#[cfg(feature = "net")]
pub mod api;
#[cfg(feature = "net")]
pub mod cli;
#[cfg(feature = "net")]
pub mod config;
#[cfg(feature = "net")]
pub mod document;
#[cfg(feature = "net")]
pub mod grant_file;
#[cfg(feature = "net")]
pub mod host;
#[cfg(feature = "net")]
pub mod http;
#[cfg(feature = "net")]
pub mod import;
#[cfg(feature = "net")]
pub mod key_file;
#[cfg(feature = "lab")]
pub mod lab;
#[cfg(feature = "net")]
pub mod mcp;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "net")]
mod private_file;
pub mod proto;
#[cfg(feature = "net")]
pub mod sanitize;
pub mod sim;
#[cfg(feature = "net")]
pub mod telemetry;
