//! The documents of the metrics API, compared with those of a server that is made of the library that other metrics
//! servers are made of: `sigs.k8s.io/custom-metrics-apiserver`. Both serve the same metrics with the same values.
//!
//! This test is ignored unless it is asked for, because it builds that server (`e2e/metrics-yardstick`):
//! `cargo test -p e2e --test autoscaling yardstick -- --ignored`.

#[path = "yardstick/queries.rs"]
mod queries;
#[path = "yardstick/server.rs"]
mod server;

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions,
    operator::metrics_api::{self, wait_until_available},
    testing::{difference::differences, framework::local_cluster},
};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};
use vpn_types::MaskProvider;

use queries::{Query, Way, queries};
use server::{Yardstick, feed, offered};

use crate::wait_for_value;

/// An answer of a server.
#[derive(Clone, Debug)]
pub struct Answer {
    code: u16,
    content_type: String,
    body: Value,
}

/// Returns the answer to a query. A failure is an answer, too.
async fn ask(client: &Client, query: &Query) -> Result<Answer> {
    let mut request = http::Request::get(&query.path);
    if let Some(accept) = query.accept {
        request = request.header("Accept", accept);
    }
    let response = client.send(request.body(kube::client::Body::empty())?).await?;
    let code = response.status().as_u16();
    let content_type = response.headers().get("Content-Type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_owned();
    let body = response.into_body().collect().await?.to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    Ok(Answer { code, content_type, body: serde_json::from_slice(&body).unwrap_or_else(|_| text()) })
}

/// Asks a server all questions: through kube-apiserver, or the server itself.
async fn ask_all(cluster: &Cluster, address: &str, queries: &[Query]) -> Result<Vec<Answer>> {
    let through = cluster.client()?;
    let mut config = cluster.admin().config.clone();
    config.cluster_url = address.parse()?;
    config.accept_invalid_certs = true;
    let direct = Client::try_from(config)?;
    let mut answers = Vec::new();
    for query in queries {
        let client = match query.way {
            Way::ApiServer => &through,
            Way::Direct => &direct,
        };
        answers.push(ask(client, query).await.with_context(|| query.path.clone())?);
    }
    Ok(answers)
}

#[tokio::test]
#[ignore = "builds sigs.k8s.io/custom-metrics-apiserver: 7 minutes of processor time"]
async fn the_documents_are_those_of_the_library_of_metrics_servers() -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    let operator = Operator::start_with(&cluster, OperatorOptions::new(Layout::Combined).metrics_api()).await?;
    let f = Framework::new(&cluster, "yardstick").await?;
    f.add_logs(&operator);
    f.dump_on_error(compare(&cluster, &f, &operator)).await?;
    operator.kill().await?;
    cluster.stop().await
}

async fn compare(cluster: &Cluster, f: &Framework, operator: &Operator) -> Result<()> {
    wait_until_available(cluster).await?;
    f.create_provider("vpn", 3).await?;
    f.create_provider("other", 2).await?;
    f.patch::<MaskProvider>("other", json!({"metadata": {"labels": {"tier": "b"}}})).await?;
    f.create_active_mask("one").await?;
    wait_until_known(f).await?;
    let queries = queries(f.name());
    let address = operator.metrics_api().context("no metrics API")?;
    let ours = ask_all(cluster, &address, &queries).await?;
    let offered = offered(&queries, &ours)?;
    operator.kill_part(metrics_api::NAME).await?;

    let yardstick = Yardstick::start(cluster, &offered).await?;
    f.namespace.add_log(yardstick.log());
    feed(&yardstick, f.name(), &queries, &ours).await?;
    yardstick.register(cluster).await?;
    let theirs = ask_all(cluster, &yardstick.address(), &queries).await?;

    let mut unexpected = Vec::new();
    for ((query, ours), theirs) in queries.iter().zip(&ours).zip(&theirs) {
        if let Err(error) = judge(query, ours, theirs) {
            unexpected.push(format!("{} (Accept: {:?}): {error:#}", query.path, query.accept));
        }
    }
    ensure!(unexpected.is_empty(), "{}", unexpected.join("\n\n"));
    Ok(())
}

/// Waits until the metrics API shows the label and the Mask, so that nothing changes between two answers.
async fn wait_until_known(f: &Framework) -> Result<()> {
    let path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}", f.name());
    let labeled = format!("{path}/maskproviders.vpn.beebs.dev/*/vpno_provider_slots?labelSelector=tier%3Db");
    let active = format!("{path}/metrics/vpno_masks?metricLabelSelector=phase%3DActive");
    wait_for_value(f, &labeled, "2").await?;
    wait_for_value(f, &active, "1").await.map(drop)
}

/// Fails unless the answers differ exactly as the query says.
fn judge(query: &Query, ours: &Answer, theirs: &Answer) -> Result<()> {
    let document =
        |answer: &Answer| json!({"code": answer.code, "contentType": answer.content_type, "body": answer.body});
    let (ours, theirs) = (document(ours), document(theirs));
    let found = differences(&ours, &theirs);
    let explained: Vec<_> = query.differences.iter().map(|(path, _)| *path).collect();
    let paths: Vec<_> = found.iter().map(|one| one.path.as_str()).collect();
    ensure!(
        paths == explained,
        "expected other differences: {explained:?}\n{found:#?}\nours {ours:#}\ntheirs {theirs:#}"
    );
    Ok(())
}
