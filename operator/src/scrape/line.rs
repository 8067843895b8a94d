//! One line of the text format of Prometheus, or of OpenMetrics.

use thiserror::Error;

/// The reason why the line of a wanted metric is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// Something other than labels and a value comes after the name.
    #[error("expected labels or a space after the name")]
    Name,
    /// The labels are not like `{name="value"}`.
    #[error("expected labels such as {{name=\"value\"}}")]
    Labels,
    /// The value is not a number.
    #[error("expected a number as the value")]
    Value,
    /// Something other than a timestamp comes after the value.
    #[error("expected nothing but a timestamp after the value")]
    Timestamp,
}

/// Names and values of labels.
pub(super) type SeriesLabels = Vec<(Box<str>, Box<str>)>;

/// Splits a line after the name of its metric. A line without one, such as a comment, has an empty name.
pub(super) fn split_name(line: &str) -> (&str, &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    line.split_at(line.find(|c| !is_part(c)).unwrap_or(line.len()))
}

/// Parses what follows the name of a metric.
pub(super) fn parse_sample(rest: &str) -> Result<(SeriesLabels, f64), LineError> {
    let (labels, rest) = match rest.strip_prefix([' ', '\t']).map_or(rest, str::trim_start).strip_prefix('{') {
        Some(inner) => parse_labels(inner).ok_or(LineError::Labels)?,
        None if rest.starts_with([' ', '\t']) => (Vec::new(), rest),
        None => return Err(LineError::Name),
    };
    let mut words = rest.split_ascii_whitespace();
    // `f64` also reads `+Inf`, `-inf` and `NaN`.
    let value = words.next().and_then(|word| word.parse().ok()).ok_or(LineError::Value)?;
    // In OpenMetrics, an exemplar may follow.
    match words.next() {
        None => Ok((labels, value)),
        Some(word) if word.starts_with('#') => Ok((labels, value)),
        Some(word) if word.parse::<f64>().is_ok() => match words.next() {
            Some(word) if !word.starts_with('#') => Err(LineError::Timestamp),
            _ => Ok((labels, value)),
        },
        Some(_) => Err(LineError::Timestamp),
    }
}

/// Parses labels up to the closing brace, and returns what follows.
fn parse_labels(mut text: &str) -> Option<(SeriesLabels, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = match text.strip_prefix('"') {
            Some(quoted) => parse_quoted(quoted)?,
            None => {
                let (name, rest) = split_name(text);
                (name.into(), rest)
            }
        };
        if name.is_empty() {
            return None;
        }
        let (value, rest) = parse_quoted(rest.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?)?;
        labels.push((name, value));
        let rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(rest) => text = rest,
            None if rest.starts_with('}') => text = rest,
            None => return None,
        }
    }
}

/// Parses a text up to the closing quote, and returns what follows.
fn parse_quoted(text: &str) -> Option<(Box<str>, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value.into(), &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                // As Prometheus does.
                other => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn parse(line: &str) -> Result<(Vec<(String, String)>, f64), LineError> {
        let (labels, value) = parse_sample(split_name(line).1)?;
        Ok((labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect(), value))
    }

    fn labeled(labels: &[(&str, &str)], value: f64) -> Result<(Vec<(String, String)>, f64), LineError> {
        Ok((labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(), value))
    }

    #[test]
    fn samples_are_read() {
        assert_eq!(split_name("a:b_1{x=\"y\"} 1"), ("a:b_1", "{x=\"y\"} 1"));
        assert_eq!(split_name("# HELP a b").0, "");
        assert_eq!(parse("up 1"), labeled(&[], 1.0));
        assert_eq!(parse("up\t-1.5e3  1395066363000"), labeled(&[], -1500.0));
        assert_eq!(parse("up +Inf"), labeled(&[], f64::INFINITY));
        assert!(parse("up NaN").is_ok_and(|(_, value)| value.is_nan()));
        assert_eq!(parse("up{} 3"), labeled(&[], 3.0));
        assert_eq!(parse("up {a=\"b\"} 3"), labeled(&[("a", "b")], 3.0));
        assert_eq!(parse("up{ a = \"b\" , c=\"\",} 3"), labeled(&[("a", "b"), ("c", "")], 3.0));
        let hard = r#"up{a="},=\" \\ \n \d {",b="é"} 3"#;
        assert_eq!(parse(hard), labeled(&[("a", "},=\" \\ \n \\d {"), ("b", "é")], 3.0));
        assert_eq!(parse("up{\"a.b\"=\"c\"} 3"), labeled(&[("a.b", "c")], 3.0));
        assert_eq!(parse("up{le=\"1\"} 3 # {trace=\"x\"} 0.5 1.0"), labeled(&[("le", "1")], 3.0));
        assert_eq!(parse("up 3 1.5 # {} 1"), labeled(&[], 3.0));
    }

    #[test]
    fn other_lines_are_refused() {
        for (line, error) in [
            ("up", LineError::Name),
            ("up.x 1", LineError::Name),
            ("up ", LineError::Value),
            ("up one", LineError::Value),
            ("up 1_000", LineError::Value),
            ("up 0x1p3", LineError::Value),
            ("up{a=\"b\"}", LineError::Value),
            ("up{a=\"b\" 1", LineError::Labels),
            ("up{a=\"b} 1", LineError::Labels),
            ("up{a=b} 1", LineError::Labels),
            ("up{=\"b\"} 1", LineError::Labels),
            ("up{a=\"b\" c=\"d\"} 1", LineError::Labels),
            ("up{a=\"b\\", LineError::Labels),
            ("up 1 now", LineError::Timestamp),
            ("up 1 2 3", LineError::Timestamp),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(any in "\\PC*", similar in "[a{}=\", \\\\#1.\u{e9}]{0,40}") {
            let _ = (parse(&any), parse(&similar), parse(&format!("up{similar}")));
        }

        #[test]
        fn what_is_written_is_read(
            labels in vec(("[a-z_][a-z0-9_]{0,5}", "(\\PC|\n|\"|\\\\){0,12}"), 0..4),
            value in any::<f64>(),
        ) {
            let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let written: Vec<_> = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escape(text))).collect();
            let (found, number) = parse(&format!("up{{{}}} {value} 1", written.join(","))).expect("a sample");
            prop_assert_eq!(found, labels);
            prop_assert!(number == value || number.is_nan() && value.is_nan());
        }
    }
}
