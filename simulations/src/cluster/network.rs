//! The virtual network of whole nodes: datagrams between addresses, each with a fate drawn from the
//! seed. A port belongs to whoever bound it last; what others send from it goes nowhere.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use orbweb::peers::SOCKET_BUFFER_BYTES;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::clock;
use super::conditions::{Conditions, Way};
use super::port::Port;
use super::setup::node_of;
use super::trace::Trace;

/// The longest datagram that gets through: an Ethernet frame without the headers of IP and UDP.
const DATAGRAM_BYTES_MAX: usize = 1_472;
/// Datagrams of machines that stand still that wait to go; what comes beyond is lost.
const HELD_MAX: usize = 10_000;

/// A datagram that arrives.
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    to: SocketAddr,
    pub(super) bytes: Box<[u8]>,
}

/// Where datagrams arrive, and wait to be read.
#[derive(Default)]
pub(super) struct Mailbox {
    number: u64,
    arrived: VecDeque<Datagram>,
    bytes: usize,
    pub(super) reader: Option<Waker>,
}

impl Mailbox {
    /// Keeps a datagram if there is room: as much as the real sockets ask their kernel for. Whether
    /// there was.
    fn try_push(&mut self, datagram: Datagram) -> bool {
        let bytes = self.bytes + datagram.bytes.len();
        if bytes > SOCKET_BUFFER_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.arrived.push_back(datagram);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        true
    }

    /// The one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.arrived.pop_front()?;
        self.bytes -= datagram.bytes.len();
        Some(datagram)
    }
}

#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something arrives earlier than what was waited for.
    earlier: Notify,
}

struct State {
    random: StdRng,
    conditions: Conditions,
    /// What machines that stand still have sent.
    held: Vec<Datagram>,
    bound: u64,
    ports: BTreeMap<SocketAddr, Mailbox>,
    /// By the millisecond of arrival.
    flights: BTreeMap<u64, Vec<Datagram>>,
    /// When the last datagram of a link arrives.
    last: BTreeMap<(SocketAddr, SocketAddr), u64>,
    /// From whom to whom something has arrived.
    used: BTreeSet<Way>,
    /// Datagrams that found their mailbox full.
    overflown: u64,
    trace: Trace,
}

impl Network {
    /// A network, and the task that moves what is on it.
    pub(crate) fn new(seed: u64, conditions: Conditions, trace: Trace) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed ^ 0x0e71),
            conditions,
            held: Vec::new(),
            bound: 0,
            ports: BTreeMap::new(),
            flights: BTreeMap::new(),
            last: BTreeMap::new(),
            used: BTreeSet::new(),
            overflown: 0,
            trace,
        };
        let network = Self(Arc::new(Shared { state: Mutex::new(state), earlier: Notify::new() }));
        tokio::spawn(network.clone().carry());
        network
    }

    /// Takes the port from whoever has it.
    pub(crate) fn bind(&self, address: SocketAddr) -> Port {
        let mut state = self.lock();
        state.bound += 1;
        let number = state.bound;
        state.ports.insert(address, Mailbox { number, ..Mailbox::default() });
        Port::new(self.clone(), address, number)
    }

    /// What whoever has the port sends goes nowhere from now on, and nothing reaches it.
    pub(crate) fn unplug(&self, address: SocketAddr) {
        let mut state = self.lock();
        state.ports.remove(&address);
        state.held.retain(|held| held.from != address);
    }

    pub(crate) fn conditions(&self) -> Conditions {
        self.lock().conditions.clone()
    }

    /// From now on; what is on its way arrives when it would have, if nothing is in its way then.
    pub(crate) fn set_conditions(&self, conditions: Conditions) {
        let mut state = self.lock();
        let next = state.flights.keys().next().copied();
        state.conditions = conditions;
        state.go_on();
        if state.flights.keys().next().copied() != next {
            self.0.earlier.notify_one();
        }
    }

    /// Whether something has arrived from one machine at the other.
    pub(crate) fn is_used(&self, way: Way) -> bool {
        self.lock().used.contains(&way)
    }

    /// Datagrams that found their mailbox full.
    pub(crate) fn overflown(&self) -> u64 {
        self.lock().overflown
    }

    pub(super) fn send(&self, (from, number): (SocketAddr, u64), to: SocketAddr, bytes: &[u8]) {
        let mut state = self.lock();
        let next = state.flights.keys().next().copied();
        if state.ports.get(&from).is_some_and(|port| port.number == number) {
            state.launch(from, to, bytes);
        }
        if state.flights.keys().next().copied() != next {
            self.0.earlier.notify_one();
        }
    }

    /// The mailbox of a port, if whoever bound it as that number still has it; and whether nothing can
    /// be taken from it now.
    pub(super) fn with_mailbox<T>(
        &self,
        (address, number): (SocketAddr, u64),
        read: impl FnOnce(&mut Mailbox, bool) -> T,
    ) -> Option<T> {
        let mut state = self.lock();
        let still = state.conditions.still.contains(&node_of(host(address)));
        let port = state.ports.get_mut(&address).filter(|port| port.number == number)?;
        Some(read(port, still))
    }

    async fn carry(self) {
        let began = Instant::now() - clock::elapsed();
        loop {
            let next = self.lock().flights.keys().next().copied();
            let Some(next) = next else {
                self.0.earlier.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.0.earlier.notified() => {}
                () = sleep_until(began + Duration::from_millis(next)) => self.lock().land(next),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let hosts = (host(from), host(to));
        self.trace.datagram(hosts.0.to_bits(), hosts.1.to_bits(), bytes.len());
        let way = way(from, to);
        if self.conditions.still.contains(&way.0) {
            if self.held.len() < HELD_MAX {
                self.held.push(Datagram { from, to, bytes: bytes.into() });
            }
            return;
        }
        let weather = self.conditions.weather;
        let copies = 1 + u32::from(self.chance(weather.twice));
        for _ in 0..copies {
            let lost = self.chance(weather.loss);
            let overtakes = self.chance(weather.overtaking);
            let (shortest, longest) = weather.latency_ms;
            let takes = self.random.random_range(shortest.max(1)..=longest.max(shortest.max(1)));
            let cut = self.conditions.cuts.contains(&way);
            if lost || bytes.len() > DATAGRAM_BYTES_MAX || cut {
                continue;
            }
            let more = self.conditions.slow.get(&way).copied().unwrap_or_default();
            let mut arrival = clock::now_ms() + takes + more;
            if overtakes {
                arrival += self.random.random_range(0..=2 * longest);
            } else {
                let last = self.last.entry((from, to)).or_default();
                arrival = arrival.max(*last);
                *last = arrival;
            }
            let datagram = Datagram { from, to, bytes: bytes.into() };
            self.flights.entry(arrival).or_default().push(datagram);
        }
    }

    /// What arrives at this millisecond.
    fn land(&mut self, at: u64) {
        for datagram in self.flights.remove(&at).unwrap_or_default() {
            let way = way(datagram.from, datagram.to);
            let cut = self.conditions.cuts.contains(&way);
            let Some(port) = self.ports.get_mut(&datagram.to).filter(|_| !cut) else { continue };
            self.used.insert(way);
            self.overflown += u64::from(!port.try_push(datagram));
        }
    }

    /// What stands still no longer sends what it has held, and reads what has come.
    fn go_on(&mut self) {
        let still = &self.conditions.still;
        let goes_on = |address: SocketAddr| !still.contains(&node_of(host(address)));
        let ports = self.ports.iter_mut().filter(|(address, _)| goes_on(**address));
        for (_, port) in ports.filter(|(_, port)| !port.arrived.is_empty()) {
            if let Some(reader) = port.reader.take() {
                reader.wake();
            }
        }
        let go: Vec<_> = self.held.extract_if(.., |held| goes_on(held.from)).collect();
        for Datagram { from, to, bytes } in go {
            self.launch(from, to, &bytes);
        }
    }

    fn chance(&mut self, in_10_000: u32) -> bool {
        in_10_000 > 0 && self.random.random_range(0..10_000) < in_10_000
    }
}

fn host(address: SocketAddr) -> Ipv4Addr {
    match address {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn way(from: SocketAddr, to: SocketAddr) -> Way {
    (node_of(host(from)), node_of(host(to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_takes_nothing_until_it_is_read() {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let half = || Datagram {
            from: address,
            to: address,
            bytes: vec![0; SOCKET_BUFFER_BYTES / 2].into(),
        };
        let mut mailbox = Mailbox::default();
        assert!(mailbox.try_push(half()));
        assert!(mailbox.try_push(half()));
        assert!(!mailbox.try_push(half()));
        assert!(mailbox.pop().is_some());
        assert!(mailbox.try_push(half()));
        assert!(mailbox.pop().is_some() && mailbox.pop().is_some() && mailbox.pop().is_none());
        assert_eq!(mailbox.bytes, 0);
    }
}
