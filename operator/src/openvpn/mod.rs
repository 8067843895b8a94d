//! OpenVPN servers in the cluster: the texts that they read and write, without I/O.

pub mod client_config;
pub mod config;
pub mod drain;
pub mod enrollment;
pub mod exposition;
pub mod firewall;
mod host;
pub mod killed;
mod lines;
pub mod management;
pub mod network;
pub mod profile;
pub mod settings;
pub mod status;

pub use client_config::{ClientConfig, check_common_name};
pub use config::{KeystoreFiles, Protocol, ServerConfig, check_lines, server_config};
pub use network::{ClientNetwork, network};
pub use profile::{Profile, Remote, check_client_lines};
pub use settings::{AgentSettings, EXPORTER_PORT};
