//! QUIC settings of the mesh and the one UDP endpoint that dials and accepts. Called at start;
//! knows nothing of links.
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, Runtime,
    ServerConfig, TransportConfig, VarInt,
};
use ring::hmac;

use super::identity::Secret;
use super::tls::{Tls, first_eight};
use super::{PeersConfig, PeersError};

/// A link without a sign of life for this long is lost.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_millis(1000);
/// Signs of life when there is nothing to say: four fit into the idle timeout.
const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// Longest delay of an acknowledgement; 25 ms, the default, is the whole tail at 1 % loss.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Received and not yet read on one stream.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same on all four streams of a link: one that isn't read never blocks another.
const LINK_WINDOW: u32 = 4 * STREAM_WINDOW;
/// Streams that a peer may have open: four, and room for kinds of later versions.
const STREAMS_MAX: u32 = 16;
/// Kernel buffers of the socket; the kernel may grant less.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// First packets of connections that wait for their answer; each is a Retry or a quick refusal.
const INCOMING_MAX: usize = 1024;
/// Early packets kept a connection, and for all of them.
const INCOMING_BYTES: u64 = 64 << 10;
const INCOMING_BYTES_ALL: u64 = 4 << 20;

/// A socket and the runtime that drives it, from a UDP socket of the caller's. Asks for large
/// kernel buffers and says when they aren't granted.
pub fn udp(socket: UdpSocket) -> io::Result<(Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>)> {
    let view = socket2::SockRef::from(&socket);
    view.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    view.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let (receive, send) = (view.recv_buffer_size()?, view.send_buffer_size()?);
    if receive.min(send) < SOCKET_BUFFER_BYTES {
        tracing::info!(receive, send, wanted = SOCKET_BUFFER_BYTES, "socket.buffers_small");
    }
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok((runtime.wrap_udp_socket(socket)?, runtime))
}

/// The endpoint of a node, and how it dials.
pub(super) fn endpoint(
    config: &PeersConfig,
    socket: Arc<dyn AsyncUdpSocket>,
    runtime: Arc<dyn Runtime>,
) -> Result<(Endpoint, String), PeersError> {
    let tls = Tls::new(&config.credentials, &config.node)?;
    let transport = Arc::new(transport());
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls.server)?));
    server
        .transport_config(transport.clone())
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_ALL);
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls.client)?));
    client.transport_config(transport);
    let names = [config.cluster.as_bytes(), config.node.name.as_str().as_bytes()];
    let settings = endpoint_settings(&config.credentials.secret, &names);
    let mut endpoint = Endpoint::new_with_abstract_socket(settings, Some(server), socket, runtime)
        .map_err(PeersError::Socket)?;
    endpoint.set_default_client_config(client);
    Ok((endpoint, tls.server_name))
}

/// Keys of resets and connection ids come from the secret and the node's name: a node restarted on
/// its old address recognises packets for its former self, and answers with resets that its peers
/// believe, instead of leaving them to their idle timeout.
fn endpoint_settings(secret: &Secret, names: &[&[u8]]) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &secret.derive("stateless reset", names));
    let ids = u64::from_le_bytes(first_eight(&secret.derive("connection ids", names)));
    let mut settings = EndpointConfig::new(Arc::new(reset));
    settings
        .cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(ids)));
    settings
}

fn transport() -> TransportConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(ACK_DELAY)).ack_eliciting_threshold(2u32.into());
    let idle = VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle.into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(Duration::from_millis(20))
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .max_concurrent_bidi_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(LINK_WINDOW.into())
        .send_window(LINK_WINDOW.into())
        .ack_frequency_config(Some(acks));
    transport
}
