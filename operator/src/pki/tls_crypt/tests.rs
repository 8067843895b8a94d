#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;

#[test]
fn a_key_has_sixteen_lines_of_sixteen_bytes() {
    let bytes: Vec<u8> = (0..=255).collect();
    let key = tls_crypt_key(bytes.as_slice().try_into().unwrap());
    let lines: Vec<_> = key.lines().skip(4).take(16).collect();
    assert_eq!(lines[0], "000102030405060708090a0b0c0d0e0f");
    assert_eq!(lines[15], "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    assert_eq!(key.lines().count(), 21);
}

#[test]
fn no_two_keys_are_alike() {
    assert_ne!(new_tls_crypt_key().unwrap(), new_tls_crypt_key().unwrap());
}
