//! Counts the API's own calls.
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Label values of a call. Methods come from the list of known ones, so that callers can't make up
/// time series.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    code: u32,
}

/// Calls of the server API by method and error code; code 0 = done.
#[derive(Clone, Default, Debug)]
pub struct ApiMetrics {
    calls: Family<Labels, Counter>,
}

impl ApiMetrics {
    /// Makes the metrics and enters them into the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Calls of the server API by method and error code (0 = done)";
        registry.register("orbweb_api_calls", help, metrics.calls.clone());
        metrics
    }

    pub(super) fn count(&self, method: &'static str, code: u32) {
        self.calls.get_or_create(&Labels { method, code }).inc();
    }
}
