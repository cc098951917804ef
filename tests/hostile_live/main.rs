//! A real node attacked by a peer that speaks every protocol by hand: what each attack may cost honest clients and peers.
//!
//! Bounds are counts and ratios; nothing here measures how fast this machine is. A test says what is attacked, how it is known
//! that the attack has been dealt with (a last honest word of the attacker was heard, or it was cut off), and what must stand.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacker;
mod calls;
mod connections;
mod delegations;
mod dial_back;
mod gossip;
mod owned;
mod records;
#[path = "../strangers/raw_peer.rs"]
mod strangers;
mod sync;
mod victim;
