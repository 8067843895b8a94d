//! Container images that are created from files of this machine, without a registry or a Dockerfile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::host::command::run;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Since Debian 12, these are links into `/usr`. The files of an image are in the directories that the links lead to.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// A container image: one layer, in the format of `docker save`.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name with the tag, such as `localhost/tools:1`.
    pub name: String,
    entries: Vec<Entry>,
    entrypoint: Vec<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    mode: u32,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Directory,
    Copy(PathBuf),
    Text(String),
    Link(String),
}

impl Image {
    /// An image with the directories that programs expect. They are empty.
    pub fn new(name: impl Into<String>) -> Self {
        let mut image =
            Self { name: name.into(), entries: Vec::new(), entrypoint: Vec::new(), labels: BTreeMap::new() };
        for (dir, mode) in
            [("dev", 0o755), ("etc", 0o755), ("proc", 0o755), ("run", 0o755), ("sys", 0o755), ("tmp", 0o1777)]
        {
            image.entries.push(Entry { path: dir.into(), mode, content: Content::Directory });
        }
        for dir in MERGED {
            let usr = format!("usr/{dir}");
            image.entries.push(Entry { path: usr.clone().into(), mode: 0o755, content: Content::Directory });
            image.entries.push(Entry { path: dir.into(), mode: 0o777, content: Content::Link(usr) });
        }
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
        let groups = "root:x:0:\nnogroup:x:65534:\n";
        image.link("/var/run", "/run").text("/etc/passwd", users, 0o644).text("/etc/group", groups, 0o644)
    }

    /// The command that a container runs unless its Pod says otherwise.
    #[must_use]
    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The files of this machine in the image.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().filter_map(|entry| match &entry.content {
            Content::Copy(source) => Some(source.as_path()),
            _ => None,
        })
    }

    /// Adds a file of this machine at `path`, with the same mode, but readable for all users.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(mut self, path: &str, source: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
        ensure!(metadata.is_file(), "{} is no file", source.display());
        let mode = metadata.permissions().mode() & 0o7777;
        let mode = mode | 0o044 | (mode & 0o100) >> 3 | (mode & 0o100) >> 6;
        self.entries.push(Entry { path: inside(path), mode, content: Content::Copy(source.to_owned()) });
        Ok(self)
    }

    /// Adds a file with this content.
    #[must_use]
    pub fn text(mut self, path: &str, content: &str, mode: u32) -> Self {
        self.entries.push(Entry { path: inside(path), mode, content: Content::Text(content.into()) });
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entries.push(Entry { path: inside(path), mode: 0o777, content: Content::Link(target.into()) });
        self
    }

    /// Adds a program of this machine with its shared libraries, all at the same paths.
    ///
    /// # Errors
    /// When the program or one of its libraries is missing.
    pub fn program(mut self, path: &str) -> Result<Self> {
        self = self.file(path, Path::new(path))?;
        for library in libraries(path)? {
            self = self.file(&library, Path::new(&library))?;
        }
        Ok(self)
    }

    /// Adds a program of this machine at another path, with its shared libraries at their own.
    ///
    /// # Errors
    /// When the program or one of its libraries is missing.
    pub fn linked_file(mut self, path: &str, program: &Path) -> Result<Self> {
        self = self.file(path, program)?;
        for library in libraries(&program.to_string_lossy())? {
            self = self.file(&library, Path::new(&library))?;
        }
        Ok(self)
    }

    /// Adds a directory of this machine with everything in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tree(mut self, path: &str, source: &Path) -> Result<Self> {
        let entries = fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))?;
        let mut entries: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        entries.sort();
        for source in entries {
            let path = format!("{path}/{}", source.file_name().unwrap_or_default().to_string_lossy());
            self = if source.is_dir() { self.tree(&path, &source)? } else { self.file(&path, &source)? };
        }
        Ok(self)
    }

    /// Adds a shell, and the programs of busybox that the image does not have yet.
    ///
    /// # Errors
    /// When Debian's `busybox-static` is not installed.
    pub fn busybox(mut self) -> Result<Self> {
        let programs = run(Command::new("/bin/busybox").arg("--list"))?;
        // The busybox shell of Debian prefers busybox programs to those of the image.
        self = self.program("/bin/dash")?.link("/usr/bin/sh", "dash");
        self = self.file("/usr/bin/busybox", Path::new("/bin/busybox"))?;
        // The statically linked wget of busybox crashes with a segmentation fault.
        for program in programs.lines().filter(|&name| name != "busybox" && name != "wget") {
            self = self.link(&format!("/usr/bin/{program}"), "busybox");
        }
        Ok(self)
    }

    /// Writes the image as an archive for `ctr images import` and `docker load`.
    ///
    /// # Errors
    /// When a file cannot be read, or the archive cannot be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer = archive.with_extension("layer");
        self.write_layer(&layer).with_context(|| format!("cannot make the image {}", self.name))?;
        let digest = digest_of(&layer)?;
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Env": [PATH], "Entrypoint": self.entrypoint, "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
            "history": [{ "created_by": "vpn-operator e2e" }],
        })
        .to_string();
        let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
        let layer_name = format!("{digest}/layer.tar");
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": [layer_name] }]).to_string();

        let mut tar = Builder::new(BufWriter::new(File::create(archive)?));
        for (name, text) in [("manifest.json", &manifest), (config_name.as_str(), &config)] {
            tar.append_data(&mut header(EntryType::Regular, 0o644, text.len() as u64), name, text.as_bytes())?;
        }
        let size = fs::metadata(&layer)?.len();
        let mut file = File::open(&layer)?;
        tar.append_data(&mut header(EntryType::Regular, 0o644, size), &layer_name, &mut file)?;
        tar.into_inner()?.flush()?;
        fs::remove_file(&layer)?;
        Ok(())
    }

    fn write_layer(&self, layer: &Path) -> Result<()> {
        let mut tar = Builder::new(BufWriter::new(File::create(layer)?));
        let mut there = BTreeSet::new();
        for Entry { path, mode, content } in &self.entries {
            for dir in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                if !dir.as_os_str().is_empty() && there.insert(dir.to_owned()) {
                    tar.append_data(&mut header(EntryType::Directory, 0o755, 0), dir, std::io::empty())?;
                }
            }
            if !there.insert(path.clone()) {
                // Two programs share a library, or the image already has a program of busybox.
                continue;
            }
            match content {
                Content::Directory => {
                    tar.append_data(&mut header(EntryType::Directory, *mode, 0), path, std::io::empty())?;
                }
                Content::Text(text) => {
                    let mut header = header(EntryType::Regular, *mode, text.len() as u64);
                    tar.append_data(&mut header, path, text.as_bytes())?;
                }
                Content::Copy(source) => {
                    let mut file = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
                    let mut header = header(EntryType::Regular, *mode, file.metadata()?.len());
                    tar.append_data(&mut header, path, &mut file)?;
                }
                Content::Link(target) => tar.append_link(&mut header(EntryType::Symlink, *mode, 0), path, target)?,
            }
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// An image of a static binary, such as the operator. `files` are pairs of a path in the image and a file of this machine.
///
/// # Errors
/// When a file cannot be read.
pub fn image(name: &str, files: &[(&str, &Path)], entrypoint: &[&str]) -> Result<Image> {
    let image = Image::new(name).entrypoint(entrypoint);
    files.iter().try_fold(image, |image, (path, source)| image.file(path, source))
}

/// The path in an image for a path of this machine.
fn inside(path: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => Path::new("usr").join(path),
        _ => path.into(),
    }
}

fn libraries(program: &str) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    if !output.status.success() {
        // "not a dynamic executable"
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains("not found"), "{program} lacks a library:\n{text}");
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(String::from).collect())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    // The same files result in the same image.
    header.set_mtime(0);
    header
}

fn digest_of(file: &Path) -> Result<String> {
    let (mut reader, mut hash, mut buffer) = (BufReader::new(File::open(file)?), Sha256::new(), vec![0; 1 << 16]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
