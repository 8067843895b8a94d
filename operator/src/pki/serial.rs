//! Serial numbers of certificates.
//!
//! Invariant: a serial has one spelling. OpenVPN looks for a revoked certificate by the name of a file, which is its
//! serial in decimal.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use x509_parser::num_bigint::BigUint;

/// RFC 5280 allows no more.
const BYTES: usize = 20;

/// The serial number of a certificate: not negative, at most 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; BYTES]);

/// A text that is not a serial number in decimal, or bytes that are not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number: it has to be a decimal number of at most 160 bits, without leading zeros")]
pub struct NotASerial;

impl Serial {
    /// Returns 159 bits that look random and are always the same for the same parts, so that an operator that was
    /// interrupted does not issue a second certificate under another number.
    pub fn derive(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // Without the length, `a` and `bc` would be the same as `ab` and `c`.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&hash.finalize()[..BYTES]);
        // DER would need a 21st byte for the sign.
        bytes[0] &= 0x7f;
        Self(bytes)
    }

    /// Returns a serial from its bytes, the most significant one first.
    ///
    /// # Errors
    ///
    /// If it has more than 160 bits.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotASerial> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let bytes = &bytes[zeros..];
        let begin = BYTES.checked_sub(bytes.len()).ok_or(NotASerial)?;
        let mut all = [0; BYTES];
        all[begin..].copy_from_slice(bytes);
        Ok(Self(all))
    }

    /// Returns the bytes without leading zeros, the most significant one first.
    pub fn to_bytes(self) -> Vec<u8> {
        BigUint::from_bytes_be(&self.0).to_bytes_be()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&BigUint::from_bytes_be(&self.0), formatter)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = NotASerial;

    fn from_str(text: &str) -> Result<Self, NotASerial> {
        // 2^160 has 49 digits.
        let digits = (1..=49).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || (text.starts_with('0') && text != "0") {
            return Err(NotASerial);
        }
        let number: BigUint = text.parse().map_err(|_| NotASerial)?;
        Self::from_bytes(&number.to_bytes_be())
    }
}

impl From<Serial> for rcgen::SerialNumber {
    fn from(serial: Serial) -> Self {
        serial.to_bytes().into()
    }
}

#[cfg(test)]
mod tests;
