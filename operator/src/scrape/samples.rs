//! The wanted metrics in the answer of a Pod.

use std::sync::Arc;

use thiserror::Error;

use super::line::{LineError, SeriesLabels, parse_sample, split_name};
use crate::model::LabelMatcher;

/// The largest number of series of all wanted metrics of a Pod.
pub const MAX_SERIES: usize = 1000;
/// The largest size of their labels, in bytes.
const MAX_LABEL_BYTES: usize = 64 * 1024;

/// The reason why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SamplesError {
    /// The answer is not UTF-8, or contains zero bytes.
    #[error("the answer is not text")]
    NotText,
    /// A line of a wanted metric is not in the text format of Prometheus.
    #[error("line {line} of the answer, metric {metric}: {error}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The name of the metric.
        metric: Arc<str>,
        /// What is wrong.
        error: LineError,
    },
    /// There are more series than [`MAX_SERIES`], or their labels are too large.
    #[error("the wanted metrics have more than {MAX_SERIES} series, or more than {MAX_LABEL_BYTES} bytes of labels")]
    TooManySeries,
}

/// One series of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name of the metric.
    pub name: Arc<str>,
    /// Names and values of the labels, as the Pod wrote them.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The value: a finite number.
    pub value: f64,
}

impl Series {
    /// Returns the value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(other, _)| **other == *name).map(|(_, value)| &**value)
    }
}

/// The wanted metrics of one Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<Series>);

impl Samples {
    /// Reads the wanted metrics from the answer of a Pod, in the text format of Prometheus or of OpenMetrics. Series
    /// without a number, such as a quantile without observations, are left out. Lines of other metrics are not looked
    /// at.
    ///
    /// # Errors
    /// If the answer is not text, if a line of a wanted metric is malformed, or if there are too many series.
    pub fn parse(answer: &[u8], wanted: &[Arc<str>]) -> Result<Self, SamplesError> {
        let text = std::str::from_utf8(answer).map_err(|_| SamplesError::NotText)?;
        if text.contains('\0') {
            return Err(SamplesError::NotText);
        }
        let mut series = Vec::new();
        let mut label_bytes = 0;
        for (number, line) in text.lines().enumerate() {
            let (name, rest) = split_name(line.trim_start());
            let Some(name) = wanted.iter().find(|wanted| ***wanted == *name) else { continue };
            let (labels, value) = parse_sample(rest).map_err(|error| SamplesError::Line {
                line: number + 1,
                metric: name.clone(),
                error,
            })?;
            if !value.is_finite() {
                continue;
            }
            label_bytes += size(&labels);
            if series.len() == MAX_SERIES || label_bytes > MAX_LABEL_BYTES {
                return Err(SamplesError::TooManySeries);
            }
            series.push(Series { name: name.clone(), labels: labels.into(), value });
        }
        series.shrink_to_fit();
        Ok(Self(series))
    }

    /// Returns the series of all wanted metrics.
    pub fn series(&self) -> &[Series] {
        &self.0
    }

    /// Returns the sum of the series of a metric that match, or `None` if there are none.
    pub fn sum(&self, name: &str, labels: &LabelMatcher) -> Option<f64> {
        let matching = self.0.iter().filter(|series| *series.name == *name);
        let matching = matching.filter(|series| labels.matches(|label| series.label(label)));
        let sum = matching.map(|series| series.value).reduce(|sum, value| sum + value)?;
        sum.is_finite().then_some(sum)
    }
}

fn size(labels: &SeriesLabels) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use kube::core::{Expression, Selector};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const ANSWER: &str = r#"# HELP openvpn_server_connected_clients Number of clients.
# TYPE openvpn_server_connected_clients gauge
openvpn_server_connected_clients{status_path="/a"} 3
openvpn_server_connected_clients{status_path="/b"} 4 1395066363000
openvpn_server_connected_clients_max 99
this line is not valid {{{
request_seconds{quantile="0.5"} NaN
request_seconds_sum 1.5
huge{a="1"} 1e308
huge{a="2"} 1e308
# EOF
"#;

    fn parse(answer: &str, wanted: &[&str]) -> Result<Samples, SamplesError> {
        Samples::parse(answer.as_bytes(), &wanted.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>())
    }

    #[test]
    fn the_series_of_a_metric_are_summed() {
        let clients = "openvpn_server_connected_clients";
        let samples = parse(ANSWER, &[clients, "request_seconds", "absent", "huge"]).expect("valid");
        let everything = LabelMatcher::default();
        assert_eq!(samples.sum(clients, &everything), Some(7.0));
        let selector: Selector = Expression::Equal("status_path".into(), "/b".into()).into();
        assert_eq!(samples.sum(clients, &LabelMatcher::new(selector)), Some(4.0));
        let selector: Selector = Expression::Equal("status_path".into(), "/c".into()).into();
        assert_eq!(samples.sum(clients, &LabelMatcher::new(selector)), None);
        assert_eq!(samples.sum("request_seconds", &everything), None, "no number");
        assert_eq!(samples.sum("absent", &everything), None);
        assert_eq!(samples.sum("request_seconds_sum", &everything), None, "not wanted");
        assert_eq!(samples.sum("huge", &everything), None, "not finite");
        assert_eq!(parse(&ANSWER.replace('\n', "\r\n"), &[clients]).expect("valid").series().len(), 2);
    }

    #[test]
    fn bad_answers_are_refused() {
        assert_eq!(Samples::parse(b"up 1\n\xff\xfe", &[Arc::from("up")]), Err(SamplesError::NotText));
        assert_eq!(parse("up 1\n\0", &["up"]), Err(SamplesError::NotText));
        let error = parse("a 1\nup{a 1\n", &["up"]).expect_err("malformed").to_string();
        assert!(error.contains("line 2") && error.contains("metric up") && error.contains("labels"), "{error}");
        let many: String = (0..=MAX_SERIES).map(|number| format!("up{{a=\"{number}\"}} 1\n")).collect();
        assert_eq!(parse(&many, &["up"]), Err(SamplesError::TooManySeries));
        let large = format!("up{{a=\"{}\"}} 1\n", "x".repeat(MAX_LABEL_BYTES));
        assert_eq!(parse(&large, &["up"]), Err(SamplesError::TooManySeries));
        assert_eq!(parse(&many, &["down"]).expect("valid").series(), []);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in vec(any::<u8>(), 0..200), text in "(up|down)[ {}a=\",\n\\\\#1eINaNf.+-]{0,60}") {
            let _ = Samples::parse(&bytes, &[Arc::from("up")]);
            if let Ok(samples) = parse(&text, &["up"]) {
                prop_assert!(samples.series().iter().all(|series| &*series.name == "up" && series.value.is_finite()));
            }
        }
    }
}
