//! Several processes with the same controllers, one of which leads, and the readiness of each.

use std::{net::TcpListener, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, History, Identity, Process, ProcessSpec, Signal,
    audit::{Access, Filter},
    operator::{NAMESPACE, READY, executable, install, wait_for_log},
    testing::{
        framework::{ensure_eq, local_cluster},
        http,
    },
    wait::TIMEOUT,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use vpn_types::Mask;

/// One test at a time, because an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The log message of a new leader.
const LEADING: &str = "leading";
/// A lease lasts 15 s and is checked every 2 s. The rest is for a busy machine.
const TAKEOVER: Duration = Duration::from_secs(30);

/// An operator process with all controllers.
struct Candidate {
    process: Process,
    user: String,
    port: u16,
}

impl Candidate {
    /// Starts it with this identity.
    async fn start(cluster: &Cluster, name: &str, identity: &Identity) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let dir = cluster.state_dir();
        let mut spec = ProcessSpec::new(name, executable(cluster).await?, dir.join(format!("{name}-{port}.log")))
            .arg("manage-all")
            .arg("--leader-elect")
            .flag("lease-namespace", NAMESPACE)
            .flag("metrics-port", port)
            .env("KUBECONFIG", identity.kubeconfig.display())
            .env("RUST_LOG", "info,vpn_operator=debug")
            .env("NO_COLOR", "1");
        spec.grace_period_ms = 10_000;
        let user = identity.user.clone().context("no user")?;
        Ok(Self { process: cluster.run(spec).await?, user, port })
    }

    /// Starts it as its own user with all permissions, so that the audit log distinguishes it.
    async fn of(cluster: &Cluster, name: &str) -> Result<Self> {
        Self::start(cluster, name, &cluster.user(name, Some("system:masters")).await?).await
    }

    async fn leads(self) -> Result<Self> {
        wait_for_log(&self.process, LEADING).await?;
        Ok(self)
    }

    async fn stands_by(self) -> Result<Self> {
        wait_for_log(&self.process, READY).await?;
        ensure!(!self.process.log_tail(100).contains(LEADING), "a second leader");
        Ok(self)
    }

    async fn stop(&self) -> Result<()> {
        ensure_eq("end", &*self.process.stop(TIMEOUT).await?, "exit code 0")
    }

    async fn ends_badly(&self) -> Result<()> {
        let end = timeout(TAKEOVER, self.process.exited()).await.context("it does not exit")?;
        ensure_eq("end", &*end, "exit code 1")
    }

    /// Returns the status code and the body of a path on its own server.
    async fn ask(&self, path: &str) -> Result<(u16, String)> {
        http::ask(self.port, path).await
    }

    /// Waits until `/readyz` returns `wanted`. Polls, because there is nothing to watch.
    async fn until_readyz(&self, wanted: (u16, &str)) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let answer = self.ask("/readyz").await;
            if answer.as_ref().is_ok_and(|(code, body)| (*code, &**body) == wanted) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not {wanted:?}, but {answer:?}\n{}", self.process.log_tail(20));
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn setup(cluster: &Cluster, prefix: &str) -> Result<Framework> {
    install(cluster).await?;
    Framework::new(cluster, prefix).await
}

/// Waits until a new Mask has a slot, within the takeover time.
async fn served_soon(f: &Framework, name: &str) -> Result<()> {
    let start = Instant::now();
    f.wait_active(name).await?;
    ensure!(start.elapsed() < TAKEOVER, "it took {:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_standby_is_silent_and_takes_over() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let f = setup(cluster, "standby").await?;
    let test = async {
        let one = Candidate::of(cluster, "one").await?.leads().await?;
        let two = Candidate::of(cluster, "two").await?.stands_by().await?;
        two.until_readyz((200, "ok\n")).await?;
        let audit = cluster.audit().context("no audit log")?;
        let mark = audit.mark().await?;
        f.create_provider("vpn", 4).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_active_mask("first").await?;
        let requests = audit.since(mark).await?;
        let of_two = Filter::default().user(&two.user);
        ensure_eq("writes of the standby", requests.count(&of_two.clone().access(Access::Write)), 0)?;
        // It follows the watches. The watch of a new provider's Secret begins with a list.
        let reads = requests.matching(&of_two).filter(|request| request.access() == Access::Read);
        let other = reads.filter(|request| !["leases", "secrets"].contains(&&*request.resource)).count();
        ensure_eq("reads of other than the lease and that Secret", other, 0)?;
        ensure!(requests.count(&Filter::default().user(&one.user).access(Access::Write)) > 3, "too few writes");

        // A process that is stopped releases the lease.
        one.stop().await?;
        f.create_mask("second").await?;
        served_soon(&f, "second").await?;
        wait_for_log(&two.process, LEADING).await?;

        // A process that is killed does not: its lease must expire.
        let three = Candidate::of(cluster, "three").await?.stands_by().await?;
        two.process.signal(Signal::KILL)?;
        two.process.exited().await;
        f.create_mask("third").await?;
        served_soon(&f, "third").await?;
        wait_for_log(&three.process, LEADING).await?;
        history.changes().await?;
        ensure_eq("MaskConsumers", history.consumers(), 3)?;
        f.clear(TIMEOUT).await?;
        three.stop().await
    };
    f.dump_on_error(test).await
}

#[tokio::test]
async fn a_leader_that_was_paused_ends_instead_of_acting() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let f = setup(cluster, "paused").await?;
    let test = async {
        let paused = Candidate::of(cluster, "paused").await?.leads().await?;
        f.create_provider("vpn", 4).await?;
        f.create_active_mask("first").await?;
        let next = Candidate::of(cluster, "next").await?.stands_by().await?;
        paused.process.signal(Signal::STOP)?;
        f.create_mask("second").await?;
        served_soon(&f, "second").await?;
        f.delete::<Mask>("first").await?;
        let audit = cluster.audit().context("no audit log")?;
        let mark = audit.mark().await?;
        paused.process.signal(Signal::CONT)?;
        paused.ends_badly().await?;
        let writes = Filter::default().user(&paused.user).access(Access::Write);
        let requests = audit.since(mark).await?;
        let acted: Vec<_> = requests.matching(&writes).map(ToString::to_string).collect();
        ensure_eq("writes after the end of its lease", acted, vec![])?;
        f.clear(TIMEOUT).await?;
        next.stop().await
    };
    f.dump_on_error(test).await
}

#[tokio::test]
async fn a_leader_that_cannot_renew_ends() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let f = setup(cluster, "no-renewal").await?;
    let test = async {
        let identity = cluster.service_account(NAMESPACE, "vpn-operator-all").await?;
        let leader = Candidate::start(cluster, "leader", &identity).await?.leads().await?;
        f.create_provider("vpn", 1).await?;
        f.create_active_mask("mine").await?;
        cluster.run_kubectl(&["delete", "rolebinding", "vpn-operator-all-lease", "--namespace", NAMESPACE]).await?;
        leader.ends_badly().await?;
        ensure!(leader.process.log_tail(5).contains("could not be renewed in time"), "the log has no reason");
        // With the permission back, the next start succeeds.
        install(cluster).await?;
        let leader = Candidate::start(cluster, "leader", &identity).await?.leads().await?;
        f.clear(TIMEOUT).await?;
        leader.stop().await
    };
    f.dump_on_error(test).await
}

#[tokio::test]
async fn a_process_that_is_not_ready_says_what_it_waits_for() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let f = setup(cluster, "not-ready").await?;
    let test = async {
        // A CustomResourceDefinition is missing.
        let crd = "maskproviders.vpn.beebs.dev";
        cluster.run_kubectl(&["delete", "crd", crd]).await?;
        let early = Candidate::of(cluster, "early").await?;
        early.until_readyz((503, "waiting for the first list of: MaskProvider\n")).await?;
        ensure_eq("healthz", early.ask("/healthz").await?, (200, "ok\n".to_owned()))?;
        install(cluster).await?;
        early.until_readyz((200, "ok\n")).await?;
        early.stop().await?;

        // A permission is missing.
        let nobody = cluster.user("nobody", None).await?;
        let poor = Candidate::start(cluster, "poor", &nobody).await?;
        let all = "Mask, MaskConsumer, MaskReservation, MaskProvider, Secret, Pod";
        poor.until_readyz((503, &format!("waiting for the first list of: {all}\n"))).await?;
        let right = ["create", "clusterrolebinding", "nobody-no-more", "--clusterrole=cluster-admin", "--user=nobody"];
        cluster.run_kubectl(&right).await?;
        poor.until_readyz((200, "ok\n")).await?;
        cluster.run_kubectl(&["delete", "clusterrolebinding", "nobody-no-more"]).await?;
        poor.process.stop(TIMEOUT).await.map(drop)
    };
    f.dump_on_error(test).await
}
