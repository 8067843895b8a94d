//! The container image of OpenVPN servers, built without a container engine: the static binary of the operator, and
//! programs from the Debian packages of this machine. `openvpn.Dockerfile` builds an image with the same programs from
//! an image in a registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use vpn_operator::controllers::servers::SERVER_IMAGE;

use crate::{
    node::{
        Image,
        images::{self, openvpn_programs},
        packages::{self, SERVERS},
    },
    operator_image,
};

/// The name of the image, which is the default of the operator.
pub const NAME: &str = SERVER_IMAGE;
/// The entrypoint of the image. The operator is in `PATH` under its usual name.
pub const ENTRYPOINT: &str = "/usr/local/bin/vpn-operator";
/// The licenses of the operator, and of what is linked into it.
pub const LICENSES: &str = "/licenses";
/// Debian's license texts, to which its copyright files refer.
const COMMON_LICENSES: &str = "/usr/share/common-licenses";

/// Installs missing Debian packages. Prints a message first.
pub fn install() -> Result<()> {
    packages::ensure(&SERVERS)
}

/// Writes the image as an archive for `ctr images import` and `docker load`. `root` is a directory with the files of the
/// operator's image: see [`operator_image::root`].
pub fn archive(root: &Path, output: &Path) -> Result<()> {
    install()?;
    // Init containers need the shell.
    let mut image = openvpn_programs(Image::new(NAME))?.busybox()?;
    for package in owners(&image)? {
        let file = format!("/usr/share/doc/{package}/copyright");
        image = image.file(&file, Path::new(&file))?;
    }
    image = image.tree(COMMON_LICENSES, Path::new(COMMON_LICENSES))?;
    image = image.file(ENTRYPOINT, &root.join(operator_image::ENTRYPOINT.trim_start_matches('/')))?;
    image = image.tree(images::SETUP_DIR, Path::new(images::SETUP))?;
    image = image.tree(LICENSES, &root.join("licenses"))?.entrypoint(&[ENTRYPOINT]);
    let image = labels().iter().fold(image, |image, (name, value)| image.label(name, value));
    image.write(output)
}

/// The labels, as in `openvpn.Dockerfile`. The files have many licenses, so none is named.
pub fn labels() -> BTreeMap<String, String> {
    let of_operator = operator_image::labels();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = of_operator.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value)));
    let mut labels: BTreeMap<_, _> = all.filter(|(name, _)| !name.ends_with(".licenses")).collect();
    labels.insert("org.opencontainers.image.title".into(), "vpn-operator-openvpn".into());
    labels
}

/// The Debian packages of the files in an image.
fn owners(image: &Image) -> Result<BTreeSet<String>> {
    let mut search = Command::new("dpkg-query");
    search.arg("--search");
    for file in image.sources() {
        let file = file.to_str().context("a path that is not UTF-8")?;
        // /lib is a link to /usr/lib, and dpkg knows a file by one of its two paths.
        let short = file.strip_prefix("/usr").unwrap_or(file);
        search.arg(short).arg(format!("/usr{short}"));
    }
    // It fails because of the other paths.
    let output = search.output().context("cannot run dpkg-query, which finds the Debian packages in the image")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut packages = BTreeSet::new();
    for (names, _) in text.lines().filter_map(|line| line.split_once(": /")) {
        // `libc6:amd64`, and several if they share a directory.
        packages.extend(names.split(", ").filter_map(|name| name.split(':').next()).map(str::to_owned));
    }
    ensure!(packages.contains("openvpn"), "dpkg-query does not know OpenVPN:\n{text}");
    Ok(packages)
}
