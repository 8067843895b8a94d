//! Requests to the server of this process.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

/// As in vpn-operator 1.0.1, one handler stands for all paths.
const HANDLER: (&str, &str) = ("handler", "all");

/// The metrics of the server.
pub struct ServerMetrics {
    requests: IntCounter,
    size: IntGauge,
    durations: Histogram,
}

impl ServerMetrics {
    /// Registers them.
    pub fn new(prefix: &str, registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace(prefix).const_label(HANDLER.0, HANDLER.1);
        let requests = opts("http_requests_total", "Requests to the server of this process, health checks among them.");
        let size = opts("http_response_size_bytes", "Size of the last answer on /metrics.");
        let durations = HistogramOpts::from(opts(
            "http_request_duration_seconds",
            "Duration of requests to the server of this process, health checks among them.",
        ));
        let (requests, size) = (IntCounter::with_opts(requests)?, IntGauge::with_opts(size)?);
        let durations = Histogram::with_opts(durations)?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(size.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self { requests, size, durations })
    }

    /// A request has been answered.
    pub fn served(&self, took: Duration) {
        self.requests.inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// `/metrics` has been answered with so many bytes.
    pub fn answered(&self, bytes: usize) {
        self.size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
