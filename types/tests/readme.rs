//! README.md says what is true.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use vpn_types::Reason;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// One row of the table for each reason, in the order of their declaration, and no others.
#[test]
fn every_reason_is_explained() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("| reason | on | meaning |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let explained: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(explained, reasons);
}

/// The Rust in README.md is the example that is compiled.
#[test]
fn the_example_is_the_one_that_is_compiled() {
    let readme = read("README.md");
    let shown = readme.split_once("```rust\n").unwrap().1.split_once("```").unwrap().0;
    let example = read("types/examples/run_with_vpn.rs");
    let (_, code) = example.split_once("\n\n").unwrap();
    assert!(code == shown, "README.md does not show types/examples/run_with_vpn.rs");
}
