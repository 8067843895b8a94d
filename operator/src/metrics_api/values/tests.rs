#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;
use crate::{
    metrics::TagSlots,
    metrics_api::names::{custom_names, external_names},
    state::Tags,
};

fn provider(slots: u64, used: u64, tag: &str, namespaces: Option<&[&str]>) -> ProviderSlots {
    let tags = |tags: &[&str]| -> Tags { tags.iter().map(|tag| Arc::from(*tag)).collect() };
    ProviderSlots {
        slots,
        used,
        held: 0,
        free: slots - used,
        demanded: used + 1,
        usable: true,
        open: true,
        draining: false,
        tags: tags(&[tag]),
        namespaces: namespaces.map(tags),
        labels: [(Arc::from("tier"), Arc::from(tag))].into(),
        assignable: slots,
        users: [(None, used)].into(),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        providers: [
            (ObjectKey::new("vpn", "eu"), provider(5, 2, "eu", None)),
            (ObjectKey::new("vpn", "us"), provider(3, 3, "us", None)),
            (ObjectKey::new("other", "own"), provider(9, 0, "eu", Some(&["other"]))),
        ]
        .into(),
        tags: [(Arc::from("eu"), TagSlots { free: 12, waiting: 4 }), (Arc::from("us"), TagSlots::default())].into(),
        ..Snapshot::default()
    }
}

fn custom(resource: &str, objects: &Objects, metric: &str, selector: &str) -> Result<Vec<Value>, NoValue> {
    let snapshot = snapshot();
    let values = Values { snapshot: &snapshot, prefix: "vpno", now: Utc::now() };
    values.custom(&CustomQuery {
        namespace: "vpn".to_owned(),
        resource: resource.to_owned(),
        objects: objects.clone(),
        metric: metric.to_owned(),
        selector: Selector::parse(selector).unwrap(),
    })
}

fn named(name: &str) -> Objects {
    Objects::Named(name.to_owned())
}

fn external(namespace: &str, metric: &str, selector: &str) -> Result<Vec<(String, f64)>, NoValue> {
    let snapshot = snapshot();
    let values = Values { snapshot: &snapshot, prefix: "vpno", now: Utc::now() };
    let found = values.external(namespace, metric, &Selector::parse(selector).unwrap())?;
    let label = |value: &Value| value.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    Ok(found.iter().map(|value| (label(value).join(","), value.value)).collect())
}

#[test]
fn a_named_object_has_one_value() {
    for (name, ..) in PROVIDER {
        let values = custom(MASK_PROVIDERS, &named("eu"), &format!("vpno_{name}"), "").unwrap();
        assert_eq!(values.len(), 1, "{name}");
    }
    let demanded = custom(MASK_PROVIDERS, &named("eu"), "vpno_provider_slots_demanded", "").unwrap();
    assert_eq!(demanded[0].value, 3.0);
    assert_eq!(demanded[0].object.as_ref().unwrap().kind, "MaskProvider");
    let masks = custom(NAMESPACES, &named("vpn"), "vpno_masks", "").unwrap();
    assert_eq!((masks.len(), masks[0].value), (1, 0.0));
}

#[test]
fn objects_are_selected_by_their_labels() {
    let of = |selector: &str| {
        let objects = Objects::Selected(Selector::parse(selector).unwrap());
        let values = custom(MASK_PROVIDERS, &objects, "vpno_provider_slots", "").unwrap();
        values.iter().map(|value| value.object.as_ref().unwrap().name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(""), ["eu", "us"], "those of the namespace");
    assert_eq!(of("tier=us"), ["us"]);
    assert_eq!(of("tier notin (eu,us)"), Vec::<String>::new());
}

#[test]
fn a_workload_may_claim_the_slots_that_others_leave() {
    let claimable = |selector: &str| {
        custom("deployments.apps", &named("app"), "vpno_claimable_slots", selector).map(|values| values[0].value)
    };
    assert_eq!(claimable(""), Ok(3.0));
    assert_eq!(claimable("tag=eu,reserve=1"), Ok(2.0));
    assert_eq!(claimable("tag=us"), Ok(0.0));
    assert!(matches!(claimable("tag=asia"), Err(NoValue::NotFound(why)) if why.contains("asia")));
    for selector in ["reserve=x", "reserve=-1", "unknown=1", "tag!=eu", "priority=high"] {
        assert!(matches!(claimable(selector), Err(NoValue::BadRequest(_))), "{selector}");
    }
}

#[test]
fn what_does_not_exist_is_not_found_and_never_0() {
    for (resource, name, metric) in [
        (MASK_PROVIDERS, "gone", "vpno_provider_slots"),
        (MASK_PROVIDERS, "own", "vpno_provider_slots"),
        (MASK_PROVIDERS, "eu", "vpno_masks"),
        (MASK_PROVIDERS, "eu", "provider_slots"),
        (MASK_PROVIDERS, "eu", "vpno_claimable_slots"),
        (NAMESPACES, "vpn", "vpno_provider_slots"),
        ("deployments.apps", "app", "vpno_provider_slots"),
        ("services", "app", "vpno_claimable_slots"),
    ] {
        let found = custom(resource, &named(name), metric, "");
        let is_missing = matches!(found, Err(NoValue::NotFound(_) | NoValue::UnknownMetric(_)));
        assert!(is_missing, "{resource} {name} {metric}: {found:?}");
    }
    let Err(NoValue::UnknownMetric(why)) = external("vpn", "vpno_other", "") else { panic!() };
    assert!(why.contains("vpno_tag_slots_free"), "{why}");
}

#[test]
fn external_metrics_are_those_of_the_providers_that_a_namespace_may_use() {
    let free = |namespace: &str, selector: &str| external(namespace, "vpno_provider_slots_free", selector).unwrap();
    assert_eq!(
        free("media", ""),
        [("namespace=vpn,provider=eu".to_owned(), 3.0), ("namespace=vpn,provider=us".to_owned(), 0.0)]
    );
    assert_eq!(free("media", "provider=us"), [("namespace=vpn,provider=us".to_owned(), 0.0)]);
    assert_eq!(free("other", "provider=own"), [("namespace=other,provider=own".to_owned(), 9.0)]);
    let tags = |namespace: &str| external(namespace, "vpno_tag_slots_free", "tag=eu").unwrap();
    assert_eq!(tags("media"), [("tag=eu".to_owned(), 3.0)]);
    assert_eq!(tags("other"), [("tag=eu".to_owned(), 12.0)]);
    assert_eq!(external("media", "vpno_tag_masks_waiting", "tag=eu").unwrap(), [("tag=eu".to_owned(), 4.0)]);
    let claimable = external("media", "vpno_claimable_slots", "workload=app,tag=eu").unwrap();
    assert_eq!(claimable, [("tag=eu,workload=app".to_owned(), 3.0)]);
    let without = external("media", "vpno_claimable_slots", "tag=eu");
    assert!(matches!(without, Err(NoValue::BadRequest(_))), "{without:?}");
}

#[test]
fn a_claim_for_the_exporter_is_parsed() {
    let claim = parse_claim("namespace=media,workload=app,tag=eu,reserve=2").unwrap();
    assert_eq!((&*claim.workload.namespace, &*claim.workload.workload.resource), ("media", "deployments.apps"));
    assert_eq!((claim.tag.as_deref(), claim.reserve, claim.priority), (Some("eu"), 2, None));
    for text in ["", "workload=app", "namespace=media", "namespace=media,workload=app,reserve=x", "a b"] {
        assert!(parse_claim(text).is_err(), "{text}");
    }
}

#[test]
fn every_name_that_discovery_lists_is_answered() {
    for name in custom_names("vpno") {
        let (resource, metric) = name.split_once('/').unwrap();
        let object = if resource == MASK_PROVIDERS { "eu" } else { "vpn" };
        assert!(custom(resource, &named(object), metric, "").is_ok(), "{name}");
    }
    for name in external_names("vpno") {
        let selector = if name.ends_with(CLAIMABLE) { "workload=app" } else { "" };
        assert!(external("vpn", &name, selector).is_ok(), "{name}");
    }
}
