//! The steps of the tour that differ between real and simulated VPN accounts.

use anyhow::{Context, Result, ensure};
use e2e::vpn::{OTHER_USERS, PASSWORD, Scenario, VpnService};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::PostParams};
use vpn_types::{MaskProvider, MaskProviderPhase, READY};

use super::{
    Tour,
    view::{ACCOUNTS, APPS, ClusterView, is_served, is_usable},
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

    pub(super) async fn real_accounts(&mut self, vpn: &VpnService) -> Result<()> {
        self.screen.step(
            "Three VPN accounts, each tried out with a real connection. london allows one device at once, paris two; \
             the password of rome is mistyped",
        );
        self.kubectl(&["create", "namespace", ACCOUNTS]).await?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), ACCOUNTS);
        let [bob, carol] = OTHER_USERS;
        let cases = [
            ("london", Scenario::OpenVpn, None),
            ("paris", Scenario::OpenVpnTcp, Some(bob)),
            ("rome", Scenario::WrongPassword, Some(carol)),
        ];
        for (name, case, user) in cases {
            let mut secret = vpn.secret(name, case)?;
            let user = user.map(|user| ("OPENVPN_USER".to_owned(), user.to_owned()));
            secret.string_data.get_or_insert_default().extend(user);
            secrets.create(&PostParams::default(), &secret).await?;
        }
        self.screen
            .print("    (Secrets london, paris and rome hold the credentials, as environment variables of gluetun)");
        self.kubectl(&["apply", "-f", "e2e/demo/accounts.yaml"]).await?;
        let judged = |view: &ClusterView| {
            let has_failed = |provider: &MaskProvider| {
                let phase = provider.status.as_ref().and_then(|status| status.phase);
                provider.name_any() == "rome" && phase == Some(MaskProviderPhase::ErrVerifyFailed)
            };
            view.providers().filter(|provider| is_usable(provider)).count() == 2 && view.providers().any(has_failed)
        };
        self.wait_until("london and paris are verified, rome is refused", judged).await?;
        self.screen.table();
        let told: Vec<_> = self.view.providers().map(line).collect();
        told.iter().for_each(|line| self.screen.print(line));
        let exit = Some(vpn.exit_address().to_string());
        for provider in self.view.providers().filter(|provider| is_usable(provider)) {
            let seen = provider.status.as_ref().and_then(|status| status.verification.as_ref()?.exit_address.clone());
            ensure!(seen == exit, "{} was seen as {seen:?}, not {exit:?}", provider.name_any());
        }
        Ok(())
    }

    /// Checks the public address of each Pod from inside the Pod.
    pub(super) async fn exits(&mut self, vpn: &VpnService) -> Result<()> {
        self.screen.step("What the world sees of the three Pods is the address of the VPN service, not their own");
        let names: Vec<_> =
            self.view.pods().filter(|pod| is_served(&self.view, pod)).map(ResourceExt::name_any).collect();
        for name in names {
            let own = self.view.pod(&name).and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
            let own = own.context("a Pod without an address")?;
            let ask = ["exec", &name, "--namespace", APPS, "--container=app", "--", "curl", "-sS", &vpn.address_url()];
            let seen = self.kubectl(&ask).await?;
            self.screen.print(&format!("    {:<24} {own} is seen as {}", name, seen.trim()));
            ensure!(seen.trim() == vpn.exit_address().to_string(), "{name} is seen as {seen}");
        }
        Ok(())
    }

    pub(super) async fn correction(&mut self) -> Result<()> {
        self.one_more().await?;
        self.screen.step("The password of rome is corrected: it is tried out at once, and the Pod in line is served");
        let patch = format!(r#"{{"stringData": {{"OPENVPN_PASSWORD": "{PASSWORD}"}}}}"#);
        self.kubectl(&["patch", "secret", "rome", "--namespace", ACCOUNTS, "--patch", &patch]).await?;
        self.all_served().await
    }
}

/// Describes an account in one line.
fn line(provider: &MaskProvider) -> String {
    let status = provider.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == READY);
    let reason = ready.map(|ready| ready.reason.as_str()).unwrap_or_default();
    let exit = status.verification.and_then(|verification| verification.exit_address);
    let told = exit.map(|exit| format!("public address {exit}")).or(status.message).unwrap_or_default();
    format!("    {:<9} {reason}: {told}", provider.name_any())
}
