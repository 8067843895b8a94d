//! Keys and certificates of one control plane. They are created at its start and removed at its end.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use time::{Duration, OffsetDateTime};

use crate::network::API_SERVICE;

/// The DNS names of the API server.
const SERVER_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// A certificate with its key, both in PEM.
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The files for the programs of the control plane, and the CA that signs client certificates.
pub struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Pki {
    /// Creates all files in `dir`. `node` is the address of the node that runs containers.
    pub fn create(dir: &Path, node: Option<Ipv4Addr>) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let pki = Self { authority: authority("vpn-operator-e2e")?, dir: dir.to_owned() };
        fs::write(pki.authority_file(), pki.authority.pem())?;

        let mut server = CertificateParams::new(SERVER_NAMES.map(String::from).to_vec())?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        for address in [Ipv4Addr::LOCALHOST, API_SERVICE].into_iter().chain(node) {
            server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(address)));
        }
        server.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        write_pair(&signed(server, &pki.authority)?, &pki.server_certificate(), &pki.server_key())?;

        pki.replace_front_proxy(Duration::days(365))?;

        if let Some(node) = node {
            let mut kubelet = CertificateParams::new(Vec::new())?;
            kubelet.distinguished_name.push(DnType::CommonName, "kubelet");
            kubelet.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(node)));
            kubelet.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            write_pair(&signed(kubelet, &pki.authority)?, &pki.kubelet_certificate(), &pki.kubelet_key())?;
            let client = pki.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
            write_pair(&client, &pki.kubelet_client_certificate(), &pki.kubelet_client_key())?;
        }

        let service_account = KeyPair::generate()?;
        fs::write(pki.service_account_key(), service_account.serialize_pem())?;
        fs::write(pki.service_account_public_key(), service_account.public_key_pem())?;
        Ok(pki)
    }

    /// Signs a client certificate for a user in at most one group.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Credentials> {
        signed(client_params(user, group)?, &self.authority)
    }

    /// Creates the certificate of the front proxy, which ends after `lifetime`, and its CA. It has a CA of its own: a front
    /// proxy may claim to be any user, so no client certificate may pass for one. kube-apiserver loads the files when they
    /// change.
    pub fn replace_front_proxy(&self, lifetime: Duration) -> Result<()> {
        let ca = authority("vpn-operator-e2e-front-proxy")?;
        let mut params = client_params("front-proxy-client", None)?;
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        write_pair(&signed(params, &ca)?, &self.front_proxy_certificate(), &self.front_proxy_key())?;
        Ok(fs::write(self.front_proxy_authority(), ca.pem())?)
    }

    /// The certificate of the CA, in PEM.
    pub fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    pub fn authority_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }
    pub fn server_certificate(&self) -> PathBuf {
        self.dir.join("apiserver.crt")
    }
    pub fn server_key(&self) -> PathBuf {
        self.dir.join("apiserver.key")
    }
    pub fn front_proxy_authority(&self) -> PathBuf {
        self.dir.join("front-proxy-ca.crt")
    }
    pub fn front_proxy_certificate(&self) -> PathBuf {
        self.dir.join("front-proxy-client.crt")
    }
    pub fn front_proxy_key(&self) -> PathBuf {
        self.dir.join("front-proxy-client.key")
    }
    pub fn kubelet_certificate(&self) -> PathBuf {
        self.dir.join("kubelet.crt")
    }
    pub fn kubelet_key(&self) -> PathBuf {
        self.dir.join("kubelet.key")
    }
    pub fn kubelet_client_certificate(&self) -> PathBuf {
        self.dir.join("kubelet-client.crt")
    }
    pub fn kubelet_client_key(&self) -> PathBuf {
        self.dir.join("kubelet-client.key")
    }
    pub fn service_account_key(&self) -> PathBuf {
        self.dir.join("service-account.key")
    }
    pub fn service_account_public_key(&self) -> PathBuf {
        self.dir.join("service-account.pub")
    }
}

/// Creates a self-signed CA.
pub fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn client_params(user: &str, group: Option<&str>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    Ok(params)
}

/// Signs a certificate for a new key.
pub fn signed(mut params: CertificateParams, authority: &CertifiedIssuer<'static, KeyPair>) -> Result<Credentials> {
    params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority).context("cannot sign a certificate")?;
    Ok(Credentials { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn write_pair(pair: &Credentials, certificate: &Path, key: &Path) -> Result<()> {
    fs::write(certificate, &pair.certificate)?;
    fs::write(key, &pair.key)?;
    Ok(())
}
