//! All of a node that touches the world: sockets, clocks, threads, and the address that peers are
//! told. Production binds the machine's; a simulation brings its own.
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::Context as _;
use quinn::{AsyncUdpSocket, Runtime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::clock::Clocks;
use crate::config::{Config, HostPort};
use crate::gateway::Threads;
use crate::peers::udp;
use crate::protocol::link::{PROTOCOL_MAX, PROTOCOL_MIN};
use crate::tasks::Tasks;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;

/// What a node is started with.
#[derive(Debug)]
pub struct Environment<L = TcpListener> {
    /// Clients and HTTP.
    pub listener: L,
    /// Where it listens.
    pub bound: SocketAddr,
    /// Peers, if there is a mesh.
    pub mesh: Option<Mesh>,
    /// Where time is read.
    pub clocks: Clocks,
    /// Where clients are served.
    pub threads: Threads,
    /// What runs the tasks in which it thinks.
    pub tasks: Tasks,
}

/// The sockets for peers.
#[derive(Debug)]
pub struct Mesh {
    /// Bound.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// What drives it.
    pub runtime: Arc<dyn Runtime>,
    /// TCP at the same address and number, for lifelines, if it could be had.
    pub lifelines: Option<std::net::TcpListener>,
    /// How peers reach it.
    pub advertise: SocketAddr,
    /// The versions of peer frames that it speaks.
    pub versions: RangeInclusive<u16>,
}

impl Environment {
    /// Binds what the configuration names. Needs a tokio runtime, and with one thread for all of the
    /// node a `LocalSet` around it.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let listener = listen(config.listen)
            .and_then(TcpListener::from_std)
            .with_context(|| format!("`listen`: cannot serve clients on {}", config.listen))?;
        let bound = listener.local_addr()?;
        let mesh = config.mesh_address().map(|address| Mesh::bind(config, address)).transpose()?;
        let threads = match config.client.threads() {
            1 => Threads::Shared,
            _ => Threads::Own,
        };
        let (clocks, tasks) = (Clocks::of_machine(), Tasks::default());
        Ok(Self { listener, bound, mesh, clocks, threads, tasks })
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
        let (socket, runtime) = udp(socket).context("the socket for peers can't be used")?;
        let lifelines = listen_beside(bound);
        Ok(Self { socket, runtime, lifelines, advertise, versions: PROTOCOL_MIN..=PROTOCOL_MAX })
    }
}

/// TCP beside the mesh's UDP. Without it all goes on; dead processes are noticed a little later.
fn listen_beside(address: SocketAddr) -> Option<std::net::TcpListener> {
    let listener = listen(address);
    listener.inspect_err(|error| tracing::info!(%address, %error, "lifeline.no_listener")).ok()
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
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
