//! The steps of the tour that differ between real and simulated VPN accounts.

use anyhow::{Context, Result, ensure};
use e2e::wait::ready_condition;
use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{Api, ResourceExt, api::ListParams};
use vpn_types::OpenVPNServer;

use super::{
    Tour,
    view::{ACCOUNTS, APPS, ClusterView, is_served, is_usable, slot},
};

impl Tour<'_> {
    pub(super) async fn made_up_accounts(&mut self) -> Result<()> {
        self.screen.step("Two VPN accounts: london allows one device at once, paris two");
        self.kubectl(&["apply", "-f", "e2e/demo/providers.yaml"]).await?;
        let usable = |view: &ClusterView| view.providers().filter(|provider| is_usable(provider)).count() == 2;
        self.wait_until("both accounts are usable", usable).await?;
        self.screen.table();
        Ok(())
    }

    pub(super) async fn more_slots(&mut self) -> Result<()> {
        self.one_more().await?;
        self.screen.step("london is upgraded to two devices: the Pod in line is served at once");
        self.kubectl(&["scale", "maskprovider/london", "--replicas=2", "--namespace", ACCOUNTS]).await?;
        let upgraded = |view: &ClusterView| view.providers().any(|p| p.name_any() == "london" && p.spec.max_slots == 2);
        self.wait_until("london has two slots", upgraded).await?;
        self.all_served().await
    }

    pub(super) async fn real_accounts(&mut self) -> Result<()> {
        self.screen.step(
            "Three OpenVPN servers, each with an account that a real connection verifies. london allows one \
             device at once, paris two; rome lacks a setting",
        );
        self.kubectl(&["apply", "-f", "e2e/demo/servers.yaml"]).await?;
        let usable = |view: &ClusterView| view.providers().filter(|provider| is_usable(provider)).count() == 2;
        // A verification uses a slot, so wait until all slots are free again.
        let verified = |view: &ClusterView| usable(view) && view.reservations().next().is_none();
        self.wait_until("london and paris are verified", verified).await?;
        let is_told =
            |view: &ClusterView| told_of(view, "rome").is_some_and(|told| told.reason == "ForwardingDisabled");
        self.wait_until("rome reports the missing setting", is_told).await?;
        self.screen.table();
        let servers: Vec<_> = self.view.servers().map(line).collect();
        servers.iter().for_each(|line| self.screen.print(line));
        for provider in self.view.providers() {
            let (name, status) = (provider.name_any(), provider.status.clone().unwrap_or_default());
            let seen = status.verification.and_then(|verification| verification.exit_address);
            let seen = seen.with_context(|| format!("the public address of {name} is unknown"))?;
            let exits = self.addresses(&name).await?;
            ensure!(exits.contains(&seen), "{name} was seen as {seen}, not {exits:?}");
            self.screen.print(&format!("    account {name} is verified: its devices have the public address {seen}"));
        }
        Ok(())
    }

    /// Checks the public address of each Pod from inside the Pod.
    pub(super) async fn exits(&mut self) -> Result<()> {
        self.screen.step("Other hosts see the address of the VPN server of each Pod, not the address of the Pod");
        let names: Vec<_> =
            self.view.pods().filter(|pod| is_served(&self.view, pod)).map(ResourceExt::name_any).collect();
        for name in names {
            let pod = self.view.pod(&name).context("the Pod is gone")?;
            let own =
                pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("a Pod without an address")?;
            let slot = self.view.consumer_of(pod).and_then(slot).map(|(account, _)| account.to_owned());
            let server = slot.context("a Pod without a slot")?;
            // The exporters of another server answer with the address of whoever asks.
            let other = if server == "london" { "paris" } else { "london" };
            let services: Api<Service> = Api::namespaced(self.client.clone(), ACCOUNTS);
            let exporters = services.get(&format!("{other}-metrics")).await?.spec.and_then(|spec| spec.cluster_ip);
            let url = format!("http://{}:9176/address", exporters.context("a Service without an address")?);
            let ask = ["exec", &name, "--namespace", APPS, "--container=app", "--", "curl", "-sS", &url];
            let seen = self.kubectl(&ask).await?;
            self.screen.print(&format!("    {name:<24} {own} is seen as {}, {server}", seen.trim()));
            ensure!(self.addresses(&server).await?.contains(&seen.trim().to_owned()), "{name} is seen as {seen}");
        }
        Ok(())
    }

    /// The addresses of the replicas of a server.
    async fn addresses(&self, server: &str) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), ACCOUNTS);
        let replicas = ListParams::default().labels(&format!("app=openvpn,release={server}"));
        let address = |pod: Pod| pod.status.and_then(|status| status.pod_ip);
        Ok(pods.list(&replicas).await?.items.into_iter().filter_map(address).collect())
    }

    pub(super) async fn correction(&mut self) -> Result<()> {
        self.one_more().await?;
        self.screen
            .step("rome gets its setting: it serves, its account is verified, and the Pod in line gets its slot");
        let patch = r#"{"spec": {"ipForward": "Sysctl"}}"#;
        let patch = ["patch", "openvpnserver", "rome", "--namespace", ACCOUNTS, "--type=merge", "--patch", patch];
        self.kubectl(&patch).await?;
        self.all_served().await
    }
}

/// The condition `Ready` of a server.
fn told_of(view: &ClusterView, server: &str) -> Option<Condition> {
    ready_condition(view.servers().find(|one| one.name_any() == server)?)
}

/// Describes a server in one line.
fn line(server: &OpenVPNServer) -> String {
    let ready = ready_condition(server);
    let (reason, message) = ready.map(|ready| (ready.reason, ready.message)).unwrap_or_default();
    format!("    server {:<9} {reason}: {message}", server.name_any())
}
