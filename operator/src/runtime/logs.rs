//! Follows the log of one container, line by line, from its beginning to its end.

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, StreamExt, future, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::LogParams};
use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle};

use super::watch::{chain, spawn};
use crate::{
    engine::Input,
    model::{LogEvent, ObjectKey, Uid},
};

/// How much of a log is read at most, in bytes: what decides comes early.
const LONGEST_LOG: u64 = 4 << 20;

/// Follows the log of a container. The last thing told is [`LogEvent::Ended`] or [`LogEvent::Unreadable`].
pub fn follow(
    client: &Client,
    key: &ObjectKey,
    uid: Uid,
    container: &str,
    inputs: UnboundedSender<Input>,
) -> AbortHandle {
    let api = Api::<Pod>::namespaced(client.clone(), &key.namespace);
    let params = LogParams { container: Some(container.to_owned()), follow: true, ..LogParams::default() };
    let name = key.name.to_string();
    let told = stream::once(async move {
        match api.log_stream(&name, &params).await {
            Ok(log) => lines(log.take(LONGEST_LOG)).left_stream(),
            Err(error) => stream::iter([LogEvent::Unreadable(chain(&error))]).right_stream(),
        }
    });
    spawn(told.flatten().map(Some), move |told| inputs.send(Input::Log(uid.clone(), told)).is_ok())
}

fn lines(log: impl AsyncBufRead + Unpin) -> impl futures::Stream<Item = LogEvent> {
    let lines = log.lines().scan(false, |failed, line| {
        let told = match line {
            _ if *failed => None,
            Ok(line) => Some(LogEvent::Line(line)),
            Err(error) => {
                *failed = true;
                Some(LogEvent::Unreadable(error.to_string()))
            }
        };
        future::ready(told)
    });
    lines.chain(stream::iter([LogEvent::Ended]))
}
