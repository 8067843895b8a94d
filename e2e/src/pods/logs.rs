//! Logs of containers, read while they are written.

use anyhow::{Context, Result, anyhow};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, api::LogParams, runtime::wait::await_condition};
use tokio::time::{Duration, timeout};

/// Follows the log of a container until it contains all `words` in this order, and returns the log. The log continues
/// across restarts of the container. Colors are removed.
///
/// # Errors
/// When that does not happen within `limit`. The error contains the log.
pub async fn wait_for_log(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    words: &[&str],
    limit: Duration,
) -> Result<String> {
    let mut log = String::new();
    let missing = |log: &str| {
        let mut rest = log;
        words
            .iter()
            .find(|word| match rest.split_once(**word) {
                Some((_, after)) => {
                    rest = after;
                    false
                }
                None => true,
            })
            .map(|word| (*word).to_owned())
    };
    let follow = async {
        let params = LogParams { container: Some(container.into()), follow: true, ..LogParams::default() };
        let mut restarts = -1;
        loop {
            restarts = started_again(pods, pod, container, restarts).await?;
            let mut lines = pods.log_stream(pod, &params).await?.lines();
            while let Some(line) = lines.try_next().await? {
                log += &plain(&line);
                log.push('\n');
                if missing(&log).is_none() {
                    return anyhow::Ok(());
                }
            }
        }
    };
    match timeout(limit, follow).await {
        Ok(result) => result.with_context(|| format!("cannot read the log of {pod}/{container}"))?,
        Err(_) => {
            let word = missing(&log).unwrap_or_default();
            return Err(anyhow!("{pod}/{container} did not write {word:?} within {limit:?}, but:\n{log}"));
        }
    }
    Ok(log)
}

/// Waits until a container was restarted more than `restarts` times, and returns how often.
async fn started_again(pods: &Api<Pod>, pod: &str, container: &str, restarts: i32) -> Result<i32> {
    let again = |found: Option<&Pod>| found.and_then(|pod| runs(pod, container)).is_some_and(|now| now > restarts);
    let found = await_condition(pods.clone(), pod, again).await?;
    found.as_ref().and_then(|pod| runs(pod, container)).context("it is gone")
}

/// How often a container was restarted. `None` when it was never started.
fn runs(pod: &Pod, container: &str) -> Option<i32> {
    let state = container_status(pod, container)?;
    let started = state.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    (started || state.last_state.as_ref().is_some_and(|state| state.terminated.is_some()))
        .then_some(state.restart_count)
}

/// Whether a container is running.
pub fn is_running(pod: &Pod, container: &str) -> bool {
    let state = container_status(pod, container).and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.running.is_some())
}

/// The status of a container or init container.
pub fn container_status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == container)
}

/// Removes the escape sequences for colors from a line.
fn plain(line: &str) -> String {
    let mut rest = line;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        text += before;
        rest = after.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, after)| after);
    }
    text + rest
}
