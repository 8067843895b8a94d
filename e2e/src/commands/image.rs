//! `e2e image`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use e2e::operator_image as image;

/// Make the container image, without a container engine.
#[derive(Args)]
pub struct Image {
    /// Where to write it: an OCI image layout in a tar archive, for `docker load` and the like
    #[arg(long, value_name = "FILE", required_unless_present = "root")]
    output: Option<PathBuf>,
    /// Write what is in the image into this new directory; the Dockerfile does so
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Image {
    pub fn run(self) -> Result<()> {
        let unpacked = tempfile::tempdir()?;
        let root = self.root.as_deref().unwrap_or(unpacked.path());
        image::root(root)?;
        if let Some(output) = &self.output {
            image::archive(root, output)?;
            println!("{} in {}", image::NAME, output.display());
        }
        Ok(())
    }
}
