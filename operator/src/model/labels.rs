//! Labels, and selectors that match them.

use std::sync::Arc;

use kube::core::{Expression, Selector};

use super::intern;

/// The labels of one or more objects, sorted by key. Equal texts share their memory.
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// Returns labels in the order of their keys.
pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Labels {
    let mut labels: Vec<_> = labels.into_iter().map(|(key, value)| (intern(key), intern(value))).collect();
    labels.sort_unstable();
    labels.into()
}

/// Returns the value of a label.
pub fn label<'a>(labels: &'a [(Arc<str>, Arc<str>)], key: &str) -> Option<&'a str> {
    let at = labels.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
    Some(&labels[at].1)
}

/// A selector of labels, with the rules of Kubernetes: a label that is absent satisfies `!=` and `notin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelMatcher(Box<[Expression]>);

impl LabelMatcher {
    /// Creates a matcher. An empty selector matches everything.
    pub fn new(selector: Selector) -> Self {
        Self(selector.into_iter().collect())
    }

    /// Returns what labels have to fulfill, all of it.
    pub fn expressions(&self) -> &[Expression] {
        &self.0
    }

    /// Whether labels match. `value` returns the value of a label.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|expression| match expression {
            Expression::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Expression::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(value)),
            Expression::Equal(key, wanted) => value(key) == Some(wanted),
            Expression::NotEqual(key, other) => value(key) != Some(other),
            Expression::Exists(key) => value(key).is_some(),
            Expression::DoesNotExist(key) => value(key).is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt;
    use proptest::{collection::btree_map, collection::btree_set, collection::vec, prelude::*};

    use super::*;

    fn expression() -> impl Strategy<Value = Expression> {
        let (key, value) = (|| "[a-c]", || "[xy]");
        prop_oneof![
            (key(), btree_set(value(), 0..3)).prop_map(|(key, values)| Expression::In(key, values)),
            (key(), btree_set(value(), 0..3)).prop_map(|(key, values)| Expression::NotIn(key, values)),
            (key(), value()).prop_map(|(key, value)| Expression::Equal(key, value)),
            (key(), value()).prop_map(|(key, value)| Expression::NotEqual(key, value)),
            key().prop_map(Expression::Exists),
            key().prop_map(Expression::DoesNotExist),
        ]
    }

    proptest! {
        #[test]
        fn a_matcher_agrees_with_kube(
            all in btree_map("[a-c]", "[xy]", 0..4),
            expressions in vec(expression(), 0..4),
        ) {
            let selector: Selector = expressions.into_iter().collect();
            let all: BTreeMap<String, String> = all;
            let found = labels(&all);
            let matcher = LabelMatcher::new(selector.clone());
            prop_assert_eq!(matcher.matches(|key| label(&found, key)), selector.matches(&all));
        }
    }
}
