//! Known sequences of replicas.

use super::*;
use crate::hpa::{Event, expression::parse_definition, simulate::parse_event};

fn event(text: &str) -> Event {
    parse_event(text).unwrap()
}

#[test]
fn value_on_free_slots_is_the_logistic_map() {
    let cycle = object("vpno_provider_slots_free", &value(2), 1, 20, AT_ONCE);
    let start = Options { start: Some(5), ..options(20) };
    assert_eq!(path(&cycle, &start)[..8], [5, 10, 20, 1, 5, 10, 20, 1]);
    assert_eq!(judge(&cycle, &start), Verdict::Oscillates { low: 1, high: 20, period: Some(60) });

    let settles = object("vpno_provider_slots_free", &value(7), 1, 20, AT_ONCE);
    assert_eq!(path(&settles, &options(20)), [1, 3, 7, 13]);
    assert_eq!(judge(&settles, &options(20)), Verdict::Settles { replicas: 13, syncs: 3 });

    let large = object("vpno_provider_slots_free", &value(30), 1, 184, AT_ONCE);
    let start = Options { start: Some(80), ..options(184) };
    assert_eq!(path(&large, &start)[..5], [80, 160, 128, 184, 1]);
    assert!(matches!(judge(&large, &start), Verdict::Oscillates { low: 1, high: 184, .. }));
}

#[test]
fn even_a_ratio_below_three_settles_only_from_some_starts() {
    // From 6, the limit leads past 13: ceil(12 × 8/7) = 14, and ceil(14 × 6/7) = 12.
    let manifest = object("vpno_provider_slots_free", &value(7), 1, 20, AT_ONCE);
    let verdict = judge(&manifest, &Options { start: Some(12), ..options(20) });
    assert_eq!(verdict, Verdict::Oscillates { low: 12, high: 14, period: Some(30) });
}

#[test]
fn average_value_on_free_slots_uses_a_part_of_them() {
    let manifest = object("vpno_provider_slots_free", &average("1"), 1, 20, AT_ONCE);
    let Verdict::Settles { replicas, .. } = judge(&manifest, &options(20)) else { panic!("does not settle") };
    assert_eq!(replicas, 10);
}

/// 184 cores, of which others request 54, and replicas of one core.
fn cores(metric: &str, target: &str, behavior: &str) -> (Manifest, Options) {
    let options = Options { duration: 7200, events: vec![event("0=others:54")], ..options(184) };
    (object(metric, target, 15, 150, behavior), options)
}

#[test]
fn remaining_capacity_swings_whatever_the_window() {
    for window in [0, 30, 300] {
        let behavior = format!("  behavior: {{scaleDown: {{stabilizationWindowSeconds: {window}}}}}");
        let (manifest, options) = cores("cpu_capacity_remaining", &value(30_000), &behavior);
        let Verdict::Oscillates { low: 15, high, .. } = judge(&manifest, &options) else {
            panic!("{window}: {}", judge(&manifest, &options))
        };
        assert!(high > 130, "{window}: {high}");
    }
}

#[test]
fn available_capacity_with_value_runs_to_the_maximum() {
    let (manifest, options) = cores("cpu_capacity_available", &value(30_000), AT_ONCE);
    assert!(matches!(judge(&manifest, &options), Verdict::Saturates { replicas: 150, .. }));
}

#[test]
fn available_capacity_with_average_value_settles_after_three_syncs() {
    let (manifest, mut options) = cores("cpu_capacity_available", &average("1000"), "");
    options.reserve = Some(30);
    assert_eq!(path(&manifest, &options), [15, 30, 60, 100]);
    assert_eq!(judge(&manifest, &options), Verdict::Settles { replicas: 100, syncs: 3 });
    options.events.extend([event("60m=others:122"), event("75m=others:54")]);
    assert_eq!(path(&manifest, &options)[3..], [100, 32, 64, 100]);
}

#[test]
fn without_behavior_the_limit_is_twice_the_replicas_or_four() {
    let manifest = object("claimable_slots", &average("1"), 1, 100, "");
    assert_eq!(path(&manifest, &options(50)), [1, 4, 8, 16, 32, 50]);
    let manifest = object("claimable_slots", &average("1"), 1, 100, "  behavior: {}");
    assert_eq!(path(&manifest, &options(50)), [1, 5, 10, 20, 40, 50]);
}

#[test]
fn policies_limit_the_change_in_their_period() {
    let behavior = "  behavior: {scaleUp: {policies: [{type: Pods, value: 3, periodSeconds: 60}]}}";
    let manifest = object("claimable_slots", &average("1"), 1, 100, behavior);
    let run = simulate(&manifest.autoscaler, &options(10)).unwrap();
    let changes: Vec<_> = run.changes.iter().map(|change| (change.at, change.to)).collect();
    assert_eq!(changes, [(0, 4), (60, 7), (120, 10)]);
    let behavior = "  behavior: {scaleUp: {selectPolicy: Min, policies: [{type: Percent, value: 50, periodSeconds: \
                    15}, {type: Pods, value: 2, periodSeconds: 15}]}}";
    let manifest = object("claimable_slots", &average("1"), 1, 100, behavior);
    assert_eq!(path(&manifest, &options(10)), [1, 2, 3, 5, 7, 9, 10]);
    let behavior = "  behavior: {scaleUp: {selectPolicy: Disabled}}";
    let manifest = object("claimable_slots", &average("1"), 1, 100, behavior);
    assert_eq!(judge(&manifest, &options(10)), Verdict::NeverMoves { replicas: 1 });
}

#[test]
fn windows_keep_the_highest_or_the_lowest_recommendation() {
    let events = vec![event("5m=others:6"), event("6m=others:0")];
    let manifest = object("claimable_slots", &average("1"), 1, 100, "");
    let short = Options { events: events.clone(), ..options(10) };
    assert_eq!(path(&manifest, &short), [1, 4, 8, 10], "one minute is within the window");
    let long = Options { events: vec![event("5m=others:6")], ..options(10) };
    let run = simulate(&manifest.autoscaler, &long).unwrap();
    let last = run.changes.last().unwrap();
    assert_eq!((last.at, last.to), (585, 4), "300 s after the last high recommendation at 285 s");
    let behavior =
        "  behavior: {scaleUp: {stabilizationWindowSeconds: 120}, scaleDown: {stabilizationWindowSeconds: 0}}";
    let manifest = object("claimable_slots", &average("1"), 1, 100, behavior);
    let run = simulate(&manifest.autoscaler, &Options { events, ..options(10) }).unwrap();
    let changes: Vec<_> = run.changes.iter().map(|change| (change.at, change.to)).collect();
    assert_eq!(changes, [(120, 5), (135, 10), (300, 4), (465, 8), (480, 10)]);
}

#[test]
fn tolerance_hides_one_replica_of_ten() {
    let events = vec![event("0=others:1"), event("10m=others:0")];
    let behavior = "  behavior: {scaleUp: {tolerance: 0}}";
    let late = Options { events, ..options(11) };
    assert_eq!(path(&object("claimable_slots", &average("1"), 1, 20, ""), &late).last(), Some(&10));
    assert_eq!(path(&object("claimable_slots", &average("1"), 1, 20, behavior), &late).last(), Some(&11));
}

#[test]
fn a_mask_provider_grows_with_the_demand_and_not_below_what_is_held() {
    let text = |metric: &str, target: &str| {
        format!(
            "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: p}}
spec:
  scaleTargetRef: {{apiVersion: vpn.beebs.dev/v1, kind: MaskProvider, name: p}}
  maxReplicas: 20
  metrics:
  - type: Object
    object:
      metric: {{name: {metric}}}
      describedObject: {{apiVersion: vpn.beebs.dev/v1, kind: MaskProvider, name: p}}
      target: {target}
"
        )
    };
    let manifest = one(&text("vpno_provider_slots_demanded", &average("1")));
    let demand = Options { events: vec![event("0=others:9"), event("10m=others:3")], ..options(2) };
    assert_eq!(path(&manifest, &demand), [2, 4, 8, 9, 3]);
    let manifest = one(&text("vpno_provider_slots_demanded", &value(1)));
    assert_eq!(judge(&manifest, &demand), Verdict::Settles { replicas: 2, syncs: 0 }, "a MaskProvider has no Pods");
    assert!(simulate(&manifest.autoscaler, &Options { events: vec![event("1m=slots:3")], ..options(2) }).is_err());
}

#[test]
fn keda_scales_to_zero_and_back() {
    let manifest = scaled_object("  cooldownPeriod: 60", "sum(vpno_claimable_slots{tag=\"a\"})", "");
    let events = vec![event("5m=others:6"), event("15m=others:2")];
    let run = simulate(&manifest.autoscaler, &Options { events, reserve: Some(1), ..options(5) }).unwrap();
    let path: Vec<_> = run.changes.iter().map(|change| (change.at, change.from, change.to)).collect();
    assert_eq!(path, [(0, 0, 1), (0, 1, 4), (360, 4, 0), (900, 0, 1), (900, 1, 2)]);
}

/// Each activation value belongs to its trigger, even if another trigger is left out.
#[test]
fn triggers_about_something_else_are_left_out() {
    let text = "apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: app}
spec:
  scaleTargetRef: {name: app}
  cooldownPeriod: 60
  triggers:
  - type: cron
    metadata: {timezone: Europe/Berlin, start: 0 6 * * *, end: 0 20 * * *, desiredReplicas: \"3\"}
  - type: prometheus
    metadata: {query: vpno_claimable_slots, threshold: \"1\", activationThreshold: \"2\"}
";
    let of = |slots| simulate(&one(text).autoscaler, &options(slots)).unwrap();
    assert!(of(2).changes.is_empty(), "not above the activation value of 2");
    assert!(!of(3).changes.is_empty());
    assert!(of(3).notes[0].contains("cron"));
}

#[test]
fn a_metric_of_pods_is_an_average_of_those_that_are_ready() {
    let manifest = one("apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: server}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: server}
  maxReplicas: 10
  metrics:
  - type: Pods
    pods:
      metric: {name: openvpn_server_connected_clients}
      target: {type: AverageValue, averageValue: 100}
");
    let unknown = simulate(&manifest.autoscaler, &options(10)).unwrap_err();
    assert!(unknown.contains("--metric openvpn_server_connected_clients=EXPRESSION"), "{unknown}");
    let definitions = vec![parse_definition("openvpn_server_connected_clients=520/max(1, ready)").unwrap()];
    let defined = Options { definitions, ..options(10) };
    assert_eq!(judge(&manifest, &defined), Verdict::Settles { replicas: 6, syncs: 2 });
}

#[test]
fn options_without_sense_are_refused() {
    let manifest = object("claimable_slots", &average("1"), 1, 20, "");
    let refused = |options: Options| simulate(&manifest.autoscaler, &options).unwrap_err();
    assert!(refused(Options { sync_period: 0, ..options(5) }).contains("sync period"));
    assert!(refused(Options { duration: u64::MAX, ..options(5) }).contains("seven days"));
    assert!(refused(options(u32::MAX)).contains("at most"));
    assert!(refused(Options { events: vec![event("2h=slots:3")], ..options(5) }).contains("after the end"));
    let refused = object("claimable_slots", &average("1"), 9, 2, "");
    assert!(simulate(&refused.autoscaler, &options(5)).unwrap_err().contains("below the minimum"));
    for bad in ["10m", "10m=slots", "10m=pods:3", "10m=slots:-1", "soon=slots:1", "1.5s=slots:1"] {
        assert!(parse_event(bad).is_err(), "{bad}");
    }
}
