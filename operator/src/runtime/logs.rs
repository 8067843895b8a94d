//! Follows the log of a container, line by line.

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, StreamExt, future, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::LogParams};
use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle};

use super::watch::{error_chain, forward};
use crate::{
    engine::Input,
    model::{LogEvent, ObjectKey, Uid},
};

/// The maximum size of a log, in bytes. The lines that matter come early.
const MAX_LOG_SIZE: u64 = 4 << 20;

/// Follows the log of a container. The last event is [`LogEvent::Ended`] or [`LogEvent::Unreadable`].
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
    let events = stream::once(async move {
        match api.log_stream(&name, &params).await {
            Ok(log) => lines(log.take(MAX_LOG_SIZE)).left_stream(),
            Err(error) => stream::iter([LogEvent::Unreadable(error_chain(&error))]).right_stream(),
        }
    });
    forward(events.flatten().map(Some), move |event| inputs.send(Input::Log(uid.clone(), event)).is_ok())
}

fn lines(log: impl AsyncBufRead + Unpin) -> impl futures::Stream<Item = LogEvent> {
    let lines = log.lines().scan(false, |failed, line| {
        let event = match line {
            _ if *failed => None,
            Ok(line) => Some(LogEvent::Line(line)),
            Err(error) => {
                *failed = true;
                Some(LogEvent::Unreadable(error.to_string()))
            }
        };
        future::ready(event)
    });
    lines.chain(stream::iter([LogEvent::Ended]))
}
