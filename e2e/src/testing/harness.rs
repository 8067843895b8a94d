//! The harness of tests that need a [node](crate::node) that runs containers. Where no such node is possible, they are
//! reported as ignored, with the reason. Rust's own harness cannot do this while a test runs.

use std::{env, panic, process::ExitCode, thread, time::Duration};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::node::{REQUIRE, install, unavailable};

/// The timeout of one test. It matters only when a test hangs.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The stack size of a test. Without optimization, a test has many Pods on its stack.
const STACK: usize = 16 << 20;

/// A test with its name, for [`run`]. [`crate::node_tests`] creates them.
pub fn trial<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>>,
{
    Trial::ignorable_test(name, move || {
        if let Some(why) = unavailable() {
            return match env::var_os(REQUIRE) {
                Some(_) => Err(Failed::from(format!("there is no node ({why}), and {REQUIRE} is set"))),
                None => Ok(Completion::ignored_with(format!("no node: {why}"))),
            };
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(STACK)
            .enable_all()
            .build()?;
        let run = move || runtime.block_on(async { tokio::time::timeout(TIMEOUT, Box::pin(test())).await });
        let thread = thread::Builder::new().stack_size(STACK).spawn(run)?;
        match thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)) {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(error)) => Err(Failed::from(format!("{error:#}"))),
            Err(_) => Err(Failed::from(format!("not done after {} s", TIMEOUT.as_secs()))),
        }
    })
}

/// A test of programs of a node without a cluster, for [`run`]. It panics on failure. [`crate::program_tests`] creates
/// them.
pub fn program_trial(name: &str, test: fn()) -> Trial {
    trial(name, move || async move {
        install()?;
        test();
        Ok(())
    })
}

/// A test that needs no node, for [`run`]. [`crate::plain_tests`] creates them.
pub fn plain_trial(name: &str, test: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// The `main` function of a test binary. It accepts the arguments of Rust's own harness.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// `node_tests![module::test, other::test]`: a `Vec` of tests for [`run`](crate::testing::harness::run), named by their
/// paths; each is an `async fn() -> anyhow::Result<()>`.
#[macro_export]
macro_rules! node_tests {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$($crate::testing::harness::trial(concat!(stringify!($module), "::", stringify!($test)), $module::$test)),*]
    };
}

/// Like [`node_tests`](crate::node_tests), for tests that need programs of a node but no cluster: each is a `fn()`.
#[macro_export]
macro_rules! program_tests {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$($crate::testing::harness::program_trial(
            concat!(stringify!($module), "::", stringify!($test)), $module::$test
        )),*]
    };
}

/// Like [`node_tests`](crate::node_tests), for tests that need no node: each is a `fn() -> anyhow::Result<()>`.
#[macro_export]
macro_rules! plain_tests {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$($crate::testing::harness::plain_trial(
            concat!(stringify!($module), "::", stringify!($test)), $module::$test
        )),*]
    };
}
