//! The tour: it does what a user does with vpn-operator, shows what happens, and checks it. With a node that runs containers,
//! the accounts belong to a real VPN service. Without one, the accounts are made up, and kwok simulates the Pods.

mod accounts;
mod screen;
mod view;

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, VpnService, host::cargo::ROOT};
use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::time::timeout;
use vpn_types::MaskConsumer;

pub use screen::Screen;
use view::{ACCOUNTS, APPS, ClusterView, Update, is_active, places, pod_runs, slot, uid};

/// The pause between two steps, so that people can read.
const PAUSE: Duration = Duration::from_secs(3);
/// The timeout of a step, long enough for a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(120);

pub struct Tour<'a> {
    cluster: &'a Cluster,
    client: Client,
    screen: Screen,
    view: ClusterView,
    events: SelectAll<BoxStream<'static, Update>>,
    /// UIDs of the MaskConsumers for which a Pod was created.
    served: BTreeSet<String>,
    pauses: bool,
    /// The VPN service, if the accounts are real.
    vpn: Option<&'a VpnService>,
}

/// A Mask that holds a slot.
struct Holder {
    name: String,
    consumer_uid: String,
    pod_uid: String,
}

impl<'a> Tour<'a> {
    pub fn new(cluster: &'a Cluster, screen: Screen, pauses: bool, vpn: Option<&'a VpnService>) -> Result<Self> {
        let client = cluster.client()?;
        let (view, events, served) = (ClusterView::default(), SelectAll::new(), BTreeSet::new());
        Ok(Self { cluster, client, screen, view, events, served, pauses, vpn })
    }

    /// Runs the whole tour. An error names what did not happen.
    pub async fn walk(&mut self) -> Result<()> {
        self.events = view::watch_all(&self.client);
        match self.vpn {
            Some(vpn) => self.real_accounts(vpn).await?,
            None => self.made_up_accounts().await?,
        }
        self.pause().await?;
        self.requests().await?;
        if let Some(vpn) = self.vpn {
            self.exits(vpn).await?;
        }
        self.pause().await?;
        let (freed, next) = self.release().await?;
        self.handover(&freed, &next).await?;
        self.pause().await?;
        match self.vpn {
            Some(_) => self.correction().await,
            None => self.more_slots().await,
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

    async fn requests(&mut self) -> Result<()> {
        self.screen
            .step("Five workloads ask for one of the three slots; the Pod of each starts when its Mask is Active");
        self.kubectl(&["apply", "-f", "e2e/demo/masks.yaml"]).await?;
        let settled = |view: &ClusterView| {
            let running = view.consumers().filter(|consumer| is_active(consumer) && pod_runs(view, consumer));
            running.count() == 3 && places(view).len() == 2
        };
        self.wait_until("three Masks are Active with running Pods, two wait in line", settled).await?;
        self.check_slots()?;
        for consumer in self.view.consumers().filter(|consumer| is_active(consumer)) {
            self.check_copy(consumer).await?;
        }
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
            ensure!(most <= limit, "{most} Masks had Pods on {name} at once, {limit} are allowed");
        }
        Ok(())
    }

    /// Checks that the copied Secret equals the account's Secret.
    async fn check_copy(&self, consumer: &MaskConsumer) -> Result<()> {
        let slot = consumer.status.as_ref().and_then(|status| status.provider.as_ref());
        let slot = slot.context("an Active MaskConsumer without a slot")?;
        let secret = async |namespace, name| {
            Api::<Secret>::namespaced(self.client.clone(), namespace).get(name).await.map(|secret| secret.data)
        };
        let (copy, source) = (secret(APPS, &slot.secret).await?, secret(ACCOUNTS, &slot.name).await?);
        ensure!(copy == source, "Secret {} differs from its source", slot.secret);
        Ok(())
    }

    /// Ends one workload. Returns it and the workload that is first in the queue.
    async fn release(&mut self) -> Result<(Holder, String)> {
        let freed = self.holder("paris")?;
        let next = places(&self.view).remove(&1).context("the queue is empty")?;
        self.screen.step(&format!(
            "{} ends. Its Pod takes 5 s to stop, so its slot stays taken and {next} keeps waiting",
            freed.name
        ));
        self.kubectl(&["delete", "mask", &freed.name, "--namespace", APPS]).await?;
        let held = |view: &ClusterView| {
            let names_pod = |reservation: &vpn_types::MaskReservation| {
                let users = reservation.status.as_ref().and_then(|status| status.users.as_ref());
                users.into_iter().flatten().any(|user| user.uid == freed.pod_uid)
            };
            let told = view.consumer(&freed.name).and_then(|consumer| consumer.status.as_ref());
            let told = told.and_then(|status| status.message.as_deref()).unwrap_or_default();
            view.reservations().any(names_pod) && told.contains("Waiting for Pod")
        };
        self.wait_until("the slot is held for the Pod that stops", held).await?;
        self.screen.table();
        Ok((freed, next))
    }

    async fn handover(&mut self, freed: &Holder, next: &str) -> Result<()> {
        self.screen.step(&format!("The last container has ended, and with it the Pod: now {next} is served"));
        let served = |view: &ClusterView| {
            let consumer = view.consumer(next).filter(|consumer| is_active(consumer));
            view.ended_at(&freed.pod_uid).is_some()
                && consumer.is_some_and(|consumer| pod_runs(view, consumer))
                && places(view).keys().eq([&1])
        };
        self.wait_until(&format!("{next} has the slot, and its Pod runs"), served).await?;
        self.screen.table();
        let uid = self.view.consumer(next).map(uid).unwrap_or_default();
        let ended = self.view.ended_at(&freed.pod_uid).context("the Pod's end was not seen")?;
        let active = self.view.active_at(&uid).context("the commit was not seen")?;
        ensure!(ended < active, "{next} was served at revision {active}, before the Pod had ended at {ended}");
        ensure!(self.view.active_at(&freed.consumer_uid).is_some_and(|first| first < ended), "the order is not known");
        self.check_slots()?;
        self.screen.print(&format!(
            "    In the order of writes: Pod {} ended at revision {ended}, MaskConsumer {next} Active at {active}.",
            freed.name
        ));
        Ok(())
    }

    /// Waits until every Mask has a slot.
    async fn all_served(&mut self) -> Result<()> {
        let all = |view: &ClusterView| {
            view.consumers().count() == 4 && view.consumers().all(|consumer| pod_runs(view, consumer))
        };
        self.wait_until("all Masks are Active with running Pods", all).await?;
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
            "get masks,maskconsumers,pods,secrets --namespace apps",
            "get maskproviders,maskreservations --namespace accounts",
            "describe mask mirror --namespace apps",
            "delete mask mirror --namespace apps",
            "scale maskprovider/paris --replicas=1 --namespace accounts",
        ] {
            self.screen.print(&format!("    kubectl {command}"));
        }
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

    /// Handles and shows one event. When a MaskConsumer becomes Active, creates the Pod of its workload, as a
    /// controller would.
    async fn follow(&mut self) -> Result<()> {
        let seen = self.events.next().await.context("the watches ended")?;
        self.view.take(seen);
        self.screen.show(&self.view);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), APPS);
        for consumer in self.view.consumers().filter(|consumer| is_active(consumer)) {
            // Only one Pod for each MaskConsumer, so that a Pod that the user deletes is not created again.
            if self.served.contains(&uid(consumer)) || self.view.pod(&consumer.name_any()).is_some() {
                continue;
            }
            match pods.create(&PostParams::default(), &view::pod_for(consumer)?).await {
                // The watch has not delivered the Pod yet.
                Err(kube::Error::Api(status)) if status.is_already_exists() => continue,
                created => created.context("cannot create a Pod")?,
            };
            self.served.insert(uid(consumer));
        }
        Ok(())
    }

    /// Runs kubectl in the root of the checkout while showing changes. Returns the output of kubectl.
    async fn kubectl(&mut self, args: &[&str]) -> Result<String> {
        let shown = |arg: &&str| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() };
        let shown: Vec<_> = args.iter().map(shown).collect();
        self.screen.print(&format!("    $ kubectl {}", shown.join(" ")));
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

    /// Returns the oldest Mask that has a slot of this account.
    fn holder(&self, account: &str) -> Result<Holder> {
        let ours =
            |consumer: &&MaskConsumer| is_active(consumer) && slot(consumer).is_some_and(|(of, _)| of == account);
        let oldest = self.view.consumers().filter(ours).min_by_key(|consumer| self.view.active_at(&uid(*consumer)));
        let consumer = oldest.with_context(|| format!("no Mask has a slot of {account}"))?;
        let name = consumer.name_any();
        let pod_uid = self.view.pod(&name).map(uid).context("an Active Mask without a Pod")?;
        Ok(Holder { name, consumer_uid: uid(consumer), pod_uid })
    }
}
