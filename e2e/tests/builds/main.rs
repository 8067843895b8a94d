//! What others get: the container image and `vpn-types`, built as for them. It takes all processors, and no cluster.

mod image;
mod types;
