//! The protocol, free of clock, random source, IO and async.

pub mod card;
pub mod codec;
pub mod config;
pub mod fingerprint;
pub mod grant;
pub mod identity;
pub mod index;
pub mod liveness;
pub mod message;
pub mod name;
pub mod node;
pub mod record;
pub mod registry;
pub mod sync;
pub mod time;
pub mod version;
