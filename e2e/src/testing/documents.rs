//! The code blocks of Markdown documents.

/// Returns the fenced blocks of a language in the section of a heading, or all of them without one.
pub fn blocks(text: &str, heading: Option<&str>, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<(bool, String)> = None;
    let mut inside = heading.is_none();
    for line in text.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(info)) => block = Some((info == language && inside, String::new())),
            (Some(_), Some(_)) => found.extend(block.take().filter(|(wanted, _)| *wanted).map(|(_, text)| text)),
            (Some((_, text)), None) => text.extend([line, "\n"]),
            (None, None) if heading.is_some() && line.starts_with('#') => {
                let wanted = heading.unwrap_or_default();
                let level = |line: &str| line.chars().take_while(|&c| c == '#').count();
                inside = line == wanted || (inside && level(line) > level(wanted));
            }
            (None, None) => {}
        }
    }
    found
}
