//! The suffixes of quantities ([reference]).
//!
//! [reference]: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/

/// Returns the factor and the power of ten of the suffix of a quantity, such as `Ki`, `m` or `e3`. Returns `None` for
/// anything else.
pub fn quantity_suffix(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => (1, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}
