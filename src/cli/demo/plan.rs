//! Where the demo's nodes listen and how they are started: worked out before the first one starts.
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// The first client port that is tried, so that URLs are the same from run to run.
const FIRST_PORT: u16 = 8001;

/// One node of the demo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Planned {
    /// Its name.
    pub(super) name: String,
    /// For clients.
    pub(super) listen: SocketAddr,
    /// For peers.
    pub(super) mesh: SocketAddr,
}

/// Finds free ports on loopback for all nodes.
pub(super) fn plan(nodes: u16) -> io::Result<Vec<Planned>> {
    // All ports are held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for number in 0..nodes {
        let clients = free_port(FIRST_PORT + number)?;
        let peers = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        held.push((clients, peers));
    }
    let planned = held.iter().zip(1..).map(|((clients, peers), number)| {
        let (listen, mesh) = (clients.local_addr()?, peers.local_addr()?);
        Ok(Planned { name: format!("demo-{number}"), listen, mesh })
    });
    planned.collect()
}

fn free_port(wanted: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
}

impl Planned {
    /// Arguments for `orbweb`: every node asks all others for the way in, so that any may be killed.
    pub(super) fn arguments(&self, all: &[Self]) -> Vec<OsString> {
        let mut arguments: Vec<String> = vec!["serve".to_owned()];
        for (flag, value) in [
            ("--name", self.name.clone()),
            ("--listen", self.listen.to_string()),
            ("--mesh-listen", self.mesh.to_string()),
            ("--cluster", "orbweb-demo".to_owned()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        for other in all.iter().filter(|other| *other != self) {
            arguments.extend(["--join".to_owned(), other.mesh.to_string()]);
        }
        arguments.extend(["--dev", "--stop-with-stdin"].map(str::to_owned));
        arguments.into_iter().map(OsString::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_node_has_ports_of_its_own_and_all_others_as_seeds() {
        let all = plan(3).expect("free ports on loopback");
        let addresses: BTreeSet<SocketAddr> =
            all.iter().flat_map(|node| [node.listen, node.mesh]).collect();
        assert_eq!(addresses.len(), 6);
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() > 0));
        let arguments = all[1].arguments(&all);
        let seeds = arguments.windows(2).filter(|pair| pair[0] == "--join").map(|pair| &pair[1]);
        let seeds: Vec<_> = seeds.map(|seed| seed.to_string_lossy().into_owned()).collect();
        assert_eq!(seeds, [all[0].mesh.to_string(), all[2].mesh.to_string()]);
    }

    #[test]
    fn the_command_line_takes_the_arguments() {
        let all = plan(1).expect("free ports on loopback");
        let arguments = [OsString::from("orbweb")].into_iter().chain(all[0].arguments(&all));
        let cli = Cli::try_parse_from(arguments).expect("flags that exist");
        assert!(cli.command.is_some());
    }
}
