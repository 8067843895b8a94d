//! Checks of single values of annotations. Errors say what was expected.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

/// Splits a list at its commas.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Returns a list of tags.
pub fn tags(text: &str) -> Result<Vec<String>, String> {
    let tags: Vec<_> = items(text).map(str::to_owned).collect();
    if tags.is_empty() {
        return Err("expected tags of MaskProviders, separated by commas".to_owned());
    }
    match tags.iter().find(|tag| tag.len() > 253) {
        Some(tag) => Err(format!("tag {tag:?} has more than 253 characters")),
        None => Ok(tags),
    }
}

/// Returns a priority.
pub fn priority(text: &str) -> Result<i32, String> {
    text.trim().parse().map_err(|_| format!("expected an integer, but found {text:?}"))
}

/// Returns the name of an object (RFC 1123).
pub fn name(text: &str) -> Result<String, String> {
    let is_part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    match text.len() <= vpn_types::MAX_MASK_NAME && text.split('.').all(is_part) {
        true => Ok(text.to_owned()),
        false => Err(format!("expected the name of a Mask, but found {text:?}")),
    }
}

/// Returns an image reference.
pub fn image(text: &str) -> Result<String, String> {
    match !text.is_empty() && !text.contains(char::is_whitespace) {
        true => Ok(text.to_owned()),
        false => Err(format!("expected an image, but found {text:?}")),
    }
}

/// Returns networks in CIDR notation.
pub fn subnets(text: &str) -> Result<Vec<String>, String> {
    let subnet = |item: &str| match item.parse::<ipnet::IpNet>() {
        Ok(_) => Ok(item.to_owned()),
        Err(_) => Err(format!("expected networks such as 10.0.0.0/8, separated by commas, but found {item:?}")),
    };
    items(text).map(subnet).collect()
}

/// Returns port numbers.
pub fn ports(text: &str) -> Result<Vec<u16>, String> {
    let port = |item: &str| match item.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("expected ports from 1 to 65535, separated by commas, but found {item:?}")),
    };
    items(text).map(port).collect()
}

/// Returns resources of a container, from JSON.
pub fn resources(text: &str) -> Result<ResourceRequirements, String> {
    let example = r#"expected JSON such as {"requests":{"memory":"64Mi"},"limits":{"memory":"256Mi"}}"#;
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed: Result<ResourceRequirements, _> =
        serde_ignored::deserialize(&mut json, |path| unknown.push(path.to_string()));
    let parsed = parsed.map_err(|error| format!("{example}: {error}"))?;
    json.end().map_err(|error| format!("{example}: {error}"))?;
    if let Some(field) = unknown.first() {
        return Err(format!("{example}, but found the field {field}"));
    }
    let none = BTreeMap::new();
    let all = |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().unwrap_or(&none).clone();
    for (name, quantity) in all(&parsed.requests).into_iter().chain(all(&parsed.limits)) {
        if !is_quantity(&quantity.0) {
            return Err(format!("{name} {:?} is not a quantity such as 100m or 64Mi", quantity.0));
        }
    }
    Ok(parsed)
}

/// Whether a text is a quantity: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
fn is_quantity(text: &str) -> bool {
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (digits, suffix) = number.split_at(end);
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|rest| rest.parse::<i32>().is_ok());
    digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.matches('.').count() <= 1
        && (exponent
            || ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].contains(&suffix))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["1", "100m", "0.5", ".5", "64Mi", "1e3", "1E-3", "2E", "+1", "12k"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "Mi", "1.2.3", "64MB", "1 Gi", "ten", "1e", "."] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }

    #[test]
    fn bad_values_are_refused_with_what_was_expected() {
        assert!(tags(" , ").is_err_and(|why| why.contains("tags")));
        assert_eq!(tags("uk, eu").unwrap(), ["uk", "eu"]);
        assert!(priority("high").is_err_and(|why| why.contains("integer")));
        assert!(name("My_Mask").is_err_and(|why| why.contains("Mask")));
        assert!(subnets("10.0.0.0").is_err_and(|why| why.contains("10.0.0.0/8")));
        assert_eq!(subnets("10.0.0.0/8,fd00::/8").unwrap().len(), 2);
        assert!(ports("0").is_err_and(|why| why.contains("1 to 65535")));
        assert!(ports("http").is_err());
        assert!(resources(r#"{"limit":{"memory":"1Gi"}}"#).is_err_and(|why| why.contains("the field limit")));
        assert!(resources(r#"{"limits":{"memory":"64MB"}}"#).is_err_and(|why| why.contains("64MB")));
        assert!(resources("64Mi").is_err());
        assert!(resources(r#"{"limits":{"memory":"64Mi"}}"#).is_ok());
        assert!(image("a b").is_err());
    }
}
