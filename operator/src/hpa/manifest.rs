//! Reads manifests. Errors name the file, the document and the field.

use serde::{Deserialize, de::DeserializeOwned};
use serde_yaml::Value;

use super::{autoscaler::Autoscaler, from_hpa, from_keda};

/// An autoscaler and where it was found.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file and the document.
    pub place: String,
    /// The document as it was written.
    pub raw: Value,
    /// What it means.
    pub autoscaler: Autoscaler,
    /// Fields that the API does not have.
    pub unknown: Vec<String>,
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The autoscalers.
    pub manifests: Vec<Manifest>,
    /// A sentence for each object of another kind.
    pub skipped: Vec<String>,
    /// What cannot be read, and where.
    pub errors: Vec<String>,
}

/// Reads the documents of a file. A mistake in one of them does not hide the others, unless it is one of YAML.
///
/// # Errors
/// That the file has no autoscaler, or what cannot be read in one that has no other.
pub fn read(file: &str, text: &str) -> Result<Documents, String> {
    let mut found = Documents::default();
    // Some editors on Windows begin a file with a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let place = format!("{file}, document {}", index + 1);
        let result = match Value::deserialize(document) {
            Ok(mut value) => value
                .apply_merge()
                .map_err(|error| format!("{place}: {error}"))
                .and_then(|()| add(value, &place, &mut found)),
            // The rest of the file has no documents that can be told apart.
            Err(error) => {
                found.errors.push(format!("{place}: {error}"));
                break;
            }
        };
        found.errors.extend(result.err());
    }
    let Documents { manifests, skipped, errors } = &found;
    match (manifests.is_empty(), skipped.is_empty(), errors.is_empty()) {
        (false, ..) => Ok(found),
        (true, _, false) => Err(errors.join("; ")),
        (true, true, true) => {
            Err(format!("{file}: expected a HorizontalPodAutoscaler or a ScaledObject, but the file is empty"))
        }
        (true, false, true) => Err(format!(
            "{file}: expected a HorizontalPodAutoscaler or a ScaledObject, but found only other objects: {}",
            skipped.join("; ")
        )),
    }
}

/// Returns a manifest as text. Kubernetes reads YAML 1.1, in which `no` and `1_000` are not strings.
///
/// # Errors
/// Why it cannot be written.
pub fn write(manifest: &Value) -> Result<String, String> {
    serde_saphyr::to_string(manifest).map_err(|error| error.to_string())
}

fn add(value: Value, place: &str, found: &mut Documents) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() {
        return Err(format!("{place}: expected an object of Kubernetes, but it has no kind"));
    }
    if let Some(items) = value.get("items").and_then(Value::as_sequence).filter(|_| kind.ends_with("List")) {
        for (index, item) in items.iter().enumerate() {
            let result = add(item.clone(), &format!("{place}, item {}", index + 1), found);
            found.errors.extend(result.err());
        }
        return Ok(());
    }
    match kind {
        "HorizontalPodAutoscaler" | "ScaledObject" => found.manifests.push(Manifest::new(place, value)?),
        _ => {
            let name = value.get("metadata").and_then(|it| it.get("name")).and_then(Value::as_str).unwrap_or("?");
            found.skipped.push(format!("{place}: {kind} {name} ({version}) is not an autoscaler"));
        }
    }
    Ok(())
}

impl Manifest {
    /// Reads an autoscaler.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn new(place: &str, raw: Value) -> Result<Self, String> {
        let at = |error| format!("{place}: {error}");
        let version = raw.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let kind = raw.get("kind").and_then(Value::as_str).unwrap_or_default();
        let wanted = if kind == "ScaledObject" { "keda.sh/v1alpha1" } else { "autoscaling/v2" };
        if version != wanted {
            return Err(at(format!("apiVersion: expected {wanted}, but found {version:?}")));
        }
        let (autoscaler, unknown) = match kind {
            "ScaledObject" => {
                let (object, unknown) = typed(raw.clone()).map_err(at)?;
                (from_keda::convert(object).map_err(at)?, unknown)
            }
            _ => {
                let (object, unknown) = typed(raw.clone()).map_err(at)?;
                (from_hpa::convert(object).map_err(at)?, unknown)
            }
        };
        Ok(Self { place: place.to_owned(), raw, autoscaler, unknown })
    }

    /// Returns the kind and the name.
    pub fn title(&self) -> String {
        format!("{} {}", self.autoscaler.kind, self.autoscaler.name)
    }
}

/// Reads a type, and the paths of the fields that it does not have.
fn typed<T: DeserializeOwned>(mut value: Value) -> Result<(T, Vec<String>), String> {
    quantities(&mut value);
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", ""));
    let result = T::deserialize(serde_ignored::Deserializer::new(deserializer, &mut ignored));
    match result {
        Ok(typed) => Ok((typed, unknown)),
        Err(error) => Err(format!("{}: {error}", track.path())),
    }
}

/// Makes quantities that are numbers into texts, as the API server does.
fn quantities(value: &mut Value) {
    let Value::Mapping(fields) = value else {
        if let Value::Sequence(items) = value {
            items.iter_mut().for_each(quantities);
        }
        return;
    };
    let of_target = fields.get("type").and_then(Value::as_str).is_some_and(|it| it == "Value" || it == "AverageValue");
    for (key, field) in fields.iter_mut() {
        match (key.as_str(), &*field) {
            (Some("averageValue" | "tolerance"), Value::Number(number)) => *field = number.to_string().into(),
            (Some("value"), Value::Number(number)) if of_target => *field = number.to_string().into(),
            _ => quantities(field),
        }
    }
}
