//! Places: how many connections there are, in all and from one address, against their limits.
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts places in use.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    max: usize,
    per_ip_max: usize,
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// A place in use; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    ip: IpAddr,
}

impl Places {
    pub(super) fn new(max: usize, per_ip_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { max, per_ip_max, all: 0, by_ip: HashMap::new() })))
    }

    /// Takes a place unless all, or all for this address, are in use.
    pub(super) fn take(&self, ip: IpAddr) -> Option<Place> {
        // One client behind an IPv6 network has as many addresses as it likes.
        let ip = network(ip);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.by_ip.get(&ip).copied().unwrap_or(0);
        if taken.all >= taken.max || here >= taken.per_ip_max {
            return None;
        }
        taken.all += 1;
        taken.by_ip.insert(ip, here + 1);
        Some(Place { places: self.clone(), ip })
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        let left = taken.by_ip.get(&self.ip).map_or(0, |here| here - 1);
        if left == 0 {
            taken.by_ip.remove(&self.ip);
        } else {
            taken.by_ip.insert(self.ip, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let places = Places::new(3, 2);
        let [a, b, c] = ["1.1.1.1", "2.2.2.2", "::ffff:1.1.1.1"].map(|ip| ip.parse().expect("ip"));
        let first = places.take(a).expect("free");
        let _second = places.take(c).expect("free");
        assert!(places.take(a).is_none(), "a third from one address");
        let _third = places.take(b).expect("free");
        assert!(places.take(b).is_none(), "a fourth in all");
        drop(first);
        assert!(places.take(a).is_some());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let places = Places::new(9, 1);
        let _one = places.take("2001:db8:1:2::1".parse().expect("ip")).expect("free");
        assert!(places.take("2001:db8:1:2:ffff::9".parse().expect("ip")).is_none());
        assert!(places.take("2001:db8:1:3::1".parse().expect("ip")).is_some());
    }
}
