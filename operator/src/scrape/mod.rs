//! Metrics of one Pod, read from the Pod itself, for an autoscaler that looks at Pods.
//!
//! A Pod opts in by annotations, its namespace by a label. [`Target::of`] decides whether and where a Pod is asked, and
//! [`Samples::parse`] reads the answer: both are pure. [`Scraper`] asks, and keeps answers for a short time.
//!
//! Invariant: a request goes to the address of a Pod only, never to a Node, to this process or to a metadata service of
//! a cloud, and follows no redirect.
//!
//! Invariant: whatever a Pod answers, or does not answer, costs at most [`TIMEOUT`] and [`MAX_BODY_BYTES`]. No more
//! than [`MAX_CONCURRENT`] Pods are asked at once, and each at most once in [`CACHE_TTL`].

mod address;
mod fetch;
mod line;
mod samples;
mod scraper;
mod settings;
mod target;

pub use address::{AddressError, check_address};
pub use fetch::{Fetch, FetchError, HttpFetch, MAX_BODY_BYTES, MAX_HEADER_BYTES, TIMEOUT};
pub use line::LineError;
pub use samples::{MAX_SERIES, Samples, SamplesError, Series};
pub use scraper::{CACHE_TTL, MAX_CONCURRENT, QUEUE_TIMEOUT, ScrapeError, Scraper};
pub use settings::{DEFAULT_PATH, MAX_NAME, MAX_NAMES, MAX_PATH, Settings, SettingsError, is_enabled};
pub use target::{Target, TargetError};
