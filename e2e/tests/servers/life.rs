//! The life of a server: the objects that the operator creates, how they change, and what remains.

use anyhow::{Context, Result, ensure};
use e2e::testing::framework::ensure_eq;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, ResourceExt};
use serde_json::json;
use vpn_types::{OpenVPNClient, OpenVPNServer};

use crate::{
    manifests::{create_client, create_server, issued, serial, texts, verify},
    test,
};

#[tokio::test]
async fn one_manifest_makes_a_server_with_everything_it_needs() -> Result<()> {
    test("server", async |f| {
        create_server(f, "home", json!({"replicas": 2})).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        let has_both = |server: &OpenVPNServer| server.status.as_ref().and_then(|it| it.ready_replicas) == Some(2);
        let server = f.wait_until("home", "both replicas", has_both).await?;
        let status = server.status.context("no status")?;
        let service = f.api::<Service>().get("home").await?;
        let cluster_ip = service.spec.and_then(|spec| spec.cluster_ip);
        let endpoint = status.endpoint.context("no endpoint")?;
        ensure_eq("endpoint", (&endpoint.host, endpoint.port), (&cluster_ip, Some(1194)))?;

        // The key of the authority is in no Pod.
        let pods = f.api::<Pod>().list(&Default::default()).await?;
        let mounted: Vec<_> = pods
            .iter()
            .flat_map(|pod| pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()))
            .filter_map(|volume| volume.secret.as_ref()?.secret_name.clone())
            .collect();
        ensure!(mounted.iter().all(|name| name != "home-ca"), "{mounted:?}");
        ensure!(mounted.contains(&"home-server".to_owned()), "{mounted:?}");
        let (authority, certificate) = (texts(f, "home-ca").await?, texts(f, "home-server").await?);
        verify(&authority["tls.crt"], &certificate["tls.crt"], "sslserver")?;
        ensure_eq("CA", &certificate["ca.crt"], &authority["tls.crt"])?;
        ensure!(!certificate.values().any(|text| text.contains(&authority["tls.key"])), "the key of the CA is mounted");
        f.api::<PodDisruptionBudget>().get("home").await?;
        f.api::<Service>().get("home-metrics").await?;
        ensure!(
            f.api::<ConfigMap>()
                .get("home-config")
                .await?
                .data
                .is_some_and(|data| data["server.conf"].contains("crl-verify"))
        );
        let shown = f.kubectl(&["get", "openvpnservers"]).await?;
        ensure!(shown.contains("Ready") && shown.contains(cluster_ip.as_deref().unwrap_or("none")), "{shown}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_device_gets_one_file_with_all_it_needs() -> Result<()> {
    test("device", async |f| {
        create_server(f, "home", json!({"replicas": 1, "endpoint": {"host": "vpn.example.org"}})).await?;
        create_client(f, "laptop", json!({"server": "home"})).await?;
        let secret = issued(f, "laptop").await?;
        verify(&secret["ca.crt"], &secret["tls.crt"], "sslclient")?;
        let profile = &secret["laptop.ovpn"];
        for part in ["remote vpn.example.org 1194", "proto udp", "<ca>", "<cert>", "<key>", "<tls-crypt>"] {
            ensure!(profile.contains(part), "{part} is not in\n{profile}");
        }
        let client = f.api::<OpenVPNClient>().get("laptop").await?;
        let recorded = client.status.and_then(|status| status.issued).unwrap_or_default();
        let recorded: Vec<_> = recorded.into_iter().map(|issued| issued.serial).collect();
        ensure_eq("serials", recorded, vec![serial(&secret["tls.crt"])?])?;

        // A new address reaches the profile, and the certificate stays.
        f.patch::<OpenVPNServer>("home", json!({"spec": {"endpoint": {"host": "new.example.org"}}})).await?;
        f.wait_until("laptop", "the new host", |found: &Secret| {
            let profile = found.data.as_ref().and_then(|data| data.get("laptop.ovpn"));
            profile.is_some_and(|text| String::from_utf8_lossy(&text.0).contains("remote new.example.org 1194"))
        })
        .await?;
        ensure_eq("certificate", &texts(f, "laptop").await?["tls.crt"], &secret["tls.crt"])?;

        // The operator restores what somebody changes or deletes. It never reissues a certificate that may be in use.
        f.patch::<Secret>("laptop", json!({"stringData": {"tls.key": "mine"}})).await?;
        f.wait_until("laptop", "another certificate", |found: &Secret| {
            let key = found.data.as_ref().and_then(|data| data.get("tls.key"));
            key.is_some_and(|text| String::from_utf8_lossy(&text.0).contains("PRIVATE KEY"))
        })
        .await?;
        let second = issued(f, "laptop").await?;
        ensure!(serial(&second["tls.crt"])? != serial(&secret["tls.crt"])?, "a serial number was used twice");
        f.delete::<Secret>("laptop").await?;
        f.wait_until("laptop", "the Secret", |_: &Secret| true).await?;
        let third = issued(f, "laptop").await?;
        ensure!(serial(&third["tls.crt"])? != serial(&second["tls.crt"])?, "a serial number was used twice");
        let client = f.api::<OpenVPNClient>().get("laptop").await?;
        ensure_eq("serials", client.status.and_then(|status| status.issued).map(|all| all.len()), Some(3))
    })
    .await
}

#[tokio::test]
async fn a_signing_request_keeps_the_key_where_it_is() -> Result<()> {
    test("csr", async |f| {
        create_server(f, "home", json!({"replicas": 1})).await?;
        let args = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k", "-subj", "/CN=someone-else"];
        let csr = crate::manifests::openssl(&args, &[])?;
        let csr = &csr[csr.find("-----BEGIN").context("no request")?..];
        create_client(f, "phone", json!({"server": "home", "csr": csr})).await?;
        let secret = issued(f, "phone").await?;
        ensure!(!secret.contains_key("tls.key"), "a key");
        let client = f.api::<OpenVPNClient>().get("phone").await?;
        let certificate =
            client.status.and_then(|status| status.certificate).context("no certificate in the status")?;
        ensure_eq("certificate", &certificate, &secret["tls.crt"])?;
        let info = vpn_operator::pki::inspect(&certificate)?;
        ensure_eq("common name", info.common_name.as_str(), "phone")?;

        create_client(f, "broken", json!({"server": "home", "csr": "-----BEGIN CERTIFICATE REQUEST-----\nx"})).await?;
        f.wait_for_reason::<OpenVPNClient>("broken", "SigningRequestInvalid").await?;
        f.patch::<OpenVPNClient>("broken", json!({"spec": {"csr": csr}})).await?;
        f.wait_for_reason::<OpenVPNClient>("broken", "Issued").await.map(drop)
    })
    .await
}

/// As the server is handed over to an autoscaler. Without `spec.replicas`, an apply would reset the Deployment to one replica.
#[tokio::test]
async fn the_replicas_stay_when_the_field_is_removed() -> Result<()> {
    test("handed-over", async |f| {
        create_server(f, "home", json!({"replicas": 3})).await?;
        let has_all = |server: &OpenVPNServer| server.status.as_ref().and_then(|it| it.ready_replicas) == Some(3);
        f.wait_until("home", "three replicas", has_all).await?;
        let before = f.api::<Deployment>().get("home").await?;
        f.patch::<OpenVPNServer>("home", json!({"spec": {"replicas": null}})).await?;
        let is_handed_over = |deployment: &Deployment| {
            let mut owners = deployment.managed_fields().iter().filter(|entry| {
                let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]["f:replicas"]);
                fields.is_some_and(|fields| !fields.is_null())
            });
            owners.next().and_then(|entry| entry.manager.as_deref()) == Some("vpn-operator-replicas")
                && owners.next().is_none()
        };
        let after = f.wait_until("home", "spec.replicas is not the operator's", is_handed_over).await?;
        let replicas = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
        ensure_eq("replicas", replicas(&after), Some(3))?;
        // It counts changes of the spec and of annotations, of which one changed. So the number was never another one.
        ensure_eq("generation", after.metadata.generation, before.metadata.generation.map(|before| before + 1))?;
        f.kubectl(&["scale", "deployment/home", "--replicas=2"]).await?;
        let has_two = |server: &OpenVPNServer| server.status.as_ref().and_then(|it| it.ready_replicas) == Some(2);
        f.wait_until("home", "two replicas", has_two).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_authority_outlives_the_server() -> Result<()> {
    test("retained", async |f| {
        let server = create_server(f, "home", json!({"replicas": 1})).await?;
        let laptop = create_client(f, "laptop", json!({"server": "home"})).await?;
        let before = issued(f, "laptop").await?;
        f.delete::<OpenVPNServer>("home").await?;
        f.wait_deleted(&server).await?;
        f.wait_for_reason::<OpenVPNClient>("laptop", "ServerNotFound").await?;
        f.wait_until_all::<Deployment>("no Deployment", <[_]>::is_empty).await?;
        // A client that is deleted while there is no server is revoked, too.
        f.delete::<OpenVPNClient>("laptop").await?;
        f.wait_deleted(&laptop).await?;
        create_server(f, "home", json!({"replicas": 1})).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        ensure_eq("CA", &texts(f, "home-ca").await?["tls.crt"], &before["ca.crt"])?;
        ensure_eq("tls-crypt", &texts(f, "home-server").await?["tls-crypt.key"], &before["tls-crypt.key"])?;
        ensure!(
            texts(f, "home-revoked").await?.contains_key(&serial(&before["tls.crt"])?),
            "a revoked client is forgotten"
        );

        let server = f.patch::<OpenVPNServer>("home", json!({"spec": {"pki": {"deletionPolicy": "Delete"}}})).await?;
        f.delete::<OpenVPNServer>("home").await?;
        f.wait_deleted(&server).await?;
        let secrets: Api<Secret> = f.api();
        f.wait_until_all::<Secret>("no Secret of the server", |all| {
            !all.iter().any(|secret| secret.name_any().starts_with("home-"))
        })
        .await?;
        ensure!(secrets.get_opt("home-ca").await?.is_none());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_authority_is_never_replaced_by_itself() -> Result<()> {
    test("lost-ca", async |f| {
        create_server(f, "home", json!({"replicas": 1})).await?;
        create_client(f, "laptop", json!({"server": "home"})).await?;
        issued(f, "laptop").await?;
        let backup = f.api::<Secret>().get("home-ca").await?;
        f.delete::<Secret>("home-ca").await?;
        f.wait_for_reason::<OpenVPNServer>("home", "CertificateAuthorityMissing").await?;
        create_client(f, "phone", json!({"server": "home"})).await?;
        f.wait_for_reason::<OpenVPNClient>("phone", "CertificateAuthorityMissing").await?;

        let metadata = json!({"name": "home-ca", "labels": backup.labels(), "annotations": backup.annotations()});
        f.create::<Secret>(serde_json::from_value(json!({"metadata": metadata, "data": backup.data}))?).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        let phone = issued(f, "phone").await?;
        let old = texts(f, "home-ca").await?;
        verify(&old["tls.crt"], &phone["tls.crt"], "sslclient")?;

        f.delete::<Secret>("home-ca").await?;
        f.wait_for_reason::<OpenVPNServer>("home", "CertificateAuthorityMissing").await?;
        f.patch::<OpenVPNServer>("home", json!({"spec": {"pki": {"generation": 2}}})).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        let new = texts(f, "home-ca").await?;
        ensure!(new["tls.crt"] != old["tls.crt"], "the same CA");
        f.wait_until("laptop", "a certificate of the new CA", |found: &Secret| {
            let authority = found.data.as_ref().and_then(|data| data.get("ca.crt"));
            authority.is_some_and(|text| text.0 == new["tls.crt"].as_bytes())
        })
        .await?;
        verify(&new["tls.crt"], &texts(f, "laptop").await?["tls.crt"], "sslclient")
    })
    .await
}
