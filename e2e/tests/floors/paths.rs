//! The paths in a Rust source file, in `use` declarations and in code.
//!
//! The file is read as tokens, so comments, strings and formatting do not matter, and paths in macro calls are found
//! too.

use std::iter::Peekable;

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree, token_stream::IntoIter};

/// What a source file mentions.
#[derive(Debug, Default)]
pub struct Paths {
    /// The child modules that have files of their own: `mod name;`.
    pub children: Vec<String>,
    /// Names that the file exports from elsewhere, with their paths. A glob has the name `*`.
    pub exports: Vec<(String, Vec<String>)>,
    /// Imported paths, and paths with `::` in code.
    pub imports: Vec<Vec<String>>,
}

impl Paths {
    /// Reads a source file. Test modules (`#[cfg(test)]`) do not count.
    pub fn read(source: &str) -> Result<Self> {
        let tokens: TokenStream = source.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut paths = Self::default();
        paths.take(tokens, 0).context("a declaration ends too early")?;
        Ok(paths)
    }

    /// Reads tokens in `depth` inline modules.
    fn take(&mut self, tokens: TokenStream, depth: usize) -> Option<()> {
        let mut tokens = tokens.into_iter().peekable();
        let (mut is_public, mut is_test) = (false, false);
        while let Some(token) = tokens.next() {
            match &token {
                // An attribute.
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let attribute = tokens.peek().map(ToString::to_string).unwrap_or_default();
                    is_test |= attribute.replace(' ', "") == "[cfg(test)]";
                    continue;
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket && is_test => continue,
                TokenTree::Group(group) => {
                    // `pub(crate)` is as public as `pub` here.
                    if is_public && group.delimiter() == Delimiter::Parenthesis {
                        continue;
                    }
                    self.take(group.stream(), depth)?;
                }
                TokenTree::Ident(word) if word == "pub" => {
                    is_public = true;
                    continue;
                }
                // `impl Trait + use<'a>`
                TokenTree::Ident(word)
                    if word == "use" && tokens.peek().is_some_and(|next| next.to_string() == "<") => {}
                TokenTree::Ident(word) if word == "use" => {
                    let mut found = Vec::new();
                    tree(&mut tokens, &[], &mut found)?;
                    for (name, path) in found {
                        let path = outside(path, depth);
                        match path {
                            Some(path) if is_public => self.exports.push((name, path)),
                            Some(path) => self.imports.push(path),
                            None => {}
                        }
                    }
                }
                TokenTree::Ident(word) if word == "mod" => {
                    let name = tokens.next()?.to_string();
                    match tokens.next()? {
                        TokenTree::Group(_) if is_test => {}
                        TokenTree::Group(body) => self.take(body.stream(), depth + 1)?,
                        _ => self.children.push(name),
                    }
                }
                TokenTree::Ident(word) => {
                    let mut path = vec![word.to_string()];
                    while next_is_separator(&mut tokens) {
                        match tokens.peek() {
                            Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                            // A turbofish.
                            _ => break,
                        }
                        tokens.next();
                    }
                    if path.len() > 1 {
                        self.imports.extend(outside(path, depth));
                    }
                }
                _ => {}
            }
            (is_public, is_test) = (false, false);
        }
        Some(())
    }
}

/// Reads one tree of a `use` declaration into pairs of a name and its path.
fn tree(tokens: &mut Peekable<IntoIter>, prefix: &[String], found: &mut Vec<(String, Vec<String>)>) -> Option<()> {
    let mut path = prefix.to_vec();
    loop {
        match tokens.next()? {
            TokenTree::Group(group) => {
                let mut inner = group.stream().into_iter().peekable();
                while inner.peek().is_some() {
                    tree(&mut inner, &path, found)?;
                    // The comma.
                    inner.next();
                }
                return Some(());
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                found.push(("*".into(), path));
                return Some(());
            }
            TokenTree::Ident(word) => path.push(word.to_string()),
            // The separator of an absolute path, which names another crate.
            _ => continue,
        }
        if next_is_separator(tokens) {
            continue;
        }
        // `self` in braces is the module itself.
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let mut name = path.last()?.clone();
        if tokens.peek().is_some_and(|token| token.to_string() == "as") {
            tokens.next();
            name = tokens.next()?.to_string();
        }
        found.push((name, path));
        return Some(());
    }
}

/// Takes `::`, if it is next.
fn next_is_separator(tokens: &mut Peekable<IntoIter>) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    let mut ahead = tokens.clone();
    let both = ahead.next().is_some_and(|token| is_colon(&token)) && ahead.next().is_some_and(|token| is_colon(&token));
    if both {
        tokens.next();
        tokens.next();
    }
    both
}

/// Returns a path from `depth` inline modules as seen from outside, which removes one `super` for each.
fn outside(path: Vec<String>, depth: usize) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|segment| *segment == "super").count();
    match path[0].as_str() {
        "super" if ups < depth => None,
        "super" if ups == depth && depth > 0 => Some([vec!["self".to_owned()], path[ups..].to_vec()].concat()),
        "super" => Some(path[depth..].to_vec()),
        "self" if depth > 0 => None,
        _ => Some(path),
    }
}
