//! Writes YAML for Kubernetes, which reads YAML 1.1: there, `no` and `1_000` are not strings.

use serde_yaml::Value;

/// The first character of a string that has to be quoted. It is printed as an escape sequence, which needs quotes.
const QUOTED: char = '\u{7}';
/// How the quote and that character are written.
const WRITTEN: &str = "\"\\a";

/// Returns a value as YAML 1.1 and 1.2.
///
/// # Errors
/// Why the value cannot be written.
pub fn write(value: &Value) -> Result<String, String> {
    let mut marked = value.clone();
    mark(&mut marked);
    let text = serde_yaml::to_string(&marked).map_err(|error| error.to_string())?;
    let mut parts = text.split(WRITTEN);
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (word, rest) = part.split_once('"').unwrap_or((part, ""));
        written += &format!("'{word}'{rest}");
    }
    Ok(written)
}

fn mark(value: &mut Value) {
    match value {
        Value::String(text) if is_ambiguous(text) => text.insert(0, QUOTED),
        Value::Sequence(items) => items.iter_mut().for_each(mark),
        Value::Mapping(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(mut key, mut value)| {
                    mark(&mut key);
                    mark(&mut value);
                    (key, value)
                })
                .collect();
        }
        _ => {}
    }
}

/// Whether YAML 1.1 may read the string as a boolean or a number.
fn is_ambiguous(text: &str) -> bool {
    let is_boolean = ["y", "yes", "n", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let is_in_number = |c: char| c.is_ascii_hexdigit() || "xob+-.,:_".contains(c.to_ascii_lowercase());
    let is_number = text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(is_in_number);
    is_boolean || is_number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_of_yaml_1_1_are_quoted() {
        for text in ["no", "On", "Y", "1_000", "685_230.15", "1:30", "0o17", "1", "true", "null"] {
            let written = write(&Value::from(text)).unwrap_or_default();
            assert_eq!(written, format!("'{text}'\n"));
        }
        assert_eq!(write(&Value::from("500m")).as_deref(), Ok("500m\n"));
        assert_eq!(write(&Value::from("nobody")).as_deref(), Ok("nobody\n"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in ".{0,12}|[-0-9a-fx_.:]{1,6}|\\PC{0,8}", key in "[a-z0-9]{1,4}") {
            prop_assume!(!text.contains(QUOTED));
            let value = Value::Mapping([(Value::from(key), Value::from(text))].into_iter().collect());
            let written = write(&value).unwrap_or_default();
            prop_assert_eq!(serde_yaml::from_str::<Value>(&written).ok(), Some(value));
        }
    }
}
