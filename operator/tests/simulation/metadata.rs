//! Metadata of objects as JSON.

use serde_json::{Value, json};

pub fn uid_of(value: &Value) -> &str {
    value["metadata"]["uid"].as_str().unwrap_or_default()
}

pub fn generation(value: &Value) -> i64 {
    value["metadata"]["generation"].as_i64().unwrap_or(0)
}

pub fn is_deleting(value: &Value) -> bool {
    value["metadata"].get("deletionTimestamp").is_some()
}

pub fn finalizers(value: &Value) -> Vec<String> {
    let all = value["metadata"]["finalizers"].as_array();
    all.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}

pub fn set_finalizers(value: &mut Value, left: &[String]) {
    if left.is_empty() {
        value["metadata"].as_object_mut().unwrap().remove("finalizers");
    } else {
        value["metadata"]["finalizers"] = json!(left);
    }
}

/// UID, name and `blockOwnerDeletion` of each owner.
pub fn owners(value: &Value) -> Vec<(String, bool)> {
    let all = value["metadata"]["ownerReferences"].as_array();
    let owner = |owner: &Value| {
        (owner["uid"].as_str().unwrap_or_default().to_owned(), owner["blockOwnerDeletion"] == json!(true))
    };
    all.into_iter().flatten().map(owner).collect()
}
