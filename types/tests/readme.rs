//! The README.md of this crate shows the compiled example.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

#[test]
fn the_example_is_the_one_that_is_compiled() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let readme = read("README.md");
    let shown = readme.split_once("```rust\n").unwrap().1.split_once("```").unwrap().0;
    let example = read("examples/run_with_vpn.rs");
    let (_, code) = example.split_once("\n\n").unwrap();
    assert!(code == shown, "README.md does not show examples/run_with_vpn.rs");
}
