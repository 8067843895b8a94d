//! Tests of `/metrics`: the names, the values, and that no series outlives its object.

#![allow(clippy::unwrap_used, reason = "a test")]

mod sample;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path, time::Duration};

use serde_json::json;
use vpn_operator::{
    controllers::{
        Controller, pods, servers,
        table::{self, CONTROLLERS},
    },
    engine::{Engine, Input},
    metrics::{Metrics, Snapshot},
    model::{Kind, Now, ObjectKey, Operation, ReconcileRequest},
    state::{Object, Outcome, WatchEvent},
};
use vpn_types::MaskConsumerPhase;

use sample::*;

#[test]
fn slots_and_masks_are_counted() {
    let objects = [provider("paris", 3, &["eu", "fr"], "Active"), provider("rome", 2, &["eu"], "ErrVerifyFailed")];
    let objects = objects.into_iter().chain(active("apps", "one", "paris", 0)).chain([
        waiting("apps", "two", Some(&["eu", "fr", "mars"])),
        waiting("other", "three", None),
        consumer("other", "four", Some(&["mars"]), json!({"phase": "ErrNoProviders"})),
    ]);
    let snapshot = Snapshot::of(&engine(objects));
    let paris = &snapshot.providers[&ObjectKey::new("vpn", "paris")];
    assert_eq!((paris.slots, paris.used, paris.free, paris.held), (3, 1, 2, 0));
    assert_eq!((paris.usable, paris.demanded), (true, 3), "rome cannot serve: both are demanded of paris");
    let rome = &snapshot.providers[&ObjectKey::new("vpn", "rome")];
    assert_eq!((rome.usable, rome.free, rome.demanded), (false, 2, 0));
    let tag = |tag: &str| snapshot.tags.get(tag).map(|slots| (slots.free, slots.waiting));
    assert_eq!((tag("eu"), tag("fr"), tag("mars")), (Some((2, 1)), Some((2, 1)), None));
    let other = &snapshot.namespaces["other"];
    assert_eq!((other.in_phase(MaskConsumerPhase::ErrNoProviders), other.waiting), (1, 2));
    assert_eq!(other.waiting_since, CREATED.parse().ok());
}

#[test]
fn masks_that_match_several_providers_are_shared_evenly_and_counted_once() {
    let providers = [("a", &["x", "y"]), ("b", &["x", "z"]), ("c", &["x", "w"])];
    let providers = providers.map(|(name, tags)| provider(name, 1, tags, "Ready"));
    let shared = (0..7).map(|number| waiting("apps", &format!("shared-{number}"), Some(&["x"])));
    let only_b = (0..3).map(|number| waiting("apps", &format!("only-b-{number}"), Some(&["z"])));
    let snapshot = Snapshot::of(&engine(providers.into_iter().chain(shared).chain(only_b)));
    // The remainder goes to the provider with the lowest demand.
    assert_eq!(["a", "b", "c"].map(|name| demanded(&snapshot, name)), [3, 5, 2]);
}

#[test]
fn a_slot_that_is_being_released_is_held_and_one_beyond_the_limit_makes_the_provider_drain() {
    let [consumer, reservation] = active("apps", "one", "paris", 4);
    let Object::Consumer(mut deleting) = consumer else { unreachable!() };
    deleting.meta.deleting = true;
    let objects = [provider("paris", 2, &["eu"], "Active"), Object::Consumer(deleting), reservation];
    let snapshot = Snapshot::of(&engine(objects));
    let paris = &snapshot.providers[&ObjectKey::new("vpn", "paris")];
    assert_eq!((paris.used, paris.held, paris.free, paris.draining), (0, 1, 0, true));
    assert_eq!(snapshot.namespaces["apps"].in_phase(MaskConsumerPhase::Terminating), 1);
    assert_eq!(snapshot.namespaces["apps"].waiting, 0);
}

/// Returns a Secret of the server `home`.
#[test]
fn the_metrics_of_1_0_1_exist() {
    let names: BTreeSet<String> = shown().into_iter().map(|metric| metric.name).collect();
    let what = ["reconcile_counter", "action_counter", "read_duration_seconds", "write_duration_seconds"];
    let of_controller = |controller: &Controller| what.map(|what| format!("vpno_{}_{what}", controller.name));
    let is_new = |controller: &&Controller| [pods::NAME, servers::NAME].contains(&controller.name);
    let old = CONTROLLERS.into_iter().filter(|controller| !is_new(controller));
    let http = ["requests_total", "response_size_bytes", "request_duration_seconds"];
    let inherited: Vec<String> =
        old.flat_map(of_controller).chain(http.map(|what| format!("vpno_http_{what}"))).collect();
    assert_eq!(inherited.len(), 19);
    for name in inherited {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

/// A missing series would look like a failed scrape.
#[test]
fn every_series_of_a_controller_exists_from_the_start() {
    let text = Metrics::new("vpno", &table::all()).unwrap().encode(None, now()).unwrap();
    for controller in CONTROLLERS {
        let name = controller.name;
        for action in controller.reads {
            assert!(
                text.contains(&format!("vpno_{name}_read_duration_seconds_count{{action=\"{action}\"}} 0")),
                "{action}"
            );
        }
        for action in controller.writes {
            assert!(
                text.contains(&format!("vpno_{name}_write_duration_seconds_count{{action=\"{action}\"}} 0")),
                "{action}"
            );
        }
        for action in controller.reads.iter().chain(controller.writes) {
            assert!(text.contains(&format!("vpno_{name}_action_counter{{action=\"{action}\"}} 0")), "{action}");
        }
    }
}

#[test]
fn without_a_snapshot_there_are_no_metrics_of_slots_and_masks() {
    let metrics = Metrics::new("vpno", &table::all()).unwrap();
    let text = metrics.encode(None, now()).unwrap();
    for word in ["_slots", "vpno_masks{", "_waiting", "_usable", "_assignment", "_gated"] {
        assert!(!text.contains(word), "{word}:\n{text}");
    }
}

#[test]
fn a_process_with_one_controller_counts_all_requests_for_it() {
    let metrics = Metrics::new("other", &table::only("reservations")).unwrap();
    // A read after a list, which no controller requested.
    let read = ReconcileRequest::Read(Kind::Consumer, ObjectKey::new("apps", "one"));
    metrics.requested(&read, &Operation::Get(Kind::Consumer, ObjectKey::new("apps", "one")));
    let text = metrics.encode(None, now()).unwrap();
    assert!(text.contains("other_reservations_action_counter{action=\"GetMaskConsumer\"} 1"), "{text}");
    assert!(!text.contains("consumers_"), "{text}");
}

#[test]
fn no_series_outlives_its_object_or_names_a_mask() {
    let (metrics, mut engine) = sample();
    let text = metrics.encode(Some(&Snapshot::of(&engine)), now()).unwrap();
    assert!(text.contains("vpno_provider_slots_used{namespace=\"vpn\",provider=\"paris\"} 1"), "{text}");
    assert!(text.contains("vpno_masks_oldest_wait_seconds{namespace=\"apps\"} 90"), "{text}");
    let pods = [("NoMask", 1, 90), ("NoSlot", 0, 0), ("SlotInUseByPod", 0, 0), ("SlotAssigned", 0, 0)];
    for (reason, count, age) in pods.into_iter().chain([("OtherSchedulingGate", 0, 0)]) {
        let labels = format!("{{namespace=\"apps\",reason=\"{reason}\"}}");
        assert!(text.contains(&format!("vpno_pods_gated{labels} {count}\n")), "{reason}: {text}");
        assert!(text.contains(&format!("vpno_pods_gated_oldest_seconds{labels} {age}\n")), "{reason}: {text}");
    }
    for word in ["one", "two", "three", "paris-0"] {
        assert!(!text.contains(&format!("\"{word}\"")), "{word} in {text}");
    }
    let deleted = [provider("paris", 3, &["eu"], "Active"), waiting("apps", "two", None)];
    let deleted = deleted.into_iter().chain(active("apps", "one", "paris", 0)).chain([gated("apps", "three")]);
    watch(&mut engine, deleted.map(WatchEvent::Delete));
    let text = metrics.encode(Some(&Snapshot::of(&engine)), now()).unwrap();
    for word in ["paris", "apps", "eu\""] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

/// The names of all series with their labels.
fn series(metrics: &Metrics, engine: &Engine) -> BTreeSet<String> {
    let text = metrics.encode(Some(&Snapshot::of(engine)), now()).unwrap();
    let names = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0);
    names.map(str::to_owned).collect()
}

#[test]
fn a_hundred_thousand_masks_leave_no_series() {
    let (metrics, mut engine) = sample();
    let before = series(&metrics, &engine);
    for round in 0..100 {
        let namespace = format!("namespace-{round}");
        let tag = format!("tag-{round}");
        let masks: Vec<_> = (0..1000)
            .flat_map(|number| match number {
                0..2 => active(&namespace, &format!("mask-{round}-{number}"), "paris", number + 1).to_vec(),
                2 => vec![gated(&namespace, &format!("pod-{round}"))],
                _ => vec![waiting(&namespace, &format!("mask-{round}-{number}"), Some(&[&tag]))],
            })
            .collect();
        watch(&mut engine, masks.iter().cloned().map(WatchEvent::Apply));
        metrics.count(engine.counters(), true, now());
        let meanwhile = series(&metrics, &engine);
        assert!(meanwhile.iter().any(|one| one.contains(&namespace)), "{meanwhile:?}");
        watch(&mut engine, masks.into_iter().map(WatchEvent::Delete));
        metrics.count(engine.counters(), true, now());
    }
    assert_eq!(series(&metrics, &engine), before);
}

#[test]
fn the_leader_records_each_assignment_once() {
    let metrics = Metrics::new("vpno", &table::all()).unwrap();
    let objects = [provider("paris", 1, &["eu"], "Ready"), waiting("apps", "one", None)];
    let mut engine = engine(objects);
    let after = |engine: &mut Engine, input, leads| {
        engine.handle([input], Now { wall: now(), monotonic: Duration::ZERO });
        metrics.count(engine.counters(), leads, now());
        let text = metrics.encode(Some(&Snapshot::of(engine)), now()).unwrap();
        let line = text.lines().find(|line| line.starts_with("vpno_mask_assignment_duration_seconds_count"));
        line.unwrap().rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    let [assigned, _] = active("apps", "one", "paris", 0);
    let version = |mut object: Object, version| {
        if let Object::Consumer(view) = &mut object {
            view.meta.version = version;
        }
        Input::Watch(WatchEvent::Apply(object))
    };
    assert_eq!(after(&mut engine.clone(), version(assigned.clone(), 2), false), 0);
    assert_eq!(after(&mut engine, version(assigned.clone(), 2), true), 1);
    assert_eq!(after(&mut engine, version(assigned, 3), true), 1);
    assert_eq!(after(&mut engine, Input::Answer(7, Outcome::Gone), true), 1);
}

/// Compares the table in RUNBOOK.md with the metrics. After a change, run `UPDATE_README=1 cargo test -p vpn-operator
/// --test metrics`.
#[test]
fn the_runbook_has_each_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("RUNBOOK.md");
    let readme = fs::read_to_string(&path).unwrap();
    let head = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
    let (before, rest) = readme.split_once(head).expect("the table is missing");
    let (found, after) = rest.split_once("\n\n").unwrap();
    let mut rows: Vec<String> = Vec::new();
    for Shown { name, kind, labels, help } in shown().into_iter().filter(|shown| shown.name.starts_with("vpno_")) {
        let controller = CONTROLLERS.iter().find(|controller| {
            let rest = name.strip_prefix(&format!("vpno_{}_", controller.name));
            rest.is_some_and(|rest| {
                rest.ends_with("_counter")
                    || rest.ends_with("e_duration_seconds")
                    || rest.ends_with("d_duration_seconds")
            })
        });
        let name = controller.map_or(name.clone(), |controller| name.replacen(controller.name, "<controller>", 1));
        let mut row = format!("| `{name}` | {kind} | ");
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        write!(row, "{} | {help} |", labels.join(", ")).unwrap();
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows.sort();
    let expected = rows.join("\n");
    if found != expected && std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, format!("{before}{head}{expected}\n\n{after}")).unwrap();
        return;
    }
    assert!(found == expected, "the table of metrics in RUNBOOK.md is out of date: run with UPDATE_README=1");
}

/// The table has a row for each alert of the chart, in the same order, with its duration and a link to its section.
#[test]
fn the_runbook_has_each_alert() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rules = fs::read_to_string(root.join("chart/rules/vpn-operator.yaml")).unwrap();
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let times = rules.lines().filter_map(|line| line.trim().strip_prefix("for: "));
    let alerts: Vec<String> = names
        .zip(times)
        .map(|(name, time)| format!("| [`{name}`](#{}) | {} min |", name.to_lowercase(), time.trim_end_matches('m')))
        .collect();
    // The alerts of injection have the names of others.
    let of_injection = fs::read_to_string(root.join("chart/rules/injection.yaml")).unwrap();
    for name in of_injection.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(rules.contains(&format!("- alert: {name}\n")), "{name} has no row");
    }
    let readme = fs::read_to_string(root.join("operator/RUNBOOK.md")).unwrap();
    let (_, table) = readme.split_once("| alert | after | meaning |\n|---|---|---|\n").expect("the table is missing");
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), alerts.len(), "{rows:?}");
    for (row, alert) in rows.iter().zip(&alerts) {
        assert!(row.starts_with(alert), "{row} should start with {alert}");
    }
}

/// One more Mask behind ten thousand causes a few reconciliations, and a snapshot causes none.
#[test]
fn the_cost_of_an_event_does_not_depend_on_the_number_of_waiting_masks() {
    let reconciliations = |waiters: usize| {
        let all = (0..waiters).map(|number| waiting("apps", &format!("mask-{number:05}"), Some(&["eu"])));
        let mut engine = engine(all.chain([provider("paris", 0, &["eu"], "Ready")]));
        engine.handle([Input::Lead], Now { wall: now(), monotonic: Duration::ZERO });
        while engine.next_deadline().is_some_and(|at| at.is_zero()) {
            engine.handle([Input::Tick], Now { wall: now(), monotonic: Duration::ZERO });
        }
        watch(&mut engine, [WatchEvent::Apply(waiting("apps", "one-more", Some(&["eu"])))]);
        engine.counters().reconciliations("consumers")
    };
    let (few, many) = (reconciliations(100), reconciliations(10_000));
    assert!(few > 0 && few == many, "{few} reconciliations with 100 waiting Masks, {many} with 10000");
}
