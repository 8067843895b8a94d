//! Verification of credentials: real Pods connect to a real VPN server, and the status shows the result.

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, Layout, Operator,
    cluster::shared,
    node::images,
    operator::OperatorOptions,
    pods::logs::is_running,
    vpn::{Scenario, VpnService},
    wait::ready_condition,
};
use futures::future::try_join_all;
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Pod, Secret},
        events::v1::Event,
    },
};
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderPhase, MaskProviderStatus, Reason, VERIFIED};

use crate::test;

/// Returns the operator of this test process, which serves the whole cluster.
pub async fn operator(vpn: &VpnService) -> Result<&'static Operator> {
    static OPERATOR: OnceCell<Operator> = OnceCell::const_new();
    let setup = OperatorOptions::new(Layout::Combined).injection(1).servers().metrics_api();
    let setup = setup.env("VERIFY_SCHEDULING_TIMEOUT", "40s");
    let setup = setup.env("INJECTION_IMAGE", images::GLUETUN).env("OPENVPN_IMAGE", images::OPENVPN);
    let setup = vpn.operator_env().iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    let start = async || Operator::start_with(shared::cluster_with_node().await?, setup).await;
    OPERATOR.get_or_try_init(start).await
}

/// Creates a provider with one slot and these credentials.
async fn account(f: &Framework, vpn: &VpnService, name: &str, case: Scenario, verify: Value) -> Result<()> {
    f.create(vpn.secret(name, case)?).await?;
    let mut provider = f.new_provider(name, 1);
    provider.spec.secret = name.to_owned();
    provider.spec.verify = serde_json::from_value(verify)?;
    f.create(provider).await.map(drop)
}

fn status(provider: &MaskProvider) -> MaskProviderStatus {
    provider.status.clone().unwrap_or_default()
}

/// Returns the status and the reason of the `Verified` condition.
fn verified(provider: &MaskProvider) -> (String, String) {
    let all = status(provider).conditions.unwrap_or_default();
    let found = all.into_iter().find(|condition| condition.type_ == VERIFIED);
    found.map(|condition| (condition.status, condition.reason)).unwrap_or_default()
}

pub async fn a_good_account_becomes_ready() -> Result<()> {
    test("verified", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        let cases =
            [("openvpn", Scenario::OpenVpn), ("tcp", Scenario::OpenVpnTcp), ("wireguard", Scenario::WireGuard(0))];
        try_join_all(cases.map(|(name, case)| account(f, vpn, name, case, json!({})))).await?;
        for (name, _) in cases {
            let is_ready = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::Ready);
            let provider = f.wait_until::<MaskProvider>(name, "Ready", is_ready).await?;
            ensure!(verified(&provider) == ("True".into(), "Passed".into()), "{provider:?}");
            let exit = status(&provider).verification.and_then(|found| found.exit_address);
            ensure!(exit == Some(vpn.exit_address().to_string()), "{name}: exit address {exit:?}");
            ensure!(status(&provider).last_verified.is_some(), "{provider:?}");
        }
        // The slots are released, and nothing is left.
        f.wait_until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await?;
        f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
        ensure!(f.api::<Mask>().list(&ListParams::default()).await?.items.is_empty(), "a Mask is left");
        f.create_active_mask("user").await.map(drop)
    })
    .await
}

/// A short timeout for verification, below gluetun's own timeout.
const SHORT: &str = "15s";
/// A longer timeout, for when a busy machine keeps gluetun from connecting in time.
const PATIENT: &str = "60s";

pub async fn each_failure_has_its_reason() -> Result<()> {
    test("failures", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        let short = json!({ "timeout": SHORT });
        let pod = |containers: Value, pod: Value| json!({"timeout": SHORT, "overrides": {"containers": containers, "pod": pod}});
        let missing = json!({"vpn": {"image": "localhost/missing:1", "imagePullPolicy": "Never"}});
        let unreachable = json!({"vpn": {"image": "127.0.0.1:1/gluetun:1", "imagePullPolicy": "Always"}});
        let powerless = json!({"vpn": {"securityContext": {"capabilities": {"drop": ["NET_ADMIN"], "add": []}}}});
        let nowhere = json!({"spec": {"nodeSelector": {"example.com/there-is": "none"}}});
        let cases = [
            ("wrong-ca", Scenario::WrongCa, short.clone(), Reason::NoHandshake),
            ("closed-port", Scenario::ClosedPort, short.clone(), Reason::NoHandshake),
            ("no-host", Scenario::NoHost, short.clone(), Reason::NoHandshake),
            ("nothing-behind", Scenario::NothingBehind, short.clone(), Reason::Timeout),
            ("no-login", Scenario::NoLogin, short.clone(), Reason::CredentialsRejected),
            ("unknown-option", Scenario::UnknownOption, short.clone(), Reason::ConfigInvalid),
            ("host-name", Scenario::HostName, short.clone(), Reason::ConfigInvalid),
            ("invalid-key", Scenario::InvalidKey, short.clone(), Reason::ConfigInvalid),
            ("wrong-key", Scenario::WrongKey, short.clone(), Reason::NoHandshake),
            ("no-server", Scenario::NoServer, short, Reason::NoServer),
            ("missing-image", Scenario::OpenVpn, pod(missing, json!({})), Reason::Timeout),
            ("no-registry", Scenario::OpenVpn, pod(unreachable, json!({})), Reason::Timeout),
            ("powerless", Scenario::OpenVpn, pod(powerless, json!({})), Reason::TunUnavailable),
            ("nowhere", Scenario::OpenVpn, pod(json!({}), nowhere), Reason::Unschedulable),
        ];
        let try_out = async |(name, case, verify, reason): (&str, Scenario, Value, Reason)| -> Result<()> {
            account(f, vpn, name, case, verify).await?;
            let failed = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::ErrVerifyFailed);
            let mut provider = f.wait_until::<MaskProvider>(name, "ErrVerifyFailed", failed).await?;
            let is = |found: &MaskProvider, reason: Reason| verified(found) == ("False".into(), reason.as_str().into());
            let mut attempts = 1;
            if reason == Reason::NoHandshake && is(&provider, Reason::Timeout) {
                attempts += 1;
                let longer = json!({"spec": {"verify": {"timeout": PATIENT}}});
                f.patch::<MaskProvider>(name, longer).await?;
                provider = f.wait_until(name, "dialled in vain", |now| is(now, reason)).await?;
            }
            let found = verified(&provider);
            ensure!(found == ("False".into(), reason.as_str().into()), "{name}: {found:?} {:?}", status(&provider).message);
            f.wait_for_event::<MaskProvider>(name, reason.as_str(), &["tried again at"]).await?;
            keeps_its_secrets(f, name, &provider, attempts).await
        };
        for some in cases.chunks(4) {
            try_join_all(some.iter().cloned().map(&try_out)).await?;
        }
        Ok(())
    })
    .await
}

/// The keys that are secret. Other settings may appear in the status.
const CREDENTIALS: [&str; 4] = ["OPENVPN_USER", "OPENVPN_PASSWORD", "WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRESHARED_KEY"];

/// Each failure has one Event, and neither Events nor the status contain credentials.
async fn keeps_its_secrets(f: &Framework, name: &str, provider: &MaskProvider, attempts: usize) -> Result<()> {
    let secret = f.api::<Secret>().get(name).await?;
    let events = f.api::<Event>().list(&ListParams::default()).await?;
    let about = |event: &&Event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name);
    let events: Vec<_> = events.iter().filter(about).collect();
    let failed = events.iter().filter(|event| event.note.as_ref().is_some_and(|note| note.contains("tried again at")));
    ensure!(failed.count() == attempts, "{name}: not one Event for each attempt: {events:?}");
    let shown = serde_json::to_string(&status(provider))? + &serde_json::to_string(&events)?;
    let secret = secret.data.unwrap_or_default().into_iter();
    for (key, value) in secret.filter(|(key, _)| CREDENTIALS.contains(&&**key)) {
        let value = String::from_utf8(value.0)?;
        for line in value.lines().filter(|line| line.len() > 3) {
            ensure!(!shown.contains(line), "{name}: the status shows {key}: {shown}");
        }
    }
    Ok(())
}

pub async fn a_refused_password_is_told_at_once_and_heals() -> Result<()> {
    test("password", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        account(f, vpn, "account", Scenario::WrongPassword, json!({})).await?;
        f.create_mask("user").await?;
        let provider = f.wait_for_reason::<MaskProvider>("account", "CredentialsRejected").await?;
        let told = status(&provider);
        ensure!(told.phase == Some(MaskProviderPhase::ErrVerifyFailed), "{told:?}");
        let verification = told.verification.context("no verification")?;
        ensure!(verification.failures == Some(1) && verification.retry_at.is_some(), "{verification:?}");
        // Waiting Masks show the reason.
        let why = "rejects the user name or password";
        let told = |mask: &Mask| mask.status.clone().and_then(|status| status.message).unwrap_or_default();
        let waits = |mask: &Mask| ready_condition(mask).is_some_and(|ready| ready.reason == "NoProviderUsable");
        f.wait_until::<Mask>("user", why, |mask| waits(mask) && told(mask).contains(why)).await?;
        // A corrected Secret is tried immediately, before `retryAt`.
        let good: Value = serde_json::to_value(vpn.secret("account", Scenario::OpenVpn)?)?;
        f.patch::<Secret>("account", json!({"data": good["data"], "stringData": good["stringData"]})).await?;
        f.wait_active("user").await.map(drop)
    })
    .await
}

pub async fn too_many_devices_do_not_condemn_an_account() -> Result<()> {
    test("devices", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        vpn.take_the_only_connection().await?;
        account(f, vpn, "account", Scenario::TooManyConnections, json!({})).await?;
        let provider = f.wait_for_reason::<MaskProvider>("account", "DeviceLimit").await?;
        ensure!(verified(&provider) == ("Unknown".into(), "DeviceLimit".into()), "{provider:?}");
        ensure!(status(&provider).phase == Some(MaskProviderPhase::Verifying), "{provider:?}");
        Ok(())
    })
    .await
}

pub async fn what_is_in_the_way_is_named() -> Result<()> {
    test("in-the-way", async |cluster, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        // A Pod that a user created, which the operator must not touch.
        let pod = json!({
            "metadata": {"name": "taken-verify"},
            "spec": {"containers": [{"name": "main", "image": images::TOOLS, "command": ["sleep", "1000000"]}]},
        });
        f.create(serde_json::from_value::<Pod>(pod)?).await?;
        account(f, vpn, "taken", Scenario::OpenVpn, json!({})).await?;
        f.wait_for_reason::<MaskProvider>("taken", "VerificationNameTaken").await?;
        ensure!(f.api::<Pod>().get("taken-verify").await?.metadata.deletion_timestamp.is_none(), "deleted");

        // Overrides that do not yield a valid Pod, because they cannot be decoded or because the API server rejects
        // them.
        let unknown = json!({"overrides": {"containers": {"vpn": {"imgae": "x"}}}});
        account(f, vpn, "misspelt", Scenario::OpenVpn, unknown).await?;
        let misspelt = f.wait_for_reason::<MaskProvider>("misspelt", "InvalidSpec").await?;
        let message = status(&misspelt).message.unwrap_or_default();
        ensure!(message.contains("overrides.containers.vpn.imgae: there is no such field"), "{message}");
        let invalid = json!({"overrides": {"containers": {"vpn": {"image": "", "imagePullPolicy": "Sometimes"}}}});
        account(f, vpn, "invalid", Scenario::OpenVpn, invalid).await?;
        f.wait_for_reason::<MaskProvider>("invalid", "InvalidSpec").await?;
        f.wait_for_event::<MaskProvider>("invalid", "InvalidSpec", &["imagePullPolicy"]).await?;
        for (name, verify) in [("timeout", json!({"timeout": "0s"})), ("interval", json!({"interval": "1s"}))] {
            account(f, vpn, name, Scenario::OpenVpn, verify).await?;
            f.wait_for_reason::<MaskProvider>(name, "InvalidSpec").await?;
            f.wait_for_event::<MaskProvider>(name, "InvalidSpec", &[&format!("spec.verify.{name}"), "at least"])
                .await?;
        }

        let label = "pod-security.kubernetes.io/enforce=restricted";
        cluster.run_kubectl(&["label", "namespace", f.name(), label]).await?;
        account(f, vpn, "forbidden", Scenario::OpenVpn, json!({})).await?;
        f.wait_for_reason::<MaskProvider>("forbidden", "PodSecurityForbidden").await.map(drop)
    })
    .await
}

pub async fn a_verified_account_is_verified_again() -> Result<()> {
    test("again", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        account(f, vpn, "account", Scenario::OpenVpn, json!({"interval": "30s"})).await?;
        let is_ready = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::Ready);
        let first = status(&f.wait_until::<MaskProvider>("account", "Ready", is_ready).await?).last_verified;
        let again = |provider: &MaskProvider| status(provider).last_verified > first;
        let provider = f.wait_until::<MaskProvider>("account", "verified again", again).await?;
        // Slots remain available to users during the verification.
        ensure!(verified(&provider).0 == "True", "{provider:?}");
        f.create_active_mask("user").await.map(drop)
    })
    .await
}

pub async fn who_has_a_slot_of_a_bad_account_may_lose_it() -> Result<()> {
    test("on-failure", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        for (name, policy) in [("keeps", "Keep"), ("releases", "Release")] {
            f.create(vpn.secret(name, Scenario::OpenVpn)?).await?;
            let mut provider = f.new_provider(name, 2);
            provider.spec.secret = name.to_owned();
            provider.spec.tags = Some(vec![name.to_owned()]);
            provider.spec.verify = serde_json::from_value(json!({ "onFailure": policy }))?;
            f.create(provider).await?;
            f.create_mask_with_tags(name, &[name]).await?;
            let consumer = f.wait_active(name).await?;
            let wrong = json!({ "stringData": { "OPENVPN_PASSWORD": "a-wrong-password" } });
            f.patch::<Secret>(name, wrong).await?;
            f.wait_for_reason::<MaskProvider>(name, "CredentialsRejected").await?;
            f.wait_for_event::<MaskProvider>(name, "CredentialsRejected", &["rejects"]).await?;
            if policy == "Release" {
                f.wait_deleted(&consumer).await?;
                f.wait_for_event::<Mask>(name, "Evicted", &["verify.onFailure: Release"]).await?;
                f.wait_for_reason::<Mask>(name, "NoProviderUsable").await?;
            } else {
                let kept = f.wait_active(name).await?;
                ensure!(kept.metadata.uid == consumer.metadata.uid, "{name}: not the same MaskConsumer");
            }
        }
        Ok(())
    })
    .await
}

pub async fn an_evicted_pod_is_told_and_tried_again() -> Result<()> {
    test("evicted", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        // The server does not answer, so the verification takes long enough.
        account(f, vpn, "account", Scenario::SilentDrop, json!({})).await?;
        f.wait_until::<Pod>("account-verify", "a running VPN client", |pod| is_running(pod, "vpn")).await?;
        f.api::<Pod>().evict("account-verify", &Default::default()).await?;
        let provider = f.wait_for_reason::<MaskProvider>("account", "Interrupted").await?;
        f.wait_for_event::<MaskProvider>("account", "Interrupted", &["verification Pod", "tried again at"]).await?;
        let verification = status(&provider).verification.context("no verification")?;
        ensure!(verification.retry_at.is_some(), "{verification:?}");
        // The slot is released before the retry.
        f.wait_until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await.map(drop)
    })
    .await
}

/// Whatever else a Secret contains, gluetun tries what it can use. An empty Secret is reported.
pub async fn odd_secrets() -> Result<()> {
    test("odd", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        let mut secret = vpn.secret("full", Scenario::OpenVpn)?;
        let odd = [("9-lives", b"x".to_vec()), ("binary", vec![0, 159, 146, 150]), ("huge", vec![b'x'; 900 * 1024])];
        secret.data = Some(odd.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect());
        f.create(secret).await?;
        let empty = json!({ "metadata": { "name": "empty" } });
        f.create(serde_json::from_value::<Secret>(empty)?).await?;
        for name in ["full", "empty"] {
            let mut provider = f.new_provider(name, 1);
            provider.spec.secret = name.to_owned();
            provider.spec.verify = serde_json::from_value(json!({ "timeout": SHORT }))?;
            f.create(provider).await?;
        }
        let is_ready = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::Ready);
        f.wait_until::<MaskProvider>("full", "Ready", is_ready).await?;
        let words = ["9-lives is not a valid environment variable name", "binary is binary", "huge is too long"];
        f.wait_for_event::<MaskProvider>("full", "SecretKeysIgnored", &words).await?;
        let failed = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::ErrVerifyFailed);
        let empty = f.wait_until::<MaskProvider>("empty", "ErrVerifyFailed", failed).await?;
        ensure!(verified(&empty).1 == "CredentialsRejected", "{:?}", status(&empty));
        Ok(())
    })
    .await
}
