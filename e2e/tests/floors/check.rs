//! Checks that the modules of a crate form floors.
//!
//! The floors name the top-level modules of a source directory, from the bottom up. `lib` and `main` are modules too.
//! The rules are:
//!
//! - A module imports only from itself and from modules on floors below its own. Two modules on one floor do not import
//!   each other.
//! - Each top-level module is on exactly one floor, and each name on a floor is a module.
//! - There is no cycle of imports between files, not even within one top-level module.
//!
//! An import is a path of a `use` declaration, or any path with `::` inside of code: `crate::a::b`, `super::b`, `b::c`
//! where `b` is a child module, and `name_of_the_crate::a::b` in the binary of a package. Its target is the file that
//! declares the last module in the path. The check follows `pub use`, so an item that `mod.rs` exports from a child is an
//! import from the child.
//!
//! `mod` and `pub use` declarations are not imports: a `mod.rs` may export what its children have. A child that imports an
//! item which `mod.rs` itself defines is therefore fine, unless `mod.rs` also imports from that child.
//!
//! The check does not see calls of methods. Test modules (`#[cfg(test)]`) do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};

use super::paths::Paths;

/// A module by its path in the crate, such as `["node", "image"]`. `lib` and `main` are the roots.
type Module = Vec<String>;

/// Returns a sentence for each violation in the source directory `dir` of a crate.
///
/// # Errors
/// If a file cannot be read or is not Rust.
pub fn check(dir: &Path, crate_name: &str, floors: &[&[&str]]) -> Result<Vec<String>> {
    let mut files = BTreeMap::new();
    read(dir, &mut Vec::new(), &mut files).with_context(|| format!("cannot read {}", dir.display()))?;
    let source = Source { crate_name: crate_name.replace('-', "_"), files };
    let edges = source.edges();
    let mut violations = source.names(floors);
    violations.extend(upward(&edges, floors));
    violations.extend(circles(&edges));
    Ok(violations)
}

/// Reads the files in a directory and its subdirectories. `module` is the path of the directory.
fn read(dir: &Path, module: &mut Module, files: &mut BTreeMap<Module, Paths>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a name that is not UTF-8")?.to_owned();
        if path.is_dir() {
            module.push(name);
            read(&path, module, files)?;
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let own = if name == "mod" { module.clone() } else { [&module[..], &[name]].concat() };
            let text = fs::read_to_string(&path)?;
            files.insert(own, Paths::read(&text).with_context(|| path.display().to_string())?);
        }
    }
    Ok(())
}

struct Source {
    crate_name: String,
    files: BTreeMap<Module, Paths>,
}

impl Source {
    /// Returns the imports between files, from the importing file to the imported one.
    fn edges(&self) -> BTreeSet<(&Module, &Module)> {
        let mut edges = BTreeSet::new();
        for (from, paths) in &self.files {
            for path in &paths.imports {
                if let Some(to) = self.target(from, path, 0).filter(|to| *to != from) {
                    edges.insert((from, to));
                }
            }
        }
        edges
    }

    /// Returns the file that a path in the file `from` leads to, if it is in this crate.
    fn target(&self, from: &Module, path: &[String], depth: usize) -> Option<&Module> {
        // Stops at two files that export from each other.
        if depth > 10 {
            return None;
        }
        let is_root = |module: &Module| matches!(module.as_slice(), [root] if root == "lib" || root == "main");
        let lib = || vec!["lib".to_owned()];
        let mut module = if is_root(from) { Vec::new() } else { from.clone() };
        let mut root = if is_root(from) { from.clone() } else { lib() };
        let mut rest = path;
        match path[0].as_str() {
            "crate" => {
                module.clear();
                rest = &path[1..];
                // The binary has its own modules.
                if self.of_binary(from) {
                    root = vec!["main".to_owned()];
                }
            }
            first if first == self.crate_name => {
                (module, root) = (Vec::new(), lib());
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while let Some((first, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
                    let _ = first;
                    module.pop();
                    rest = after;
                }
            }
            // Otherwise it is only a child module, or the name of an export.
            first => {
                let paths = &self.files[from];
                if !paths.children.iter().any(|child| child == first) {
                    return None;
                }
            }
        }
        // Descend as long as there are modules.
        while let Some(next) = rest.first() {
            module.push(next.clone());
            if !self.files.contains_key(&module) {
                module.pop();
                break;
            }
            rest = &rest[1..];
        }
        let file = if module.is_empty() { root } else { module };
        let (file, paths) = self.files.get_key_value(&file)?;
        let Some(name) = rest.first() else { return Some(file) };
        // Follow an export from elsewhere.
        let exported = paths.exports.iter().find(|(export, _)| export == name);
        match exported {
            Some((_, path)) => {
                let path: Vec<_> = path.iter().chain(&rest[1..]).cloned().collect();
                self.target(file, &path, depth + 1)
            }
            None => Some(file),
        }
    }

    /// Whether the file belongs to the binary: `main.rs` declares its top-level module.
    fn of_binary(&self, file: &Module) -> bool {
        let main = self.files.get(&vec!["main".to_owned()]);
        file[0] == "main" || main.is_some_and(|main| main.children.contains(&file[0]))
    }

    /// Returns modules that are on no floor or on two, and names on a floor that are not modules.
    fn names(&self, floors: &[&[&str]]) -> Vec<String> {
        let modules: BTreeSet<_> = self.files.keys().map(|module| module[0].as_str()).collect();
        let mut named = BTreeSet::new();
        let mut violations = Vec::new();
        for name in floors.iter().copied().flatten() {
            if !named.insert(*name) {
                violations.push(format!("{name} is on two floors"));
            }
            if !modules.contains(name) {
                violations.push(format!("{name} is on a floor, but there is no such module"));
            }
        }
        violations.extend(modules.difference(&named).map(|module| format!("{module} is on no floor")));
        violations
    }
}

/// Returns the imports from a floor that is not below.
fn upward(edges: &BTreeSet<(&Module, &Module)>, floors: &[&[&str]]) -> Vec<String> {
    let floor = |module: &Module| floors.iter().position(|floor| floor.contains(&module[0].as_str()));
    let is_upward = |(from, to): &&(&Module, &Module)| {
        from[0] != to[0] && matches!((floor(from), floor(to)), (Some(from), Some(to)) if to >= from)
    };
    let edges = edges.iter().filter(is_upward);
    edges.map(|(from, to)| format!("{} imports {}, which is not below it", from.join("::"), to.join("::"))).collect()
}

/// Returns the cycles of imports between files, each with its shortest path from its first file.
fn circles(edges: &BTreeSet<(&Module, &Module)>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    let starts: BTreeSet<_> = edges.iter().map(|(from, _)| *from).collect();
    for start in starts {
        // Breadth first, with the path to each file.
        let mut ways = vec![vec![start]];
        let mut reached = BTreeSet::new();
        let mut next = 0;
        while let Some(way) = ways.get(next).cloned() {
            next += 1;
            let last = way[way.len() - 1];
            for (_, to) in edges.iter().filter(|(from, _)| *from == last) {
                if *to == start {
                    let members: BTreeSet<_> = way.iter().copied().collect();
                    if seen.insert(members) {
                        let names: Vec<_> = way.iter().chain([&start]).map(|module| module.join("::")).collect();
                        violations.push(format!("a circle: {}", names.join(" -> ")));
                    }
                    ways.truncate(next);
                    break;
                }
                if reached.insert(*to) {
                    ways.push([&way[..], &[*to]].concat());
                }
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::Result;

    use super::check;

    /// Checks a crate `some-crate` of these files.
    fn found(files: &[(&str, &str)], floors: &[&[&str]]) -> Result<Vec<String>> {
        let dir = tempfile::tempdir()?;
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(dir.path()))?;
            fs::write(path, text)?;
        }
        check(dir.path(), "some-crate", floors)
    }

    #[test]
    fn an_import_from_below_is_fine_and_one_from_above_or_beside_is_not() -> Result<()> {
        let files = [
            ("lib.rs", "pub mod a; mod b; mod c; pub use b::Thing;"),
            ("a.rs", "/* crate::c */ // crate::c\nconst TEXT: &str = \"crate::c\";"),
            ("b.rs", "use crate::{a, c::{self as other}}; pub struct Thing;"),
            ("c.rs", "fn f() { println!(\"{}\", crate::a::TEXT); crate::Thing::new(); }"),
        ];
        let floors: &[&[&str]] = &[&["a"], &["b"], &["c"], &["lib"]];
        let circle = "a circle: b -> c -> b";
        assert_eq!(found(&files, floors)?, ["b imports c, which is not below it", circle]);
        let beside: &[&[&str]] = &[&["a"], &["b", "c"], &["lib"]];
        let both = ["b imports c, which is not below it", "c imports b, which is not below it", circle];
        assert_eq!(found(&files, beside)?, both);
        Ok(())
    }

    #[test]
    fn the_binary_imports_the_library_by_its_name() -> Result<()> {
        let files = [
            ("lib.rs", "pub mod a; pub use a::Thing;"),
            ("a.rs", "pub struct Thing;"),
            ("main.rs", "mod commands; fn main() { commands::run() }"),
            ("commands.rs", "use some_crate::{Thing, a}; use crate::main_item; pub fn run() {}"),
        ];
        let floors: &[&[&str]] = &[&["a"], &["lib"], &["commands"], &["main"]];
        let expected = ["commands imports main, which is not below it", "a circle: commands -> main -> commands"];
        assert_eq!(found(&files, floors)?, expected);
        Ok(())
    }

    #[test]
    fn circles_between_files_of_one_module_are_found() -> Result<()> {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod one; pub mod two; mod three; pub use one::One; pub struct Own; fn f() { three::g() }"),
            ("a/one.rs", "use super::two::Two; pub struct One; mod inner { use super::super::two; }"),
            ("a/two.rs", "use super::One; use super::Own; pub struct Two;"),
            ("a/three.rs", "#[cfg(test)] mod tests { use super::*; use crate::a::Own; } pub fn g() {}"),
        ];
        let floors: &[&[&str]] = &[&["a"], &["lib"]];
        assert_eq!(found(&files, floors)?, ["a circle: a::one -> a::two -> a::one"]);
        let mut files = files;
        files[4].1 = "use super::Own; pub fn g() {}";
        assert_eq!(found(&files, floors)?, ["a circle: a -> a::three -> a", "a circle: a::one -> a::two -> a::one"]);
        Ok(())
    }

    #[test]
    fn each_module_is_on_one_floor() -> Result<()> {
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", ""), ("b.rs", "")];
        let floors: &[&[&str]] = &[&["a", "gone"], &["a"], &["lib"]];
        let expected = ["gone is on a floor, but there is no such module", "a is on two floors", "b is on no floor"];
        assert_eq!(found(&files, floors)?, expected);
        Ok(())
    }
}
