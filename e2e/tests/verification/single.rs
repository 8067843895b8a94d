//! One verification.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework,
    audit::{Access, Mark, Request, Requests},
    cluster::shared,
    pods::logs::{container_status, is_running},
    testing::figures::{median, report},
    vpn::{OTHER_USERS, Scenario},
    wait::{await_condition, is_ready},
};
use futures::{AsyncBufReadExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use serde_json::{Value, json};
use tokio::time::timeout;
use vpn_types::{MaskConsumer, MaskProvider};

use crate::{measured, provider};

/// The number of measurements, of which the median counts.
const ROUNDS: usize = 3;
/// Excluding Events.
const WRITES_TO_THE_VERDICT: usize = 12;
/// The last one is the status of the provider. One is the deletion of the MaskConsumer, which does not wait for the
/// garbage collector.
const WRITES_TO_GIVE_BACK: usize = 9;

/// Applies an object with kubectl, as a user does.
async fn apply(f: &Framework, object: &Value) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("object.json");
    std::fs::write(&file, object.to_string())?;
    f.kubectl(&["apply", "-f", &file.to_string_lossy()]).await.map(drop)
}

/// Whether the container that compares the addresses has succeeded.
fn has_passed(pod: &Pod) -> bool {
    let state = container_status(pod, "probe").and_then(|status| status.state.clone());
    state.and_then(|state| state.terminated).is_some_and(|terminated| terminated.exit_code == 0)
}

pub async fn beside_a_bare_pod() -> Result<()> {
    measured("beside", async |f, vpn, operator| {
        let (mut verified, mut bare) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let name = format!("account-{round}");
            // Each provider has its own account, because a shared account would cause a condition, which is a write.
            let mut secret = vpn.secret(&name, Scenario::OpenVpn)?;
            let user = round.checked_sub(1).map(|other| ("OPENVPN_USER".to_owned(), OTHER_USERS[other].to_owned()));
            secret.string_data.get_or_insert_default().extend(user);
            f.create(secret).await?;
            let mut account = provider(&name);
            account["spec"]["secret"] = name.clone().into();
            let seen = f.api::<Pod>();
            let pod_name = vpn_types::verify_name(&name);
            let made =
                tokio::spawn(async move { await_condition(seen, &pod_name, |pod: Option<&Pod>| pod.is_some()).await });
            let counter = Counter { users: operator.users() };
            let mark = counter.mark().await?;
            let began = Instant::now();
            apply(f, &account).await?;
            f.wait_until(&name, "Ready", |provider: &MaskProvider| is_ready(provider)).await?;
            verified.push(began.elapsed().as_secs_f64());
            f.wait_until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await?;
            f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
            counter.settled(f, &name).await?;
            counter.judge(mark).await?;

            let pod = made.await??.context("no verification Pod")?;
            bare.push(alone(f, &format!("bare-{round}"), &pod, &name).await?);
        }
        let ratio = median(verified.clone())? / median(bare.clone())?;
        report(&format!(
            "apply to Ready: {verified:.1?} s; the same Pod alone: {bare:.1?} s; ratio {ratio:.2} (goal 1.3)"
        ));
        Ok(())
    })
    .await
}

/// Applies a copy of the verification Pod, and measures the time until its success.
async fn alone(f: &Framework, name: &str, like: &Pod, secret: &str) -> Result<f64> {
    let mut spec = serde_json::to_value(&like.spec)?;
    let copy = spec.pointer("/initContainers").and_then(Value::as_array).into_iter().flatten();
    let copy = copy.flat_map(|container| container["env"].as_array().into_iter().flatten());
    let copy = copy.filter_map(|variable| variable.pointer("/valueFrom/secretKeyRef/name")?.as_str()).next();
    let copy = copy.context("no Secret")?.to_owned();
    // The copied Secret was deleted with the MaskConsumer. Its content is the same.
    spec = serde_json::from_str(&spec.to_string().replace(&format!("\"{copy}\""), &format!("\"{secret}\"")))?;
    spec.as_object_mut().context("no spec")?.remove("nodeName");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    let began = Instant::now();
    apply(f, &pod).await?;
    f.wait_until(name, "passed", has_passed).await?;
    let took = began.elapsed().as_secs_f64();
    f.delete::<Pod>(name).await?;
    f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
    Ok(took)
}

struct Counter {
    users: Vec<String>,
}

impl Counter {
    async fn mark(&self) -> Result<Mark> {
        shared::cluster_with_node().await?.audit().context("no audit log")?.mark().await
    }

    async fn since(&self, mark: Mark) -> Result<Requests> {
        shared::cluster_with_node().await?.audit().context("no audit log")?.since(mark).await
    }

    /// Waits for the last write: the provider's status shows that the slot is free.
    async fn settled(&self, f: &Framework, provider: &str) -> Result<()> {
        let back = |provider: &MaskProvider| provider.status.as_ref().and_then(|status| status.active_slots) == Some(0);
        f.wait_until(provider, "no slot in use", back).await.map(drop)
    }

    async fn judge(&self, began: Mark) -> Result<()> {
        let all = self.since(began).await?;
        let is_write = |request: &&Request| {
            self.users.contains(&request.user) && request.access() == Access::Write && request.resource != "events"
        };
        let ends = |request: &Request| request.verb == "delete" && request.resource == "masks";
        let end = all.iter().find(|request| ends(request)).context("its Mask was not deleted")?.received;
        let (to_verdict, to_give_back): (Vec<_>, Vec<_>) =
            all.iter().filter(is_write).partition(|request| request.received < end);
        let (to_verdict, to_give_back) = (to_verdict.len(), to_give_back.len());
        let is_local = |request: &&Request| self.users.contains(&request.user) && request.access() == Access::Read;
        // There is no polling: a watch begins with a list, and a log is followed in one long request.
        let reads: Vec<_> = all.iter().filter(is_local).filter(|request| request.subresource != "log").collect();
        let polls: Vec<_> = reads.iter().filter(|request| request.verb != "list").collect();
        report(&format!(
            "requests: {to_verdict} writes to the verdict, {to_give_back} to give the slot back, {} lists of watches that \
             began, {} other reads",
            reads.len() - polls.len(),
            polls.len()
        ));
        let list = || all.iter().map(|request| format!("{request}\n")).collect::<String>();
        ensure!(to_verdict <= WRITES_TO_THE_VERDICT, "{}", list());
        ensure!(to_give_back <= WRITES_TO_GIVE_BACK, "{}", list());
        ensure!(polls.is_empty() && reads.len() <= 2, "{reads:?}");
        Ok(())
    }
}

pub async fn a_wrong_password_is_told_soon() -> Result<()> {
    measured("password", async |f, vpn, operator| {
        f.create(vpn.secret("credentials", Scenario::WrongPassword)?).await?;
        let counter = Counter { users: operator.users() };
        let mut took = Vec::new();
        for round in 0..ROUNDS {
            let name = format!("account-{round}");
            let mark = counter.mark().await?;
            let refused = tokio::spawn(second_refusal(f.api(), vpn_types::verify_name(&name)));
            apply(f, &provider(&name)).await?;
            f.wait_for_reason::<MaskProvider>(&name, "CredentialsRejected").await?;
            let refused = refused.await??;
            let all = counter.since(mark).await?;
            let told = all.iter().filter(|request| {
                request.resource == "maskproviders" && request.name == name && request.subresource == "status"
            });
            let told = told.map(|request| request.received).filter(|at| *at >= refused).min().context("not told")?;
            took.push(told.duration_since(refused).as_secs_f64());
            // Otherwise, it would retry.
            f.delete::<MaskProvider>(&name).await?;
            f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
        }
        report(&format!("second refusal in the log to the status: {took:.3?} s (goal 2)"));
        Ok(())
    })
    .await
}

/// Returns when gluetun logged the second rejection of the password.
async fn second_refusal(pods: Api<Pod>, name: String) -> Result<Timestamp> {
    let runs = |pod: Option<&Pod>| pod.is_some_and(|pod| is_running(pod, "vpn"));
    let find = async {
        await_condition(pods.clone(), &name, runs).await?;
        let params =
            LogParams { container: Some("vpn".into()), follow: true, timestamps: true, ..LogParams::default() };
        let mut lines = pods.log_stream(&name, &params).await?.lines();
        let mut refusals = 0;
        while let Some(line) = lines.try_next().await? {
            refusals += usize::from(line.contains("AUTH_FAILED"));
            if refusals == 2 {
                let (time, _) = line.split_once(' ').context("no time")?;
                return Ok(time.parse()?);
            }
        }
        anyhow::bail!("gluetun ended before")
    };
    timeout(e2e::wait::TIMEOUT, find).await.context("not refused twice")?
}
