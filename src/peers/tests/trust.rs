//! Who is let in: secrets, their rotation, certificates of an operator's.
use std::io;
use std::sync::Mutex;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tracing_subscriber::fmt::MakeWriter;

use super::authority::Authority;
use super::*;

/// Log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn record() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false);
        (lines, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn with(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_counted_and_logged_once() {
    let (lines, _guard) = Lines::record();
    let secret = Secret::generate();
    let [mut a, _b] = mesh(["a", "b"], &secret).await;
    let mut stranger = node("c", &Secret::generate());
    stranger.dial(&a);
    let mut refused = 0;
    while refused < 3 {
        let (reason, fatal) = stranger.refused().await;
        assert_eq!((reason, fatal), (Refusal::Secret, false));
        refused += 1;
    }
    a.quiet().await;
    assert_eq!(a.linked().len(), 1);
    // The stranger is the first to see a foreign certificate; what reaches us is its alert.
    for by_us in ["by_us=true", "by_us=false"] {
        let lines = lines.with("link.refused");
        assert_eq!(lines.iter().filter(|l| l.contains(by_us)).count(), 1, "{lines:?}");
    }
    let stats = a.peers.stats();
    assert!(stats.refused >= 3, "{stats:?}");
    assert!(stats.retries >= 3, "{stats:?}");
}

#[tokio::test]
async fn one_round_of_restarts_changes_the_secret() {
    let (old, new) = (Secret::generate(), Secret::generate());
    let both = |name| {
        Setup::new(name, &new).with(|c| c.credentials.previous_secret = Some(old.clone())).start()
    };
    let (mut before, mut between, mut after) = (node("a", &old), both("b"), node("c", &new));
    link(&mut before, &mut between).await;
    link(&mut between, &mut after).await;

    let (mut before, mut between) = (node("z", &old), both("y"));
    link(&mut between, &mut before).await;
    before.dial(&after);
    assert_eq!(before.refused().await.0, Refusal::Secret);
}

fn with_files(name: &str, credentials: Credentials, secret: &Secret) -> Node {
    Setup::new(name, secret).with(|config| config.credentials = credentials).start()
}

#[tokio::test]
async fn certificates_of_an_operator_link_nodes_of_one_secret() {
    let (authority, secret) = (Authority::new(), Secret::generate());
    let mut a = with_files("a", authority.credentials("a", true, &secret), &secret);
    let mut b = with_files("b", authority.credentials("b", false, &secret), &secret);
    link(&mut a, &mut b).await;

    let other = Secret::generate();
    let mut c = with_files("c", authority.credentials("c", true, &other), &other);
    c.dial(&a);
    assert_eq!(c.refused().await.0, Refusal::Secret);

    let mut d = with_files("d", Authority::new().credentials("d", true, &secret), &secret);
    d.dial(&a);
    assert_eq!(d.refused().await.0, Refusal::Secret);
}

#[tokio::test]
async fn a_node_with_the_certificate_of_another_does_not_start() {
    let (authority, secret) = (Authority::new(), Secret::generate());
    let setup = Setup::new("a", &secret)
        .with(|config| config.credentials = authority.credentials("b", true, &secret));
    let (socket, runtime) = udp(setup.socket).unwrap();
    let Err(error) = Peers::start(setup.config, socket, runtime, mpsc::channel(1).0) else {
        panic!("started");
    };
    assert_eq!(error.to_string(), r#"--tls-cert is for node "b", this node is named "a""#);
}

#[tokio::test]
async fn a_hello_for_another_node_than_the_certificate_is_refused() {
    let secret = Secret::generate();
    let mut a = node("a", &secret);
    // A certificate for "b", a hello that says "c".
    let setup = Setup::new("b", &secret);
    let (socket, runtime) = udp(setup.socket).unwrap();
    let (endpoint, name) = transport::endpoint(&setup.config, socket, runtime).unwrap();
    let liar = Setup::new("c", &secret).start();
    let connection = endpoint.connect(a.address, &name).unwrap().await.unwrap();
    let Err(failure) =
        greeting::greet(&liar.peers.mesh, &connection, identity::Side::Dialler).await
    else {
        panic!("let in");
    };
    let refusal::Unmet::Refused(Refusal::Identity { hello, certificate }) = failure.unmet else {
        panic!("{}", failure.unmet);
    };
    assert!(hello.starts_with("c@") && certificate.starts_with("b@"), "{hello} {certificate}");
    a.quiet().await;
}

/// A dialler that has no certificate to show.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_dialler_without_a_certificate_is_refused() {
    /// QUIC's code for TLS's alert "certificate required" (RFC 8446, section 6).
    const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;
    let secret = Secret::generate();
    let mut a = node("a", &secret);
    let setup = Setup::new("b", &secret);
    let mut tls = tls::Tls::new(&setup.config.credentials, &setup.config.node).unwrap();
    tls.client.client_auth_cert_resolver = Arc::new(NoCertificate);
    let client = QuicClientConfig::try_from(tls.client).unwrap();
    let (socket, runtime) = udp(setup.socket).unwrap();
    let (mut endpoint, name) = transport::endpoint(&setup.config, socket, runtime).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(client)));
    // The handshake of TLS 1.3 is done for the dialler before its certificate is looked for.
    let closed = async {
        match endpoint.connect(a.address, &name).unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    };
    let reason = timeout(PATIENCE, closed).await.unwrap();
    let quinn::ConnectionError::ConnectionClosed(close) = reason else { panic!("{reason}") };
    assert_eq!(u64::from(close.error_code), CERTIFICATE_REQUIRED, "{close}");
    a.quiet().await;
    assert!(a.linked().is_empty());
    assert_eq!(a.peers.stats().refused, 1);
}

#[tokio::test]
async fn a_source_with_too_many_handshakes_is_turned_away_and_others_link() {
    let secret = Secret::generate();
    let mut a = node("a", &secret);
    let setup = Setup::new("c", &secret);
    let (socket, runtime) = udp(setup.socket).unwrap();
    let (endpoint, name) = transport::endpoint(&setup.config, socket, runtime).unwrap();
    // None of them ever says hello.
    let mut silent = Vec::new();
    for _ in 0..gate::HANDSHAKES_PER_SOURCE {
        silent.push(endpoint.connect(a.address, &name).unwrap().await.unwrap());
    }
    assert_eq!(a.peers.stats().turned_away, 0);
    let reason = endpoint.connect(a.address, &name).unwrap().await.unwrap_err();
    let quinn::ConnectionError::ConnectionClosed(close) = reason else { panic!("{reason}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
    assert_eq!(a.peers.stats().turned_away, 1);
    let mut b = Setup::at("b", &secret, "127.0.0.2:0".parse().unwrap()).start();
    link(&mut b, &mut a).await;
    assert_eq!(a.linked(), [b.id.clone()]);
    assert!(silent.iter().all(|connection| connection.close_reason().is_none()));
}

#[tokio::test]
async fn a_connection_without_a_hello_is_closed_in_time() {
    let secret = Secret::generate();
    let mut a = node("a", &secret);
    let setup = Setup::new("b", &secret);
    let (socket, runtime) = udp(setup.socket).unwrap();
    let (endpoint, name) = transport::endpoint(&setup.config, socket, runtime).unwrap();
    let connection = endpoint.connect(a.address, &name).unwrap().await.unwrap();
    let started = tokio::time::Instant::now();
    let reason = timeout(PATIENCE, connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = reason else { panic!("{reason}") };
    assert_eq!(close.error_code, VarInt::from_u32(CloseCode::Late as u32));
    assert!(started.elapsed() < endpoint::GREETING_TIMEOUT + Duration::from_secs(1));
    assert!(a.linked().is_empty() && a.events.try_recv().is_err());
}

#[tokio::test]
async fn a_source_that_answers_no_retry_costs_no_more_than_that() {
    let secret = Secret::generate();
    let (mut a, b) = (node("a", &secret), node("b", &secret));
    b.plug.deafen();
    b.dial(&a);
    let started = tokio::time::Instant::now();
    while a.peers.stats().retries < 2 {
        assert!(started.elapsed() < PATIENCE, "no packet came");
        // Nothing of the source is kept between two of its packets.
        assert_eq!(a.peers.mesh.endpoint.open_connections(), 0);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    a.quiet().await;
}

#[tokio::test]
async fn nothing_goes_between_nodes_in_plain_text() {
    const WORD: &[u8] = b"a-word-that-nobody-else-may-read";
    let secret = Secret::generate();
    let (mut a, mut b) = (node("a", &secret), node("b", &secret));
    a.plug.record();
    link(&mut a, &mut b).await;
    let frame = PeerFrame::Inspected { number: 1, report: bytes::Bytes::from_static(WORD) };
    for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
        assert_eq!(a.send(&b, lane, &frame), Outcome::Queued);
    }
    assert_eq!(b.frames(3).await, [frame.clone(), frame.clone(), frame]);
    a.gossip.outgoing.send((b.address, bytes::Bytes::from_static(WORD))).await.unwrap();
    timeout(PATIENCE, b.gossip.incoming.recv()).await.unwrap().unwrap();
    let sent = a.plug.sent();
    assert!(sent.len() > 4 * WORD.len());
    assert!(!sent.windows(WORD.len()).any(|window| window == WORD));
}
