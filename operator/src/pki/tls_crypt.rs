//! The key that all clients and servers share. Packets that are not encrypted with it are dropped, so nobody can find
//! the server by scanning.

use std::fmt::Write;

use anyhow::{Context, Result};

/// Returns a new key for `tls-crypt`. It is a secret.
///
/// # Errors
///
/// If the system has no random numbers.
pub fn new_tls_crypt_key() -> Result<String> {
    let mut random = [0; 256];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut random).ok().context("no random numbers")?;
    Ok(tls_crypt_key(&random))
}

/// Returns the key for `tls-crypt` that consists of these bytes, in the format of `openvpn --genkey`.
pub fn tls_crypt_key(random: &[u8; 256]) -> String {
    let mut key = "#\n# 2048 bit OpenVPN static key\n#\n-----BEGIN OpenVPN Static key V1-----\n".to_owned();
    for line in random.chunks(16) {
        for byte in line {
            // Writing to a string does not fail.
            let _ = write!(key, "{byte:02x}");
        }
        key.push('\n');
    }
    key + "-----END OpenVPN Static key V1-----\n"
}

#[cfg(test)]
mod tests;
