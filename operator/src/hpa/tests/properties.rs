//! What holds for all autoscalers.

use proptest::prelude::*;

use super::*;
use crate::hpa::{Event, corrected, findings};

const METRICS: [&str; 8] = [
    "vpno_provider_slots_free",
    "vpno_claimable_slots",
    "vpno_provider_slots_demanded",
    "vpno_provider_slots_used",
    "vpno_masks_waiting",
    "vpno_provider_slots",
    "cpu_capacity_remaining",
    "replicas_that_fit",
];

fn behaviors() -> impl Strategy<Value = String> {
    let rules = (0..400_u32, 1..10_u32, 15..120_u32, prop::bool::ANY, prop::sample::select(vec!["Max", "Min"]));
    let rules = rules.prop_map(|(window, value, period, percent, select)| {
        let (kind, value) = if percent { ("Percent", value * 30) } else { ("Pods", value) };
        format!(
            "{{stabilizationWindowSeconds: {window}, selectPolicy: {select}, policies: [{{type: {kind}, value: \
             {value}, periodSeconds: {period}}}, {{type: Pods, value: 2, periodSeconds: 60}}]}}"
        )
    });
    let both =
        (rules.clone(), rules).prop_map(|(up, down)| format!("  behavior: {{scaleUp: {up}, scaleDown: {down}}}"));
    prop_oneof![Just(String::new()), Just(AT_ONCE.to_owned()), both]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0..1200_u64, prop::bool::ANY, 0..60_u32).prop_map(|(at, slots, value)| Event { at, slots, value });
    prop::collection::vec(event, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn replicas_stay_within_the_range_and_slots_within_their_number(
        metric in prop::sample::select(METRICS.to_vec()),
        by_value in prop::bool::ANY,
        target in 1..40_u32,
        (min, more) in (1..10_i32, 0..60_i32),
        slots in 0..60_u32,
        start in 0..80_u32,
        behavior in behaviors(),
        events in events(),
        (pod_delay, metric_delay) in (0..60_u64, 0..60_u64),
    ) {
        let target = if by_value { value(target) } else { average(&target.to_string()) };
        let manifest = object(metric, &target, min, min + more, &behavior);
        let options = Options { start: Some(start), events, pod_delay, metric_delay, ..options(slots) };
        let run = simulate(&manifest.autoscaler, &options).unwrap();
        for (second, at) in run.seconds.iter().enumerate() {
            let replicas = at.replicas as i32;
            prop_assert!(start == 0 && replicas == 0 || (min..=min + more).contains(&replicas), "{second}: {replicas}");
            prop_assert!(at.used() <= at.slots, "{second}: {at:?}");
        }
    }

    #[test]
    fn claimable_slots_with_average_value_one_always_settle(
        min in 1..10_i32,
        more in 0..60_i32,
        slots in 0..60_u32,
        start in 1..80_u32,
        reserve in 0..5_u32,
        behavior in behaviors(),
        events in events(),
        (pod_delay, metric_delay) in (0..60_u64, 0..60_u64),
    ) {
        let manifest = object("vpno_claimable_slots", &average("1"), min, min + more, &behavior);
        let options = Options {
            start: Some(start),
            reserve: Some(reserve),
            duration: 7200,
            events,
            pod_delay,
            metric_delay,
            ..options(slots)
        };
        let verdict = judge(&manifest, &options);
        let settled =
            matches!(verdict, Verdict::Settles { .. } | Verdict::Saturates { .. } | Verdict::NeverMoves { .. });
        prop_assert!(settled, "{verdict}");
    }

    #[test]
    fn without_tolerance_exactly_the_claimable_slots_are_used(
        slots in 0..60_u32,
        others in 0..60_u32,
        reserve in 0..5_u32,
        start in 1..60_u32,
    ) {
        let manifest = object("vpno_claimable_slots", &average("1"), 1, 100, GOOD);
        let events = vec![Event { at: 600, slots: false, value: others }];
        let options = Options { start: Some(start), reserve: Some(reserve), events, ..options(slots) };
        let run = simulate(&manifest.autoscaler, &options).unwrap();
        let wanted = slots.saturating_sub(others + reserve).max(1);
        prop_assert_eq!(run.seconds.last().unwrap().replicas, wanted);
        prop_assert!(run.changes.iter().all(|change| change.at < 600 + 120), "{:?}", run.changes);
    }

    #[test]
    fn a_corrected_manifest_is_not_corrected_again_and_settles(
        metric in prop::sample::select(METRICS.to_vec()),
        by_value in prop::bool::ANY,
        target in 1..40_u32,
        (min, more) in (1..10_i32, 1..60_i32),
        slots in 1..60_u32,
        provider in prop::bool::ANY,
    ) {
        let target = if by_value { value(target) } else { average(&target.to_string()) };
        let mut manifest = object(metric, &target, min, min + more, "");
        if provider {
            let text = serde_yaml::to_string(&manifest.raw).unwrap();
            let text = text.replace("apps/v1", "vpn.beebs.dev/v1");
            manifest = one(&text.replace("kind: Deployment", "kind: MaskProvider"));
        }
        if let Some(text) = corrected(&manifest, None).unwrap() {
            manifest = one(&text);
        }
        prop_assert_eq!(corrected(&manifest, None).unwrap(), None);
        let found = findings(&manifest, None);
        prop_assert!(found.iter().all(|finding| finding.level != crate::hpa::Level::Error), "{:?}", found);
        let events = vec![Event { at: 0, slots: false, value: slots / 3 }];
        let verdict = judge(&manifest, &Options { events, ..options(slots) });
        prop_assert!(!matches!(verdict, Verdict::Oscillates { .. } | Verdict::Unfinished { .. }), "{}", verdict);
    }
}
