//! The tour: it does what a user does with vpn-operator, shows what happens, and checks it. With a node that runs containers,
//! the accounts belong to OpenVPN servers in the cluster. Without one, the accounts are made up, and kwok simulates the Pods.

mod accounts;
mod screen;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, host::cargo::ROOT, node::images};
use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
};
use kube::{Api, Client, ResourceExt};
use tokio::time::timeout;
use vpn_types::MaskConsumer;

pub use screen::Screen;
use view::{ACCOUNTS, APPS, ClusterView, Update, is_active, is_served, phase, places, slot, uid};

/// The pause between two steps, so that people can read.
const PAUSE: Duration = Duration::from_secs(3);
/// The timeout of a step, long enough for a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// An annotation in `e2e/demo/line.yaml`.
const PRIORITY: &str = "vpn.beebs.dev/priority: \"1\"";

pub struct Tour<'a> {
    cluster: &'a Cluster,
    client: Client,
    screen: Screen,
    view: ClusterView,
    events: SelectAll<BoxStream<'static, Update>>,
    pauses: bool,
    /// Whether the accounts are real.
    real: bool,
}

/// A Pod that holds a slot.
struct Holder {
    name: String,
    consumer_uid: String,
    pod_uid: String,
}

impl<'a> Tour<'a> {
    pub fn new(cluster: &'a Cluster, screen: Screen, pauses: bool, real: bool) -> Result<Self> {
        let client = cluster.client()?;
        let (view, events) = (ClusterView::default(), SelectAll::new());
        Ok(Self { cluster, client, screen, view, events, pauses, real })
    }

    /// Runs the whole tour. An error names what did not happen.
    pub async fn walk(&mut self) -> Result<()> {
        self.events = view::watch_all(&self.client);
        match self.real {
            true => self.real_accounts().await?,
            false => self.made_up_accounts().await?,
        }
        self.pause().await?;
        self.replicas().await?;
        if self.real {
            self.exits().await?;
        }
        self.pause().await?;
        self.line().await?;
        self.pause().await?;
        let (freed, next) = self.release().await?;
        self.handover(&freed, &next).await?;
        self.done().await?;
        self.pause().await?;
        self.rollout().await?;
        self.pause().await?;
        match self.real {
            true => self.correction().await,
            false => self.more_slots().await,
        }
    }

    /// Pauses, because the next step overwrites this step's output on a terminal.
    async fn pause(&mut self) -> Result<()> {
        if self.pauses {
            let following = async {
                loop {
                    self.follow().await?
                }
            };
            return timeout(PAUSE, following).await.unwrap_or(Ok(()));
        }
        Ok(())
    }

    async fn replicas(&mut self) -> Result<()> {
        self.screen
            .step("A Deployment with the label vpn.beebs.dev/inject: each of its Pods gets a slot and a sidecar");
        self.apply("e2e/demo/scraper.yaml").await?;
        self.wait_until("three Pods run", |view| served(view).count() == 3).await?;
        self.check_slots()?;
        for consumer in self.view.consumers().filter(|consumer| is_active(consumer)) {
            self.check_copy(consumer).await?;
        }
        self.screen.table();
        Ok(())
    }

    async fn line(&mut self) -> Result<()> {
        self.screen.step("A Job and a StatefulSet want slots too, and wait in line");
        self.apply("e2e/demo/line.yaml").await?;
        let in_line = |view: &ClusterView| places(view).values().map(|name| workload(name)).eq(["archive", "seeder"]);
        self.wait_until("two Pods wait in line", in_line).await?;
        self.screen.table();
        Ok(())
    }

    /// Checks that no two Active MaskConsumers share a slot, and that there were never too many Pods.
    fn check_slots(&self) -> Result<()> {
        let active = || self.view.consumers().filter(|consumer| is_active(consumer));
        let slots: BTreeSet<_> = active().filter_map(slot).collect();
        ensure!(slots.len() == active().count(), "two MaskConsumers share a slot: {slots:?}");
        for provider in self.view.providers() {
            let (name, limit) = (provider.name_any(), provider.spec.max_slots);
            let most = self.view.most_users(&name);
            ensure!(most <= limit, "{most} Pods ran on {name} at once, {limit} are allowed");
        }
        Ok(())
    }

    /// Checks that the copied Secret contains the credentials of the account and of the slot.
    async fn check_copy(&self, consumer: &MaskConsumer) -> Result<()> {
        let slot = consumer.status.as_ref().and_then(|status| status.provider.as_ref());
        let slot = slot.context("an Active MaskConsumer without a slot")?;
        let provider = self.view.providers().find(|provider| provider.name_any() == slot.name);
        let spec = &provider.context("an Active MaskConsumer without an account")?.spec;
        let own = spec.slots.iter().flatten().nth(slot.slot).and_then(|own| own.secret.as_ref());
        let mut expected = BTreeMap::new();
        for source in [&spec.secret].into_iter().chain(own) {
            expected.extend(self.secret(ACCOUNTS, source).await?);
        }
        ensure!(self.secret(APPS, &slot.secret).await? == expected, "Secret {} differs from its source", slot.secret);
        Ok(())
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, ByteString>> {
        Ok(Api::<Secret>::namespaced(self.client.clone(), namespace).get(name).await?.data.unwrap_or_default())
    }

    /// Ends one Pod. Returns it and the Pod that is first in the queue.
    async fn release(&mut self) -> Result<(Holder, String)> {
        let next = places(&self.view).remove(&1).context("the queue is empty")?;
        self.screen.step(&format!(
            "scraper is scaled down. Its Pod takes 5 s to stop, so its slot stays taken and {next} keeps waiting"
        ));
        self.kubectl(&["scale", "deployment/scraper", "--replicas=2", "--namespace", APPS]).await?;
        let held = |view: &ClusterView| holder(view).is_some();
        self.wait_until("the slot is held for the Pod that stops", held).await?;
        self.screen.table();
        let freed = holder(&self.view).context("nothing is held")?;
        Ok((freed, next))
    }

    async fn handover(&mut self, freed: &Holder, next: &str) -> Result<()> {
        self.screen.step(&format!("The last container has ended, and with it the Pod: now {next} is served"));
        let active = |view: &ClusterView| {
            let consumer = view.pod(next).and_then(|pod| view.consumer_of(pod)).filter(|consumer| is_active(consumer));
            consumer.map(uid)
        };
        let is_served = |view: &ClusterView| {
            view.ended_at(&freed.pod_uid).is_some() && served(view).any(|pod| pod.name_any() == next)
        };
        self.wait_until(&format!("{next} has the slot, and runs"), is_served).await?;
        self.screen.table();
        let ended = self.view.ended_at(&freed.pod_uid).context("the Pod's end was not seen")?;
        let consumer = active(&self.view).context("the slot was not seen")?;
        let active = self.view.active_at(&consumer).context("the commit was not seen")?;
        ensure!(ended < active, "{next} was served at revision {active}, before the Pod had ended at {ended}");
        ensure!(self.view.active_at(&freed.consumer_uid).is_some_and(|first| first < ended), "the order is not known");
        self.check_slots()?;
        self.screen.print(&format!(
            "    In the order of writes: Pod {} ended at revision {ended}, MaskConsumer of {next} Active at {active}.",
            freed.name
        ));
        Ok(())
    }

    async fn done(&mut self) -> Result<()> {
        self.screen.step("archive has completed: its Pod stays, and seeder gets its slot");
        let handed_on = |view: &ClusterView| {
            let done = view.pods().any(|pod| workload(&pod.name_any()) == "archive" && phase(pod) == Some("Succeeded"));
            done && served(view).any(|pod| pod.name_any() == "seeder-0")
        };
        self.wait_until("seeder-0 runs", handed_on).await?;
        self.check_slots()?;
        self.screen.table();
        Ok(())
    }

    async fn rollout(&mut self) -> Result<()> {
        self.screen.step(
            "A rolling update while all slots are taken: for each new Pod, one of the old revision is evicted, so there are \
             never more Pods than slots",
        );
        let before: BTreeSet<_> = served(&self.view).map(ResourceExt::name_any).collect();
        self.kubectl(&["rollout", "restart", "deployment/scraper", "--namespace", APPS]).await?;
        let status = ["rollout", "status", "deployment/scraper", "--namespace", APPS, "--timeout=120s"];
        self.kubectl(&status).await?;
        let renewed = |view: &ClusterView| {
            let new = served(view).filter(|pod| !before.contains(&pod.name_any()));
            new.filter(|pod| workload(&pod.name_any()) == "scraper").count() == 2 && places(view).is_empty()
        };
        self.wait_until("two new Pods run", renewed).await?;
        self.check_slots()?;
        self.screen.table();
        Ok(())
    }

    /// A Pod that waits for the next slot.
    async fn one_more(&mut self) -> Result<()> {
        self.screen.step("scraper is scaled up: the new Pod waits");
        self.kubectl(&["scale", "deployment/scraper", "--replicas=3", "--namespace", APPS]).await?;
        self.wait_until("a Pod waits in line", |view| places(view).len() == 1).await?;
        self.screen.table();
        Ok(())
    }

    /// Waits until every Pod has a slot.
    async fn all_served(&mut self) -> Result<()> {
        self.wait_until("four Pods run", |view| served(view).count() == 4).await?;
        self.check_slots()?;
        self.screen.table();
        Ok(())
    }

    /// Shows how to continue manually, and keeps showing changes.
    pub async fn stay(&mut self, kubectl_dir: &Path) -> Result<()> {
        let kubeconfig = self.cluster.kubeconfig().display();
        self.screen.step("Look around, in another terminal; Ctrl-C here ends everything");
        self.screen.print(&format!("    export KUBECONFIG={kubeconfig}"));
        self.screen.print(&format!("    export PATH={}:$PATH", kubectl_dir.display()));
        for command in [
            "get pods,masks,maskconsumers,secrets --namespace apps",
            "get maskproviders,maskreservations --namespace accounts",
            "describe pod seeder-0 --namespace apps",
            "scale deployment/scraper --replicas=5 --namespace apps",
        ] {
            self.screen.print(&format!("    kubectl {command}"));
        }
        self.screen.print(match self.real {
            true => {
                "    kubectl patch openvpnserver paris --namespace accounts --type=merge \
                 --patch '{\"spec\": {\"provider\": {\"maxSlots\": 1}}}'"
            }
            false => "    kubectl scale maskprovider/paris --replicas=1 --namespace accounts",
        });
        loop {
            self.follow().await?;
        }
    }

    /// Waits until `holds` is true for the watched state.
    async fn wait_until(&mut self, what: &str, holds: impl Fn(&ClusterView) -> bool) -> Result<()> {
        let fulfilled = async {
            while !holds(&self.view) {
                self.follow().await?;
            }
            anyhow::Ok(())
        };
        match timeout(STEP_LIMIT, fulfilled).await {
            Ok(result) => result,
            Err(_) => bail!("timed out after {} s: {what}", STEP_LIMIT.as_secs()),
        }
    }

    /// Handles and shows one event.
    async fn follow(&mut self) -> Result<()> {
        let seen = self.events.next().await.context("the watches ended")?;
        self.view.take(seen);
        self.screen.show(&self.view);
        Ok(())
    }

    /// Applies a file of the demo. No registry is reachable, so other images stand in for those in the file; kwok ends
    /// the Pod of a Job.
    async fn apply(&mut self, file: &str) -> Result<()> {
        let text = fs::read_to_string(Path::new(ROOT).join(file))?.replace("curlimages/curl:8.16.0", images::TOOLS);
        let text = match self.real {
            true => text,
            false => text.replace(PRIORITY, &format!("{PRIORITY}\n        e2e.vpn.beebs.dev/complete-after: 3s")),
        };
        let filled = self.cluster.state_dir().join("workloads.yaml");
        fs::write(&filled, text)?;
        self.screen.print(&format!("    $ kubectl apply -f {file}"));
        self.run(&["apply", "-f", &filled.to_string_lossy()]).await.map(drop)
    }

    /// Runs kubectl in the root of the checkout while showing changes. Returns the output of kubectl.
    async fn kubectl(&mut self, args: &[&str]) -> Result<String> {
        let shown = |arg: &&str| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() };
        let shown: Vec<_> = args.iter().map(shown).collect();
        self.screen.print(&format!("    $ kubectl {}", shown.join(" ")));
        self.run(args).await
    }

    async fn run(&mut self, args: &[&str]) -> Result<String> {
        let mut command = self.cluster.kubectl().command(self.cluster.admin());
        let run = command.current_dir(ROOT).args(args).stdin(Stdio::null()).output();
        tokio::pin!(run);
        let output = loop {
            tokio::select! {
                output = &mut run => break output?,
                followed = self.follow() => followed?,
            }
        };
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {} failed: {}", args.join(" "), message.trim());
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Returns the Pods that run on a slot.
fn served(view: &ClusterView) -> impl Iterator<Item = &Pod> {
    view.pods().filter(|pod| is_served(view, pod))
}

/// Returns the first part of the name of a Pod.
fn workload(name: &str) -> &str {
    name.split('-').next().unwrap_or_default()
}

/// Returns the Pod that is stopping, once its slot is held for it.
fn holder(view: &ClusterView) -> Option<Holder> {
    let users = view.reservations().filter_map(|reservation| reservation.status.as_ref()?.users.as_ref()).flatten();
    users.into_iter().find_map(|user| {
        let pod = view.pods().find(|pod| uid(*pod) == user.uid)?;
        let consumer = view.consumer_of(pod)?;
        let told = consumer.status.as_ref()?.message.as_ref()?;
        told.contains("Waiting for Pod").then(|| Holder {
            name: pod.name_any(),
            consumer_uid: uid(consumer),
            pod_uid: uid(pod),
        })
    })
}
