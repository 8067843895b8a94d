//! Quantities of Kubernetes, such as `100m`, `1.5Gi` and `1e3`.

use thiserror::Error;

use crate::model::quantity_suffix;

/// Quantities have nine digits after the point: the API server rounds what has more.
const FRACTION_DIGITS: usize = 9;
/// The largest quantity, in its unit. As in the API server, larger ones are capped to it.
const MAX: u128 = i64::MAX as u128;

/// The reason why a text is not a quantity that can be a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// The text is not a number with a suffix.
    #[error("{0:?} is not a quantity such as 100m or 64Mi")]
    Invalid(String),
    /// The quantity is less than zero.
    #[error("the quantity {0} is negative")]
    Negative(String),
    /// The number has too many digits after the point.
    #[error("the quantity {0} has more than 9 digits after the point")]
    TooPrecise(String),
}

/// Returns a quantity in thousandths of its unit, such as millicores, rounded up. A quantity beyond the range of an
/// `i64` becomes `i64::MAX`.
///
/// # Errors
/// If the text is not a quantity, or is negative.
pub fn millis(text: &str) -> Result<u64, QuantityError> {
    nanos(text).map(|nanos| capped(nanos.div_ceil(1_000_000)))
}

/// Returns a quantity in its unit, such as bytes, rounded up. A quantity beyond the range of an `i64` becomes
/// `i64::MAX`.
///
/// # Errors
/// If the text is not a quantity, or is negative.
pub fn units(text: &str) -> Result<u64, QuantityError> {
    nanos(text).map(|nanos| capped(nanos.div_ceil(1_000_000_000)))
}

fn capped(value: u128) -> u64 {
    u64::try_from(value.min(MAX)).unwrap_or(u64::MAX)
}

/// Returns a quantity in billionths of its unit, rounded up, at most [`MAX`] units.
fn nanos(text: &str) -> Result<u128, QuantityError> {
    let invalid = || QuantityError::Invalid(text.chars().take(64).collect());
    let (negative, number) = match text.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (digits, suffix) = number.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(invalid());
    }
    let fraction = fraction.trim_end_matches('0');
    let (binary, power) = quantity_suffix(suffix).ok_or_else(invalid)?;
    if fraction.len() > FRACTION_DIGITS {
        return Err(QuantityError::TooPrecise(text.chars().take(64).collect()));
    }
    let mut digits = whole.bytes().chain(fraction.bytes()).map(|digit| u128::from(digit - b'0'));
    let mantissa = digits.try_fold(0u128, |sum, digit| sum.checked_mul(10)?.checked_add(digit));
    if negative && mantissa != Some(0) {
        return Err(QuantityError::Negative(text.chars().take(64).collect()));
    }
    // Whatever overflows is far beyond the largest quantity.
    let scaled = mantissa.map_or(u128::MAX, |mantissa| mantissa.saturating_mul(binary));
    let power = power.saturating_add(9).saturating_sub(i32::try_from(fraction.len()).unwrap_or(0));
    let factor = 10u128.checked_pow(power.unsigned_abs()).unwrap_or(u128::MAX);
    let nanos = if power < 0 { scaled.div_ceil(factor) } else { scaled.saturating_mul(factor) };
    Ok(nanos.min(MAX * 1_000_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            (".5", 500),
            ("5.", 5000),
            ("1e3", 1_000_000),
            ("1E-3", 1),
            ("1e+2", 100_000),
            ("2k", 2_000_000),
            ("+1", 1000),
            ("-0", 0),
            ("1n", 1),
            ("1500u", 2),
            ("0.0001", 1),
            ("1e-400", 1),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("1.5Gi", 3 << 29),
            ("64Mi", 64 << 20),
            ("1Ki", 1024),
            ("1k", 1000),
            ("1M", 1_000_000),
            ("2E", 2_000_000_000_000_000_000),
            ("1Ei", 1 << 60),
            ("128974848000m", 128_974_848),
            ("1100m", 2),
            ("9Ei", i64::MAX as u64),
            ("1e400", i64::MAX as u64),
            ("0e400", 0),
            ("99999999999999999999999999999999999999999999", i64::MAX as u64),
        ] {
            assert_eq!(units(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "Mi", "1.2.3", "64MB", "1 Gi", " 1", "ten", "1e", "1ei", ".", "+", "--1", "1K", "1e1.5", "é"]
        {
            assert!(matches!(units(text), Err(QuantityError::Invalid(_))), "{text}");
        }
        assert!(matches!(units("-1"), Err(QuantityError::Negative(_))));
        assert!(matches!(units("0.0000000001"), Err(QuantityError::TooPrecise(_))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", number in "[-+]?[0-9.]{0,60}[numkMGTPEei]{0,3}[-+]?[0-9]{0,12}") {
            let _ = (units(&text), millis(&text), units(&number), millis(&number));
        }

        #[test]
        fn a_number_with_any_suffix_is_the_same_number(number in 0u64..1_000_000_000) {
            prop_assert_eq!(millis(&format!("{number}m")), Ok(number));
            prop_assert_eq!(millis(&format!("{number}e-3")), Ok(number));
            prop_assert_eq!(millis(&format!("{}.{:03}", number / 1000, number % 1000)), Ok(number));
            prop_assert_eq!(units(&format!("{number}")), Ok(number));
            prop_assert_eq!(units(&format!("{number}000m")), Ok(number));
            prop_assert_eq!(units(&format!("{number}Gi")), Ok(number << 30));
            prop_assert_eq!(units(&format!("{number}G")), units(&format!("{number}e9")));
        }
    }
}
