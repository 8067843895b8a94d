//! Follows the documents: installs, uses a slot, upgrades and uninstalls with their commands, unchanged.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlane, ControlPlaneOptions, Framework,
    host::cargo,
    operator::executable,
    testing::framework::{ensure_eq, local_cluster},
    wait::{TIMEOUT, wait_until_all},
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::{Release, commands, documents::Document, kinds, of_kind, path_text};

/// A shell at the root of the checkout, with kubectl and helm configured for a cluster.
struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    fn new(cluster: &Cluster) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // Links to the checkout, in a directory where the commands may create files.
        for name in ["chart", "crds", "e2e", "Dockerfile"] {
            std::os::unix::fs::symlink(Path::new(cargo::ROOT).canonicalize()?.join(name), dir.path().join(name))?;
        }
        let shell = Self { dir };
        shell.program("kubectl", &command(&cluster.kubectl().command(cluster.admin()))?)?;
        shell.program("helm", &command(&cluster.helm().command(cluster.admin()))?)?;
        // The image is tested in tests/builds. No container runs here.
        shell.program("docker", "test -f Dockerfile; true")?;
        Ok(shell)
    }

    fn program(&self, name: &str, command: &str) -> Result<()> {
        let path = self.dir.path().join("bin").join(name);
        fs::create_dir_all(self.dir.path().join("bin"))?;
        fs::write(&path, format!("#!/bin/sh\n{command} \"$@\"\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// Runs the code blocks of a section and returns their output.
    async fn follow(&self, path: &str, heading: &str) -> Result<String> {
        let blocks = Document::read(path)?.blocks(Some(heading), "sh");
        ensure!(!blocks.is_empty(), "{path} has no commands under {heading}");
        self.run(&blocks.concat()).await.with_context(|| format!("{path}, {heading}"))
    }

    /// Writes the objects of a section into a file. No VPN service is available to verify the account.
    fn write_slot(&self, path: &str, heading: &str, file: &str) -> Result<()> {
        let mut slot = objects(&Document::read(path)?.blocks(Some(heading), "yaml").concat())?;
        let provider = slot.iter_mut().find(|object| object["kind"] == "MaskProvider").context("no MaskProvider")?;
        provider["spec"]["verify"] = json!({ "skip": true });
        let slot: Vec<String> = slot.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        Ok(fs::write(self.dir.path().join(file), slot.join("\n---\n"))?)
    }

    async fn run(&self, script: &str) -> Result<String> {
        let path = format!("{}:{}", self.dir.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        bash.args(["-euxo", "pipefail", "-c", script]).current_dir(self.dir.path()).env("PATH", path);
        // A deletion waits for the operator for as long as it takes.
        let output = timeout(2 * TIMEOUT, bash.kill_on_drop(true).output());
        let output = output.await.with_context(|| format!("does not end: {script}"))?.context("cannot run bash")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}\n{said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Converts a command to a shell command.
fn command(command: &Command) -> Result<String> {
    let command = command.as_std();
    let mut words = vec!["exec env".to_owned()];
    for (name, value) in command.get_envs() {
        let value = value.and_then(|value| value.to_str()).context("not UTF-8")?;
        words.push(format!("{}='{value}'", name.to_str().context("not UTF-8")?));
    }
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        words.push(format!("'{}'", word.to_str().context("not UTF-8")?));
    }
    Ok(words.join(" "))
}

/// Parses the objects in a YAML text.
fn objects(text: &str) -> Result<Vec<Value>> {
    Ok(serde_yaml::Deserializer::from_str(text).map(Value::deserialize).collect::<Result<_, _>>()?)
}

/// Whether `whole` contains everything in `part`. List items may be in any position.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|found| is_part(value, found)))
        }
        (Value::Array(part), Value::Array(whole)) => part.iter().all(|item| whole.iter().any(|w| is_part(item, w))),
        (part, whole) => part == whole,
    }
}

#[tokio::test]
async fn the_documents_can_be_followed() -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    // Not shared, because the documents name the release and the namespaces.
    let cluster = Cluster::Local(Box::new(ControlPlane::start(ControlPlaneOptions::default()).await?));
    let f = Framework::new(&cluster, "documents").await?;
    f.dump_on_error(follow(&cluster, &f)).await
}

async fn follow(cluster: &Cluster, f: &Framework) -> Result<()> {
    let shell = Shell::new(cluster)?;
    let release = Release { cluster, name: "vpn-operator" };
    shell.follow("README.md", "## Install").await?;
    let mut processes = Vec::new();
    for deployment in of_kind(&release.objects().await?, "Deployment") {
        let process = commands::start(cluster, &release, deployment).await?;
        f.namespace.add_log(&process.spec().log);
        processes.push(process);
    }

    shell.write_slot("README.md", "## Use a slot", "slot.yaml")?;
    shell.follow("README.md", "## Use a slot").await?;
    let pods = Api::<Pod>::namespaced(f.client.clone(), "apps");
    let runs = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let two = |pods: &[Pod]| pods.len() == 3 && pods.iter().filter(runs).count() == 2;
    wait_until_all(pods.clone(), TIMEOUT, "two of three Pods run", two).await?;
    cluster.run_kubectl(&["delete", "deployment/scraper", "--namespace=apps"]).await?;
    wait_until_all(pods, TIMEOUT, "no Pod", <[_]>::is_empty).await?;
    cluster.run_kubectl(&["delete", "maskprovider/london", "--namespace=accounts"]).await?;

    shell.write_slot("types/README.md", "## Request a slot", "mask.yaml")?;
    let shown = shell.follow("types/README.md", "## Request a slot").await?;
    ensure!(shown.contains("Active") && shown.contains("london"), "{shown}");

    // The Pod is created and deleted, and its Mask is deleted first.
    let shown = shell.follow("types/README.md", "## Fill in a template").await?;
    ensure!(shown.contains("pod/mirror created") && shown.contains("mask.vpn.beebs.dev \"mirror\" deleted"), "{shown}");

    // Complete YAML is accepted; fragments are part of the template.
    let template = fs::read_to_string(shell.dir.path().join("e2e/demo/pod.yaml"))?;
    let mut template = objects(&template)?.remove(0);
    let spec = template["spec"].as_object_mut().context("no spec")?;
    let sidecars = spec.get("initContainers").cloned().context("no sidecar")?;
    spec.insert("containers".to_owned(), sidecars);
    for path in ["operator/docs/accounts.md", "operator/docs/pods.md", "chart/README.md", "types/README.md"] {
        for block in Document::read(path)?.blocks(None, "yaml") {
            if block.contains("\nspec:") && block.starts_with("apiVersion:") {
                let file = shell.dir.path().join("block.yaml");
                fs::write(&file, block)?;
                cluster.run_kubectl(&["apply", "--dry-run=server", "-f", path_text(&file)?]).await?;
            } else {
                for part in objects(&block)? {
                    ensure!(is_part(&part, &template), "{path}: {part} is not in e2e/demo/pod.yaml");
                }
            }
        }
    }

    shell.follow("chart/README.md", "### Custom resource definitions").await?;
    fs::write(shell.dir.path().join("your-values.yaml"), "logging: {level: debug}\n")?;
    shell.follow("chart/README.md", "## Upgrade from 1.0.1").await?;
    let help = cluster_help(cluster).await?;
    for subcommand in ["manage-all", "remove-finalizers"] {
        ensure!(help.contains(subcommand), "{help}");
    }

    let uninstall = Document::read("chart/README.md")?.blocks(Some("## Uninstall"), "sh");
    let [in_order, way_out] = uninstall.as_slice() else { anyhow::bail!("{uninstall:?}") };
    // tests/life.rs runs it.
    ensure_eq("the way out", way_out.as_str(), "cargo run -p vpn-operator -- remove-finalizers\n")?;
    shell.run(in_order).await?;
    ensure_eq("CustomResourceDefinitions", kinds::present(cluster).await?, 0)?;
    for process in &processes {
        process.stop(TIMEOUT).await?;
    }
    Ok(())
}

async fn cluster_help(cluster: &Cluster) -> Result<String> {
    let output = Command::new(executable(cluster).await?).arg("--help").output().await?;
    Ok(String::from_utf8(output.stdout)?)
}
