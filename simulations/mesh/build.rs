//! Exports `getrandom`, so that the crates that look it up by name at run time find the one of this program.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=getrandom");
    println!("cargo::rerun-if-changed=build.rs");
}
