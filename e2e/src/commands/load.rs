//! `e2e load`

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use e2e::{Cluster, ControlPlaneOptions, Framework, Layout, Operator, audit::Requests, testing::load};

/// Measure many Masks at once: time, requests and memory, in one process and in four
#[derive(Args)]
pub struct Load {
    /// How many Masks
    #[arg(long, default_value_t = 2000)]
    masks: usize,
    /// Measure only one process for all controllers, or only one process for each
    #[arg(long, value_parser = ["1", "4"])]
    processes: Option<String>,
    /// Give each Mask a Pod, simulated by kwok, that takes a second to stop
    #[arg(long)]
    pods: bool,
    /// Also print all requests to the API server, and how long they took
    #[arg(long)]
    requests: bool,
    /// How long each part may take, in seconds
    #[arg(long, default_value_t = 3600)]
    limit: u64,
}

impl Load {
    pub async fn run(self) -> Result<()> {
        let controller_manager_args = load::AS_SHIPPED.map(str::to_owned).to_vec();
        let cluster =
            Cluster::connect(ControlPlaneOptions { controller_manager_args, ..ControlPlaneOptions::default() }).await?;
        let layouts = [("1", Layout::Combined), ("4", Layout::FourProcesses)];
        for (processes, layout) in layouts {
            if self.processes.as_deref().is_some_and(|wanted| wanted != processes) {
                continue;
            }
            let operator = Operator::start(&cluster, layout).await?;
            let limit = Duration::from_secs(self.limit);
            Framework::run(&cluster, &operator, "load", async |f| {
                let figures = load::run(&cluster, &operator, f, (self.masks, self.pods, limit)).await?;
                if self.requests {
                    let [assignments, releases] = figures.requests.each_ref().map(Requests::table);
                    println!("assignments:\n{assignments}releases:\n{releases}");
                }
                println!("{figures}");
                Ok(())
            })
            .await?;
            operator.stop().await?;
        }
        cluster.stop().await
    }
}
