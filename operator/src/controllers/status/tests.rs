use serde_json::json;
use vpn_types::Mask;

use super::*;
use crate::state::{MaskView, Project};

fn mask(status: Value) -> MaskView {
    let metadata = json!({"name": "m", "namespace": "ns", "uid": "u", "resourceVersion": "1", "generation": 1});
    let mask: Mask = serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("decodes");
    mask.project().expect("is complete")
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap_or_default()
}

fn written(view: &MaskView, condition: &ReadyCondition<MaskPhase>, second: i64) -> Option<Value> {
    mask_status(view, condition, second).map(|patch| patch["status"].clone())
}

fn mask_status(view: &MaskView, condition: &ReadyCondition<MaskPhase>, second: i64) -> Option<Value> {
    super::mask(&view.meta, &view.status, condition, None, at(second))
}

#[test]
fn an_unchanged_status_is_never_rewritten() {
    let condition = ReadyCondition::not_ready(MaskPhase::Waiting, Reason::NoFreeSlot, "place 1");
    let first = written(&mask(json!(null)), &condition, 0).expect("is new");
    let view = mask(first);
    assert_eq!(written(&view, &condition, 1_000_000), None);
    let other = ReadyCondition { message: "place 2".to_owned(), ..condition };
    assert!(written(&view, &other, 0).is_some());
}

#[test]
fn the_transition_time_moves_only_when_the_status_changes() {
    let waiting = ReadyCondition::not_ready(MaskPhase::Waiting, Reason::NoFreeSlot, "place 1");
    let time = |status: &Value| status["conditions"][0]["lastTransitionTime"].clone();
    let first = written(&mask(json!(null)), &waiting, 0).expect("is new");
    let moved = ReadyCondition { message: "place 2".to_owned(), ..waiting };
    let second = written(&mask(first.clone()), &moved, 10).expect("differs");
    assert_eq!(time(&first), time(&second));
    assert_ne!(first["lastUpdated"], second["lastUpdated"]);
    let active = ReadyCondition::ready(MaskPhase::Active, Reason::Assigned, "slot 0");
    let third = written(&mask(second), &active, 20).expect("differs");
    assert_ne!(time(&first), time(&third));
}

#[test]
fn a_status_of_another_version_of_the_operator_is_replaced() {
    let condition = ReadyCondition::not_ready(MaskPhase::Waiting, Reason::NoFreeSlot, "place 1");
    let old = mask(json!({"phase": "Waiting", "message": "no slots", "lastUpdated": "2040-01-01T00:00:00Z"}));
    let status = written(&old, &condition, 0).expect("differs");
    assert_eq!(status["provider"], Value::Null);
}
