//! Takes the values of a Secret out of texts that people may read.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

const MARK: &str = "***";
/// Shorter values (`on`, `443`) are taken out as whole words only: inside of words they tell nothing, and the rest
/// would be unreadable.
const WORDS_ONLY_BELOW: usize = 4;

/// The text with every value of the Secret replaced, and every line of values that have several.
pub fn redact(text: &str, secret: &BTreeMap<String, ByteString>) -> String {
    let decoded = secret.values().map(|value| String::from_utf8_lossy(&value.0).into_owned());
    let mut values: Vec<String> = decoded
        .flat_map(|value| {
            let lines: Vec<_> = value.lines().map(|line| line.trim().to_owned()).collect();
            lines.into_iter().chain([value.trim().to_owned()])
        })
        .filter(|value| !value.is_empty())
        .collect();
    // The longest first: one value may be part of another.
    values.sort_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
    values.dedup();
    values.iter().fold(text.to_owned(), |text, value| {
        if value.len() >= WORDS_ONLY_BELOW { text.replace(value, MARK) } else { replace_words(&text, value) }
    })
}

fn replace_words(text: &str, word: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, from) = rest.split_at(at);
        let after = &from[word.len()..];
        let joins = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let inside = joins(before.chars().next_back().or(out.chars().next_back())) || joins(after.chars().next());
        out.push_str(before);
        out.push_str(if inside { word } else { MARK });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(values: &[&str]) -> BTreeMap<String, ByteString> {
        values.iter().enumerate().map(|(i, value)| (format!("K{i}"), ByteString(value.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn long_values_go_everywhere_and_short_ones_as_words() {
        let secret = secret(&["hunter2", "on", "-----BEGIN\nline of a key\n"]);
        assert_eq!(redact("user=hunter2x on connection", &secret), "user=***x *** connection");
        assert_eq!(redact("bad: line of a key!", &secret), "bad: ***!");
    }

    proptest! {
        #[test]
        fn no_value_is_left(values in proptest::collection::vec("[a-z0-9]{4,12}", 1..5), parts in proptest::collection::vec("[ a-z=:]{0,6}", 1..6)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let text: String = parts.iter().enumerate().map(|(i, part)| format!("{part}{}", values[i % values.len()])).collect();
            let shown = redact(&text, &secret(&values));
            for value in &values {
                prop_assert!(!shown.contains(value), "{shown} shows {value}");
            }
        }
    }
}
