//! What users build: the container image and `vpn-types`. These tests use all CPUs and no cluster.

mod image;
mod types;
