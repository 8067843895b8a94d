//! Further lines of users for the configuration of servers and clients.
//!
//! Invariant: lines are parsed as OpenVPN does it, or rejected. So no option can hide from a check in quotes, behind
//! `setenv opt`, or after the end of what looks like a block.

/// OpenVPN reads longer lines in parts.
const LONGEST: usize = 250;

/// An option in a list of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of the line, from 1.
    pub number: usize,
    /// The name of the option, or of the block.
    pub option: String,
}

/// Returns the options in these lines. Of a block such as `<extra-certs>`, that is its name.
pub(super) fn options(lines: &[String]) -> Result<Vec<Line>, String> {
    let mut options = Vec::new();
    let mut block: Option<Line> = None;
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        if line.len() > LONGEST {
            return Err(format!("line {number} is longer than {LONGEST} bytes, which OpenVPN does not read"));
        }
        if line.chars().any(|char| char.is_control() && char != '\t') {
            return Err(format!(
                "line {number} has a line break or another control character: write one line per item"
            ));
        }
        let text = line.trim_matches([' ', '\t']);
        if let Some(open) = &block {
            if text.starts_with(&format!("</{}>", open.option)) {
                block = None;
            }
            continue;
        }
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        let line = Line { number, option: option(text).ok_or_else(|| unclear(number))? };
        if text.starts_with('<') {
            block = Some(line.clone());
        }
        options.push(line);
    }
    match block {
        Some(Line { number, option }) => Err(format!("line {number}: <{option}> has no end: </{option}>")),
        None => Ok(options),
    }
}

fn unclear(number: usize) -> String {
    format!("line {number} has to begin with the name of an option, or to be the beginning of a block")
}

fn option(text: &str) -> Option<String> {
    if let Some(block) = text.strip_prefix('<') {
        return block.strip_suffix('>').filter(|name| is_name(name)).map(str::to_owned);
    }
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let first = words.next()?;
    let name = first.strip_prefix("--").unwrap_or(first);
    // With quotes or a backslash there is more than one way to write a word.
    let plain = |word: &str| word.replace(['"', '\'', '\\'], "");
    // `setenv opt NAME` is the option NAME, but not an error where it is unknown.
    if name == "setenv" && words.next().is_some_and(|word| plain(word) == "opt") {
        return words.next().filter(|name| is_name(name)).map(str::to_owned);
    }
    is_name(name).then(|| name.to_owned())
}

fn is_name(name: &str) -> bool {
    name.starts_with(|char: char| char.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests;
