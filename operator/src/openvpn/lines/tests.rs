#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use super::*;

fn options(text: &[&str]) -> Result<Vec<String>, String> {
    let lines: Vec<_> = text.iter().map(|line| (*line).to_owned()).collect();
    super::options(&lines).map(|options| options.into_iter().map(|line| line.option).collect())
}

#[test]
fn options_are_found_in_each_spelling() {
    let lines =
        ["", "  # comment", "; comment", "\tverb 4 # four", "--push \"route 10.0.0.0 255.0.0.0\"", "client-to-client"];
    assert_eq!(options(&lines).unwrap(), ["verb", "push", "client-to-client"]);
    for line in ["setenv opt crl-verify x", "setenv \"opt\" crl-verify x", "--setenv 'opt'\tcrl-verify"] {
        assert_eq!(options(&[line]).unwrap(), ["crl-verify"], "{line}");
    }
    assert_eq!(options(&["setenv opt_in 1"]).unwrap(), ["setenv"]);
}

#[test]
fn an_option_that_is_hidden_is_refused() {
    let lines =
        ["\"crl-verify\" x", "'crl-verify' x", "crl\\-verify x", "setenv opt \"crl-verify\"", "setenv opt", "<ca"];
    let more = ["<ca> x", "<\"ca\">", "verb 3\ncrl-verify x", "verb\r3", "verb\0", "CRL-VERIFY", "----verb 3", "é"];
    for line in lines.into_iter().chain(more) {
        assert!(options(&[line]).is_err(), "{line:?}");
    }
    assert!(options(&[&"x".repeat(LONGEST + 1)]).is_err());
}

#[test]
fn a_block_is_skipped_to_its_end() {
    let lines = ["<extra-certs>", "crl-verify x", "-----BEGIN", " </extra-certs> x", "verb 3"];
    assert_eq!(options(&lines).unwrap(), ["extra-certs", "verb"]);
    let lines = ["<extra-certs>", "</extra-certs>junk", "crl-verify x", "</extra-certs>"];
    assert!(options(&lines).is_err());
    assert_eq!(options(&["verb 3", "<extra-certs>"]).unwrap_err(), "line 2: <extra-certs> has no end: </extra-certs>");
}

proptest! {
    #[test]
    fn no_lines_make_it_panic(lines in prop::collection::vec(".*|<[a-z]>|</[a-z]>|[a-z<>/ '\"\\\\-]{0,12}", 0..6)) {
        let _ = super::options(&lines);
    }
}
