//! The live interpreter: everything that touches the operating system.

pub mod store;
