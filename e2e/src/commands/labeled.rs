//! `e2e labeled`

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions,
    audit::Requests,
    node::images,
    testing::{labeled, load},
    vpn::{Scenario, VpnService},
    wait::is_ready,
};
use vpn_types::MaskProvider;

/// Measure labeled Pods: many at once, compared with as many Masks, or single Pods, compared with handwritten ones
#[derive(Args)]
pub struct Labeled {
    /// How many Pods and Masks
    #[arg(long, default_value_t = 500)]
    pods: usize,
    /// How long to observe the operator while nothing changes, in seconds
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Instead, start single Pods on a node that runs containers, this many times
    #[arg(long)]
    rounds: Option<usize>,
    /// Also print all requests to the API server, and how long they took
    #[arg(long)]
    requests: bool,
    /// How long each part may take, in seconds
    #[arg(long, default_value_t = 3600)]
    limit: u64,
}

impl Labeled {
    pub async fn run(self) -> Result<()> {
        match self.rounds {
            Some(rounds) => single(rounds).await,
            None => self.crowd().await,
        }
    }

    async fn crowd(&self) -> Result<()> {
        let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
        let operator = Operator::start_with(&cluster, OperatorOptions::new(Layout::Combined).injection(1)).await?;
        let limit = Duration::from_secs(self.limit);
        let (mut masks, mut plain, mut pods) = (None, None, None);
        Framework::run(&cluster, &operator, "masks", async |f| {
            masks = Some(load::run(&cluster, &operator, f, (self.pods, false, limit)).await?);
            Ok(())
        })
        .await?;
        Framework::run(&cluster, &operator, "plain", async |f| {
            plain = Some(labeled::plain(f, self.pods, limit).await?);
            Ok(())
        })
        .await?;
        Framework::run(&cluster, &operator, "pods", async |f| {
            let idle = Duration::from_secs(self.idle);
            pods = Some(labeled::crowd(&cluster, &operator, f, (self.pods, idle, limit)).await?);
            Ok(())
        })
        .await?;
        if let (Some(masks), Some(plain), Some(pods)) = (masks, plain, pods) {
            if self.requests {
                let [starts, releases] = pods.requests.each_ref().map(Requests::table);
                println!("starts:\n{starts}releases:\n{releases}");
            }
            let ratio = |time: Duration| time.as_secs_f64() / masks.assigned.as_secs_f64();
            println!(
                "{masks}\n{} Pods without the label: running after {:.1} s\n{pods}",
                self.pods,
                plain.as_secs_f64()
            );
            println!(
                "ratio to the Masks alone: {:.2} until the gates are removed, {:.2} until all run, {:.2} until the Pods \
                 without the label run; until all run, to the Masks and the Pods without the label together: {:.2}",
                ratio(pods.ungated),
                ratio(pods.running),
                ratio(plain),
                pods.running.as_secs_f64() / (masks.assigned + plain).as_secs_f64(),
            );
        }
        operator.stop().await?;
        cluster.stop().await
    }
}

async fn single(rounds: usize) -> Result<()> {
    let cluster = Cluster::connect(ControlPlaneOptions::with_container_node()).await?;
    let vpn = VpnService::start(&cluster).await?;
    let options = OperatorOptions::new(Layout::Combined).injection(1).env("INJECTION_IMAGE", images::GLUETUN);
    let options = vpn.operator_env().iter().fold(options, |options, (name, value)| options.env(name, value));
    let operator = Operator::start_with(&cluster, options).await?;
    Framework::run(&cluster, &operator, "single", async |f| {
        f.create(vpn.secret("account-credentials", Scenario::OpenVpn)?).await?;
        f.create(f.new_provider("account", 1)).await?;
        f.wait_until("account", "a usable provider", |provider: &MaskProvider| is_ready(provider)).await?;
        println!("{}", labeled::single(f, rounds).await?);
        Ok(())
    })
    .await?;
    operator.stop().await?;
    cluster.stop().await
}
