//! The documents: their links resolve, and their statements about files and programs are true. `followed.rs` runs their
//! commands against a real API server.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{
    host::cargo,
    operator::chart,
    testing::{
        documents::blocks,
        framework::{ensure_eq, local_cluster},
    },
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use vpn_types::Reason;

use crate::of_kind;

/// A Markdown file in the checkout.
pub struct Document {
    /// The path from the root.
    pub path: String,
    text: String,
}

/// Returns all documents.
fn documents() -> Result<Vec<Document>> {
    let mut git = Command::new("git");
    git.current_dir(cargo::ROOT).args(["ls-files", "--cached", "--others", "--exclude-standard", "*.md"]);
    cargo::output(&mut git)?.lines().map(Document::read).collect()
}

impl Document {
    pub fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(Path::new(cargo::ROOT).join(path)).with_context(|| path.to_owned())?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Returns the fenced blocks of a language in the section of a heading, or all of them without one.
    pub fn blocks(&self, heading: Option<&str>, language: &str) -> Vec<String> {
        blocks(&self.text, heading, language)
    }

    /// Returns the lines outside fenced blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut fenced = false;
        self.text.lines().filter(move |line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }

    /// Returns the anchors of the headings, as GitHub generates them.
    fn anchors(&self) -> BTreeSet<String> {
        let slug = |heading: &str| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            heading.trim().to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings.map(|line| slug(line.trim_start_matches('#'))).collect()
    }

    /// Returns the targets of all links and images.
    fn links(&self) -> Vec<String> {
        let text = self.prose().collect::<Vec<_>>().join("\n");
        let mut links = Vec::new();
        for (begin, end) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"')] {
            links.extend(text.split(begin).skip(1).filter_map(|rest| rest.split(end).next()).map(str::to_owned));
        }
        links
    }

    /// Returns the commands in blocks and in inline code.
    fn commands(&self) -> Vec<String> {
        let blocks = self.blocks(None, "sh").concat().replace("\\\n", " ");
        let mut commands: Vec<String> = blocks.lines().map(str::to_owned).collect();
        for line in self.prose() {
            commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
        commands
    }
}

/// Returns the URL of the repository on GitHub.
fn home() -> Result<String> {
    let chart: Value = serde_yaml::from_str(&fs::read_to_string(format!("{}/Chart.yaml", chart::DIR))?)?;
    Ok(chart["home"].as_str().context("no home")?.to_owned())
}

#[test]
fn links_resolve() -> Result<()> {
    let ours = format!("{}/blob/HEAD/", home()?);
    for document in documents()? {
        for link in document.links() {
            let dir = Path::new(&document.path).parent().unwrap_or(Path::new(""));
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = match target.strip_prefix(&ours) {
                Some(path) => path.into(),
                None if target.contains("://") => continue,
                None if target.is_empty() => document.path.clone().into(),
                None => dir.join(target),
            };
            let what = format!("{}: {link}", document.path);
            ensure!(Path::new(cargo::ROOT).join(&path).exists(), "{what} does not exist");
            if !anchor.is_empty() {
                let anchors = Document::read(path.to_str().context("not UTF-8")?)?.anchors();
                ensure!(anchors.contains(anchor), "{what}: no such heading among {anchors:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn lines_are_short_and_the_readme_is_too() -> Result<()> {
    for document in documents()? {
        // Table rows and images must stay on one line.
        let breakable = |line: &&str| !line.starts_with('|') && !line.starts_with("  <") && line.contains(' ');
        for line in document.prose().filter(breakable) {
            ensure!(line.chars().count() <= 120, "{}: {line}", document.path);
        }
    }
    let lines = Document::read("README.md")?.text.lines().count();
    ensure!(lines <= 200, "README.md has {lines} lines");
    Ok(())
}

#[tokio::test]
async fn each_alert_links_to_its_section_of_the_runbook() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let anchors = Document::read("operator/RUNBOOK.md")?.anchors();
    let values: Value = serde_yaml::from_str(&fs::read_to_string(format!("{}/values.yaml", chart::DIR))?)?;
    let default = format!("{}/blob/HEAD/operator/RUNBOOK.md", home()?);
    ensure_eq("default", values["prometheus"]["rules"]["runbookUrl"].as_str(), Some(default.as_str()))?;
    let wiki = "https://wiki.example.com/vpn";
    for url in [&default, wiki] {
        let set =
            format!("--set=injection.enabled=true,prometheus.rules.enabled=true,prometheus.rules.runbookUrl={url}");
        let objects = chart::render(cluster, &[&set]).await?;
        let rule = *of_kind(&objects, "PrometheusRule").first().context("no PrometheusRule")?;
        let groups = rule["spec"]["groups"].as_array().context("no groups")?;
        let alerts: Vec<_> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        ensure!(groups.len() == 2 && !alerts.is_empty(), "{} groups, {} alerts", groups.len(), alerts.len());
        for alert in alerts {
            let anchor = alert["alert"].as_str().context("no name")?.to_lowercase();
            ensure!(anchors.contains(&anchor), "the runbook has no section {anchor}");
            let expected = format!("{url}#{anchor}");
            ensure_eq(&anchor, alert["annotations"]["runbook_url"].as_str(), Some(expected.as_str()))?;
        }
    }
    Ok(())
}

#[test]
fn the_runbook_names_reasons_that_exist() -> Result<()> {
    let text = Document::read("operator/RUNBOOK.md")?.text;
    let mut signs = 0;
    for paragraph in text.split("\n\n").filter(|paragraph| paragraph.starts_with("**Signs:**")) {
        signs += 1;
        let words = paragraph.split('`').skip(1).step_by(2);
        for word in words.filter(|word| word.chars().all(|c| c.is_ascii_alphabetic())) {
            ensure!(word.parse::<Reason>().is_ok(), "{word} is not a reason");
        }
    }
    ensure!(signs > 20, "{signs} symptoms");
    Ok(())
}

#[test]
fn the_pictures_are_made_from_their_source() -> Result<()> {
    let read = |name: &str| fs::read(format!("{}/operator/docs/{name}", cargo::ROOT)).with_context(|| name.to_owned());
    let source = [read("flow.dot")?, read("render.sh")?].concat();
    let hash: String = Sha256::digest(source).iter().map(|byte| format!("{byte:02x}")).collect();
    for name in ["flow-light.svg", "flow-dark.svg"] {
        let picture = String::from_utf8(read(name)?)?;
        ensure!(
            picture.contains(&format!("<!-- source: {hash} -->")),
            "operator/docs/{name} is out of date: operator/docs/render.sh"
        );
    }
    Ok(())
}

/// Paths in the text are relative to the checkout or to the document.
#[test]
fn paths_exist() -> Result<()> {
    let roots = ["chart/", "crds/", "docs/", "e2e/", "operator/", "src/", "tests/", "types/", "images/"];
    for document in documents()? {
        let dir = Path::new(&document.path).parent().unwrap_or(Path::new(""));
        for line in document.prose() {
            let words = line.split('`').skip(1).step_by(2).filter(|word| !word.contains(' '));
            for path in words.filter(|word| roots.iter().any(|root| word.starts_with(root))) {
                let exists = |path: &Path| {
                    let path = Path::new(cargo::ROOT).join(path);
                    path.exists() || path.with_extension("rs").exists()
                };
                ensure!(exists(Path::new(path)) || exists(&dir.join(path)), "{}: {path}", document.path);
            }
        }
    }
    Ok(())
}

#[test]
fn each_invariant_lives_in_files_that_exist() -> Result<()> {
    let text = Document::read("operator/README.md")?.text;
    let (_, section) = text.split_once("### Where each invariant lives").context("no such section")?;
    let files = section.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs"));
    let mut found = 0;
    for file in files {
        found += 1;
        ensure!(Path::new(cargo::ROOT).join("operator/src").join(file).exists(), "operator/src/{file} does not exist");
    }
    ensure!(found > 10, "{found} files");
    Ok(())
}

/// Returns the help of the program behind `cargo ci` and `cargo run -p e2e`.
fn help(args: &[&str]) -> Result<String> {
    cargo::output(Command::new(env!("CARGO_BIN_EXE_e2e")).args(args).arg("--help"))
}

#[test]
fn the_stages_are_those_of_cargo_ci() -> Result<()> {
    let text = Document::read("CONTRIBUTING.md")?.text;
    let (_, table) = text.split_once("| stage | what it checks |\n|---|---|\n").context("no table")?;
    let shown: Vec<_> = table.lines().map_while(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let help = help(&["test"])?;
    let stages: Vec<_> = help.lines().filter_map(|line| line.trim().strip_prefix("- ")?.split(':').next()).collect();
    ensure_eq("stages", shown, stages)
}

#[test]
fn variables_are_those_of_the_tests() -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(cargo::ROOT).args(["grep", "--no-index", "-hoE", "\"E2E_[A-Z_]+\"", "--", "e2e/src", "e2e/tests"]);
    let found = cargo::output(&mut git)?;
    let known: BTreeSet<_> = found.lines().map(|line| line.trim_matches('"')).collect();
    let text = Document::read("e2e/README.md")?.text;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `E2E_")?.split(['=', '`']).next());
    let shown: BTreeSet<_> = rows.map(|name| format!("E2E_{name}")).collect();
    ensure_eq("variables", shown.iter().map(String::as_str).collect(), known)
}

#[test]
fn commands_name_what_exists() -> Result<()> {
    let config = fs::read_to_string(format!("{}/.cargo/config.toml", cargo::ROOT))?;
    let (ours, ci) = (help(&[])?, help(&["test"])?);
    let exists = |path: &str| Path::new(cargo::ROOT).join(path).exists();
    let mut checked = 0;
    for document in documents()? {
        for command in document.commands() {
            let words: Vec<_> = command.split_whitespace().skip_while(|word| word.contains('=')).collect();
            let after = |flag: &str| words.iter().skip_while(|&&word| word != flag).nth(1).copied();
            let what = format!("{}: {command}", document.path);
            match words.as_slice() {
                ["cargo", "demo" | "ci", ..] => {
                    ensure!(config.contains(&format!("{} = ", words[1])), "{what}: no such alias");
                    let known = |word: &&str| word.parse::<u8>().is_ok() || ci.contains(word);
                    ensure!(words[1] == "demo" || words[2..].iter().all(known), "{what}: unknown argument");
                }
                ["cargo", "run" | "test", "-p", package, ..] => {
                    let dir = package.trim_start_matches("vpn-");
                    let (test, example) = (after("--test"), after("--example"));
                    ensure!(exists(&format!("{dir}/Cargo.toml")), "{what}: no such package");
                    let file = |name: &str| exists(&format!("{dir}/tests/{name}.rs"));
                    let found = |name: &str| file(name) || file(&format!("{name}/main"));
                    ensure!(test.is_none_or(found), "{what}: no such test");
                    let found = |name: &str| exists(&format!("{dir}/examples/{name}.rs"));
                    ensure!(example.is_none_or(found), "{what}: no such example");
                    let subcommand = after("--").filter(|_| *package == "e2e" && words[1] == "run");
                    let known = |name: &str| ours.lines().any(|line| line.trim().starts_with(&format!("{name} ")));
                    ensure!(subcommand.is_none_or(known), "{what}: no such command");
                }
                ["docker", "build", ..] => {
                    ensure!(exists(after("--file").unwrap_or("Dockerfile")), "{what}: no such file");
                }
                ["kubectl", ..] => {
                    let file = after("-f").filter(|file| file.contains('/'));
                    ensure!(file.is_none_or(exists), "{what}: no such file");
                }
                [program, ..] if program.ends_with(".sh") || program.starts_with(".ci/") => {
                    // Or the program is in the image of OpenVPN servers.
                    let in_image = program.rsplit('/').next().unwrap_or_default();
                    let in_image = exists(&format!("operator/setup/{in_image}"));
                    ensure!(in_image || exists(program), "{what}: no such program");
                }
                _ => continue,
            }
            checked += 1;
        }
    }
    ensure!(checked > 50, "only {checked} commands");
    Ok(())
}
