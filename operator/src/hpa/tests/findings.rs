//! The rules of the linter, and manifests that cannot be read.

use super::*;
use crate::hpa::{Finding, Level, corrected, findings};

/// Returns the codes of all findings. Each is explained in the document.
fn codes(manifest: &Manifest) -> Vec<&'static str> {
    let document = include_str!("../../../docs/scaling-tools.md");
    let codes: Vec<_> = findings(manifest, None).iter().map(|finding| finding.code).collect();
    codes.iter().for_each(|code| assert!(document.contains(&format!("`{code}`")), "{code} is not explained"));
    codes
}

fn get(manifest: &Manifest, slots: Option<u32>, code: &str) -> Finding {
    let all = findings(manifest, slots);
    all.iter().find(|finding| finding.code == code).cloned().unwrap_or_else(|| panic!("{all:?}"))
}

#[test]
fn the_recommended_manifest_has_no_findings() {
    assert_eq!(codes(&object("vpno_claimable_slots", &average("1"), 1, 50, GOOD)), Vec::<&str>::new());
}

/// What is left is what only the user can decide.
#[test]
fn the_manifests_of_the_document_have_no_warnings() {
    let document = include_str!("../../../docs/autoscaling.md");
    let blocks = document.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let autoscalers = ["kind: HorizontalPodAutoscaler", "kind: ScaledObject"];
    let manifests: Vec<_> = blocks
        .filter(|block| autoscalers.iter().any(|kind| block.contains(kind)))
        .flat_map(|block| read("autoscaling.md", block).unwrap().manifests)
        .collect();
    assert_eq!(manifests.len(), 5);
    for manifest in manifests {
        let all = findings(&manifest, None);
        assert!(all.iter().all(|finding| finding.level == Level::Info), "{}: {all:?}", manifest.autoscaler.name);
    }
}

#[test]
fn value_on_free_slots_names_the_range_in_which_it_settles() {
    let manifest = object("vpno_provider_slots_free", &value(2), 1, 20, "");
    let finding = get(&manifest, None, "value-on-free");
    assert_eq!(finding.level, Level::Error);
    assert!(finding.message.contains("more than 2 and fewer than 6 slots"), "{}", finding.message);
    assert!(get(&manifest, Some(20), "value-on-free").message.contains("With 20 slots, they oscillate."));
    let stable = object("vpno_provider_slots_free", &value(7), 1, 20, "");
    let finding = get(&stable, Some(20), "value-on-free");
    assert_eq!(finding.level, Level::Warning);
    assert!(finding.message.contains("can settle at 13"), "{}", finding.message);
    let text = corrected(&manifest, None).unwrap().unwrap();
    assert!(text.contains("vpno_claimable_slots") && text.contains("averageValue: \"1\""), "{text}");
    assert!(!text.contains("namespace: default"), "a label that the new metric does not have: {text}");
    assert!(text.contains("kind: Deployment\n        name: app\n      target:"), "it describes the workload: {text}");
    assert!(text.contains("tolerance: 0"), "{text}");
    assert_eq!(codes(&one(&text)), ["slow-return"]);
}

/// Kubernetes reads YAML 1.1: without quotes, these would be booleans and numbers.
#[test]
fn strings_in_a_corrected_manifest_stay_strings() {
    for tag in ["no", "On", "y", "1_000", "685_230.15", "1:30", "0b1", "017", "1", "true", "null", "~"] {
        let mut manifest = object("vpno_tag_slots_free", &value(2), 1, 20, "");
        manifest.raw["metadata"]["labels"]["tag"] = tag.into();
        let text = corrected(&manifest, None).unwrap().unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("tag: ").filter(|it| *it != "default"));
        assert!(line.is_some_and(|it| [format!("'{tag}'"), format!("\"{tag}\"")].contains(&it.to_owned())), "{text}");
        assert_eq!(serde_yaml::from_str::<serde_yaml::Value>(&text).unwrap()["metadata"]["labels"]["tag"], tag);
    }
}

#[test]
fn free_slots_oscillate_with_a_target_up_to_one() {
    let level = |target: &str| {
        let manifest = object("vpno_provider_slots_free", &average(target), 1, 9, "");
        findings(&manifest, Some(20)).into_iter().find(|one| one.code == "average-value-on-free").map(|one| one.level)
    };
    assert_eq!(level("1"), Some(Level::Error));
    assert_eq!(level("500m"), Some(Level::Error));
    assert_eq!(level("2"), Some(Level::Warning));
}

#[test]
fn each_wrong_target_has_a_code() {
    let cases = [
        (object("vpno_tag_slots_free", &average("1"), 1, 9, ""), "average-value-on-free"),
        (object("vpno_claimable_slots", &value(1), 1, 9, ""), "value-on-claimable"),
        (object("vpno_claimable_slots", &average("2"), 1, 9, ""), "claimable-target"),
        (object("vpno_provider_slots_demanded", &average("1"), 1, 9, ""), "own-replicas-counted"),
        (object("vpno_masks_waiting", &average("1"), 1, 9, ""), "waiting-on-workload"),
        (object("vpno_provider_slots", &average("1"), 1, 9, ""), "total-slots"),
        (object("cpu_capacity_remaining", &value(30_000), 15, 150, ""), "value-on-free"),
        (object("mem_capacity_remaining", &value(30_000), 15, 150, ""), "value-on-free"),
        (object("vpno_claimable_slots", &average("1"), 1, 50, ""), "tolerance"),
        (object("vpno_claimable_slots", &average("1"), 1, 10, ""), "tolerance"),
        (object("vpno_claimable_slots", &average("1"), 1, 9, ""), "slow-return"),
        (object("vpno_claimable_slots", &average("1"), 5, 5, ""), "fixed-size"),
        (object("vpno_claimable_slots", &average("1"), 5, 2, ""), "max-below-min"),
        (object("vpno_claimable_slots", &average("1"), 0, 2, ""), "min-zero"),
        (object("vpno_claimable_slots", &average("0"), 1, 9, ""), "target-not-positive"),
        (
            object("vpno_claimable_slots", &average("1"), 1, 9, "  behavior: {scaleUp: {selectPolicy: Disabled}}"),
            "direction-disabled",
        ),
        (
            object("vpno_claimable_slots", &average("1"), 1, 9, "  behavior: {scaleUp: {policies: []}}"),
            "behavior-invalid",
        ),
        (object("vpno_claimable_slots", &average("1"), 1, 9, "  behaviour: {}"), "unknown-field"),
    ];
    for (manifest, code) in cases {
        assert!(codes(&manifest).contains(&code), "{code}: {:?}", findings(&manifest, None));
    }
    let unknown = object("vpno_claimable_slots", &average("1"), 1, 9, "  behaviour: {}");
    assert!(get(&unknown, None, "unknown-field").message.contains("spec.behaviour"));
}

#[test]
fn other_metrics_and_missing_selectors_are_reported() {
    let manifest = one("apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: app}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}
  maxReplicas: 9
  metrics:
  - type: External
    external: {metric: {name: vpno_claimable_slots}, target: {type: AverageValue, averageValue: 1}}
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}
  - type: External
    external: {metric: {name: vpno_provider_slots_free}, target: {type: Value, value: 1}}
  - type: Pods
    pods: {metric: {name: vpno_masks_waiting}, target: {type: AverageValue, averageValue: 1}}
");
    let codes = codes(&manifest);
    for code in ["missing-workload", "other-metric", "several-series", "value-on-free", "slots-of-pods"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    assert!(corrected(&manifest, None).unwrap().unwrap().contains("workload: app"));
    let none = object("queue_length", &average("1"), 1, 9, "");
    assert_eq!(super::findings::codes(&none), Vec::<&str>::new(), "not about slots");
}

/// Returns a HorizontalPodAutoscaler of a StatefulSet with one metric on claimable slots or another metric.
fn metric(source: &str) -> Manifest {
    one(&format!(
        "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: app}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: StatefulSet, name: app}}
  maxReplicas: 9
  behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}
  metrics:
  - {source}
"
    ))
}

fn of_object(name: &str, kind: &str, object: &str, labels: &str) -> Manifest {
    metric(&format!(
        "{{type: Object, object: {{metric: {{name: {name}, selector: {{matchLabels: {{{labels}}}}}}}, \
         describedObject: {{kind: {kind}, name: {object}}}, target: {{type: AverageValue, averageValue: 1}}}}}}"
    ))
}

fn external(name: &str, labels: &str) -> Manifest {
    metric(&format!(
        "{{type: External, external: {{metric: {{name: {name}, selector: {{matchLabels: {{{labels}}}}}}}, \
         target: {{type: AverageValue, averageValue: 1}}}}}}"
    ))
}

#[test]
fn metrics_that_do_not_exist_for_an_object_are_reported_and_corrected() {
    let workload = "workload: app, resource: statefulsets.apps";
    for (manifest, code, corrected_to) in [
        (of_object("vpno_claimable_slots", "StatefulSet", "app", "tag: a, reserve: '2'"), None, None),
        (of_object("vpno_claimable_slots", "MaskProvider", "vpn", ""), Some("not-served"), Some("kind: StatefulSet")),
        (of_object("vpno_claimable_slots", "StatefulSet", "other", ""), Some("other-object"), Some("name: app\n")),
        (of_object("vpno_claimable_slots", "Deployment", "app", ""), Some("other-object"), Some("kind: StatefulSet")),
        (of_object("vpno_tag_slots_free", "StatefulSet", "app", "tag: a"), Some("not-served"), None),
        (of_object("vpno_provider_slots_free", "Service", "app", ""), Some("not-served"), None),
        (of_object("vpno_masks_waiting", "StatefulSet", "app", ""), Some("not-served"), None),
        (of_object("replicas_that_fit", "StatefulSet", "app", "cpu: '1'"), Some("not-served"), Some("kind: Service")),
        (of_object("replicas_that_fit", "Service", "app", "memory: 1Gi, reserve-cpu: '30'"), None, None),
        (of_object("replicas_that_fit", "Service", "app", "reserve-cpu: '30'"), Some("missing-request"), None),
        (external("vpno_claimable_slots", workload), None, None),
        (external("vpno_claimable_slots", "workload: app"), Some("other-object"), Some("resource: statefulsets.apps")),
        (external("vpno_claimable_slots", "workload: b, tag: t"), Some("other-object"), Some("workload: app")),
        (external("vpno_claimable_slots", "tag: t"), Some("missing-workload"), Some("workload: app")),
        (external("replicas_that_fit", "cpu: '1'"), Some("not-served"), None),
        (
            external("vpno_claimable_slots", "workload: app, resource: statefulsets.apps, a: b"),
            Some("unknown-label"),
            Some("workload: app"),
        ),
        (
            of_object("vpno_claimable_slots", "StatefulSet", "app", "tier: a"),
            Some("unknown-label"),
            Some("metric:\n        name: vpno_claimable_slots\n      d"),
        ),
    ] {
        codes(&manifest);
        let all = findings(&manifest, None);
        let about = |finding: &&Finding| {
            ["not-served", "other-object", "missing-request", "missing-workload", "unknown-label"]
                .contains(&finding.code)
        };
        assert_eq!(all.iter().find(about).map(|it| it.code), code, "{all:?}");
        let text = corrected(&manifest, None).unwrap();
        if let Some(corrected_to) = corrected_to {
            let text = text.unwrap();
            assert!(text.contains(corrected_to), "{text}");
            assert_eq!(findings(&one(&text), None).iter().find(about), None, "{text}");
        }
    }
}

#[test]
fn what_the_api_server_refuses_is_refused() {
    let error = |text: &str| read("f.yaml", text).unwrap_err();
    let manifest = |spec: &str| format!("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec: {{{spec}}}");
    let target = "scaleTargetRef: {kind: Deployment, name: a}";
    assert!(
        error(&manifest("maxReplicas: 3, scaleTargetRef: {kind: Deployment}")).contains("spec.scaleTargetRef.name")
    );
    for (metric, field) in [
        ("type: Resource, resource: {name: cpu, target: {type: Utilization}}", "resource.target.averageUtilization"),
        ("type: Resource, resource: {name: cpu, target: {type: Value, value: 1}}", "resource.target.type"),
        (
            "type: ContainerResource, containerResource: {name: cpu, target: {type: AverageValue, averageValue: 1}}",
            "container",
        ),
        ("type: External, external: {metric: {}, target: {type: Value, value: 1}}", "external.metric.name"),
        (
            "type: External, external: {metric: {name: m}, target: {type: Utilization, averageUtilization: 8}}",
            "external.target.type",
        ),
        (
            "type: External, external: {metric: {name: m}, target: {type: Value, value: 1}}, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: 1}}",
            "pods: expected only external",
        ),
        (
            "type: Object, object: {metric: {name: m}, describedObject: {kind: Service}, target: {type: Value, value: 1}}",
            "object.describedObject.name",
        ),
    ] {
        let text = error(&manifest(&format!("maxReplicas: 3, {target}, metrics: [{{{metric}}}]")));
        assert!(text.contains("spec.metrics[0].") && text.contains(field), "{text}");
    }
}

#[test]
fn one_mistake_does_not_hide_the_other_documents() {
    let good = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\n\
                spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: a}}\n";
    let documents = read("f.yaml", &format!("kind: ScaledObject\n---\n{good}---\n: a\n  b: [")).unwrap();
    assert_eq!((documents.manifests.len(), documents.errors.len()), (1, 2), "{documents:?}");
    assert!(documents.errors[0].contains("document 1") && documents.errors[1].contains("document 3"), "{documents:?}");
}

#[test]
fn a_mask_provider_scales_on_the_demand() {
    let provider = |metric: &str, target: &str, max: i32| {
        let text = serde_yaml::to_string(&object(metric, target, 1, max, "").raw).unwrap();
        let text = text.replace("apps/v1", "vpn.beebs.dev/v1").replace("kind: Deployment", "kind: MaskProvider");
        one(&text.replace("name: p\n", "name: app\n"))
    };
    let good = provider("vpno_provider_slots_demanded", &average("1"), 9);
    assert_eq!(codes(&good), ["contract"]);
    assert_eq!(get(&good, None, "contract").level, Level::Info);
    assert!(findings(&good, Some(9)).is_empty());
    let fixed = corrected(&good, Some(5)).unwrap().unwrap();
    assert!(fixed.contains("maxReplicas: 5"), "{fixed}");
    for (metric, target, code) in [
        ("vpno_provider_slots_demanded", average("2"), "provider-target"),
        ("vpno_provider_slots_demanded", value(1), "provider-value"),
        ("vpno_provider_slots_used", average("1"), "used-on-provider"),
        ("vpno_masks_waiting", average("1"), "waiting-on-provider"),
        ("vpno_provider_slots_free", average("1"), "supply-on-provider"),
    ] {
        let manifest = provider(metric, &target, 9);
        assert!(codes(&manifest).contains(&code), "{code}: {:?}", codes(&manifest));
        let text = corrected(&manifest, None).unwrap().unwrap();
        assert!(text.contains("name: vpno_provider_slots_demanded"), "{text}");
    }
}

#[test]
fn scaled_objects_have_rules_of_their_own() {
    let fallback = "  fallback: {failureThreshold: 3, replicas: 2}";
    let manifest = scaled_object(fallback, "vpno_provider_slots_free", "    metricType: Value");
    let codes = codes(&manifest);
    for code in ["fallback-needs-average-value", "value-on-free", "several-series"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    let text = corrected(&manifest, None).unwrap().unwrap();
    assert!(text.contains("query: vpno_claimable_slots") && text.contains("metricType: AverageValue"), "{text}");
    assert!(text.contains("horizontalPodAutoscalerConfig"), "the tolerance: {text}");
    let all = "  pollingInterval: 10
  cooldownPeriod: 60
  initialCooldownPeriod: 0
  minReplicaCount: 1
  maxReplicaCount: 9
  fallback: {failureThreshold: 3, replicas: 2, behavior: static}
  advanced:
    restoreToOriginalReplicaCount: true
    horizontalPodAutoscalerConfig: {name: a, behavior: {scaleDown: {stabilizationWindowSeconds: 0}}}";
    let trigger = "    name: t\n    useCachedMetrics: false\n    authenticationRef: {name: a}";
    let manifest = scaled_object(all, "sum(vpno_claimable_slots{tag=\"a\"})", trigger);
    assert!(findings(&manifest, None).is_empty(), "{:?}", findings(&manifest, None));
    let idle = scaled_object("  idleReplicaCount: 1\n  minReplicaCount: 2", "sum(vpno_claimable_slots)", "");
    assert_eq!(get(&idle, None, "idle-not-zero").level, Level::Warning);
    let paused_with = |value: &str| {
        let mut raw = idle.raw.clone();
        raw["metadata"]["annotations"]["autoscaling.keda.sh/paused"] = value.into();
        super::findings::codes(&Manifest::new("f.yaml", raw).unwrap()).contains(&"paused")
    };
    assert!(paused_with("true") && paused_with("1") && paused_with("yes") && !paused_with("false"));
    let never = scaled_object("  pollingInterval: 0\n  minReplicaCount: 1", "sum(vpno_claimable_slots{tag=\"a\"})", "");
    assert_eq!(get(&never, None, "polling-zero").level, Level::Error);
    assert!(simulate(&never.autoscaler, &options(5)).is_err(), "KEDA does not take it");
    let zero = scaled_object("", "sum(vpno_claimable_slots{tag=\"a\"})", "");
    assert!(super::findings::codes(&zero).contains(&"min-zero-claimable"));
    assert!(!super::findings::codes(&zero).contains(&"missing-tag"));
}

#[test]
fn what_cannot_be_read_is_named_with_file_document_and_field() {
    let error = |text: &str| read("f.yaml", text).unwrap_err();
    assert!(error("").contains("f.yaml: expected a HorizontalPodAutoscaler"));
    assert!(error("kind: Service\napiVersion: v1\nmetadata: {name: a}").contains("Service a"));
    assert!(error("a: 1\n---\n{").contains("document 1: expected an object"));
    assert!(error("kind: Service\n---\nkind: [").contains("document 2"));
    assert!(error("{{ .Values.hpa }}").contains("document 1"));
    let hpa = |spec: &str| error(&format!("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec: {spec}"));
    let wrong = hpa("{maxReplicas: many, scaleTargetRef: {kind: Deployment, name: a}}");
    assert!(wrong.contains("spec.maxReplicas") && wrong.contains("f.yaml, document 1"), "{wrong}");
    let metric = |metric: &str| {
        hpa(&format!("{{maxReplicas: 3, scaleTargetRef: {{kind: Deployment, name: a}}, metrics: [{metric}]}}"))
    };
    assert!(metric("{type: Objekt}").contains("spec.metrics[0].type"));
    assert!(metric("{type: Object}").contains("spec.metrics[0].object: expected it"));
    let target = metric("{type: External, external: {metric: {name: m}, target: {type: Value, value: ten}}}");
    assert!(target.contains("spec.metrics[0].external.target.value") && target.contains("ten"), "{target}");
    let old = error("apiVersion: autoscaling/v2beta1\nkind: HorizontalPodAutoscaler");
    assert!(old.contains("expected autoscaling/v2"), "{old}");
    let list =
        "apiVersion: v1\nkind: List\nitems:\n- {kind: Service, apiVersion: v1}\n- {kind: HorizontalPodAutoscaler}";
    assert!(error(list).contains("item 2"));
}
