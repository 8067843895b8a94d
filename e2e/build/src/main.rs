//! `cargo demo`: builds the demo with cargo and the control plane with Go in parallel, then executes the demo.
//!
//! Each build waits at times, for downloads or for one large crate or package. The other one uses the processors then.

use std::{
    env,
    os::unix::process::CommandExt,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use e2e_build::{Binaries, cargo};

/// The interval between checks of the builds.
const POLL: Duration = Duration::from_millis(50);

fn main() -> Result<ExitCode> {
    if !build()? {
        return Ok(ExitCode::FAILURE);
    }
    let mut demo = cargo::command();
    demo.args(["run", "--quiet", "--package=e2e", "--", "demo"]).args(env::args_os().skip(1));
    Err(demo.exec()).context("cannot run the demo")
}

/// Runs both builds. If one fails, the other is stopped. Returns whether cargo succeeded; it prints its own messages.
fn build() -> Result<bool> {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    let mut command = cargo::command();
    // The demo starts the operator. Building both together gives them the same features of their dependencies.
    command.args(["build", "--package=e2e", "--package=vpn-operator", "--bin=e2e", "--bin=vpn-operator"]);
    let mut crates = command.spawn().context("cannot run cargo")?;
    let binaries = thread::spawn(|| Binaries::ensure_unless(&STOPPED));
    let built = loop {
        if let Some(status) = crates.try_wait()? {
            break status.success();
        }
        if binaries.is_finished() {
            break true;
        }
        thread::sleep(POLL);
    };
    if !built {
        STOPPED.store(true, Ordering::Relaxed);
    }
    let result = binaries.join().map_err(|_| anyhow!("the build of the control plane panicked"))?;
    if !built {
        return Ok(false);
    }
    if let Err(error) = result {
        drop(crates.kill());
        drop(crates.wait());
        return Err(error);
    }
    Ok(crates.wait()?.success())
}
