//! What Prometheus is told: counters that live elsewhere, read when it asks.
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::delivery::event::{CoreStatus, Outlook};
use crate::gateway::GatewayStats;
use crate::ownership::serving::Serving;
use crate::peers::Peers;

/// See the module.
pub(super) struct NodeMetrics {
    gateway: Arc<GatewayStats>,
    cores: Arc<ArcSwap<CoreStatus>>,
    outlook: Arc<ArcSwap<Outlook>>,
    peers: Option<Peers>,
}

impl NodeMetrics {
    pub(super) fn new(
        gateway: Arc<GatewayStats>,
        cores: Arc<ArcSwap<CoreStatus>>,
        outlook: Arc<ArcSwap<Outlook>>,
        peers: Option<Peers>,
    ) -> Self {
        Self { gateway, cores, outlook, peers }
    }

    /// Name, whether it is a level, and value of everything.
    fn values(&self) -> Vec<(String, bool, u64)> {
        let mut values: Vec<(String, bool, u64)> = Vec::new();
        let mut add = |part: &str, name: &str, level: bool, value: u64| {
            values.push((format!("orbweb_{part}_{name}"), level, value));
        };
        for (name, level, value) in self.gateway.all() {
            add("gateway", name, level, value);
        }
        let serving = self.outlook.load().serving;
        for (name, which) in [
            ("full", Serving::Full),
            ("standalone", Serving::Standalone),
            ("degraded", Serving::Degraded),
        ] {
            add("serving", name, true, u64::from(serving == which));
        }
        let cores = self.cores.load();
        add("serving", "copies", true, cores.copies.required.into());
        add("slot", "owned", true, cores.slots_owned.into());
        add("slot", "claiming", true, cores.slots_claiming.into());
        add("slot", "won", false, cores.counts.won);
        add("slot", "rejected", false, cores.counts.rejected);
        add("slot", "incomplete", false, cores.counts.incomplete);
        add("claim", "begun", false, cores.counts.begun);
        add("slot", "under_replicated", true, cores.copies.under_replicated.into());
        add("slot", "unrepaired", true, cores.copies.unrepaired.into());
        add("slot", "astray", true, cores.copies.astray.into());
        add("copy", "pulled", false, cores.counts.copied);
        add("copy", "spares", false, cores.counts.spares);
        add("change", "uncommitted", true, cores.copies.uncommitted);
        add("change", "committed", false, cores.counts.committed);
        add("change", "fenced", false, cores.counts.fenced);
        add("operation", "repeated", false, cores.counts.repeated);
        add("stream", "held", true, cores.streams);
        add("request", "pending", true, cores.pending);
        add("request", "parked", true, cores.parked);
        add("hub", "channels", true, cores.channels);
        if let Some(peers) = &self.peers {
            let stats = peers.stats();
            add("link", "up", true, peers.links().len() as u64);
            add("link", "refused", false, stats.refused);
            add("link", "refused_by_peers", false, stats.refused_by_peers);
            add("link", "turned_away", false, stats.turned_away);
            add("link", "retries", false, stats.retries);
            add("link", "dials", false, stats.dials);
            add("link", "frames_dropped", false, stats.dropped);
            add("link", "frames_unreachable", false, stats.unreachable);
            add("link", "gossip_dropped", false, stats.gossip_dropped);
            add("link", "relay_dropped", false, stats.relay_dropped);
            add("lifeline", "up", true, stats.lifelines);
            add("lifeline", "cut", false, stats.lifelines_cut);
            add("lifeline", "refused", false, stats.lifelines_refused);
            add("lifeline", "turned_away", false, stats.lifelines_turned_away);
        }
        values
    }
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.values().iter().map(|(name, _, value)| (name, value))).finish()
    }
}

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, level, value) in self.values() {
            let help = name.replace('_', " ");
            if level {
                let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                gauge.encode(encoder.encode_descriptor(
                    &name,
                    &help,
                    None,
                    gauge.metric_type(),
                )?)?;
            } else {
                let counter = ConstCounter::new(value);
                let kind = counter.metric_type();
                counter.encode(encoder.encode_descriptor(&name, &help, None, kind)?)?;
            }
        }
        Ok(())
    }
}
