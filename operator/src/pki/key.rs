//! Private keys of any format that tools write. Formats other than PKCS #8 are read by rustls, as rcgen does not know
//! them.

use std::sync::Arc;

use rcgen::{Error, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::SigningKey as RustlsKey,
};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

/// What keys can sign with, in the order of preference.
const ALGORITHMS: [(SignatureScheme, &SignatureAlgorithm); 4] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256),
    (SignatureScheme::ECDSA_NISTP384_SHA384, &rcgen::PKCS_ECDSA_P384_SHA384),
    (SignatureScheme::ED25519, &rcgen::PKCS_ED25519),
    (SignatureScheme::RSA_PKCS1_SHA256, &rcgen::PKCS_RSA_SHA256),
];

/// A private key that can sign.
pub(super) struct PrivateKey {
    key: Arc<dyn RustlsKey>,
    scheme: SignatureScheme,
    algorithm: &'static SignatureAlgorithm,
    public: Vec<u8>,
}

impl PrivateKey {
    /// Returns the first private key in a text: PKCS #8, PKCS #1 or SEC 1, unencrypted; P-256, P-384, Ed25519, or RSA
    /// with 2048 to 4096 bits.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let key = any_supported_type(&der).ok()?;
        let spki = key.public_key()?;
        let public = SubjectPublicKeyInfo::from_der(&spki).ok()?.1.subject_public_key.data.to_vec();
        let (scheme, algorithm) = ALGORITHMS.into_iter().find(|(scheme, _)| key.choose_scheme(&[*scheme]).is_some())?;
        Some(Self { key, scheme, algorithm, public })
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signer = self.key.choose_scheme(&[self.scheme]).ok_or(Error::RemoteKeyError)?;
        signer.sign(message).map_err(|_| Error::RemoteKeyError)
    }
}
