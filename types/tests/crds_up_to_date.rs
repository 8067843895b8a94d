//! `crds/`, its API reference and the chart's copy of the definitions match the types. To update them: `UPDATE_CRDS=1
//! cargo test -p vpn-types --test crds_up_to_date`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod reference;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const HEADER: &str = "# Generated from types/src; do not edit. To generate it again:\n\
                      # UPDATE_CRDS=1 cargo test -p vpn-types --test crds_up_to_date\n";

#[test]
fn crds_up_to_date() {
    let definitions: Vec<_> = vpn_types::crds()
        .iter()
        .map(|crd| {
            let name = format!("vpn.beebs.dev_{}_crd.yaml", crd.spec.names.kind.to_lowercase());
            (name, format!("{HEADER}{}", serde_yaml::to_string(crd).unwrap()))
        })
        .collect();
    // For helm, which reads only files inside the chart.
    check("chart/files/crds", &definitions);
    // For kubectl, which ignores Markdown files.
    check("crds", &[&definitions[..], &[("README.md".to_owned(), reference::document())]].concat());
}

fn check(place: &str, files: &[(String, String)]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(place);
    let update = std::env::var_os("UPDATE_CRDS").is_some();
    let mut expected = BTreeSet::new();
    for (name, text) in files {
        let path = dir.join(name);
        if update {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == *text, "{place}/{name} is out of date: run with UPDATE_CRDS=1");
        expected.insert(name.clone());
    }
    let found: BTreeSet<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "files in {place}/");
}
