//! Verification of credentials: real Pods dial a real VPN server, and the status says what came of it.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Layout, Operator,
    node::{self, Case, VpnService, images},
    operator::Setup,
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderPhase, MaskProviderStatus, Reason, VERIFIED};

use crate::bench;

/// The operator of this test process: one works for the whole cluster.
pub async fn operator(vpn: &VpnService) -> Result<&'static Operator> {
    static OPERATOR: OnceCell<Operator> = OnceCell::const_new();
    let settings = [
        ("VERIFY_VPN_IMAGE", images::GLUETUN.to_owned()),
        ("VERIFY_INIT_IMAGE", images::TOOLS.to_owned()),
        ("VERIFY_PROBE_IMAGE", images::TOOLS.to_owned()),
        ("VERIFY_IP_SERVICES", vpn.address_url()),
        ("VERIFY_SCHEDULING_TIMEOUT", "20s".to_owned()),
    ];
    let setup = Setup::new(Layout::Combined);
    let setup = settings.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    let start = async || Operator::start_with(node::cluster().await?, setup).await;
    OPERATOR.get_or_try_init(start).await
}

/// A provider of one slot with these credentials.
async fn account(bench: &Bench, vpn: &VpnService, name: &str, case: Case, verify: Value) -> Result<()> {
    bench.create(vpn.secret(name, case)?).await?;
    let mut provider = bench.new_provider(name, 1);
    provider.spec.secret = name.to_owned();
    provider.spec.verify = serde_json::from_value(verify)?;
    bench.create(provider).await.map(drop)
}

fn status(provider: &MaskProvider) -> MaskProviderStatus {
    provider.status.clone().unwrap_or_default()
}

/// Status and reason of the `Verified` condition.
fn verified(provider: &MaskProvider) -> (String, String) {
    let all = status(provider).conditions.unwrap_or_default();
    let found = all.into_iter().find(|condition| condition.type_ == VERIFIED);
    found.map(|condition| (condition.status, condition.reason)).unwrap_or_default()
}

pub async fn a_good_account_becomes_ready() -> Result<()> {
    bench("verified", async |_, bench| {
        let vpn = VpnService::shared().await?;
        bench.add_logs(operator(vpn).await?);
        let cases = [("openvpn", Case::OpenVpn), ("tcp", Case::OpenVpnTcp), ("wireguard", Case::WireGuard(0))];
        try_join_all(cases.map(|(name, case)| account(bench, vpn, name, case, json!({})))).await?;
        for (name, _) in cases {
            let is_ready = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::Ready);
            let provider = bench.until::<MaskProvider>(name, "Ready", is_ready).await?;
            ensure!(verified(&provider) == ("True".into(), "Passed".into()), "{provider:?}");
            let exit = status(&provider).verification.and_then(|found| found.exit_address);
            ensure!(exit == Some(vpn.exit_address().to_string()), "{name}: exit address {exit:?}");
            ensure!(status(&provider).last_verified.is_some(), "{provider:?}");
        }
        // The slots are given back, and nothing is left.
        bench.until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await?;
        bench.until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
        ensure!(bench.api::<Mask>().list(&ListParams::default()).await?.items.is_empty(), "a Mask is left");
        bench.active_mask("user").await.map(drop)
    })
    .await
}

/// With how short a timeout it may be tried: less than gluetun's own patience.
const SHORT: &str = "15s";

pub async fn each_failure_has_its_reason() -> Result<()> {
    bench("failures", async |_, bench| {
        let vpn = VpnService::shared().await?;
        bench.add_logs(operator(vpn).await?);
        let short = json!({ "timeout": SHORT });
        let pod = |containers: Value, pod: Value| json!({"timeout": SHORT, "overrides": {"containers": containers, "pod": pod}});
        let missing = json!({"vpn": {"image": "localhost/missing:1", "imagePullPolicy": "Never"}});
        let powerless = json!({"vpn": {"securityContext": {"capabilities": {"drop": ["NET_ADMIN"], "add": []}}}});
        let nowhere = json!({"spec": {"nodeSelector": {"example.com/there-is": "none"}}});
        let cases = [
            ("wrong-ca", Case::WrongCa, short.clone(), Reason::NoHandshake),
            ("closed-port", Case::ClosedPort, short.clone(), Reason::NoHandshake),
            ("no-host", Case::NoHost, short.clone(), Reason::NoHandshake),
            ("nothing-behind", Case::NothingBehind, short.clone(), Reason::Timeout),
            ("unknown-option", Case::UnknownOption, short.clone(), Reason::ConfigInvalid),
            ("host-name", Case::HostName, short.clone(), Reason::ConfigInvalid),
            ("invalid-key", Case::InvalidKey, short.clone(), Reason::ConfigInvalid),
            ("wrong-key", Case::WrongKey, short.clone(), Reason::NoHandshake),
            ("no-server", Case::NoServer, short, Reason::NoServer),
            ("missing-image", Case::OpenVpn, pod(missing, json!({})), Reason::Timeout),
            ("powerless", Case::OpenVpn, pod(powerless, json!({})), Reason::TunUnavailable),
            ("nowhere", Case::OpenVpn, pod(json!({}), nowhere), Reason::Unschedulable),
        ];
        let try_out = async |(name, case, verify, reason): (&str, Case, Value, Reason)| -> Result<()> {
            account(bench, vpn, name, case, verify).await?;
            let failed = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::ErrVerifyFailed);
            let provider = bench.until::<MaskProvider>(name, "ErrVerifyFailed", failed).await?;
            let found = verified(&provider);
            ensure!(found == ("False".into(), reason.as_str().into()), "{name}: {found:?} {:?}", status(&provider).message);
            keeps_its_secrets(bench, name, &provider).await
        };
        for some in cases.chunks(4) {
            try_join_all(some.iter().cloned().map(&try_out)).await?;
        }
        Ok(())
    })
    .await
}

/// No value of the Secret is in the status.
async fn keeps_its_secrets(bench: &Bench, name: &str, provider: &MaskProvider) -> Result<()> {
    let secret = bench.api::<Secret>().get(name).await?;
    let shown = serde_json::to_string(&status(provider))?;
    for (key, value) in secret.data.unwrap_or_default() {
        let value = String::from_utf8(value.0)?;
        for line in value.lines().filter(|line| line.len() > 3) {
            ensure!(!shown.contains(line), "{name}: the status shows {key}: {shown}");
        }
    }
    Ok(())
}

pub async fn a_refused_password_is_told_at_once_and_heals() -> Result<()> {
    bench("password", async |_, bench| {
        let vpn = VpnService::shared().await?;
        bench.add_logs(operator(vpn).await?);
        account(bench, vpn, "account", Case::WrongPassword, json!({})).await?;
        bench.mask("user").await?;
        let provider = bench.says::<MaskProvider>("account", "CredentialsRejected").await?;
        let told = status(&provider);
        ensure!(told.phase == Some(MaskProviderPhase::ErrVerifyFailed), "{told:?}");
        let verification = told.verification.context("no verification")?;
        ensure!(verification.failures == Some(1) && verification.retry_at.is_some(), "{verification:?}");
        // Whoever waits is told why.
        let waits = bench.says::<Mask>("user", "NoProviderUsable").await?;
        let message = waits.status.and_then(|status| status.message).unwrap_or_default();
        ensure!(message.contains("refuses the user name or the password"), "{message}");
        // A corrected Secret is tried at once, whatever the next attempt was to be.
        let good: Value = serde_json::to_value(vpn.secret("account", Case::OpenVpn)?)?;
        bench.patch::<Secret>("account", json!({"data": good["data"], "stringData": good["stringData"]})).await?;
        bench.active("user").await.map(drop)
    })
    .await
}

pub async fn too_many_devices_do_not_condemn_an_account() -> Result<()> {
    bench("devices", async |_, bench| {
        let vpn = VpnService::shared().await?;
        bench.add_logs(operator(vpn).await?);
        vpn.take_the_only_connection().await?;
        account(bench, vpn, "account", Case::TooManyConnections, json!({})).await?;
        let provider = bench.says::<MaskProvider>("account", "DeviceLimit").await?;
        ensure!(verified(&provider) == ("Unknown".into(), "DeviceLimit".into()), "{provider:?}");
        ensure!(status(&provider).phase == Some(MaskProviderPhase::Verifying), "{provider:?}");
        Ok(())
    })
    .await
}

pub async fn what_is_in_the_way_is_named() -> Result<()> {
    bench("in-the-way", async |cluster, bench| {
        let vpn = VpnService::shared().await?;
        bench.add_logs(operator(vpn).await?);
        // A Pod of a user's own, which the operator must leave alone.
        let pod = json!({
            "metadata": {"name": "taken-verify"},
            "spec": {"containers": [{"name": "main", "image": images::TOOLS, "command": ["sleep", "1000000"]}]},
        });
        bench.create(serde_json::from_value::<Pod>(pod)?).await?;
        account(bench, vpn, "taken", Case::OpenVpn, json!({})).await?;
        bench.says::<MaskProvider>("taken", "VerificationNameTaken").await?;
        ensure!(bench.api::<Pod>().get("taken-verify").await?.metadata.deletion_timestamp.is_none(), "deleted");

        // Overrides that make no Pod: wrong by themselves, and wrong to the API server.
        let unknown = json!({"overrides": {"containers": {"vpn": {"imgae": "x"}}}});
        account(bench, vpn, "misspelt", Case::OpenVpn, unknown).await?;
        let misspelt = bench.says::<MaskProvider>("misspelt", "InvalidSpec").await?;
        let message = status(&misspelt).message.unwrap_or_default();
        ensure!(message.contains("overrides.containers.vpn.imgae: there is no such field"), "{message}");
        let invalid = json!({"overrides": {"containers": {"vpn": {"image": "", "imagePullPolicy": "Sometimes"}}}});
        account(bench, vpn, "invalid", Case::OpenVpn, invalid).await?;
        bench.says::<MaskProvider>("invalid", "InvalidSpec").await?;

        let label = "pod-security.kubernetes.io/enforce=restricted";
        cluster.run_kubectl(&["label", "namespace", bench.name(), label]).await?;
        account(bench, vpn, "forbidden", Case::OpenVpn, json!({})).await?;
        bench.says::<MaskProvider>("forbidden", "PodSecurityForbidden").await.map(drop)
    })
    .await
}

pub async fn a_verified_account_is_verified_again() -> Result<()> {
    bench("again", async |_, bench| {
        let vpn = VpnService::shared().await?;
        bench.add_logs(operator(vpn).await?);
        account(bench, vpn, "account", Case::OpenVpn, json!({"interval": "30s"})).await?;
        let is_ready = |provider: &MaskProvider| status(provider).phase == Some(MaskProviderPhase::Ready);
        let first = status(&bench.until::<MaskProvider>("account", "Ready", is_ready).await?).last_verified;
        let again = |provider: &MaskProvider| status(provider).last_verified > first;
        let provider = bench.until::<MaskProvider>("account", "verified again", again).await?;
        // Users could have been assigned all the time.
        ensure!(verified(&provider).0 == "True", "{provider:?}");
        bench.active_mask("user").await.map(drop)
    })
    .await
}
