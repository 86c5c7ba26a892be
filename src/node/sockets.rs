//! The sockets that a node is started with, and the address that peers are told.
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, HostPort};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;

/// Bound sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Clients and HTTP.
    pub http: TcpListener,
    /// Peers, if there is a mesh.
    pub mesh: Option<Mesh>,
}

/// The sockets for peers.
#[derive(Debug)]
pub struct Mesh {
    /// Bound.
    pub socket: UdpSocket,
    /// At the same address and number, for lifelines, if it could be had.
    pub lifelines: Option<TcpListener>,
    /// How peers reach it.
    pub advertise: SocketAddr,
}

impl Sockets {
    /// Binds what the configuration names.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let http = listen(config.listen)
            .with_context(|| format!("`listen`: cannot serve clients on {}", config.listen))?;
        let mesh = config.mesh_address().map(|address| Mesh::bind(config, address)).transpose()?;
        Ok(Self { http, mesh })
    }
}

impl Mesh {
    fn bind(config: &Config, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(address)
            .with_context(|| format!("`mesh_listen`: cannot serve peers on {address} (UDP)"))?;
        let bound = socket.local_addr()?;
        let advertise = match &config.mesh_advertise {
            Some(host) => resolve(host).with_context(|| {
                format!("`mesh_advertise`: {host} has no address; peers could not reach this node")
            })?,
            None if bound.ip().is_unspecified() => {
                SocketAddr::new(own_address(&config.join), bound.port())
            }
            None => bound,
        };
        Ok(Self { socket, lifelines: listen_beside(bound), advertise })
    }
}

/// TCP beside the mesh's UDP. Without it all goes on; dead processes are noticed a little later.
fn listen_beside(address: SocketAddr) -> Option<TcpListener> {
    let listener = listen(address);
    listener.inspect_err(|error| tracing::info!(%address, %error, "lifeline.no_listener")).ok()
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn resolve(host: &HostPort) -> Option<SocketAddr> {
    (host.host.as_str(), host.port).to_socket_addrs().ok()?.next()
}

/// The address from which this machine reaches its seeds, or else the network. Connecting a UDP
/// socket sends nothing.
fn own_address(join: &[HostPort]) -> IpAddr {
    let documentation = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let towards = join.iter().filter_map(resolve).chain([documentation]);
    let from = towards.filter_map(|to| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    let mut usable = from.filter(|ip| !ip.is_unspecified());
    usable.next().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
