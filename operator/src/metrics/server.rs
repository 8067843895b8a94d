//! Metrics of the HTTP server of this process.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

/// As in vpn-operator 1.0.1, one handler represents all paths.
const HANDLER: (&str, &str) = ("handler", "all");

/// The metrics of the HTTP server.
pub struct ServerMetrics {
    requests: IntCounter,
    size: IntGauge,
    durations: Histogram,
}

impl ServerMetrics {
    /// Creates and registers the metrics.
    pub fn new(prefix: &str, registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace(prefix).const_label(HANDLER.0, HANDLER.1);
        let requests = opts("http_requests_total", "HTTP requests to this process, including health checks.");
        let size = opts("http_response_size_bytes", "Size of the last response of /metrics.");
        let durations = HistogramOpts::from(opts(
            "http_request_duration_seconds",
            "Duration of HTTP requests to this process, including health checks.",
        ));
        let (requests, size) = (IntCounter::with_opts(requests)?, IntGauge::with_opts(size)?);
        let durations = Histogram::with_opts(durations)?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(size.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self { requests, size, durations })
    }

    /// Records a request.
    pub fn served(&self, duration: Duration) {
        self.requests.inc();
        self.durations.observe(duration.as_secs_f64());
    }

    /// Records the size of a response of `/metrics`.
    pub fn set_response_size(&self, bytes: usize) {
        self.size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
