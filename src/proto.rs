//! The protocol, free of clock, random source, IO and async.

pub mod card;
pub mod config;
pub mod identity;
pub mod index;
pub mod name;
pub mod time;
