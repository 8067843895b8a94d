//! What an autoscaler does with the metrics of this operator: `hpa lint` finds those that swing, saturate or never
//! move, and `hpa simulate` draws the replicas over time.
//!
//! Invariant: pure. The same manifest and the same options give the same findings and the same replicas. No cluster, no
//! clock and no file is read here. [`controller`] decides like the HorizontalPodAutoscaler controller of Kubernetes
//! 1.36.

mod autoscaler;
mod calculator;
pub mod controller;
mod csv;
mod decision;
mod expression;
mod from_hpa;
mod from_keda;
mod keda;
mod lint;
mod manifest;
mod meaning;
mod plot;
mod problems;
mod quantity;
mod report;
mod rules;
mod simulate;
mod svg;
mod verdict;
mod world;

#[cfg(test)]
mod tests;

pub use autoscaler::Autoscaler;
pub use csv::csv;
pub use expression::{Definition, parse_definition};
pub use lint::{Finding, Level, corrected, findings, render};
pub use manifest::{Documents, Manifest, read, write};
pub use report::text;
pub use simulate::{Event, Options, Run, parse_event, seconds, simulate};
pub use svg::svg;
pub use verdict::{Verdict, verdict};
