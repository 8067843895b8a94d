//! Parts of the schemas that the derives do not generate, and lenient decoding.

use std::str::FromStr;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::names::MAX_SLOTS;

/// A count of slots or a slot's index. The derived schema of an unsigned integer carries a `format`
/// that the API server does not know and warns about.
pub(crate) fn slots(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": MAX_SLOTS})
}

/// As [`slots`], for an optional field.
pub(crate) fn optional_slots(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": MAX_SLOTS, "nullable": true})
}

/// A point in time that the API server checks.
pub(crate) fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// As [`date_time`], for an optional field.
pub(crate) fn optional_date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "nullable": true})
}

/// An object of which the API server keeps whatever is in it.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of tags: each 1 to 253 characters.
pub(crate) fn tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "nullable": true,
        "maxItems": 1024,
        "items": {"type": "string", "minLength": 1, "maxLength": 253},
    })
}

/// A list of names of namespaces.
pub(crate) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "nullable": true,
        "maxItems": 4096,
        "items": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "message": "must be the name of a namespace",
            }],
        },
    })
}

/// The name of a Secret.
pub(crate) fn secret_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [{
            "rule": r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
            "message": "must be the name of a Secret: lowercase letters, digits, '-' and '.'",
        }],
    })
}

/// As [`secret_name`], for an optional field.
pub(crate) fn optional_secret_name(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = secret_name(generator);
    schema.insert("nullable".to_owned(), true.into());
    schema
}

/// A duration such as `30s`, `1m30s`, `1.5h` or `0s`.
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^(0|([0-9]{1,9}([.][0-9]{1,9})?(ms|s|m|h|d))+)$')",
            "message": "must be a duration such as 0s, 30s, 1m30s or 1h",
        }],
    })
}

/// Decodes a value of a closed set. An unknown value is `None`, so it does not stop the decoding of the object or the
/// list.
pub(crate) fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
{
    let word = Option::<String>::deserialize(deserializer)?;
    Ok(word.and_then(|word| word.parse().ok()))
}
