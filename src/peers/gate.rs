//! Limits on connections that are being made, and the list of sources whose refusal was logged. A
//! source is an IPv4 address or an IPv6 network of 64 bits.
use std::collections::{HashMap, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::protocol::link::Refusal;

/// Handshakes in progress a source; several nodes may share a host.
pub(super) const HANDSHAKES_PER_SOURCE: usize = 16;
/// Handshakes in progress in total: a cluster of 100 nodes that starts at once, at 1.5 ms CPU each.
const HANDSHAKES: usize = 128;
/// A handshake that failed counts against its source for this long after its end, so that a source
/// costs at most 16 handshakes a second.
const PENALTY: Duration = Duration::from_secs(1);
/// Sources counted at one time; more are turned away.
const SOURCES_MAX: usize = 4096;
/// Refusals remembered as logged; the oldest is forgotten first.
const LOGGED_MAX: usize = 256;

/// The limits.
#[derive(Default)]
pub(super) struct Gate(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    total: usize,
    sources: HashMap<IpAddr, usize>,
}

impl Gate {
    /// A place for one handshake, if limits allow.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let source = source(address);
        let mut counts = self.lock();
        let known = counts.sources.get(&source).copied();
        let crowded = known.is_none() && counts.sources.len() >= SOURCES_MAX;
        if crowded || counts.total >= HANDSHAKES || known >= Some(HANDSHAKES_PER_SOURCE) {
            return None;
        }
        counts.total += 1;
        *counts.sources.entry(source).or_default() += 1;
        Some(Permit { gate: self.clone(), source, in_progress: true })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one handshake; given back when dropped.
pub(super) struct Permit {
    gate: Arc<Gate>,
    source: IpAddr,
    in_progress: bool,
}

impl Permit {
    /// The handshake failed: its source waits before the place is free again, others don't.
    pub(super) async fn penalise(mut self) {
        self.finish();
        tokio::time::sleep(PENALTY).await;
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.in_progress) {
            self.gate.lock().total -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.finish();
        let mut counts = self.gate.lock();
        if let Some(count) = counts.sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.sources.remove(&self.source);
            }
        }
    }
}

fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Whose refusal was logged already, so that a source that keeps trying writes one line.
#[derive(Default)]
pub(super) struct RefusalLog(Mutex<VecDeque<(SocketAddr, Discriminant<Refusal>)>>);

impl RefusalLog {
    /// Whether this kind of refusal is new from or by this address.
    pub(super) fn is_new(&self, address: SocketAddr, reason: &Refusal) -> bool {
        let entry = (address, discriminant(reason));
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.contains(&entry) {
            return false;
        }
        if logged.len() >= LOGGED_MAX {
            logged.pop_front();
        }
        logged.push_back(entry);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_source_has_few_places_and_leaves_the_rest_to_others() {
        let gate = Arc::new(Gate::default());
        let mut permits: Vec<_> = (0..HANDSHAKES_PER_SOURCE).map(|_| gate.enter(ip(1))).collect();
        assert!(permits.iter().all(Option::is_some));
        assert!(gate.enter(ip(1)).is_none());
        assert!(gate.enter(ip(2)).is_some());
        permits.pop();
        assert!(gate.enter(ip(1)).is_some());
    }

    #[test]
    fn all_sources_together_have_a_limit() {
        let gate = Arc::new(Gate::default());
        let permits: Vec<_> = (0..HANDSHAKES).map(|i| gate.enter(ip((i / 2) as u8))).collect();
        assert!(permits.iter().all(Option::is_some));
        assert!(gate.enter(ip(200)).is_none());
        drop(permits);
        assert!(gate.enter(ip(200)).is_some() && gate.lock().sources.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_costs_its_source_a_second_and_others_nothing() {
        let gate = Arc::new(Gate::default());
        let permit = gate.enter(ip(1)).expect("the first");
        let penalty = tokio::spawn(permit.penalise());
        tokio::task::yield_now().await;
        assert_eq!(gate.lock().total, 0);
        assert_eq!(gate.lock().sources.len(), 1);
        penalty.await.unwrap();
        assert_eq!(gate.lock().sources.len(), 0);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let [a, b, c]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(source(a), source(b));
        assert_ne!(source(a), source(c));
    }

    #[test]
    fn a_refusal_is_new_once() {
        let (log, address) = (RefusalLog::default(), SocketAddr::from(([10, 0, 0, 1], 0)));
        assert!(log.is_new(address, &Refusal::Secret) && !log.is_new(address, &Refusal::Secret));
        assert!(log.is_new(address, &Refusal::AlreadyLinked));
    }
}
