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

/// A count of slots that have a certificate each.
pub(crate) fn certificates(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": 1024})
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
    object_name("Secret")
}

/// The name of a ServiceAccount, for an optional field.
pub(crate) fn optional_service_account_name(_: &mut SchemaGenerator) -> Schema {
    optional(object_name("ServiceAccount"))
}

fn object_name(kind: &str) -> Schema {
    let message = format!("must be the name of a {kind}: lowercase letters, digits, '-' and '.'");
    text("[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*", 253, &message)
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

const IPV4: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}";
const HOST: &str = "[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*";

fn text(pattern: &str, max: usize, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": max,
        "x-kubernetes-validations": [{"rule": format!("self.matches('^{pattern}$')"), "message": message}],
    })
}

fn optional(mut schema: Schema) -> Schema {
    schema.insert("nullable".to_owned(), true.into());
    schema
}

fn list(items: Schema, max: usize) -> Schema {
    json_schema!({"type": "array", "nullable": true, "maxItems": max, "items": items})
}

/// A host name or an address.
pub(crate) fn optional_host(_: &mut SchemaGenerator) -> Schema {
    optional(text(&format!("({HOST}|[0-9a-fA-F:.]+)"), 253, "must be a host name or an IP address"))
}

/// The network of the clients of an OpenVPNServer.
pub(crate) fn optional_client_network(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!("{IPV4}/(1[6-9]|2[0-8])");
    optional(text(&pattern, 18, "must be an IPv4 network with a prefix of 16 to 28 bits, such as 10.240.0.0/16"))
}

/// IPv4 networks.
pub(crate) fn routes(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!("{IPV4}/([0-9]|[12][0-9]|3[0-2])");
    list(text(&pattern, 18, "must be an IPv4 network, such as 10.96.0.0/12"), 128)
}

/// An IPv4 address.
pub(crate) fn optional_address(_: &mut SchemaGenerator) -> Schema {
    optional(text(IPV4, 15, "must be an IPv4 address"))
}

/// IPv4 addresses.
pub(crate) fn addresses(_: &mut SchemaGenerator) -> Schema {
    list(text(IPV4, 15, "must be an IPv4 address"), 16)
}

/// Domains.
pub(crate) fn hosts(_: &mut SchemaGenerator) -> Schema {
    list(text(HOST, 253, "must be a domain"), 32)
}

/// Lines of a configuration file.
pub(crate) fn config_lines(_: &mut SchemaGenerator) -> Schema {
    list(text("[^\\\\n\\\\r]*", 4096, "must be a single line"), 256)
}

/// The common name of a certificate.
pub(crate) fn optional_common_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be 1 to 64 letters, digits, '-', '_' and '.', and begin with a letter or digit";
    optional(text("[A-Za-z0-9][-A-Za-z0-9._]{0,63}", 64, message))
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
