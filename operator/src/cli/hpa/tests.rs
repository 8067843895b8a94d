//! Examples and exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use clap::Parser;

use super::*;

/// The document with the examples.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scaling-tools.md");

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Tools,
}

#[derive(Subcommand)]
enum Tools {
    #[command(subcommand)]
    Hpa(HpaCommand),
}

fn run(command: &str) -> (String, u8) {
    let Tools::Hpa(command) = Program::try_parse_from(command.split_whitespace()).unwrap().command;
    command.output()
}

/// A directory that ends with the test.
struct Dir(String);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vpn-operator-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.to_str().unwrap().to_owned())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = format!("{}/{name}", self.0);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs each command of the document in turn. A YAML block is the file that the commands after it read, and a text
/// block is the output of the command before it. With `UPDATE_README=1`, the outputs are written.
#[test]
fn the_document_shows_what_the_commands_print() {
    let dir = Dir::new("document");
    let text = fs::read_to_string(DOCUMENT).unwrap();
    let mut parts: Vec<String> = text.split("```").map(str::to_owned).collect();
    let mut output: Option<String> = None;
    let mut checked = 0;
    for block in parts.iter_mut().skip(1).step_by(2) {
        let (language, content) = block.split_once('\n').unwrap();
        match language {
            "yaml" => {
                dir.write("autoscaler.yaml", content);
            }
            "sh" => {
                let command = content.replace("\\\n", " ");
                let (printed, _) = run(&command.replace("autoscaler.yaml", &format!("{}/autoscaler.yaml", dir.0)));
                output = Some(printed.replace(&format!("{}/", dir.0), "").trim_end().to_owned());
            }
            "text" => {
                *block = format!("text\n{}\n", output.take().unwrap());
                checked += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(checked >= 2);
    let wanted = parts.join("```");
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(DOCUMENT, &wanted).unwrap();
    }
    assert_eq!(fs::read_to_string(DOCUMENT).unwrap(), wanted, "UPDATE_README=1 writes the outputs");
}

#[test]
fn the_exit_code_tells_findings_from_unreadable_files() {
    let dir = Dir::new("exit-code");
    let hpa = |target: &str| {
        format!(
            "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: app}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: app}}
  maxReplicas: 9
  metrics:
  - type: External
    external:
      metric: {{name: vpno_claimable_slots, selector: {{matchLabels: {{tag: a, workload: app}}}}}}
      target: {{{target}}}
"
        )
    };
    let good = dir.write("good.yaml", &hpa("type: AverageValue, averageValue: 1"));
    let bad = dir.write("bad.yaml", &hpa("type: Value, value: 1"));
    let none = dir.write("none.yaml", "kind: Service");
    assert_eq!(run(&format!("vpn-operator hpa lint {good}")).1, 0);
    let (output, code) = run(&format!("vpn-operator hpa lint {bad} {good}"));
    assert_eq!(code, 1);
    assert!(output.contains("error value-on-claimable") && output.contains("Corrected:"), "{output}");
    assert_eq!(run(&format!("vpn-operator hpa lint {none} {bad}")).1, 2);
    assert_eq!(run(&format!("vpn-operator hpa lint {}/absent.yaml", dir.0)).1, 2);
    let (fixed, _) = run(&format!("vpn-operator hpa lint --fix {bad}"));
    let fixed = dir.write("fixed.yaml", &fixed);
    assert_eq!(run(&format!("vpn-operator hpa lint {fixed}")).1, 0);
    assert_eq!(run(&format!("vpn-operator hpa simulate {none} --slots 5")).1, 2);
    let simulate = format!("vpn-operator hpa simulate {good} --slots 5 --event 5m=others:2");
    assert!(run(&simulate).0.contains("settles at 3"), "{}", run(&simulate).0);
    let (svg, _) = run(&format!("{simulate} -o svg"));
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
    let (csv, _) = run(&format!("{simulate} -o csv"));
    assert!(csv.lines().all(|line| line.split(',').count() == 7), "{csv}");
}
