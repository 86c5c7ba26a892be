//! Real TCP sockets, shards on threads of their own, and an independent WebSocket client.
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tungstenite::Message;

use super::fake::FakeCore;
use super::rig::{config, token};
use crate::delivery::mailbox::CoreSender;
use crate::gateway::{Gateway, Threads, shards};

fn exchange(url: &str) -> Vec<Value> {
    let (mut socket, _) = tungstenite::connect(url).expect("a handshake");
    let token = token(&json!({"sub": "u"}));
    let commands = [
        json!({"id": 1, "connect": {"token": token}}),
        json!({"id": 2, "subscribe": {"channel": "chat:x"}}),
    ];
    let mut heard = Vec::new();
    let mut hear = |socket: &mut tungstenite::WebSocket<_>| {
        let message: Message = socket.read().expect("a frame");
        let text = message.into_text().expect("text");
        for line in text.lines() {
            heard.push(serde_json::from_str(line).expect("JSON"));
        }
        heard.len()
    };
    socket.send(Message::text(commands.map(|c| c.to_string()).join("\n"))).expect("room");
    while hear(&mut socket) < 2 {}
    let publish = json!({"id": 3, "publish": {"channel": "chat:x", "data": [1, 2]}});
    socket.send(Message::text(publish.to_string())).expect("room");
    while hear(&mut socket) < 4 {}
    socket.close(None).expect("room");
    while socket.read().is_ok() {}
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (senders, receivers) = shards(2);
    let (core, events) = CoreSender::channel();
    let _fake = FakeCore::spawn(senders, events);
    let gateway =
        Gateway::start(config(), listener, axum::Router::new(), core, receivers, Threads::Own)
            .expect("a sound configuration");
    let url = format!("ws://{address}/connection/websocket");
    let clients = [(); 4].map(|()| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || exchange(&url))
    });
    for client in clients {
        let heard = client.await.expect("no panic");
        assert!(heard[0].get("connect").is_some(), "{heard:?}");
        assert!(heard.iter().any(|m| m["push"]["pub"]["data"] == json!([1, 2])), "{heard:?}");
    }
    let stats = gateway.stats();
    assert_eq!(stats.connections_opened.get(), 4);
    assert!(stats.bytes_out.get() > 0 && stats.deliveries.get() >= 4);
    gateway.stop().await;
    assert_eq!(stats.connections.get(), 0);
}
