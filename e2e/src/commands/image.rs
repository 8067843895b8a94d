//! `e2e image`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use e2e::{operator_image, servers_image};

/// Build a container image without a container engine.
#[derive(Args)]
pub struct Image {
    /// Archive to write, for example for `docker load`: an OCI image layout in a tar archive or, with `--servers`, the
    /// format of `docker save`
    #[arg(long, value_name = "FILE", required_unless_present = "root")]
    output: Option<PathBuf>,
    /// Write the contents of the image to this new directory, as the Dockerfile does
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Build the image of OpenVPN servers from files of this machine, which must run Debian
    #[arg(long, conflicts_with = "root")]
    servers: bool,
}

impl Image {
    pub fn run(self) -> Result<()> {
        if self.servers {
            // Before anything is built.
            servers_image::install()?;
        }
        let unpacked = tempfile::tempdir()?;
        let root = self.root.as_deref().unwrap_or(unpacked.path());
        operator_image::root(root)?;
        let Some(output) = &self.output else { return Ok(()) };
        let name = if self.servers {
            servers_image::archive(root, output)?;
            servers_image::NAME
        } else {
            operator_image::archive(root, output)?;
            operator_image::NAME
        };
        println!("{name} in {}", output.display());
        Ok(())
    }
}
