//! The output of kubectl.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Framework, cluster::shared, testing::framework::ensure_eq, wait::TIMEOUT};
use k8s_openapi::api::events::v1::Event;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};
use vpn_types::{Mask, MaskConsumer, MaskProvider};

/// Splits a table into the words of each line.
fn table(output: &str) -> Vec<Vec<String>> {
    output.lines().map(|line| line.split_whitespace().map(String::from).collect()).collect()
}

#[tokio::test]
async fn get_watch_and_wait_follow_a_mask_to_its_slot() -> Result<()> {
    Framework::test("watch", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create_active_mask("holder").await?;
        f.create_mask("mine").await?;
        f.wait_for_reason::<MaskConsumer>("mine", "NoFreeSlot").await?;

        let cluster = shared::cluster().await?;
        let mut kubectl = cluster.kubectl().command(cluster.admin());
        kubectl.args(["--namespace", f.name(), "get", "maskconsumer", "mine", "--watch"]);
        let mut watching = kubectl.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(watching.stdout.take().context("no stdout")?).lines();
        let mut phases = async |until: &str| {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|last| last != until) {
                let line =
                    timeout(TIMEOUT, lines.next_line()).await.with_context(|| format!("no {until} after {seen:?}"))?;
                let line = line?.context("kubectl ended")?;
                seen.push(line.split_whitespace().nth(1).unwrap_or_default().to_owned());
            }
            anyhow::Ok(seen)
        };
        ensure_eq("header and first state", phases("Waiting").await?, ["PHASE", "Waiting"].map(String::from).to_vec())?;
        let wait = f.kubectl(&["wait", "--for=condition=Ready", "maskconsumer/mine", "mask/mine", "--timeout=60s"]);
        let (waited, gone) = tokio::join!(wait, f.kubectl(&["delete", "mask", "holder"]));
        gone?;
        ensure_eq("waited for", waited?.lines().count(), 2)?;
        let seen = phases("Active").await?;
        ensure!(seen.iter().all(|phase| phase == "Waiting" || phase == "Active"), "{seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn get_shows_what_matters_under_short_names() -> Result<()> {
    Framework::test("columns", async |f| {
        f.create_provider("vpn", 2).await?;
        f.create_active_mask("mine").await?;
        f.wait_until("mine", "Active", |mask: &Mask| e2e::wait::is_ready(mask)).await?;
        let used = |provider: &MaskProvider| provider.status.as_ref().and_then(|s| s.active_slots) == Some(1);
        f.wait_until("vpn", "one slot in use", used).await?;
        for (short, header, row) in [
            ("mk", "NAME PHASE PROVIDER SLOT AGE", "mine Active vpn 0"),
            ("mkc", "NAME PHASE PROVIDER SLOT AGE", "mine Active vpn 0"),
            ("mkp", "NAME PHASE USED SLOTS AGE", "vpn Active 1 2"),
        ] {
            let shown = table(&f.kubectl(&["get", short]).await?);
            ensure_eq("header", shown[0].join(" "), header.to_owned())?;
            ensure_eq("row", shown[1][..shown[1].len() - 1].join(" "), row.to_owned())?;
        }
        let shown = f.kubectl(&["get", "mkr"]).await?;
        ensure!(shown.contains("CONSUMER-NAMESPACE") && shown.contains(f.name()), "{shown}");
        let wide = f.kubectl(&["get", "mask", "--output=wide"]).await?;
        ensure!(["REASON", "Assigned", "MESSAGE", "SECRET"].iter().all(|word| wide.contains(word)), "{wide}");
        let all = f.kubectl(&["get", "vpn"]).await?;
        for kind in ["mask", "maskconsumer", "maskprovider", "maskreservation"] {
            ensure!(all.contains(&format!("{kind}.vpn.beebs.dev/")), "no {kind} in\n{all}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn explain_tells_what_fields_are_for() -> Result<()> {
    Framework::test("explain", async |f| {
        for (field, words) in [
            ("mask", "Requests one slot of a VPN account"),
            ("mask.spec.providers", "one of them must be among"),
            ("maskprovider.spec.maxSlots", "How many devices the account allows"),
            ("maskprovider.spec.release.uncleanDelay", "deleted by force"),
            ("maskconsumer.status.provider.secret", "Name of the Secret with the credentials"),
            ("maskreservation.status.users", "the Pods that still use it"),
        ] {
            let shown = f.kubectl(&["explain", field]).await?;
            let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(shown.contains(words), "{field}: {shown}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn describe_shows_what_happened() -> Result<()> {
    Framework::test("describe", async |f| {
        f.create_mask("mine").await?;
        f.wait_for_reason::<Mask>("mine", "NoProviderFits").await?;
        f.create_provider("vpn", 1).await?;
        f.wait_active("mine").await?;
        let reasons = ["NoProviderFits", "Assigned", "Available"];
        let has = |events: &[Event], reason: &str| events.iter().any(|event| event.reason.as_deref() == Some(reason));
        f.wait_until_all("all reasons", |events: &[Event]| reasons.iter().all(|reason| has(events, reason))).await?;
        let mask = f.kubectl(&["describe", "mask", "mine"]).await?;
        let (_, events) = mask.split_once("Events:").context("no Events")?;
        ensure!(events.contains("NoProviderFits") && events.contains("Assigned"), "{events}");
        let provider = f.kubectl(&["describe", "maskprovider", "vpn"]).await?;
        let (_, events) = provider.split_once("Events:").context("no Events")?;
        ensure!(events.contains("Available"), "{events}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nonsense_is_refused_in_words() -> Result<()> {
    Framework::test("refused", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create_active_mask("mine").await?;
        let long = format!("{:m<217}", "");
        let mask = format!(r#"{{"apiVersion":"vpn.beebs.dev/v1","kind":"Mask","metadata":{{"name":"{long}"}}}}"#);
        let file = shared::cluster().await?.state_dir().join(format!("{}.json", f.name()));
        std::fs::write(&file, mask)?;
        let file = file.display().to_string();
        let patch = |kind: &'static str, name: &'static str, patch: &'static str| {
            vec!["patch", kind, name, "--type=merge", "--patch", patch]
        };
        for (args, words) in [
            (vec!["create", "--filename", &*file], "metadata.name may be no more than 216 characters"),
            (patch("maskprovider", "vpn", r#"{"spec":{"maxSlots":-1}}"#), "should be greater than or equal to 0"),
            (patch("maskprovider", "vpn", r#"{"spec":{"secret":""}}"#), "spec.secret"),
            (patch("maskprovider", "vpn", r#"{"spec":{"release":{"delay":"-1s"}}}"#), "spec.release.delay"),
            (patch("mask", "mine", r#"{"spec":{"providers":[""]}}"#), "spec.providers[0]"),
            (
                patch("maskreservation", "vpn-0", r#"{"spec":{"name":"other"}}"#),
                "the spec of a MaskReservation never changes",
            ),
        ] {
            match timeout(Duration::from_secs(60), f.kubectl(&args)).await? {
                Ok(_) => bail!("accepted: {args:?}"),
                Err(error) => {
                    let message = format!("{error:#}");
                    ensure!(message.contains(words), "no {words:?} in {message}");
                }
            }
        }
        Ok(())
    })
    .await
}
