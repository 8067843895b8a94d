//! Autoscaling on the available capacity, and on the remaining capacity.

use super::*;

/// 46 Nodes with 4 cores each, 54 cores for others, and a workload with replicas of one core, between 15 and 150.
struct Simulation {
    cluster: Cluster,
    running: u64,
}

impl Simulation {
    const REPLICA: u64 = 1000;

    fn new() -> Self {
        let mut cluster = Cluster::default();
        for index in 0..46 {
            cluster.apply_node(node(&format!("node-{index}"), amount(4000, 0), 110));
        }
        for index in 0..54 {
            let at = format!("node-{}", index % 46);
            cluster.apply_pod(pod("other", &format!("other-{index}"), Some(&at), amount(1000, 0)));
        }
        let mut new = Self { cluster, running: 0 };
        new.scale(15);
        new
    }

    /// Starts and stops replicas. Those without a place wait.
    fn scale(&mut self, wanted: u64) {
        for index in 0..self.running.max(wanted) {
            self.cluster.remove_pod(&ObjectKey::new("default", format!("batch-{index}")));
        }
        let others = Query { consumers: selected("nobody"), ..query(Resources::default(), amount(Self::REPLICA, 0)) };
        let places = self.cluster.available(&others).replicas_that_fit;
        for index in 0..wanted {
            let at = format!("node-{}", index % 46);
            let at = (index < places).then_some(&*at);
            self.cluster.apply_pod(pod("batch", &format!("batch-{index}"), at, amount(Self::REPLICA, 0)));
        }
        self.running = wanted;
    }

    /// One sync of an autoscaler: a tolerance of 10%, at most twice as many or four more, and the limits.
    fn sync(&mut self, desired: f64, ratio: f64) {
        let desired = if (ratio - 1.0).abs() <= 0.1 { self.running } else { desired.ceil() as u64 };
        let limit = (self.running * 2).max(self.running + 4);
        let next = desired.min(limit).clamp(15, 150);
        self.scale(next);
    }
}

#[test]
fn an_average_value_on_what_is_available_settles_and_a_value_on_what_remains_swings() {
    let mut steady = Simulation::new();
    let question = query(amount(30_000, 0), amount(Simulation::REPLICA, 0));
    let mut replicas = Vec::new();
    for _ in 0..120 {
        let available = steady.cluster.available(&question);
        assert_eq!((available.resources.cpu_millis, available.replicas_that_fit), (100_000, 100), "whatever n is");
        let desired = available.resources.cpu_millis as f64 / Simulation::REPLICA as f64;
        let current = steady.running as f64;
        steady.sync(desired, desired / current);
        replicas.push(steady.running);
    }
    assert_eq!(replicas[..3], [30, 60, 100]);
    assert!(replicas[2..].iter().all(|running| *running == 100));

    let mut naive = Simulation::new();
    let mut replicas = Vec::new();
    for _ in 0..120 {
        let ratio = naive.cluster.totals().remaining.cpu_millis as f64 / 30_000.0;
        let current = naive.running as f64;
        naive.sync(ratio * current, ratio);
        replicas.push(naive.running);
    }
    let settled = &replicas[20..];
    assert!(settled.contains(&15) && settled.iter().any(|running| *running > 130), "{replicas:?}");
    assert!(settled.windows(2).filter(|pair| pair[0] != pair[1]).count() > 50, "{replicas:?}");
}
