//! Creates and revokes clients of an OpenVPN server, in a Pod of it. What is decided is in
//! [`crate::openvpn::enrollment`].
//!
//! Invariant: the private key is in memory and, once the certificate is issued, in the profile. If a command is
//! interrupted, the key is lost, and the next run creates a new one.

mod api;
mod files;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use kube::ResourceExt;
use vpn_types::{OpenVPNClient, parse_duration};

use self::{api::Clients, files::Profiles};
use crate::{
    issuing::{ProfileSettings, keys},
    openvpn::enrollment::{self, Enrollment, Progress, REPLACED},
    pki::{inspect, key_fits, new_request},
};

/// How often to decide anew because something else has changed a client: the operator, or another run.
const ATTEMPTS: usize = 20;

/// Clients of an OpenVPN server, in a Pod of it.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Create an OpenVPNClient whose key stays here, wait for its certificate, and write the profile NAME.ovpn. If there
    /// is one whose key is here, only the profile is written again.
    Create {
        /// Common name of the client.
        name: String,

        /// Host name or address of the server, for the profile.
        address: String,

        /// Where the server is.
        #[command(flatten)]
        place: Place,
    },
    /// Revoke the OpenVPNClients with a common name, and wait until that is recorded.
    Revoke {
        /// Common name of the client.
        name: String,

        /// Where the server is.
        #[command(flatten)]
        place: Place,
    },
}

/// Where the server and the profiles are.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Name of the OpenVPNServer. The operator sets it in Pods that may create clients.
    #[arg(long, env = "OPENVPN_SERVER")]
    server: Option<String>,

    /// Namespace of the OpenVPNServer. Default: that of the Pod, or of the current context in the kubeconfig.
    #[arg(long)]
    namespace: Option<String>,

    /// Directory for profiles.
    #[arg(long, default_value = "/etc/openvpn/certs/pki")]
    profile_dir: PathBuf,

    /// Directory with the certificate authority, and the key that all clients share.
    #[arg(long, default_value = "/etc/openvpn/pki")]
    pki_dir: PathBuf,

    /// How long to wait for the operator.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Runs a command, and prints its result for people.
pub async fn run(command: ClientCommand) -> ExitCode {
    match command.run().await {
        Ok(said) => {
            // It is not an error if the reader stops reading.
            let _ = writeln!(std::io::stdout(), "{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A certificate of a client.
struct Issued {
    /// The name of the OpenVPNClient.
    object: String,
    /// The certificate signing request.
    request: String,
    /// The certificate, in PEM.
    certificate: String,
    /// The private key, in PEM.
    key: String,
}

impl ClientCommand {
    async fn run(self) -> anyhow::Result<String> {
        match self {
            Self::Create { name, address, place } => place.create(&name, &address).await,
            Self::Revoke { name, place } => place.revoke(&name).await,
        }
    }
}

impl Place {
    async fn create(&self, name: &str, address: &str) -> anyhow::Result<String> {
        let clients = self.clients().await?;
        let remote = enrollment::remote(address).map_err(anyhow::Error::msg)?;
        let profiles = Profiles::new(&self.profile_dir)?;
        let public = |key: &str| {
            let path = self.pki_dir.join(key);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (ca, tls_crypt) = (public(keys::AUTHORITY)?, public(keys::TLS_CRYPT)?);
        let server = clients.server().await?;
        let Issued { object, request, certificate, key } = self.certificate(&clients, &profiles, name).await?;
        ensure!(key_fits(&certificate, &key), "the certificate of OpenVPNClient {object} is for another key");
        let settings =
            ProfileSettings::of(clients.server_name(), &server.spec, remote, enrollment::remote_port(&server));
        let path = profiles.write(name, &settings.text(&ca, &tls_crypt, &certificate, Some(&key)))?;
        // From now on, no other run replaces the request. Until now, one may have.
        if !self.record_profile(&clients, &object, &request).await? {
            profiles.remove(name)?;
            bail!("OpenVPNClient {object}: {REPLACED}");
        }
        let end = chrono::DateTime::from_timestamp(inspect(&certificate)?.not_after, 0).unwrap_or_default();
        let (path, end) = (path.display(), end.format("%Y-%m-%d"));
        Ok(format!("The profile of OpenVPNClient {object} is {path}. Its certificate ends on {end}."))
    }

    /// Records that the profile of a client is written. Returns whether its request is still this one.
    async fn record_profile(&self, clients: &Clients, object: &str, request: &str) -> anyhow::Result<bool> {
        for _ in 0..ATTEMPTS {
            let all = clients.list().await?;
            let found = all.iter().find(|client| client.name_any() == object);
            let Some(client) = found.filter(|client| client.spec.csr.as_deref() == Some(request)) else {
                return Ok(false);
            };
            if clients.enrolled(client).await? {
                return Ok(true);
            }
        }
        bail!("the profile is written, but OpenVPNClient {object} changes all the time: run the command again")
    }

    /// Returns the certificate of a name.
    async fn certificate(&self, clients: &Clients, profiles: &Profiles<'_>, name: &str) -> anyhow::Result<Issued> {
        let present = profiles.key(name);
        let has_key = |pem: &str| present.as_deref().is_some_and(|key| key_fits(pem, key));
        for _ in 0..ATTEMPTS {
            let all = clients.list().await?;
            let found = enrollment::enrollment(&all, clients.server_name(), name, has_key);
            let found = found.map_err(anyhow::Error::msg)?;
            if let (Enrollment::Keep(client), Some(key)) = (&found, &present) {
                let certificate = enrollment::certificate(client).context("its certificate is gone")?.to_owned();
                let (object, request) = (client.name_any(), client.spec.csr.clone().unwrap_or_default());
                return Ok(Issued { object, request, certificate, key: key.clone() });
            }
            let new = new_request(name)?;
            let (object, is_done) = match found {
                Enrollment::Create(object) => {
                    let client = enrollment::new_client(&object, clients.server_name(), name, new.request.clone());
                    (object, clients.create(&client).await?)
                }
                Enrollment::Replace(client) | Enrollment::Keep(client) => {
                    (client.name_any(), clients.replace_request(client, &new.request).await?)
                }
            };
            if is_done {
                let certificate = self.issued(clients, &object, &new.request).await?;
                return Ok(Issued { object, request: new.request, certificate, key: new.key });
            }
        }
        bail!("the OpenVPNClient of {name} changes all the time: run the command again")
    }

    /// Waits for the certificate of a request.
    async fn issued(&self, clients: &Clients, object: &str, request: &str) -> anyhow::Result<String> {
        let look = |client: Option<&OpenVPNClient>| match enrollment::progress(client, request) {
            Progress::Waiting(why) => Err(why),
            done => Ok(done),
        };
        let seconds = self.timeout.as_secs();
        match clients.wait(object, self.timeout, look).await? {
            Ok(Progress::Issued(certificate)) => Ok(certificate),
            Ok(Progress::Refused(why) | Progress::Waiting(why)) => {
                bail!("OpenVPNClient {object} gets no certificate: {why}")
            }
            Err(why) => bail!(
                "OpenVPNClient {object} has no certificate after {seconds} s: {why}. Run the command again to go on waiting"
            ),
        }
    }

    async fn revoke(&self, name: &str) -> anyhow::Result<String> {
        let clients = self.clients().await?;
        let all = clients.list().await?;
        let found = enrollment::revocation(&all, clients.server_name(), name).map_err(anyhow::Error::msg)?;
        for client in &found {
            if client.spec.revoked != Some(true) {
                clients.revoke(client).await?;
            }
        }
        let mut names = Vec::new();
        for client in &found {
            let object = client.name_any();
            let look = |now: Option<&OpenVPNClient>| {
                let is_same = |now: &&OpenVPNClient| now.uid() == client.uid();
                match enrollment::is_revoked(now.filter(is_same)) {
                    true => Ok(()),
                    false => Err("the operator has not recorded it yet"),
                }
            };
            if let Err(why) = clients.wait(&object, self.timeout, look).await? {
                bail!("OpenVPNClient {object} is to be revoked, but after {} s {why}", self.timeout.as_secs());
            }
            names.push(object);
        }
        Profiles::new(&self.profile_dir)?.remove(name)?;
        Ok(format!("Revoked: OpenVPNClient {}. Its sessions end on all replicas.", names.join(", ")))
    }

    async fn clients(&self) -> anyhow::Result<Clients> {
        let name = self.server.as_deref().filter(|name| !name.is_empty()).context(
            "this Pod may not create or revoke clients: spec.serviceAccountName of its OpenVPNServer is not set",
        )?;
        Clients::connect(self.namespace.as_deref(), name).await
    }
}
