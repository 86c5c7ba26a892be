//! Addresses as operators write them: a host and a port. Resolves no names.
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// The port for peers (UDP) where none is written.
pub const MESH_PORT_DEFAULT: u16 = 7400;
/// Longest DNS name in bytes (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// The text isn't a host with an optional port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a host name or IP address with an optional port")]
pub struct AddressError;

/// A host name or IP address, and a port. The names in `join` are looked up for as long as the node
/// runs, that in `mesh_advertise` once, at start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port; [`MESH_PORT_DEFAULT`] if none was written.
    pub port: u16,
}

impl HostPort {
    /// The address, if the host is an IP address and needs no resolving.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self { host: bare.to_owned(), port: MESH_PORT_DEFAULT });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| AddressError)?),
            None => (text, MESH_PORT_DEFAULT),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let sound = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(allowed);
        if sound { Ok(Self { host: host.to_owned(), port }) } else { Err(AddressError) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads an IP address with an optional port.
pub(crate) fn ip_and_port(text: &str, port_default: u16) -> Option<SocketAddr> {
    let with_port = text.parse::<SocketAddr>().ok();
    with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port_default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_with_and_without_ports() {
        for (text, shown) in [
            ("seed", "seed:7400"),
            ("seed.example:9", "seed.example:9"),
            ("10.0.0.1", "10.0.0.1:7400"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("::1", "[::1]:7400"),
            ("[::1]", "[::1]:7400"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(text.parse::<HostPort>().expect(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", ":7400", "a b", "a:b", "a:70000", "http://a", "[::1", &"x".repeat(254)] {
            assert_eq!(text.parse::<HostPort>(), Err(AddressError), "{text:?}");
        }
    }

    #[test]
    fn only_ip_addresses_need_no_resolving() {
        let literal = |text: &str| text.parse::<HostPort>().expect(text).literal();
        assert_eq!(literal("[::1]:5"), "[::1]:5".parse().ok());
        assert_eq!(literal("seed:5"), None);
    }
}
