//! OpenVPN servers of one's own: the texts that they read and write, without I/O.

pub mod client_config;
pub mod config;
mod lines;
pub mod network;
pub mod profile;

pub use client_config::{ClientConfig, check_common_name};
pub use config::{Protocol, ServerConfig, check_lines, server_config};
pub use network::{ClientNetwork, network};
pub use profile::{Profile, Remote, check_client_lines};
