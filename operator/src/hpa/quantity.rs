//! Quantities of Kubernetes: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use crate::model::quantity_suffix;

/// Returns a quantity in thousandths, rounded up as the controller does.
pub fn milli(text: &str) -> Option<i64> {
    let nanos = nanos(text)?;
    let rest = i128::from(nanos % 1_000_000 > 0);
    i64::try_from(nanos / 1_000_000 + rest).ok()
}

/// Returns a quantity as a number.
pub fn float(text: &str) -> Option<f64> {
    Some(nanos(text)? as f64 / 1e9)
}

fn nanos(text: &str) -> Option<i128> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 18 || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let (factor, exponent) = quantity_suffix(suffix)?;
    let exponent = exponent.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let product = mantissa.checked_mul(factor.try_into().ok()?)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let scaled = match exponent < 0 {
        true => product / power + i128::from(product % power > 0),
        false => product.checked_mul(power)?,
    };
    Some(if text.starts_with('-') { -scaled } else { scaled })
}

/// Returns thousandths as a number without trailing zeros.
pub fn display(milli: i64) -> String {
    let text = format!("{}{}.{:03}", if milli < 0 { "-" } else { "" }, milli.abs() / 1000, milli.abs() % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_shown_in_thousandths() {
        for (text, wanted) in [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            (".5", 500),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1e3", 1_000_000),
        ] {
            assert_eq!(milli(text), Some(wanted), "{text}");
        }
        assert_eq!(milli("1u"), Some(1), "rounded up");
        assert_eq!(milli("-2"), Some(-2000));
        for bad in ["", "ten", "1.2.3", "1 Gi", "64MB", "9999999999999999999", "1e99", "1E200"] {
            assert_eq!(milli(bad), None, "{bad}");
        }
        assert_eq!(float("0.05"), Some(0.05));
        assert_eq!([display(1500), display(20_000), display(-1), display(0)], ["1.5", "20", "-0.001", "0"]);
    }
}
