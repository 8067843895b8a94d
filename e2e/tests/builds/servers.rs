//! The container image of OpenVPN servers: its contents, and that its programs work.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{
    host::{cargo, command::run},
    node::images,
    servers_image,
    testing::framework::ensure_eq,
};
use serde_json::{Value, json};
use vpn_operator::openvpn::{AgentSettings, firewall};

use crate::image;

/// The packages in the image, whichever way it is built.
const PACKAGES: [&str; 3] = ["iproute2", "iptables", "openvpn"];

/// Blocks until the operator is built, so the build does not count toward the timeout of the harness.
pub async fn it_has_what_a_server_needs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("servers.tar");
    servers_image::archive(image::root()?, &path)?;
    let archive = image::files(fs::File::open(&path)?)?;
    let read = |name: &str| archive.get(name).map(|(_, bytes)| bytes.as_slice()).with_context(|| format!("no {name}"));
    let manifest: Value = serde_json::from_slice(read("manifest.json")?)?;
    ensure_eq("names", &manifest[0]["RepoTags"], &json!([servers_image::NAME]))?;
    let config: Value = serde_json::from_slice(read(manifest[0]["Config"].as_str().context("no config")?)?)?;
    ensure_eq("entrypoint", &config["config"]["Entrypoint"], &json!([servers_image::ENTRYPOINT]))?;
    ensure_eq("labels", &config["config"]["Labels"], &json!(servers_image::labels()))?;
    let path = config["config"]["Env"][0].as_str().context("no PATH")?;
    ensure!(path.split(['=', ':']).any(|dir| dir == "/usr/local/bin"), "{path}");

    let layer = read(manifest[0]["Layers"][0].as_str().context("no layer")?)?;
    let files = image::files(layer)?;
    let licenses = ["licenses/LICENSE-MIT".to_owned(), "usr/share/common-licenses/GPL-2".to_owned()];
    let of_packages = PACKAGES.iter().chain(&["libc6", "busybox-static"]);
    let of_packages = of_packages.map(|package| format!("usr/share/doc/{package}/copyright"));
    for name in of_packages.chain(licenses) {
        let (header, _) = files.get(&name).with_context(|| format!("no {name}"))?;
        ensure_eq(&name, header.mode()?, 0o644)?;
    }
    // The exporter runs as another user.
    ensure_eq("mode", files.get("usr/local/bin/vpn-operator").context("no operator")?.0.mode()?, 0o755)?;

    let root = dir.path().join("root");
    tar::Archive::new(layer).unpack(&root)?;
    ensure_eq("version", inside(&root, "vpn-operator --version")?.trim(), "vpn-operator 2.0.0")?;
    ensure!(inside(&root, "openvpn --show-ciphers")?.contains("CHACHA20-POLY1305"), "no cipher");
    // OpenVPN becomes this user and this group.
    ensure_eq(
        "user",
        inside(&root, "id nobody")?.trim(),
        "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)",
    )?;
    for command in ["newClientCert.sh laptop 203.0.113.7", "revokeClientCert.sh laptop"] {
        let said = inside(&root, &format!("{}/{command} 2>&1 || true", images::SETUP_DIR))?;
        ensure!(said.contains("spec.serviceAccountName"), "{said}");
    }
    // The program for a Pod with a privileged init container.
    inside(&root, "echo 1 > /tmp/ip_forward")?;
    rules_are_accepted(&root)
}

/// Runs the commands of a server's process, which need the modules of iptables.
fn rules_are_accepted(root: &Path) -> Result<()> {
    let settings = AgentSettings::parse(
        r#"{"version":1,"protocol":"UDP","port":1194,"clients":"10.240.0.0/16","redirectGateway":false,
        "routes":["10.96.0.0/12"],"drainTimeoutSeconds":300,"maxClients":128}"#,
    )?;
    let command = |arguments: &[String]| format!("iptables {}", arguments.join(" "));
    let mut script = String::from("set -e; ip link set lo up\n");
    for step in firewall::steps(&settings) {
        let unless = step.unless.map(|unless| format!("{} 2>/dev/null || ", command(&unless)));
        script += &format!("{}{}\n", unless.unwrap_or_default(), command(&step.arguments));
    }
    let rules = inside(root, &(script + "iptables -t nat -S; iptables -S"))?;
    for rule in ["-j MASQUERADE", "--ctstate RELATED,ESTABLISHED", "--dport 9176"] {
        ensure!(rules.contains(rule), "no {rule}:\n{rules}");
    }
    Ok(())
}

/// Runs a script in the image, with a network of its own.
fn inside(root: &Path, script: &str) -> Result<String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--root"]).arg(root).args(["/bin/sh", "-c", script]);
    run(unshare.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin"))
}

/// With a container engine, the Dockerfile builds an image with the same programs.
pub fn the_dockerfile_says_the_same() -> Result<()> {
    let read = |name: &str| fs::read_to_string(Path::new(cargo::ROOT).join(name));
    let (dockerfile, of_operator) = (read("openvpn.Dockerfile")?, read("Dockerfile")?);
    let (build, last) = dockerfile.split_once("\n\nFROM debian:bookworm-slim\n").context("not FROM Debian")?;
    let (build_of_operator, _) = of_operator.split_once("\n\nFROM ").context("one stage")?;
    // A container engine then builds it once for both.
    let instructions = |stage: &str| stage.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    ensure_eq("stage that builds", instructions(build), instructions(build_of_operator))?;
    image::builds_with_the_rust_version(build)?;

    let (_, install) = last.split_once("apt-get install --yes --no-install-recommends ").context("no packages")?;
    let packages = install.lines().next().unwrap_or_default().split_whitespace().filter(|word| *word != "\\");
    ensure_eq("packages", packages.collect::<Vec<_>>(), PACKAGES.to_vec())?;
    ensure!(last.contains("COPY --from=build /image/vpn-operator /usr/local/bin/vpn-operator\n"), "other operator");
    ensure!(
        last.contains(&format!("COPY --from=build /image/licenses/ {}/\n", servers_image::LICENSES)),
        "no licenses"
    );
    let scripts = format!("COPY --chmod=755 operator/setup/ {}/\n", images::SETUP_DIR);
    ensure!(last.contains(&scripts), "no scripts");
    ensure!(last.contains(&format!("ENTRYPOINT [\"{}\"]\n", servers_image::ENTRYPOINT)), "another entrypoint");
    ensure!(!last.contains("USER "), "the Pods set the user, so the image must not");
    let (_, after) = last.split_once("LABEL ").context("no labels")?;
    let labels: BTreeSet<_> = after.lines().map_while(|line| line.trim().split_once('=')).collect();
    let labels: BTreeSet<_> =
        labels.into_iter().map(|(name, value)| (name, value.trim_matches(['"', ' ', '\\']))).collect();
    let expected = servers_image::labels();
    ensure_eq("labels", labels, expected.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())?;

    let chart: Value = serde_yaml::from_str(&read("chart/values.yaml")?)?;
    ensure_eq("image of the chart", &chart["servers"]["image"], &json!(servers_image::NAME))
}
