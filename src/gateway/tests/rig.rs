//! A gateway on in-memory sockets and a paused clock, and clients that speak to it byte by byte.
use std::io::IoSlice;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::fake::FakeCore;
use crate::config::channels::{Channels, Namespace};
use crate::delivery::mailbox::CoreSender;
use crate::gateway::socket::Socket;
use crate::gateway::socket::memory::{MemoryDialer, MemoryListener, MemorySocket};
use crate::gateway::{Gateway, GatewayConfig, Threads, shards};

/// Bytes that a test's socket holds in each direction.
const SOCKET_BYTES: usize = 256 * 1024;
pub(crate) const SECRET: &[u8] = b"a secret for tests";

pub(crate) struct Rig {
    pub(crate) gateway: Gateway<MemoryListener>,
    pub(crate) core: FakeCore,
    dialer: MemoryDialer,
}

/// What a client reads.
#[derive(Debug, PartialEq)]
pub(crate) enum Read {
    Messages(Vec<Value>),
    Close(u16, String),
    Pong(Vec<u8>),
    End,
}

pub(crate) struct Client {
    socket: MemorySocket,
    bytes: Vec<u8>,
    messages: std::collections::VecDeque<Value>,
    answer_pings: bool,
}

/// Runs a test on two shards of one thread.
pub(crate) async fn run<F: AsyncFnOnce(Rig)>(config: GatewayConfig, test: F) {
    LocalSet::new()
        .run_until(async {
            let (senders, receivers) = shards(2);
            let (core, events) = CoreSender::channel();
            let fake = FakeCore::spawn(senders, events);
            let (listener, dialer) = MemoryListener::bind(16);
            let router = axum::Router::new()
                .route("/hello", axum::routing::get(async || "hello from the caller's route"));
            let gateway =
                Gateway::start(config, listener, router, core, receivers, Threads::Shared)
                    .expect("a sound configuration");
            test(Rig { gateway, core: fake, dialer }).await;
        })
        .await;
}

/// Channels: plain ones ephemeral, `chat:` with everything, `quiet:` with nothing.
pub(crate) fn config() -> GatewayConfig {
    let plain = Namespace { allow_subscribe: true, allow_publish: true, ..Namespace::default() };
    let chat = Namespace {
        history_size: 100,
        history_ttl: Duration::from_secs(60),
        recovery: true,
        presence: true,
        allow_presence: true,
        allow_history: true,
        ..plain.clone()
    };
    let seen = Namespace { join_leave: true, ..plain.clone() };
    let namespaces = [("chat", chat), ("quiet", Namespace::default()), ("seen", seen)];
    let namespaces = namespaces.map(|(name, namespace)| (name.to_owned(), namespace)).into();
    let channels = Channels { plain, namespaces, ..Channels::default() };
    let node = "n1".parse().expect("a node name");
    let mut config = GatewayConfig::new(node, channels);
    config.token_secret = Some(SECRET.to_vec());
    config
}

pub(crate) fn token(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("a plain object")
}

impl Rig {
    pub(crate) async fn dial(&self) -> MemorySocket {
        let from = "10.0.0.1:999".parse().expect("an address");
        self.dialer.dial(from, SOCKET_BYTES).await.expect("a listener")
    }

    /// A client whose handshake is done.
    pub(crate) async fn open(&self, query: &str) -> Client {
        let (answer, client) = self.handshake(query, "").await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        client
    }

    /// A client that has said nothing yet.
    pub(crate) async fn raw(&self) -> Client {
        let socket = self.dial().await;
        Client { socket, bytes: Vec::new(), messages: Default::default(), answer_pings: true }
    }

    /// A plain request; the head of the answer.
    pub(crate) async fn get(&self, path: &str) -> (String, Client) {
        let mut client = self.raw().await;
        client.write(format!("GET {path} HTTP/1.1\r\nHost: a.org\r\n\r\n").as_bytes()).await;
        (client.head().await, client)
    }

    /// Sends a handshake with further header lines; the head of the answer.
    pub(crate) async fn handshake(&self, query: &str, headers: &str) -> (String, Client) {
        let mut client = self.raw().await;
        let head = format!(
            "GET /connection/websocket{query} HTTP/1.1\r\nHost: a.org\r\nUpgrade: websocket\r\n\
             Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        client.write(head.as_bytes()).await;
        (client.head().await, client)
    }

    /// A client of `user` that has connected.
    pub(crate) async fn connect(&self, user: &str) -> Client {
        self.connect_as(user, "python").await
    }

    pub(crate) async fn connect_as(&self, user: &str, sdk: &str) -> Client {
        let mut client = self.open("").await;
        let token = token(&json!({ "sub": user }));
        let reply = client.ask(json!({"id": 1, "connect": {"token": token, "name": sdk}})).await;
        assert_eq!(reply["connect"]["node"], "n1", "{reply}");
        client
    }
}

impl Client {
    pub(crate) fn ignore_pings(&mut self) {
        self.answer_pings = false;
    }

    pub(crate) async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.socket.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.socket.writable().await.expect("memory");
                }
                Err(_) => return,
            }
        }
    }

    /// Sends a masked frame.
    pub(crate) async fn frame(&self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            middle @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((middle as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [7, 0, 9, 1];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        self.write(&frame).await;
    }

    pub(crate) async fn say(&self, text: &str) {
        self.frame(0x81, text.as_bytes()).await;
    }

    pub(crate) async fn send(&self, command: Value) {
        self.say(&command.to_string()).await;
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        let id = command["id"].clone();
        self.send(command).await;
        let mut others = Vec::new();
        loop {
            let message = self.message().await;
            if message["id"] == id {
                // What came before is still to be read.
                others.into_iter().rev().for_each(|other| self.messages.push_front(other));
                return message;
            }
            others.push(message);
        }
    }

    /// The next message; pings are answered and left out.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            if let Some(message) = self.messages.pop_front() {
                if message != json!({}) {
                    return message;
                }
                if self.answer_pings {
                    self.say("{}").await;
                }
                continue;
            }
            match self.read().await {
                Read::Messages(messages) => self.messages.extend(messages),
                other => panic!("waited for a message, not for {other:?}"),
            }
        }
    }

    /// Reads until the connection closes; its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.read().await {
                Read::Close(code, _) => return code,
                Read::End => panic!("closed without a code"),
                Read::Messages(_) | Read::Pong(_) => {}
            }
        }
    }

    /// The next frame.
    pub(crate) async fn read(&mut self) -> Read {
        loop {
            if let Some((opcode, payload)) = self.take_frame() {
                return match opcode {
                    1 => Read::Messages(
                        serde_json::Deserializer::from_slice(&payload)
                            .into_iter()
                            .map(|message| message.expect("valid JSON"))
                            .collect(),
                    ),
                    8 => {
                        let code = u16::from_be_bytes([payload[0], payload[1]]);
                        Read::Close(code, String::from_utf8_lossy(&payload[2..]).into())
                    }
                    10 => Read::Pong(payload),
                    other => panic!("a frame of kind {other}"),
                };
            }
            if !self.fill().await {
                return Read::End;
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let patience = Duration::from_secs(120);
        let ready = tokio::time::timeout(patience, self.socket.readable()).await;
        ready.expect("something to read within two minutes").expect("memory");
        let mut buffer = vec![0; 64 * 1024];
        let read = self.socket.try_read(&mut buffer).expect("it is readable");
        self.bytes.extend_from_slice(&buffer[..read]);
        read > 0
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.bytes.drain(..end + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            assert!(self.fill().await, "closed without an answer");
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.bytes;
        let (len, at) = match *bytes.get(1)? {
            126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
            127 => {
                let len = bytes.get(2..10)?.try_into().expect("eight bytes");
                (usize::try_from(u64::from_be_bytes(len)).expect("it fits"), 10)
            }
            short => (usize::from(short), 2),
        };
        let opcode = bytes[0] & 15;
        let payload = bytes.get(at..at + len)?.to_vec();
        self.bytes.drain(..at + len);
        Some((opcode, payload))
    }
}
