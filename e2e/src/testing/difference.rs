//! The differences of two documents, field by field.

use std::collections::BTreeSet;

use serde_json::Value;

/// A field that differs.
#[derive(Debug)]
pub struct Difference {
    /// The path of the field, as a JSON pointer.
    pub path: String,
    /// What the first document has, and what the second has.
    #[expect(dead_code, reason = "shown by Debug")]
    values: (Option<Value>, Option<Value>),
}

/// Returns the fields that differ, in the order of their paths. Two timestamps are equal if they have the same form.
pub fn differences(ours: &Value, theirs: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(ours), Some(theirs), &mut found);
    found
}

fn compare(path: &str, ours: Option<&Value>, theirs: Option<&Value>, found: &mut Vec<Difference>) {
    match (ours, theirs) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            for key in keys {
                compare(&format!("{path}/{key}"), one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                compare(&format!("{path}/{index}"), one.get(index), other.get(index), found);
            }
        }
        (Some(Value::String(one)), Some(Value::String(other)))
            if path.ends_with("/timestamp") && form(one) == form(other) => {}
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => {
            found.push(Difference { path: path.to_owned(), values: (ours.cloned(), theirs.cloned()) });
        }
    }
}

/// Returns a text with all digits replaced by 0.
fn form(text: &str) -> String {
    text.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect()
}
