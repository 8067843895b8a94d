//! The table of values in the chart's README.md matches the schema. To update it: `UPDATE_README=1 cargo test -p e2e
//! --test chart readme`.

use std::{env, fs};

use anyhow::{Context, Result, ensure};
use e2e::operator::chart;
use serde_json::Value;

const BEGIN: &str =
    "<!-- Generated from chart/values.schema.json and chart/values.yaml; see e2e/tests/chart/readme.rs. -->\n";
const END: &str = "<!-- End of what is generated. -->\n";

/// The controller that stands for all of them in the table.
const ANY: &str = "masks";

#[test]
fn readme_has_every_value() -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    let schema: Value = serde_json::from_str(&read(&format!("{}/values.schema.json", chart::DIR))?)?;
    let values: Value = serde_yaml::from_str(&read(&format!("{}/values.yaml", chart::DIR))?)?;
    let mut rows = Vec::new();
    collect(&schema, &values, "", &mut rows)?;
    let table = format!("| value | default | meaning |\n|---|---|---|\n{}", rows.concat());

    let path = format!("{}/README.md", chart::DIR);
    let readme = read(&path)?;
    let (before, rest) = readme.split_once(BEGIN).context("chart/README.md has no marker for the table")?;
    let (shown, after) = rest.split_once(END).context("the table in chart/README.md has no end")?;
    if env::var_os("UPDATE_README").is_some() {
        fs::write(&path, [before, BEGIN, &table, END, after].concat())?;
        return Ok(());
    }
    ensure!(shown == table, "the table of values in chart/README.md is out of date: run with UPDATE_README=1");
    Ok(())
}

/// Adds a row for each value that has a description and no nested values.
fn collect(schema: &Value, values: &Value, path: &str, rows: &mut Vec<String>) -> Result<()> {
    let properties = schema["properties"].as_object().context("no properties")?;
    for (key, schema) in properties.iter().filter(|(key, _)| *key != "global") {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let default = &values[key];
        if schema["properties"].is_object() {
            // One row for all controllers, because they have the same values.
            if path == "controllers" {
                let one = &schema["properties"][ANY];
                for (other, theirs) in schema["properties"].as_object().into_iter().flatten() {
                    let renamed = theirs.to_string().replace(other.as_str(), ANY);
                    ensure!(serde_json::from_str::<Value>(&renamed)? == *one, "controllers.{other} differs");
                    ensure!(default[other] == default[ANY], "controllers.{other} has other defaults");
                }
                collect(one, &default[ANY], "controllers.*", rows)?;
            } else {
                collect(schema, default, &path, rows)?;
            }
            continue;
        }
        let meaning = schema["description"].as_str().with_context(|| format!("{path} has no description"))?;
        // The operator itself has defaults for absent values of `verify`.
        ensure!(!default.is_null() || path.starts_with("verify."), "{path} has no default");
        let default = if default.is_null() { String::new() } else { format!("`{}`", short(default)) };
        let meaning = if path.starts_with("controllers.*") { meaning.replace(ANY, "*") } else { meaning.to_owned() };
        rows.push(format!("| `{path}` | {default} | {} |\n", meaning.replace('|', "\\|")));
    }
    Ok(())
}

/// Returns a value in one line of YAML.
fn short(value: &Value) -> String {
    let inside = |list: Vec<String>| list.join(", ");
    match value {
        Value::Object(fields) => {
            format!("{{{}}}", inside(fields.iter().map(|(key, value)| format!("{key}: {}", short(value))).collect()))
        }
        Value::Array(items) => format!("[{}]", inside(items.iter().map(short).collect())),
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
    }
}
