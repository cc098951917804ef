//! The `aop` binary.

fn main() {}
