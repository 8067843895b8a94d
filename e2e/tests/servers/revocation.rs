//! Revoked clients: their serial numbers reach the files that the replicas read, and stay there.

use anyhow::{Context, Result, ensure};
use e2e::testing::framework::ensure_eq;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{OpenVPNClient, OpenVPNServer, REVOKED_ANNOTATION};

use crate::{
    manifests::{create_client, create_server, issued, openssl, serial, texts},
    test,
};

#[tokio::test]
async fn a_deleted_client_is_revoked_before_it_is_gone() -> Result<()> {
    test("revoked", async |f| {
        create_server(f, "home", json!({"replicas": 2})).await?;
        let laptop = create_client(f, "laptop", json!({"server": "home"})).await?;
        create_client(f, "phone", json!({"server": "home"})).await?;
        let (first, second) = (issued(f, "laptop").await?, issued(f, "phone").await?);
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        f.delete::<OpenVPNClient>("laptop").await?;
        f.wait_deleted(&laptop).await?;
        let number = serial(&first["tls.crt"])?;
        let files = texts(f, "home-revoked").await?;
        ensure_eq("common name", files.get(&number).map(String::as_str), Some("laptop"))?;
        ensure!(texts(f, "home-ca").await?["revoked"].contains(&number), "the second copy");
        // The operator notifies the kubelets, which otherwise wait for a minute.
        f.wait_until_all::<Pod>("annotations", |pods| {
            pods.iter().filter(|pod| pod.annotations().contains_key(REVOKED_ANNOTATION)).count() == 2
        })
        .await?;
        let verify = |certificate: &str| {
            let files = [("ca", &*first["ca.crt"]), ("crl", &*files["crl.pem"]), ("c", certificate)];
            openssl(&["verify", "-crl_check", "-CAfile", "ca", "-CRLfile", "crl", "c"], &files)
        };
        ensure!(verify(&first["tls.crt"]).is_err_and(|error| error.to_string().contains("revoked")), "not revoked");
        verify(&second["tls.crt"])?;

        f.patch::<OpenVPNClient>("phone", json!({"spec": {"revoked": true}})).await?;
        f.wait_for_reason::<OpenVPNClient>("phone", "Revoked").await?;
        ensure!(texts(f, "home-revoked").await?.contains_key(&serial(&second["tls.crt"])?));
        let back = f.patch::<OpenVPNClient>("phone", json!({"spec": {"revoked": false}})).await;
        ensure!(back.is_err_and(|error| format!("{error:#}").contains("cannot be restored")), "it was restored");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_files_of_revoked_certificates_are_made_again() -> Result<()> {
    test("files", async |f| {
        create_server(f, "home", json!({"replicas": 1})).await?;
        let laptop = create_client(f, "laptop", json!({"server": "home"})).await?;
        let number = serial(&issued(f, "laptop").await?["tls.crt"])?;
        f.delete::<OpenVPNClient>("laptop").await?;
        f.wait_deleted(&laptop).await?;
        let holds_it = |secret: &Secret| secret.data.as_ref().is_some_and(|data| data.contains_key(&number));
        for change in [json!({"data": {&*number: null}}), json!({"data": null})] {
            let before = f.patch::<Secret>("home-revoked", change).await?;
            ensure!(!holds_it(&before), "nothing to repair");
            f.wait_until("home-revoked", "the file again", holds_it).await?;
        }
        f.delete::<Secret>("home-revoked").await?;
        f.wait_until("home-revoked", "the Secret again", holds_it).await?;
        // The operator restores the list beside the CA from the files.
        f.patch::<Secret>("home-ca", json!({"stringData": {"revoked": "nonsense"}})).await?;
        f.wait_until("home-ca", "the list again", |secret: &Secret| {
            let list = secret.data.as_ref().and_then(|data| data.get("revoked"));
            list.is_some_and(|text| String::from_utf8_lossy(&text.0).contains(&number))
        })
        .await?;
        let server = f.api::<OpenVPNServer>().get("home").await?;
        let revoked = server.status.and_then(|status| status.certificates).and_then(|it| it.revoked);
        revoked.context("no count").map(drop)
    })
    .await
}
