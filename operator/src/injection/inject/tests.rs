#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;
use vpn_types::inject::{ANNOTATIONS, Surge};

use super::*;

fn labels(level: &str) -> BTreeMap<String, String> {
    [("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned())].into()
}

fn pod(annotations: Value, spec: Value) -> Value {
    let mut all = json!({"containers": [{"name": "app", "image": "app"}]});
    json_patch::merge(&mut all, &spec);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "scraper-6f-", "labels": {INJECT_LABEL: "true"}, "annotations": annotations},
        "spec": all,
    })
}

fn answer_in(namespace: &BTreeMap<String, String>, pod: &Value, mask: MaskSecret, minor: u32) -> Answer {
    let defaults =
        Defaults { image: "gluetun:1".to_owned(), resources: None, outbound_subnets: vec!["10.0.0.0/8".into()] };
    decide(pod, &Inputs { namespace_labels: namespace, minor, defaults: &defaults, suffix: "abc123", mask })
}

fn answer(pod: &Value) -> Answer {
    answer_in(&BTreeMap::new(), pod, MaskSecret::NoMask, 36)
}

fn injected(pod: &Value) -> Value {
    match answer(pod) {
        Answer::Changed(new) => new,
        other => panic!("{other:?}"),
    }
}

fn refusal(pod: &Value) -> String {
    match answer(pod) {
        Answer::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

fn decision(new: &Value) -> Injected {
    serde_json::from_str(new["metadata"]["annotations"][INJECTED_ANNOTATION].as_str().unwrap()).unwrap()
}

#[test]
fn a_labeled_pod_waits_for_its_slot_behind_the_sidecar() {
    let new = injected(&pod(json!(null), json!({"initContainers": [{"name": "setup", "image": "setup"}]})));
    assert_eq!(new["spec"]["schedulingGates"], json!([{"name": SLOT_GATE}]));
    let names: Vec<_> = new["spec"]["initContainers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["vpn", "setup"]);
    let sidecar = &new["spec"]["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["envFrom"], json!([{"secretRef": {"name": "scraper-6f-abc123"}}]));
    let annotation = json!({"fieldRef": {"fieldPath": "metadata.annotations['vpn.beebs.dev/injected']"}});
    assert_eq!(
        sidecar["env"],
        json!([
            {"name": "FIREWALL_OUTBOUND_SUBNETS", "value": "10.0.0.0/8"},
            {"name": "VPN_OPERATOR_INJECTED", "valueFrom": annotation},
        ])
    );
    assert_eq!(new["spec"]["enableServiceLinks"], json!(false));
    let decision = decision(&new);
    assert_eq!(decision.secret, "scraper-6f-abc123");
    assert_eq!((decision.mask, decision.surge), (None, Surge::Evict));
    // It is still a Pod.
    let typed: Pod = serde_json::from_value(new).unwrap();
    assert_eq!(typed.spec.unwrap().volumes.unwrap()[0].name, gluetun::VOLUME);
}

#[test]
fn other_pods_are_left_alone() {
    for label in [json!({}), json!({INJECT_LABEL: "false"})] {
        let mut other = pod(json!({"vpn.beebs.dev/nonsense": "x"}), json!({"hostNetwork": true}));
        other["metadata"]["labels"] = label;
        assert_eq!(answer(&other), Answer::Unchanged);
    }
}

#[test]
fn annotations_reach_the_sidecar_and_the_mask() {
    let new = injected(&pod(
        json!({
            "vpn.beebs.dev/providers": "uk, eu", "vpn.beebs.dev/priority": "7", "vpn.beebs.dev/image": "own:2",
            "vpn.beebs.dev/resources": r#"{"limits":{"memory":"1Gi"}}"#, "vpn.beebs.dev/surge": "wait",
            "vpn.beebs.dev/outbound-subnets": "192.168.0.0/16", "vpn.beebs.dev/input-ports": "80,443",
        }),
        json!({}),
    ));
    let sidecar = &new["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "own:2");
    assert_eq!(sidecar["resources"], json!({"limits": {"memory": "1Gi"}}));
    let env = sidecar["env"].as_array().unwrap();
    assert!(env.contains(&json!({"name": "FIREWALL_OUTBOUND_SUBNETS", "value": "192.168.0.0/16"})));
    assert!(env.contains(&json!({"name": "FIREWALL_INPUT_PORTS", "value": "80,443"})));
    let decision = decision(&new);
    assert_eq!(decision.providers, Some(vec!["uk".to_owned(), "eu".to_owned()]));
    assert_eq!((decision.priority, decision.surge), (Some(7), Surge::Wait));
}

#[test]
fn declared_and_probed_ports_are_reachable() {
    let container = json!({
        "name": "app", "image": "app", "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"port": 9000}}, "livenessProbe": {"tcpSocket": {"port": "http"}},
    });
    let new = injected(&pod(json!(null), json!({"containers": [container]})));
    let env = new["spec"]["initContainers"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({"name": "FIREWALL_INPUT_PORTS", "value": "8080,9000"})));
}

#[test]
fn a_vpn_container_of_ones_own_gets_the_secret() {
    let own = json!({"containers": [{"name": "vpn", "image": "qmcgaw/gluetun"}]});
    let new = injected(&pod(json!({"vpn.beebs.dev/sidecar": "none"}), own));
    assert_eq!(new["spec"]["initContainers"], json!(null));
    assert_eq!(new["spec"]["containers"][0]["env"], json!([{"name": "VPN_SECRET", "value": "scraper-6f-abc123"}]));
    assert_eq!(new["spec"]["volumes"][0]["secret"]["secretName"], "scraper-6f-abc123");
    // As a template has to declare it.
    let with_volume = |volume: Value| {
        pod(json!({"vpn.beebs.dev/sidecar": "none"}), json!({"volumes": [{"name": "data", "emptyDir": {}}, volume]}))
    };
    let declared = injected(&with_volume(json!({"name": "vpn-credentials", "emptyDir": {}})));
    let secret = json!({"name": "vpn-credentials", "secret": {"secretName": "scraper-6f-abc123"}});
    assert_eq!(declared["spec"]["volumes"], json!([{"name": "data", "emptyDir": {}}, secret]));
    assert_eq!(answer(&declared), Answer::Unchanged);
    let other = with_volume(json!({"name": "vpn-credentials", "secret": {"secretName": "mine"}}));
    assert!(refusal(&other).contains("emptyDir: {}"));
    let restricted = answer_in(
        &labels("restricted"),
        &pod(json!({"vpn.beebs.dev/sidecar": "none"}), json!({})),
        MaskSecret::NoMask,
        36,
    );
    assert!(matches!(restricted, Answer::Changed(_)));
}

#[test]
fn a_shared_mask_decides_about_the_secret() {
    let shared = pod(json!({"vpn.beebs.dev/mask": "shared"}), json!({}));
    assert_eq!(wanted_mask(&shared), Some("shared"));
    let answer = |mask| answer_in(&BTreeMap::new(), &shared, mask, 36);
    let Answer::Changed(new) = answer(MaskSecret::Known("creds".to_owned())) else { panic!() };
    assert_eq!(new["spec"]["initContainers"][0]["envFrom"][0]["secretRef"]["name"], "creds");
    assert_eq!(decision(&new).mask.as_deref(), Some("shared"));
    assert!(matches!(answer(MaskSecret::NoMask), Answer::Refused(why) if why.contains("no Mask shared")));
    assert!(matches!(answer(MaskSecret::NotKnown), Answer::Refused(why) if why.contains("spec.secretName")));
}

#[test]
fn refusals_say_what_to_do_instead() {
    let refused = |spec: Value| refusal(&pod(json!({}), spec));
    assert!(refused(json!({"hostNetwork": true})).contains("remove hostNetwork"));
    assert!(refused(json!({"nodeName": "n1"})).contains("nodeSelector"));
    assert!(refused(json!({"schedulingGates": [{"name": SLOT_GATE}]})).contains("remove it"));
    assert!(refused(json!({"os": {"name": "windows"}})).contains("Linux"));
    let second = json!({"containers": [{"name": "other", "image": "ghcr.io/qdm12/gluetun:latest"}]});
    assert!(refused(second).contains("vpn.beebs.dev/sidecar: none"));
    assert!(refused(json!({"containers": [{"name": "vpn", "image": "x"}]})).contains("rename"));
    let volume = json!({"volumes": [{"name": "vpn-credentials", "emptyDir": {}}]});
    assert!(refused(volume).contains("rename the volume"));
    let in_namespace = |level| answer_in(&labels(level), &pod(json!({}), json!({})), MaskSecret::NoMask, 36);
    for level in ["baseline", "restricted"] {
        let told = |why: &str| why.contains("pod-security.kubernetes.io/enforce: privileged");
        assert!(matches!(in_namespace(level), Answer::Refused(why) if told(&why)));
    }
    assert!(matches!(in_namespace("privileged"), Answer::Changed(_)));
    let old = answer_in(&BTreeMap::new(), &pod(json!({}), json!({})), MaskSecret::NoMask, 28);
    assert!(matches!(old, Answer::Refused(why) if why.contains("1.30")));
    let mut odd = pod(json!({}), json!({}));
    odd["metadata"]["labels"][INJECT_LABEL] = json!("yes");
    assert!(refusal(&odd).contains("expected \"true\""));
}

#[test]
fn a_bad_annotation_is_named() {
    for name in ANNOTATIONS {
        let bad = pod(json!({name: "! no good"}), json!({}));
        // Any text is a tag.
        if name != "vpn.beebs.dev/providers" {
            assert!(refusal(&bad).contains(name), "{name}");
        }
        let mut label = pod(json!({}), json!({}));
        label["metadata"]["labels"][name] = json!("x");
        assert!(refusal(&label).contains("as an annotation"));
    }
    let unknown = refusal(&pod(json!({"vpn.beebs.dev/provider": "uk"}), json!({})));
    assert!(unknown.contains("vpn.beebs.dev/provider:") && unknown.contains("providers, priority"), "{unknown}");
    assert!(
        refusal(&pod(json!({"vpn.beebs.dev/mask": "m", "vpn.beebs.dev/priority": "1"}), json!({})))
            .contains("priority")
    );
    assert!(
        refusal(&pod(json!({"vpn.beebs.dev/sidecar": "none", "vpn.beebs.dev/image": "x"}), json!({})))
            .contains("image")
    );
}

#[test]
fn a_second_call_changes_only_the_order() {
    let mut new = injected(&pod(json!({}), json!({"initContainers": [{"name": "setup", "image": "s"}]})));
    assert_eq!(answer(&new), Answer::Unchanged);
    // Another webhook put its container in front.
    let istio = json!({"name": "istio-init", "image": "i"});
    new["spec"]["initContainers"].as_array_mut().unwrap().insert(0, istio);
    let Answer::Changed(again) = answer(&new) else { panic!() };
    let names: Vec<_> = again["spec"]["initContainers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["vpn", "istio-init", "setup"]);
    assert_eq!(decision(&again), decision(&new));
}

#[test]
fn a_pod_that_claims_to_be_injected_is_checked() {
    let claims = |change: fn(&mut Value)| {
        let mut new = injected(&pod(json!({}), json!({})));
        change(&mut new);
        refusal(&new)
    };
    let reserved = "annotation vpn.beebs.dev/injected is reserved";
    assert!(claims(|pod| pod["spec"]["initContainers"] = json!([])).contains(reserved));
    assert!(claims(|pod| pod["spec"]["volumes"] = json!([])).contains(reserved));
    assert!(claims(|pod| pod["metadata"]["annotations"][INJECTED_ANNOTATION] = json!("junk")).contains(reserved));
    assert!(claims(|pod| pod["spec"]["hostNetwork"] = json!(true)).contains("remove hostNetwork"));
    assert!(claims(|pod| pod["spec"]["nodeName"] = json!("n1")).contains("nodeSelector"));
}

#[test]
fn the_copy_of_a_running_pod_gets_a_slot_of_its_own() {
    let mut copy = injected(&pod(json!({}), json!({})));
    copy["spec"]["schedulingGates"] = json!([]);
    copy["metadata"]["name"] = json!("debug");
    let again = injected(&copy);
    assert_eq!(decision(&again).secret, "debug-abc123");
    assert_eq!(again["spec"]["initContainers"].as_array().unwrap().len(), 1);
    assert_eq!(again["spec"]["volumes"].as_array().unwrap().len(), 1);
}

/// The webhook must not take the VPN client of the user for its own.
#[test]
fn the_copy_of_a_pod_with_a_vpn_container_of_its_own_keeps_it() {
    let client = json!({
        "name": "vpn", "image": "openvpn", "restartPolicy": "Always",
        "volumeMounts": [{"name": "vpn-credentials", "mountPath": "/vpn"}],
    });
    let none = json!({"vpn.beebs.dev/sidecar": "none"});
    let mut copy = injected(&pod(none, json!({"initContainers": [client]})));
    copy["spec"]["schedulingGates"] = json!([]);
    let again = injected(&copy);
    assert_eq!(again["spec"]["initContainers"][0]["image"], "openvpn");
    assert_eq!(again["spec"]["initContainers"][0]["env"].as_array().unwrap().len(), 1);
    assert_eq!(again["spec"]["volumes"].as_array().unwrap().len(), 1);
}

/// As `kubectl debug --copy-to --keep-labels` makes it.
#[test]
fn a_copy_without_annotations_is_refused() {
    let mut copy = injected(&pod(json!({}), json!({})));
    copy["spec"]["schedulingGates"] = json!([]);
    copy["metadata"]["annotations"] = json!({});
    assert!(refusal(&copy).contains("--keep-annotations"));
}

#[test]
fn the_end_of_an_injected_pod_can_be_seen() {
    let grace_period = |given: Value| {
        injected(&pod(json!({}), json!({"terminationGracePeriodSeconds": given})))["spec"]["terminationGracePeriodSeconds"]
            .clone()
    };
    assert_eq!(grace_period(json!(0)), 1);
    assert_eq!(grace_period(json!(7)), 7);
    assert_eq!(grace_period(json!(null)), Value::Null);
}

#[test]
fn gluetun_listens_where_the_app_does_not() {
    let app = |ports: Value| {
        let new = injected(&pod(json!({}), json!({"containers": [{"name": "app", "image": "app", "ports": ports}]})));
        let env = new["spec"]["initContainers"][0]["env"].as_array().unwrap().clone();
        env.into_iter().filter(|one| one["name"].as_str().unwrap().ends_with("_ADDRESS")).collect::<Vec<_>>()
    };
    assert_eq!(app(json!([{"containerPort": 8080}])), [] as [Value; 0]);
    assert_eq!(
        app(json!([{"containerPort": 8000}, {"containerPort": 8001}])),
        [json!({"name": "HTTP_CONTROL_SERVER_ADDRESS", "value": ":8002"})]
    );
    assert_eq!(
        app(json!([{"containerPort": 9999}])),
        [json!({"name": "HEALTH_SERVER_ADDRESS", "value": "127.0.0.1:10000"})]
    );
}

/// The API server checks that the resources of the containers fit in those of the Pod.
#[test]
fn resources_of_the_pod_replace_the_defaults_of_the_sidecar() {
    let requests = |bytes: &str| json!({"requests": {"memory": bytes}});
    let resources = |annotations: Value, spec: Value| {
        let defaults = Defaults {
            image: "gluetun:1".to_owned(),
            resources: serde_json::from_value(requests("64Mi")).unwrap(),
            outbound_subnets: Vec::new(),
        };
        let inputs = Inputs {
            namespace_labels: &BTreeMap::new(),
            minor: 36,
            defaults: &defaults,
            suffix: "abc123",
            mask: MaskSecret::NoMask,
        };
        let Answer::Changed(new) = decide(&pod(annotations, spec), &inputs) else { panic!() };
        new["spec"]["initContainers"][0]["resources"].clone()
    };
    assert_eq!(resources(json!({}), json!({})), requests("64Mi"));
    assert_eq!(resources(json!({}), json!({"resources": requests("70Mi")})), Value::Null);
    let annotation = json!({"vpn.beebs.dev/resources": requests("32Mi").to_string()});
    assert_eq!(resources(annotation, json!({"resources": requests("70Mi")})), requests("32Mi"));
}

#[test]
fn a_bad_name_of_a_mask_is_not_looked_up() {
    let named = |name: &str| pod(json!({"vpn.beebs.dev/mask": name}), json!({}));
    assert_eq!(wanted_mask(&named("shared")), Some("shared"));
    for name in ["my mask", "", "a/b"] {
        assert_eq!(wanted_mask(&named(name)), None);
        assert!(refusal(&named(name)).contains("annotation vpn.beebs.dev/mask: expected the name"));
    }
}

proptest! {
    /// The API server checks the name of a Pod only after the webhooks.
    #[test]
    fn any_name_is_answered(name in ".{0,300}") {
        let mut before = pod(json!({}), json!({}));
        before["metadata"]["name"] = json!(name);
        answer(&before);
    }

    /// Whatever the webhook adds, it takes nothing away, and a second call finds nothing to do.
    #[test]
    fn nothing_is_lost(name in "[a-z][a-z0-9-]{0,60}", field in "[a-zA-Z]{1,12}", containers in 1..4usize) {
        let containers: Vec<_> = (0..containers).map(|n| json!({"name": format!("c{n}"), "image": "i"})).collect();
        let mut before = pod(json!({"other/annotation": "kept"}), json!({"containers": containers, "priority": 3}));
        before["metadata"]["name"] = json!(name);
        // A field of a later version of Kubernetes.
        before["spec"][format!("x{field}")] = json!({"some": [1, 2]});
        let after = injected(&before);
        let patch = json_patch::diff(&before, &after);
        let removes = patch.0.iter().any(|operation| matches!(operation, json_patch::PatchOperation::Remove(_)));
        prop_assert!(!removes);
        prop_assert_eq!(&after["spec"]["containers"], &before["spec"]["containers"]);
        prop_assert_eq!(answer(&after), Answer::Unchanged);
        let secret = decision(&after).secret;
        prop_assert!(secret.len() <= vpn_types::MAX_MASK_NAME && secret.ends_with("-abc123"));
        prop_assert!(super::super::value::name(&secret).is_ok(), "{}", secret);
    }
}
