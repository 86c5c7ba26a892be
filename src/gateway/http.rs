//! The HTTP side: accepts streams, speaks HTTP/1 with the caller's routes, and takes the stream back
//! where a client asks for a WebSocket. It hands streams over and never reads a frame.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use sha1::{Digest, Sha1};
use tokio_util::sync::CancellationToken;

use crate::protocol::client::Format;

use super::places::{Place, Places};
use super::rules::{Origins, Rules};
use super::shard::Accepted;
use super::socket::Listener;
use super::stats::GatewayStats;

/// Where clients connect to.
pub const PATH: &str = "/connection/websocket";
/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request's head; browsers send cookies.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Bytes that may come right behind a handshake, before its answer.
const EARLY_BYTES_MAX: usize = HEADER_BYTES_MAX;
/// Pause after a failed accept: usually there are too many open files, and trying at once only
/// takes the processor away from the connections that could close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const PROTOCOL_JSON: &str = "centrifuge-json";
const PROTOCOL_PROTOBUF: &str = "centrifuge-protobuf";

/// What every handshake needs.
pub(super) struct Door<L: Listener> {
    pub(super) rules: Arc<Rules>,
    pub(super) stats: Arc<GatewayStats>,
    /// Streams that speak HTTP.
    pub(super) http: Places,
    /// Connections.
    pub(super) places: Places,
    /// Hands a connection to a shard; it is refused when the shard's queue is full.
    pub(super) hand_over: HandOver<L>,
    pub(super) stop: CancellationToken,
}

type HandOver<L> = Box<dyn Fn(Accepted<<L as Listener>::Transport>) -> bool + Send + Sync>;

/// Where a request comes from; also there for the caller's routes, as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub SocketAddr);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    user: Option<Box<str>>,
    cf_protocol: Option<String>,
}

/// Accepts until told to stop. Requests that are being answered are finished.
pub(super) async fn serve<L: Listener>(mut listener: L, router: Router, door: Door<L>) {
    let door = Arc::new(door);
    let router = router.route(PATH, get(upgrade::<L>).with_state(door.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.stop.cancelled() => return,
        };
        match accepted {
            Ok((io, from)) => match door.http.take(from.ip()) {
                Some(place) => {
                    tokio::spawn(speak::<L>(io, from, place, router.clone(), door.stop.clone()));
                }
                None => door.stats.handshakes_refused.add(1),
            },
            Err(error) => {
                tracing::warn!(%error, "gateway.accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn speak<L: Listener>(
    io: L::Io,
    from: SocketAddr,
    place: Place,
    router: Router,
    stop: CancellationToken,
) {
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(from));
        routes.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    drop(place);
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "http.end");
    }
}

/// A handshake that isn't accepted.
type Refused = (StatusCode, String);

async fn upgrade<L: Listener>(State(door): State<Arc<Door<L>>>, request: Request) -> Response {
    match accept(&door, request) {
        Ok(response) => response,
        Err(refused) => {
            door.stats.handshakes_refused.add(1);
            refused.into_response()
        }
    }
}

fn accept<L: Listener>(door: &Arc<Door<L>>, mut request: Request) -> Result<Response, Refused> {
    let Some(&ClientAddress(from)) = request.extensions().get::<ClientAddress>() else {
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "the client's address is unknown".into()));
    };
    let key = handshake_key(request.headers())?;
    check_origin(&door.rules.origins, door.rules.channels.dev, request.headers())?;
    let Query(parameters) =
        Query::<Parameters>::try_from_uri(request.uri()).unwrap_or_else(|_| Query::default());
    let protocol = format(request.headers(), &parameters)?;
    let place = door.places.take(from.ip()).ok_or_else(|| {
        (StatusCode::SERVICE_UNAVAILABLE, "too many connections, try again later".to_owned())
    })?;
    let upgraded = hyper::upgrade::on(&mut request);
    let door = door.clone();
    tokio::spawn(async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%from, %error, "handshake.end"),
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<L::Io>>() else { return };
        // Copied, because the library's whole read buffer lives as long as a part of it.
        let early = parts.read_buf.to_vec();
        let detached = L::detach(parts.io.into_inner());
        let (Ok(transport), true) = (detached, early.len() <= EARLY_BYTES_MAX) else { return };
        let query_user = parameters.user;
        let accepted = Accepted { transport, early, format: Format::Json, query_user, place };
        if !(door.hand_over)(accepted) {
            door.stats.handshakes_refused.add(1);
        }
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, answer(&key));
    if let Some(protocol) = protocol {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
        .body(axum::body::Body::empty())
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn names(list: &str, wanted: &str) -> bool {
    list.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted))
}

/// The key of a WebSocket handshake, if the request is one.
fn handshake_key(headers: &HeaderMap) -> Result<String, Refused> {
    let upgrade = names(text(headers, header::UPGRADE), "websocket")
        && names(text(headers, header::CONNECTION), "upgrade");
    if !upgrade {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint".into()));
    }
    if text(headers, header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err((StatusCode::BAD_REQUEST, "only WebSocket version 13 is spoken".into()));
    }
    let key = text(headers, header::SEC_WEBSOCKET_KEY);
    let decoded = base64::engine::general_purpose::STANDARD.decode(key);
    if decoded.is_ok_and(|bytes| bytes.len() == 16) {
        return Ok(key.to_owned());
    }
    Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64".into()))
}

/// What proves that the handshake was understood (RFC 6455, 4.2.2).
fn answer(key: &str) -> String {
    let digest = Sha1::new()
        .chain_update(key.as_bytes())
        .chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// The subprotocol to name in the answer.
fn format(headers: &HeaderMap, parameters: &Parameters) -> Result<Option<&'static str>, Refused> {
    let offered = text(headers, header::SEC_WEBSOCKET_PROTOCOL);
    if names(offered, PROTOCOL_JSON) {
        return Ok(Some(PROTOCOL_JSON));
    }
    let protobuf = parameters.cf_protocol.as_deref() == Some("protobuf");
    if protobuf || names(offered, PROTOCOL_PROTOBUF) {
        let text = "this server speaks the JSON form of the protocol only: use centrifuge-json";
        return Err((StatusCode::NOT_IMPLEMENTED, text.into()));
    }
    Ok(None)
}

/// In development pages of any node on this machine may connect to any other: a browser counts
/// another port as another origin.
fn check_origin(origins: &Origins, dev: bool, headers: &HeaderMap) -> Result<(), Refused> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let listed = match origins {
        Origins::Any => return Ok(()),
        Origins::SameHost => false,
        Origins::Listed(listed) => listed.iter().any(|allowed| allowed == origin),
    };
    let host = text(headers, header::HOST);
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let same_host = authority.is_some_and(|it| !host.is_empty() && it.eq_ignore_ascii_case(host));
    if listed || same_host || (dev && authority.is_some_and(is_loopback)) {
        return Ok(());
    }
    Err((StatusCode::FORBIDDEN, format!("pages of {origin:?} may not connect here")))
}

/// Whether a host with or without a port is this very machine.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (header::HeaderName::from_static(name), value.parse().expect("a header value"))
            })
            .collect()
    }

    #[test]
    fn the_answer_of_the_rfc() {
        assert_eq!(answer("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn pages_of_other_hosts_are_refused() {
        let page = |origin| headers(&[("host", "a.org:8000"), ("origin", origin)]);
        let listed = Origins::Listed(vec!["https://b.org".into()]);
        assert!(check_origin(&Origins::SameHost, false, &page("http://a.org:8000")).is_ok());
        assert!(check_origin(&Origins::SameHost, false, &headers(&[("host", "a.org")])).is_ok());
        assert!(check_origin(&Origins::Any, false, &page("https://evil.org")).is_ok());
        assert!(check_origin(&listed, false, &page("https://b.org")).is_ok());
        for origin in ["https://evil.org", "http://a.org", "null", "http://a.org:8000.evil.org"] {
            for origins in [&Origins::SameHost, &listed] {
                let refused = check_origin(origins, false, &page(origin)).expect_err(origin);
                assert_eq!(refused.0, StatusCode::FORBIDDEN);
            }
        }
    }

    #[test]
    fn in_development_pages_of_this_machine_may_connect() {
        let page = |origin| headers(&[("host", "127.0.0.1:8001"), ("origin", origin)]);
        for origin in ["http://127.0.0.1:8000", "http://localhost:3000", "http://[::1]:80"] {
            assert!(check_origin(&Origins::SameHost, true, &page(origin)).is_ok(), "{origin}");
            assert!(check_origin(&Origins::SameHost, false, &page(origin)).is_err(), "{origin}");
        }
        for origin in
            ["http://localhost.evil.org", "http://127.0.0.1.evil.org:80", "null", "http://"]
        {
            assert!(check_origin(&Origins::SameHost, true, &page(origin)).is_err(), "{origin}");
        }
    }

    #[test]
    fn subprotocols() {
        let offer = |list| headers(&[("sec-websocket-protocol", list)]);
        let none = Parameters::default();
        assert_eq!(format(&HeaderMap::new(), &none), Ok(None));
        let both = offer("centrifuge-protobuf, centrifuge-json");
        assert_eq!(format(&both, &none), Ok(Some(PROTOCOL_JSON)));
        let refused = format(&offer("centrifuge-protobuf"), &none).expect_err("protobuf");
        assert_eq!(refused.0, StatusCode::NOT_IMPLEMENTED);
        let asked = Parameters { cf_protocol: Some("protobuf".into()), user: None };
        assert!(format(&HeaderMap::new(), &asked).is_err());
    }
}
