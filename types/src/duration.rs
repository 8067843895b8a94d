//! Durations in a human-readable format.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration such as \"1m30s\": {why}")]
pub struct InvalidDuration {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Parses a duration: the sum of numbers with units. A single number without a unit is in seconds.
///
/// Units: `ns`, `us`, `ms`, `s`, `m`, `h`, `d`, `w`, `M` (a twelfth of a year), `y` (365.2425 days), and any
/// longer prefix of `nanoseconds` … `years`. Numbers may have a fraction, an exponent and a sign. Like version 1.0.1,
/// it skips whitespace, punctuation and words without a number.
///
/// ```
/// use std::time::Duration;
/// use vpn_types::parse_duration;
/// assert_eq!(parse_duration("1m30s")?, Duration::from_secs(90));
/// assert_eq!(parse_duration("1.5 hours")?, Duration::from_secs(5400));
/// assert_eq!(parse_duration("500ms")?, Duration::from_millis(500));
/// assert_eq!(parse_duration("60")?, Duration::from_secs(60));
/// assert!(parse_duration("soon").is_err());
/// # Ok::<(), vpn_types::InvalidDuration>(())
/// ```
///
/// # Errors
/// If there is no number, a unit is missing or unknown, or the sum is negative or too large.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    total_nanos(text)
        .and_then(|nanos| {
            let nanos = u128::try_from(nanos).map_err(|_| "it is negative")?;
            let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| TOO_LARGE)?;
            Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
        })
        .map_err(|why| InvalidDuration { text: text.chars().take(64).collect(), why })
}

const TOO_LARGE: &str = "it is too large";

fn total_nanos(text: &str) -> Result<i128, &'static str> {
    let mut rest = text;
    let mut total: Option<i128> = None;
    while let Some(number) = Number::next(&mut rest) {
        let word = rest.trim_start_matches(|c: char| !is_word(c));
        let length = word.find(|c| !is_letter(c)).unwrap_or(word.len());
        let (unit, after) = word.split_at(length);
        let unit = match unit {
            "" if total.is_none() && word.is_empty() => SECOND,
            "" => return Err("a number has no unit"),
            unit => unit_nanos(unit).ok_or("a unit is not known")?,
        };
        let nanos = number.times(unit).ok_or(TOO_LARGE)?;
        total = Some(total.unwrap_or(0).checked_add(nanos).ok_or(TOO_LARGE)?);
        rest = after;
    }
    total.ok_or("there is no number in it")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_letter(c: char) -> bool {
    is_word(c) && !c.is_ascii_digit()
}

/// `digits` × 10^`exponent`.
struct Number {
    digits: i128,
    exponent: i32,
}

impl Number {
    /// Takes the next number off the text.
    fn next(rest: &mut &str) -> Option<Self> {
        let start = rest.find(|c: char| c.is_ascii_digit())?;
        let negative = rest[..start].ends_with('-');
        let (whole, after) = digits(&rest[start..]);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        let (exponent, after) = exponent(after).unwrap_or((0, after));
        *rest = after;

        let fraction = fraction.get(..fraction.len().min(18)).unwrap_or_default();
        let magnitude = format!("{whole}{fraction}").parse().unwrap_or(i128::MAX);
        Some(Self { digits: if negative { -magnitude } else { magnitude }, exponent: exponent - fraction.len() as i32 })
    }

    /// Rounds towards zero; `None` when it does not fit.
    fn times(&self, unit: i128) -> Option<i128> {
        let value = self.digits.checked_mul(unit)?;
        match 10i128.checked_pow(self.exponent.unsigned_abs()) {
            Some(scale) if self.exponent < 0 => Some(value / scale),
            Some(scale) => value.checked_mul(scale),
            None if self.exponent < 0 || value == 0 => Some(0),
            None => None,
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `e3` or `E-3`, with what comes after.
fn exponent(text: &str) -> Option<(i32, &str)> {
    let text = text.strip_prefix(['e', 'E'])?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, after) = digits(text);
    if digits.is_empty() {
        return None;
    }
    let value = digits.parse::<i32>().unwrap_or(i32::MAX / 2).min(i32::MAX / 2);
    Some((if negative { -value } else { value }, after))
}

const SECOND: i128 = 1_000_000_000;

/// Full name, other name, shortest beginning that counts, nanoseconds.
const UNITS: &[(&str, &str, usize, i128)] = &[
    ("nanoseconds", "nsecs", 1, 1),
    ("microseconds", "", 3, 1_000),
    ("usecs", "μsecs", 1, 1_000),
    ("µsecs", "", 1, 1_000),
    ("milliseconds", "", 3, 1_000_000),
    ("msecs", "", 2, 1_000_000),
    ("seconds", "secs", 1, SECOND),
    ("minutes", "mins", 1, 60 * SECOND),
    ("hours", "hrs", 1, 3_600 * SECOND),
    ("days", "", 1, 86_400 * SECOND),
    ("weeks", "wks", 1, 604_800 * SECOND),
    ("months", "", 2, MONTH),
    ("years", "yrs", 1, 12 * MONTH),
];

const MONTH: i128 = 2_629_746 * SECOND;

fn unit_nanos(unit: &str) -> Option<i128> {
    if unit == "M" {
        return Some(MONTH);
    }
    let unit = unit.to_lowercase();
    let begins = |name: &str| !name.is_empty() && name.starts_with(&unit);
    UNITS
        .iter()
        .find(|(name, other, shortest, _)| unit.chars().count() >= *shortest && (begins(name) || begins(other)))
        .map(|(_, _, _, nanos)| *nanos)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn millis(text: &str) -> u128 {
        parse_duration(text).unwrap().as_millis()
    }

    #[test]
    fn the_usual_forms() {
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("60", 60_000),
            (" 60 ", 60_000),
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("24h", 86_400_000),
            ("1.5h", 5_400_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn what_the_former_parser_took() {
        for (text, expected) in [
            ("1 day -1 hour", 82_800_000),
            ("1.26e-1 days", 10_886_400),
            ("1e3 s", 1_000_000),
            ("Duration: 1 hour, 15 minutes and 29 seconds", 4_529_000),
            ("15days20seconds100milliseconds", 1_296_020_100),
            (".:++++]][][[][15[]][seconds][]:}}}}", 15_000),
            (".:++++]][][[][15[]][][]:}}}}", 15_000),
            ("14 days seconds", 1_209_600_000),
            ("10 seconds 20 seconds", 30_000),
            ("10d1n15y", 474_218_280_000),
            ("2 HRS", 7_200_000),
            ("3 MIN", 180_000),
            ("3 mi", 180_000),
            ("1 mo", 2_629_746_000),
            ("1M", 2_629_746_000),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
        assert_eq!(parse_duration("5us").unwrap(), Duration::from_micros(5));
        assert_eq!(parse_duration("5μs").unwrap(), Duration::from_micros(5));
        assert_eq!(parse_duration("1.84467e19 seconds").unwrap(), Duration::from_secs(18_446_700_000_000_000_000));
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "soon",
            "s",
            "-5s",
            "1h 5",
            "5 parsecs",
            "10 mils",
            "1e99 years",
            "99999999999999999999999 s",
            "1e999999999999s",
            "99999999999999999999999999999999999999999999s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let long = parse_duration(&"x".repeat(5000)).unwrap_err();
        assert_eq!(long.text.len(), 64);
    }
}
