//! `crds/`, and the copy in the chart, are what the types say. After a change:
//! `UPDATE_CRDS=1 cargo test -p vpn-types --test crds_up_to_date`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const HEADER: &str = "# Generated from types/src; do not edit. To generate it again:\n\
                      # UPDATE_CRDS=1 cargo test -p vpn-types --test crds_up_to_date\n";

#[test]
fn crds_up_to_date() {
    // For kubectl; for helm, which reads nothing outside of a chart.
    for place in ["crds", "chart/files/crds"] {
        check(place);
    }
}

fn check(place: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(place);
    let update = std::env::var_os("UPDATE_CRDS").is_some();
    let mut expected = BTreeSet::new();
    for crd in vpn_types::crds() {
        let name = format!("vpn.beebs.dev_{}_crd.yaml", crd.spec.names.kind.to_lowercase());
        let path = dir.join(&name);
        let text = format!("{HEADER}{}", serde_yaml::to_string(&crd).unwrap());
        if update {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{place}/{name} is out of date: run with UPDATE_CRDS=1");
        expected.insert(name);
    }
    let found: BTreeSet<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "files in {place}/");
}
