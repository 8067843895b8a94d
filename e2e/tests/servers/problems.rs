//! Invalid input: the messages for users, and the recovery once the input is corrected.

use anyhow::{Result, ensure};
use e2e::{testing::framework::ensure_eq, wait::ready_condition};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret, Service},
    events::v1::Event,
    policy::v1::PodDisruptionBudget,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use vpn_types::{OpenVPNClient, OpenVPNServer};

use crate::{
    manifests::{create_client, create_server, issued, openssl, texts, verify},
    test,
};

#[tokio::test]
async fn objects_of_others_are_named_and_never_changed() -> Result<()> {
    test("foreign", async |f| {
        let secret = json!({"metadata": {"name": "home-ca"}, "stringData": {"mine": "yes"}});
        f.create::<Secret>(serde_json::from_value(secret)?).await?;
        let service = json!({"metadata": {"name": "home"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
        f.create::<Service>(serde_json::from_value(service)?).await?;
        let config = json!({"metadata": {"name": "home-config"}, "data": {"server.conf": "mine"}});
        f.create::<ConfigMap>(serde_json::from_value(config)?).await?;
        create_server(f, "home", json!({"replicas": 1})).await?;
        for (kind, name) in [("Secret", "home-ca"), ("ConfigMap", "home-config"), ("Service", "home")] {
            let told = f
                .wait_until("home", "the condition reports the name", |server: &OpenVPNServer| {
                    let ready = ready_condition(server);
                    ready.is_some_and(|it| it.reason == "NameTaken" && it.message.contains(&format!("{kind} {name} ")))
                })
                .await?;
            ensure!(ready_condition(&told).is_some_and(|ready| ready.status == "False"));
            match kind {
                "Secret" => {
                    ensure_eq("keys", texts(f, name).await?.len(), 1)?;
                    f.delete::<Secret>(name).await?;
                }
                "ConfigMap" => {
                    ensure!(f.api::<ConfigMap>().get(name).await?.labels().is_empty(), "it was changed");
                    f.delete::<ConfigMap>(name).await?;
                }
                _ => {
                    ensure!(f.api::<Service>().get(name).await?.labels().is_empty(), "it was changed");
                    f.delete::<Service>(name).await?;
                }
            }
        }
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn what_is_changed_by_hand_is_set_back_and_what_is_added_stays() -> Result<()> {
    test("drift", async |f| {
        create_server(f, "home", json!({"replicas": 1})).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        let changes = [
            ("service/home", json!({"metadata": {"labels": {"team": "a"}}, "spec": {"selector": {"app": "other"}}})),
            ("configmap/home-config", json!({"data": {"server.conf": "verb 11", "mine": "yes"}})),
            ("deployment/home", json!({"metadata": {"labels": {"team": "a"}}, "spec": {"replicas": 3}})),
            ("poddisruptionbudget/home", json!({"spec": {"maxUnavailable": 0}})),
        ];
        for (object, change) in &changes {
            f.kubectl(&["patch", object, "--type=merge", "--patch", &change.to_string()]).await?;
        }
        let budget = |it: &PodDisruptionBudget| json!(it.spec)["maxUnavailable"] == 1;
        f.wait_until("home", "the budget", budget).await?;
        let service = |it: &Service| json!(it.spec)["selector"] == json!({"app": "openvpn", "release": "home"});
        let service = f.wait_until("home", "the selector", service).await?;
        ensure_eq("label", service.labels().get("team").map(String::as_str), Some("a"))?;
        let deployment = |it: &Deployment| json!(it.spec)["replicas"] == 1;
        let deployment = f.wait_until("home", "the replicas", deployment).await?;
        ensure_eq("label", deployment.labels().get("team").map(String::as_str), Some("a"))?;
        let config =
            |it: &ConfigMap| json!(it.data)["server.conf"].as_str().is_some_and(|it| it.contains("crl-verify"));
        let config = f.wait_until("home-config", "the configuration", config).await?;
        ensure_eq("other file", &json!(config.data)["mine"], &json!("yes"))?;
        for name in ["Service home", "ConfigMap home-config", "Deployment home", "PodDisruptionBudget home"] {
            let told = |event: &Event| {
                let note = event.note.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some("DriftCorrected") && note.starts_with(&format!("{name} was changed, "))
            };
            f.wait_until_all::<Event>(name, |all| all.iter().any(told)).await?;
        }
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn objects_of_other_servers_and_devices_are_left_alone() -> Result<()> {
    test("neighbors", async |f| {
        // Each of these has a name that `home` needs.
        create_server(f, "home-metrics", json!({"replicas": 1})).await?;
        f.wait_for_reason::<OpenVPNServer>("home-metrics", "Serving").await?;
        create_client(f, "home-slot-0", json!({"server": "home-metrics"})).await?;
        create_client(f, "home-server", json!({"server": "home-metrics"})).await?;
        let device = issued(f, "home-slot-0").await?;
        issued(f, "home-server").await?;
        let provider = json!({"maxSlots": 1, "verify": {"skip": true}});
        create_server(f, "home", json!({"replicas": 1, "provider": provider})).await?;
        for (name, told) in [
            ("home-metrics", "Service home-metrics already exists"),
            ("home-server", "Secret home-server already exists"),
            ("home-slot-0", "OpenVPNClient home-slot-0 already exists"),
        ] {
            f.wait_until("home", told, |server: &OpenVPNServer| {
                ready_condition(server).is_some_and(|it| it.reason == "NameTaken" && it.message.contains(told))
            })
            .await?;
            if name == "home-metrics" {
                let service = f.api::<Service>().get(name).await?;
                ensure_eq("owners", service.owner_references().len(), 1)?;
                ensure_eq("owner", service.owner_references()[0].name.as_str(), name)?;
                f.delete::<OpenVPNServer>(name).await?;
            } else {
                ensure_eq("device", &texts(f, "home-slot-0").await?["tls.crt"], &device["tls.crt"])?;
                f.delete::<OpenVPNClient>(name).await?;
            }
        }
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        issued(f, "home-slot-0").await?;

        // In the opposite case, the client waits.
        create_client(f, "home-ca", json!({"server": "home"})).await?;
        f.wait_for_reason::<OpenVPNClient>("home-ca", "NameTaken").await?;
        ensure!(texts(f, "home-ca").await?.contains_key("revoked"), "the authority is gone");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_port_is_in_the_profile_as_soon_as_a_replica_runs() -> Result<()> {
    test("node-port", async |f| {
        create_client(f, "laptop", json!({"server": "home"})).await?;
        f.wait_for_reason::<OpenVPNClient>("laptop", "ServerNotFound").await?;
        create_server(f, "home", json!({"replicas": 1, "service": {"type": "NodePort"}})).await?;
        let profile = &issued(f, "laptop").await?["laptop.ovpn"];
        let service = f.api::<Service>().get("home").await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.first().and_then(|port| port.node_port).unwrap_or_default();
        ensure!(
            profile.lines().any(|line| line.starts_with("remote ") && line.ends_with(&format!(" {port}"))),
            "{profile}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_authority_of_ones_own_is_checked() -> Result<()> {
    test("own-ca", async |f| {
        create_server(f, "home", json!({"replicas": 1, "pki": {"caSecret": "mine"}})).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "SecretNotFound").await?;
        let leaf = "req -x509 -newkey rsa:2048 -nodes -keyout /dev/stdout -days 1000 -subj /CN=x -addext";
        let leaf: Vec<_> = leaf.split(' ').collect();
        let make = |constraint: &str| -> Result<(String, String)> {
            let both = openssl(&[&leaf[..], &[constraint]].concat(), &[])?;
            let at = both.find("-----BEGIN CERTIFICATE").unwrap_or(0);
            Ok((both[at..].to_owned(), both[..at].to_owned()))
        };
        let (certificate, key) = make("basicConstraints=critical,CA:FALSE")?;
        let secret = |certificate: &str, key: &str| -> Result<Secret> {
            let data = json!({"tls.crt": certificate, "tls.key": key});
            Ok(serde_json::from_value(json!({"metadata": {"name": "mine"}, "stringData": data}))?)
        };
        f.create(secret(&certificate, &key)?).await?;
        let told = f.wait_for_reason::<OpenVPNServer>("home", "CertificateAuthorityInvalid").await?;
        let message = ready_condition(&told).map(|ready| ready.message).unwrap_or_default();
        ensure!(message.contains("Secret mine of spec.pki.caSecret"), "{message}");
        let (certificate, key) = make("keyUsage=critical,keyCertSign,cRLSign")?;
        f.delete::<Secret>("mine").await?;
        f.create(secret(&certificate, &key)?).await?;
        create_client(f, "laptop", json!({"server": "home"})).await?;
        let client = issued(f, "laptop").await?;
        verify(&certificate, &client["tls.crt"], "sslclient")?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;

        // The operator adopts another CA only when the user asks for it, and ignores one that it cannot use.
        let (next, next_key) = make("keyUsage=critical,keyCertSign,cRLSign")?;
        f.delete::<Secret>("mine").await?;
        f.create(secret(&next, &key)?).await?;
        f.patch::<OpenVPNServer>("home", json!({"spec": {"pki": {"generation": 2}}})).await?;
        f.wait_for_event::<OpenVPNServer>("home", "CertificateAuthorityInvalid", &["does not belong"]).await?;
        ensure_eq("authority", &texts(f, "home-ca").await?["tls.crt"], &certificate)?;
        f.delete::<Secret>("mine").await?;
        f.create(secret(&next, &next_key)?).await?;
        let follows = |found: &Secret| {
            let text =
                found.data.as_ref().and_then(|data| data.get("tls.crt")).map(|it| String::from_utf8_lossy(&it.0));
            text.is_some_and(|text| vpn_operator::pki::is_signed_by(&text, &next))
        };
        f.wait_until("laptop", "a certificate of the next authority", follows).await?;
        // The user may have issued certificates with the previous one.
        let previous: Value = serde_json::from_str(&texts(f, "home-ca").await?["previous.json"])?;
        let end = vpn_operator::pki::inspect(&certificate)?.not_after;
        ensure_eq("end of the previous authority", &previous[0]["retires"], &json!(end))?;
        let (server, laptop) = (texts(f, "home-server").await?, texts(f, "laptop").await?);
        // The device keeps the old profile. Other clients have the new one.
        verify(&client["ca.crt"], &server["tls.crt"], "sslserver")?;
        verify(&laptop["ca.crt"], &server["tls.crt"], "sslserver")?;
        verify(&server["ca.crt"], &client["tls.crt"], "sslclient")?;
        verify(&server["ca.crt"], &laptop["tls.crt"], "sslclient")?;
        ensure!(laptop["laptop.ovpn"].contains(next.trim()), "the profile does not trust the next authority");
        let told = f
            .wait_until("home", "until when", |server: &OpenVPNServer| {
                let conditions = server.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions
                    .clone()
                    .any(|it| it.message.contains("profiles of the previous certificate authority work until"))
            })
            .await?;
        ensure!(ready_condition(&told).is_some_and(|ready| ready.reason == "Serving"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_wrong_field_is_named_and_heals() -> Result<()> {
    test("invalid", async |f| {
        let wrong: [(&str, Value, &str); 4] = [
            ("lines", json!({"config": {"server": ["crl-verify /dev/null"]}}), "spec.config.server"),
            ("client-lines", json!({"config": {"client": ["</ca>"]}}), "spec.config.client"),
            ("duration", json!({"pki": {"clientDuration": "1s"}}), "spec.pki.clientDuration"),
            ("pod", json!({"pod": {"spec": {"containers": "none"}}}), "spec.pod"),
        ];
        for (name, spec, field) in wrong {
            create_server(f, name, spec).await?;
            let told = f.wait_for_reason::<OpenVPNServer>(name, "InvalidSpec").await?;
            let message = ready_condition(&told).map(|ready| ready.message).unwrap_or_default();
            ensure!(message.contains(field), "{message}");
            f.wait_for_event::<OpenVPNServer>(name, "InvalidSpec", &[field]).await?;
        }
        f.patch::<OpenVPNServer>("lines", json!({"spec": {"config": null, "replicas": 1}})).await?;
        f.wait_for_reason::<OpenVPNServer>("lines", "Serving").await?;

        create_client(f, "nowhere", json!({"server": "no-such"})).await?;
        f.wait_for_reason::<OpenVPNClient>("nowhere", "ServerNotFound").await?;
        create_client(f, "first", json!({"server": "lines", "commonName": "same"})).await?;
        issued(f, "first").await?;
        create_client(f, "second", json!({"server": "lines", "commonName": "same"})).await?;
        f.wait_for_reason::<OpenVPNClient>("second", "NameTaken").await?;
        f.delete::<OpenVPNClient>("first").await?;
        issued(f, "second").await?;
        create_client(f, "outside", json!({"server": "lines", "address": "192.0.2.1"})).await?;
        let told = f.wait_for_reason::<OpenVPNClient>("outside", "InvalidSpec").await?;
        ensure!(ready_condition(&told).is_some_and(|ready| ready.message.contains("192.0.2.1")));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_network_that_contains_the_service_is_told() -> Result<()> {
    test("overlap", async |f| {
        create_server(f, "probe", json!({"replicas": 0})).await?;
        let is_addressed = |service: &Service| service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.is_some());
        let service = f.wait_until("probe", "an address", is_addressed).await?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        let network = format!("{}.0.0/16", ip.split('.').take(2).collect::<Vec<_>>().join("."));
        create_server(f, "home", json!({"replicas": 1, "network": {"clients": network}})).await?;
        let told = f.wait_for_reason::<OpenVPNServer>("home", "NetworkOverlap").await?;
        let message = ready_condition(&told).map(|ready| ready.message).unwrap_or_default();
        ensure!(message.contains(&network) && message.contains("Service home"), "{message}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_load_balancer_without_address_is_told() -> Result<()> {
    test("pending", async |f| {
        create_server(f, "home", json!({"replicas": 1, "service": {"type": "LoadBalancer"}})).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "EndpointPending").await?;
        create_client(f, "laptop", json!({"server": "home"})).await?;
        f.wait_for_reason::<OpenVPNClient>("laptop", "ServerNotReady").await?;
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}});
        let patch = kube::api::Patch::Merge(status);
        f.api::<Service>().patch_status("home", &Default::default(), &patch).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        ensure!(issued(f, "laptop").await?["laptop.ovpn"].contains("remote 203.0.113.7 1194"));
        Ok(())
    })
    .await
}
