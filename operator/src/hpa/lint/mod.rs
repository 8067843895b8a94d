//! Findings about an autoscaler, and the corrected manifest.
//!
//! Invariant: a corrected manifest has no finding that would correct it again.

mod edit;
mod finding;
mod keda;
mod labels;
mod limits;
mod metrics;
mod served;
mod tolerance;

use super::manifest::{self, Manifest};
pub use finding::{Finding, Level};

/// Returns the findings about an autoscaler, the worst first. `slots` are those in reach, if known.
pub fn findings(manifest: &Manifest, slots: Option<u32>) -> Vec<Finding> {
    let autoscaler = &manifest.autoscaler;
    // KEDA may have newer fields, but the API of Kubernetes is complete.
    let level = if autoscaler.keda.is_some() { Level::Warning } else { Level::Error };
    let unknown = manifest.unknown.iter().map(|field| {
        Finding::new(level, "unknown-field", format!("There is no field {field}. Check its name and indentation."))
    });
    let refused = autoscaler.problems().into_iter().map(|it| Finding::new(Level::Error, it.code, it.message));
    let mut all: Vec<_> = unknown.chain(refused).collect();
    all.extend(metrics::findings(autoscaler, slots));
    all.extend(tolerance::findings(autoscaler));
    all.extend(limits::findings(autoscaler, slots));
    all.extend(keda::findings(autoscaler));
    all.sort_by_key(|finding| finding.level);
    all
}

/// Returns the corrected manifest, unless there is nothing to correct.
///
/// # Errors
/// If the corrected manifest cannot be read or written, which is a mistake in a rule.
pub fn corrected(manifest: &Manifest, slots: Option<u32>) -> Result<Option<String>, String> {
    let mut current = manifest.clone();
    // One correction can give rise to another one, such as a new target to a tolerance.
    for _ in 0..5 {
        let edits: Vec<_> = findings(&current, slots).into_iter().flat_map(|finding| finding.edits).collect();
        if edits.is_empty() {
            break;
        }
        edits.iter().for_each(|edit| edit.apply(&mut current.raw));
        current = Manifest::new(&current.place, current.raw)?;
    }
    match current.raw == manifest.raw {
        true => Ok(None),
        false => manifest::write(&current.raw).map(Some),
    }
}

/// Describes the findings about an autoscaler.
pub fn render(manifest: &Manifest, findings: &[Finding]) -> String {
    let mut text = format!("{} ({})\n", manifest.title(), manifest.place);
    for Finding { level, code, message, edits: _ } in findings {
        let level = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        };
        text += &wrapped(&format!("{level} {code}: {message}"));
    }
    if findings.is_empty() {
        text += "  no findings\n";
    }
    text
}

/// Breaks a text into lines of at most 100 characters, and indents them.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::from(" "));
    for word in text.split(' ') {
        if line.len() + word.len() >= 100 {
            lines += &format!("{line}\n");
            line = "   ".into();
        }
        line += &format!(" {word}");
    }
    format!("{lines}{line}\n")
}
