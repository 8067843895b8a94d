//! The webhook of the operator: its processes, and what the chart registers for it, with an address on loopback.

use std::{fmt::Debug, net::TcpListener, sync::Arc};

use anyhow::{Context, Result};
use http::{Uri, uri::Authority};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{
    Api, Client, Config, Resource,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::chart;
use crate::cluster::Cluster;

/// The name of a process.
pub const NAME: &str = "webhook";
/// The log message of a process that is ready.
pub const READY: &str = "serving the webhook";

/// The name of the MutatingWebhookConfiguration, and of the Secret with the certificate.
pub const CONFIGURATION: &str = "vpn-operator-webhook";

/// Returns the arguments of a process with this port. `secret` is the Secret that cert-manager writes, if there is one.
pub fn args(port: u16, secret: Option<&str>) -> Vec<String> {
    let mut args = vec![
        "serve-webhook".to_owned(),
        format!("--webhook-port={port}"),
        format!("--webhook-configuration={CONFIGURATION}"),
        format!("--webhook-secret={}", secret.unwrap_or(CONFIGURATION)),
        "--lease-namespace=vpn-operator".to_owned(),
    ];
    if secret.is_none() {
        args.push("--webhook-names=127.0.0.1".to_owned());
    }
    args
}

/// Returns an unused port on loopback.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Applies the configuration and the policy of the chart, with the address of a process instead of a Service.
pub async fn register(cluster: &Cluster, port: u16, secret: Option<&str>) -> Result<()> {
    let args = chart::injection_args(secret);
    let objects = chart::render(cluster, &args.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut configuration = find::<MutatingWebhookConfiguration>(&objects)?.clone();
    for webhook in configuration["webhooks"].as_array_mut().context("no webhooks")? {
        webhook["clientConfig"] = json!({ "url": format!("https://127.0.0.1:{port}/inject") });
    }
    apply::<MutatingWebhookConfiguration>(cluster, &configuration).await?;
    apply::<ValidatingAdmissionPolicy>(cluster, find::<ValidatingAdmissionPolicy>(&objects)?).await?;
    apply::<ValidatingAdmissionPolicyBinding>(cluster, find::<ValidatingAdmissionPolicyBinding>(&objects)?).await
}

fn find<K: k8s_openapi::Resource>(objects: &[Value]) -> Result<&Value> {
    objects.iter().find(|object| object["kind"] == K::KIND).with_context(|| format!("the chart has no {}", K::KIND))
}

async fn apply<K>(cluster: &Cluster, object: &Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().context("no name")?;
    let params = PatchParams::apply("e2e").force();
    Api::<K>::all(cluster.client()?).patch(name, &params, &Patch::Apply(object)).await?;
    Ok(())
}

/// A client for the first process. Like the API server, it trusts only the CAs in the configuration.
pub async fn client(cluster: &Cluster) -> Result<Client> {
    let (address, cas) = address_and_cas(cluster).await?;
    let mut client = Config::new(format!("https://{address}").parse()?);
    client.root_cert = Some(cas.iter().map(|ca| ca.to_vec()).collect());
    Ok(Client::try_from(client)?)
}

/// The certificate that the first process serves to a new client. Fails unless a CA in the configuration has signed it.
pub async fn served_certificate(cluster: &Cluster) -> Result<Vec<u8>> {
    let (address, cas) = address_and_cas(cluster).await?;
    let mut roots = RootCertStore::empty();
    cas.into_iter().try_for_each(|ca| roots.add(ca))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(address.host().to_owned())?;
    let connection = TcpStream::connect(address.as_str()).await?;
    let connection = TlsConnector::from(Arc::new(config)).connect(name, connection).await?;
    let chain = connection.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.first().context("no certificate")?.to_vec())
}

async fn address_and_cas(cluster: &Cluster) -> Result<(Authority, Vec<CertificateDer<'static>>)> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client()?);
    let webhooks = api.get(CONFIGURATION).await?.webhooks.unwrap_or_default();
    let config = webhooks.into_iter().next().context("no webhook")?.client_config;
    let url: Uri = config.url.context("no url")?.parse()?;
    let cas = CertificateDer::pem_slice_iter(&config.ca_bundle.context("no CA")?.0).collect::<Result<_, _>>();
    Ok((url.authority().context("no address")?.clone(), cas.context("the CA is not PEM")?))
}
