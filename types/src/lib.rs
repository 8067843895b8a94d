//! Kubernetes API types of vpn-operator (group `vpn.beebs.dev`, version `v1`), for Rust clients.
//!
//! | custom resource | what it is |
//! |---|---|
//! | [`MaskProvider`] | a VPN account with its slots, created by an administrator |
//! | [`Mask`] | requests one slot, created by a user |
//! | [`MaskConsumer`] | holds the slot for a Mask and owns the Pods that use the credentials |
//! | [`MaskReservation`] | locks one slot, used by the operator only |
//! | [`OpenVPNServer`] | an OpenVPN server in the cluster, created by an administrator |
//! | [`OpenVPNClient`] | a client of an OpenVPNServer, with its certificate |
//!
//! A client that needs a VPN connection creates a [`Mask`], waits with [`wait_active`], and sets
//! [`owner_reference_for`] the MaskConsumer on the Pods that use the Secret:
//!
//! ```no_run
//! use kube::{Api, Client, api::PostParams};
//! use vpn_types::{Mask, MaskSpec, owner_reference_for, wait_active};
//!
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let masks: Api<Mask> = Api::namespaced(client.clone(), "default");
//! let mask = Mask::new("my-mask", MaskSpec { providers: Some(vec!["nordvpn".into()]), ..Default::default() });
//! masks.create(&PostParams::default(), &mask).await?;
//! let consumer = wait_active(client, "default", "my-mask").await?;
//! let secret = consumer.status.as_ref().and_then(|s| s.provider.as_ref()).map(|p| &p.secret);
//! let owner = owner_reference_for(&consumer);
//! # Ok(())
//! # }
//! ```
//!
//! Decoding is lenient, so one object cannot stop a list or a watch. An unknown phase decodes as absent, and `spec` of
//! a Mask or a MaskConsumer may be null or missing.
//!
//! This crate does not choose a Kubernetes version. Enable one of the `v1_*` features of `k8s-openapi` in your binary.

#![allow(clippy::duplicated_attributes, reason = "it takes the columns of one `kube(…)` for duplicates")]

mod closed_set;
mod condition;
mod consumer;
mod crds;
mod duration;
pub mod inject;
mod mask;
pub mod names;
mod openvpn_client;
mod openvpn_parts;
mod openvpn_server;
mod openvpn_server_status;
pub mod pod_metrics;
mod provider;
mod reservation;
mod schema;
mod verify;
mod wait;

pub use condition::{CERTIFICATES_VALID, READY, Reason, SHARED_CREDENTIALS, SLOT_ASSIGNED, UnknownReason, VERIFIED};
pub use consumer::{
    AssignedProvider, MaskConsumer, MaskConsumerPhase, MaskConsumerSpec, MaskConsumerStatus, MaskReference, SlotPod,
};
pub use crds::crds;
pub use duration::{InvalidDuration, parse_duration};
pub use mask::{Mask, MaskPhase, MaskSpec, MaskStatus};
pub use names::*;
pub use openvpn_client::{
    IssuedCertificate, OpenVPNClient, OpenVPNClientPhase, OpenVPNClientSpec, OpenVPNClientStatus,
};
pub use openvpn_parts::{
    DeletionPolicy, IpForward, OpenVPNConfigSpec, OpenVPNDnsSpec, OpenVPNDrainSpec, OpenVPNEndpointSpec,
    OpenVPNExporterSpec, OpenVPNNetworkSpec, OpenVPNPkiSpec, OpenVPNProtocol, OpenVPNProviderSpec, OpenVPNServiceSpec,
    OpenVPNServiceType, SessionAffinity, TrafficPolicy,
};
pub use openvpn_server::{OpenVPNServer, OpenVPNServerSpec};
pub use openvpn_server_status::{
    OpenVPNCertificateStatus, OpenVPNCertificatesStatus, OpenVPNEndpointStatus, OpenVPNServerPhase, OpenVPNServerStatus,
};
pub use provider::{
    MaskProvider, MaskProviderPhase, MaskProviderReleaseSpec, MaskProviderSlotSpec, MaskProviderSpec,
    MaskProviderStatus,
};
pub use reservation::{MaskReservation, MaskReservationPhase, MaskReservationSpec, MaskReservationStatus, SlotUser};
pub use verify::{
    MaskProviderVerificationStatus, MaskProviderVerifyContainerOverridesSpec, MaskProviderVerifyOverridesSpec,
    MaskProviderVerifySpec, VerifyFailurePolicy,
};
pub use wait::{WaitError, owner_reference_for, wait_active};
