//! The rules for prometheus-adapter in the document: its format, and what its queries return.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, Prometheus,
    testing::{documents::blocks, framework::ensure_eq},
};
use serde::Deserialize;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/docs/autoscaling.md");

/// The configuration file of prometheus-adapter, which rejects unknown fields. See its `pkg/config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    series_query: String,
    resources: Resources,
    name: Name,
    metrics_query: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    /// The resource of each label.
    overrides: BTreeMap<String, GroupResource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupResource {
    #[serde(default)]
    group: String,
    resource: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    #[serde(rename = "as")]
    as_: String,
}

impl Rule {
    /// Returns the label of the object, and its resource.
    fn object(&self) -> Result<(&str, String)> {
        let mut others = self.resources.overrides.iter().filter(|(_, one)| one.resource != "namespace");
        let (label, GroupResource { group, resource }) = others.next().context("no resource but the namespace")?;
        ensure!(others.next().is_none(), "{}: more than one resource", self.name.as_);
        Ok((label, format!("{resource}.{group}")))
    }

    /// Returns the query for one object, as prometheus-adapter expands the template.
    fn query(&self, namespace: &str, object: &str) -> Result<String> {
        let (label, _) = self.object()?;
        let matchers = format!("{label}=\"{object}\",namespace=\"{namespace}\"");
        let fields = [("Series", &*self.name.as_), ("LabelMatchers", &matchers), ("GroupBy", label)];
        let query = fields
            .iter()
            .fold(self.metrics_query.clone(), |query, (field, value)| query.replace(&format!("<<.{field}>>"), value));
        ensure!(!query.contains("<<"), "an unknown field: {query}");
        Ok(query)
    }
}

/// Checks the rules with the MaskProvider `paris`.
pub async fn check(f: &Framework, prometheus: &Prometheus) -> Result<()> {
    let text = blocks(&fs::read_to_string(DOCUMENT)?, Some("## With Prometheus"), "yaml");
    let Configuration { rules } = serde_yaml::from_str(text.first().context("no rules")?)?;
    let resources: Vec<_> = rules.iter().map(|rule| Ok(rule.object()?.1)).collect::<Result<_>>()?;
    ensure_eq("resources", resources, vec!["maskprovider.vpn.beebs.dev".to_owned(), "deployment.apps".to_owned()])?;
    let demanded = format!("vpno_provider_slots_demanded{{namespace=\"{}\",provider=\"paris\"}}", f.name());
    let demanded = prometheus.query(&demanded).await?.first().context("no series")?.value;
    for rule in &rules {
        let (metric, _) = rule.series_query.split_once('{').context("a query without labels")?;
        ensure_eq("the series of the metric", metric, &*rule.name.as_)?;
        for label in rule.resources.overrides.keys() {
            ensure!(rule.series_query.contains(&format!("{label}!=\"\"")), "{} may lack {label}", rule.series_query);
        }
        let found = prometheus.query(&rule.series_query).await?;
        let samples = prometheus.query(&rule.query(f.name(), "paris")?).await?;
        if metric == "vpno_provider_slots_demanded" {
            ensure!(!found.is_empty(), "nothing found by {}", rule.series_query);
            let values: Vec<_> = samples.iter().map(|sample| (&sample.labels["provider"], sample.value)).collect();
            ensure_eq("slots demanded", values, vec![(&"paris".to_owned(), demanded)])?;
        } else {
            // Only the metrics API exports it, which does not run here.
            ensure_eq("samples", samples.len(), 0)?;
        }
    }
    Ok(())
}
