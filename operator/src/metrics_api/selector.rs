//! Label selectors in the form that Kubernetes uses in URLs, such as `tag=eu,tier in (a,b),!old`.

use std::{borrow::Borrow, collections::BTreeMap};

use kube::core::Expression;

use crate::model::LabelMatcher;

/// A label selector. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(LabelMatcher);

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    ///
    /// If it does not have the form that [Kubernetes] documents.
    ///
    /// [Kubernetes]: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = split(text)?.into_iter().map(|part| expression(part.trim()));
        let expressions = parts.collect::<Result<Vec<_>, _>>();
        let expressions = expressions.map_err(|why| format!("label selector {text:?}: {why}"))?;
        Ok(Self(LabelMatcher::new(expressions.into_iter().collect())))
    }

    /// Returns the matcher.
    pub fn matcher(&self) -> &LabelMatcher {
        &self.0
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.expressions().is_empty()
    }

    /// Whether it matches these labels.
    pub fn matches<K: Ord + Borrow<str>, V: AsRef<str>>(&self, labels: &BTreeMap<K, V>) -> bool {
        self.0.matches(|key| labels.get(key).map(AsRef::as_ref))
    }

    /// Returns the labels with the values that it demands.
    ///
    /// # Errors
    ///
    /// If it demands anything else than one value for a label.
    pub fn values(&self) -> Result<BTreeMap<&str, &str>, String> {
        let mut all = BTreeMap::new();
        for expression in self.0.expressions() {
            let single = match expression {
                Expression::Equal(key, value) => Some((key, value)),
                Expression::In(key, values) if values.len() == 1 => values.first().map(|value| (key, value)),
                _ => None,
            };
            let Some((key, value)) = single else {
                return Err("only requirements of the form label=value are possible here".to_owned());
            };
            if all.insert(key.as_str(), value.as_str()).is_some_and(|other| other != value) {
                return Err(format!("label {key} cannot have two values"));
            }
        }
        Ok(all)
    }
}

/// Splits a selector at the commas that are not in parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (position, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or_else(|| format!("label selector {text:?}: unexpected )"))?,
            ',' if depth == 0 => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(format!("label selector {text:?}: missing )"));
    }
    parts.push(&text[start..]);
    if parts.iter().all(|part| part.trim().is_empty()) && parts.len() == 1 {
        parts.clear();
    }
    Ok(parts)
}

fn expression(text: &str) -> Result<Expression, String> {
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(label(key)?));
    }
    if let Some((key, other)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(label(key)?, value(other)?));
    }
    if let Some((key, wanted)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Expression::Equal(label(key)?, value(wanted)?));
    }
    let Some((head, values)) = text.split_once('(') else { return Ok(Expression::Exists(label(text)?)) };
    let values = values.trim().strip_suffix(')').ok_or_else(|| format!("{text:?} does not end with )"))?;
    let values = values.split(',').map(value).collect::<Result<_, _>>()?;
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        [key, "in"] => Ok(Expression::In(label(key)?, values)),
        [key, "notin"] => Ok(Expression::NotIn(label(key)?, values)),
        _ => Err(format!("{text:?} is none of key, !key, key=value, key!=value, key in (…), key notin (…)")),
    }
}

fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_valid = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
    if text.is_empty() || text.len() > 317 || !text.chars().all(is_valid) {
        return Err(format!("{text:?} is not the key of a label"));
    }
    Ok(text.to_owned())
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_valid = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if text.len() > 63 || !text.chars().all(is_valid) {
        return Err(format!("{text:?} is not the value of a label"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use proptest::prelude::*;

    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        Selector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn each_operator_matches_as_in_kubernetes() {
        let labels = [("tag", "eu"), ("tier", "a")];
        for selector in [
            "",
            "tag",
            "tag=eu",
            "tag==eu",
            "tag = eu",
            "tag!=us",
            "other!=x",
            "!other",
            "tier in (a, b)",
            "tier notin (b,c)",
            "other notin (x)",
            "tag in (eu,us),tier=a,!other",
        ] {
            assert!(matches(selector, &labels), "{selector}");
        }
        for selector in ["other", "tag=us", "tag!=eu", "!tag", "tier in (b)", "tier notin (a,b)", "tag=eu,tier=b"] {
            assert!(!matches(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            ",",
            "tag=eu,",
            "=eu",
            "tag in eu",
            "tag in (eu",
            "tag)",
            "tag within (eu)",
            "a b",
            "tag=e u",
            "tag>1",
            "!",
            "tag=eu)(",
            "in (a)",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_equality_gives_values() {
        let selector = Selector::parse("tag=eu,reserve in (2)").unwrap();
        assert_eq!(selector.values().unwrap(), [("tag", "eu"), ("reserve", "2")].into());
        for text in ["tag in (a,b)", "!tag", "tag", "tag!=a", "tag=a,tag=b"] {
            assert!(Selector::parse(text).unwrap().values().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z!=,() ]{0,20}|\\PC*") {
            let _ = Selector::parse(&text);
        }
    }
}
