//! Programs that run beside a cluster, such as operators: they exit, are killed, or are missing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ProcessSpec, Signal, process::Supervisor};
use tempfile::tempdir;

#[tokio::test]
async fn processes_end_as_told_and_with_the_supervisor() -> Result<()> {
    let dir = tempdir()?;
    let spec = |name: &str, script: &str| {
        ProcessSpec::new(name, "/bin/sh", dir.path().join(format!("{name}.log")))
            .arg("-c")
            .arg(script)
            .env("WORD", "hello")
    };
    let mut supervisor = Supervisor::spawn(None)?;

    let ends = supervisor.start(spec("ends", "echo $WORD; exit 3")).await?;
    ensure!(ends.exited().await == "exit code 3" && ends.log_tail(1) == "hello", "{}", ends.log_tail(9));
    ensure!(ends.pid().is_none(), "an ended process has no id");

    let polite = supervisor.start(spec("polite", "exec sleep 60")).await?;
    ensure!(polite.stop(Duration::from_secs(30)).await? == "killed by signal 15", "SIGTERM did not end it");

    // A shell that ignores SIGTERM, once it has printed `ready`.
    let stubborn = supervisor.start(spec("stubborn", "trap '' TERM; echo ready; while :; do sleep 0.1; done")).await?;
    while stubborn.log_tail(1) != "ready" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ensure!(stubborn.stop(Duration::from_millis(300)).await? == "killed by signal 9", "SIGKILL did not end it");

    let missing = ProcessSpec::new("missing", "/no/such/program", dir.path().join("missing.log"));
    let error = supervisor.start(missing).await.err().context("a missing program ran")?;
    ensure!(format!("{error:#}").contains("there is no program /no/such/program"), "{error:#}");

    // Processes stop in reverse order of their start: each sees the earlier ones still running.
    let order = dir.path().join("order");
    let note = |name: &str| {
        format!("trap 'echo {name} >> {}; exit' TERM; echo ready; while :; do sleep 0.1; done", order.display())
    };
    let first = supervisor.start(spec("first", &note("first"))).await?;
    let last = supervisor.start(spec("last", &note("last"))).await?;
    for process in [&first, &last] {
        while process.log_tail(1) != "ready" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let pid = first.pid().context("it does not run")?;
    supervisor.shut_down();
    ensure!(std::fs::read_to_string(&order)? == "last\nfirst\n", "stopped in the wrong order");
    ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} still runs");
    ensure!(first.signal(Signal::TERM).is_err(), "a signal after the end");
    Ok(())
}
