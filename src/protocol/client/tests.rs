//! The codec of client frames against texts written by hand.
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::protocol::codes::{ErrorCode, Unsubscribe};
use crate::protocol::ids::{ClientId, Epoch, Incarnation, Position, StreamEpoch};
use crate::protocol::message::{ClientInfo, Message, Publication};

use super::*;

fn position(offset: u64) -> Position {
    let epoch = Epoch { term: 3, owner: Incarnation(9) };
    Position { epoch: StreamEpoch { epoch, index: 4 }, offset }
}

fn message(data: &'static str) -> Arc<Message> {
    Arc::new(Message { data: Bytes::from_static(data.as_bytes()), ..Message::default() })
}

fn reply(id: u32, reply: &Reply<'_>) -> Value {
    let mut frame = Vec::new();
    Format::Json.reply(&mut frame, id, reply);
    serde_json::from_slice(&frame).expect("valid JSON")
}

fn push(push: &Push<'_>) -> Value {
    let mut frame = Vec::new();
    Format::Json.push(&mut frame, push);
    assert!(!frame.contains(&b'\n'), "a line feed inside a message");
    serde_json::from_slice(&frame).expect("valid JSON")
}

#[test]
fn a_frame_holds_many_commands() {
    let frame = "{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":{\"x\": 1}}}\n{} {\"id\":2,\"ping\":{}}{\"send\":{\"data\":1}}\n";
    let methods: Vec<_> =
        commands(frame).map(|c| c.expect("valid")).map(|c| (c.id, c.method())).collect();
    match &methods[..] {
        [
            (1, Method::Publish(publish)),
            (0, Method::Nothing),
            (2, Method::Ping),
            (0, Method::Send(_)),
        ] => {
            assert_eq!(publish.channel, "a");
            assert_eq!(publish.data.map(|d| d.get()), Some("{\"x\": 1}"));
        }
        other => panic!("read as {other:?}"),
    }
}

#[test]
fn broken_frames_are_errors() {
    for frame in ["{", "[\"x\"]", "{\"id\":-1}", "{\"id\":4294967296}", "{\"id\":1}x", "\"a\""] {
        assert!(commands(frame).any(|c| c.is_err()), "{frame:?} was accepted");
    }
}

#[test]
fn connect_carries_positions_and_unknown_fields_are_skipped() {
    let frame = r##"{"id":1,"connect":{"token":"t\u0041","name":"js","headers":{"a":"b"},"flag":3,
        "subs":{"#a":{"recover":true,"epoch":"e","offset":7}}}}"##;
    let command = commands(frame).next().expect("one").expect("valid");
    let Method::Connect(connect) = command.method() else { panic!("not a connect") };
    assert_eq!((connect.token.as_ref(), connect.name.as_ref()), ("tA", "js"));
    let sub = &connect.subs["#a"];
    assert!(sub.recover);
    assert_eq!((sub.epoch.as_ref(), sub.offset), ("e", 7));
}

#[test]
fn replies_leave_out_what_is_empty() {
    assert_eq!(
        reply(4, &Reply::Error(ErrorCode::PermissionDenied)),
        json!({"id":4,"error":{"code":103,"message":"permission denied"}})
    );
    assert_eq!(
        reply(5, &Reply::Error(ErrorCode::Internal)),
        json!({"id":5,"error":{"code":100,"message":"internal server error","temporary":true}})
    );
    assert_eq!(
        reply(6, &Reply::Subscribe(SubscribeResult::default())),
        json!({"id":6,"subscribe":{}})
    );
    assert_eq!(reply(7, &Reply::Publish), json!({"id":7,"publish":{}}));
}

#[test]
fn a_recovered_subscription() {
    let publication = Publication { epoch: position(0).epoch, offset: 8, message: message("{}") };
    let result = SubscribeResult {
        position: Some(position(7)),
        was_recovering: true,
        recovered: true,
        publications: &[publication],
        data: br#"{"a":1}"#,
    };
    assert_eq!(
        reply(3, &Reply::Subscribe(result)),
        json!({"id":3,"subscribe":{"recoverable":true,"positioned":true,
            "epoch":"3.4.00000000000000000000000000000009","offset":7,
            "publications":[{"data":{},"offset":8}],"recovered":true,"was_recovering":true,
            "data":{"a":1}}})
    );
}

#[test]
fn connect_reply() {
    let subs =
        vec![("#a\"", SubscribeResult { position: Some(position(0)), ..Default::default() })];
    let result = ConnectResult {
        client: ClientId(1),
        version: "0.1.0",
        ttl: Some(60),
        subs,
        ping: 25,
        pong: true,
        session: ClientId(2),
        node: "n1",
        time_ms: 5,
    };
    assert_eq!(
        reply(1, &Reply::Connect(result)),
        json!({"id":1,"connect":{"client":"00000000000000000000000000000001","version":"0.1.0",
            "expires":true,"ttl":60,
            "subs":{"#a\"":{"recoverable":true,"positioned":true,"epoch":"3.4.00000000000000000000000000000009"}},
            "ping":25,"pong":true,"session":"00000000000000000000000000000002","node":"n1","time":5}})
    );
}

#[test]
fn publications_carry_their_payload_as_it_came_but_on_one_line() {
    let info = ClientInfo {
        user: "u\"1".into(),
        client: ClientId(1),
        conn_info: Bytes::from_static(b"{\"n\":1}"),
        chan_info: Bytes::new(),
    };
    let message = Message {
        data: Bytes::from_static(b"{\"a\":\r\n 1.0}"),
        info: Some(info),
        tags: [("k".to_owned(), String::new())].into(),
        time_ms: 9,
    };
    let fields = PublicationFields { message: &message, offset: 8, epoch: Some(position(0).epoch) };
    assert_eq!(
        push(&Push::Publication { channel: "c", publication: fields }),
        json!({"push":{"channel":"c","pub":{"data":{"a":1.0},
            "info":{"user":"u\"1","client":"00000000000000000000000000000001","conn_info":{"n":1}},
            "offset":8,"tags":{"k":""},"time":9,"epoch":"3.4.00000000000000000000000000000009"}}})
    );
}

#[test]
fn other_pushes() {
    assert_eq!(
        push(&Push::Unsubscribe { channel: "c", why: Unsubscribe::InsufficientState }),
        json!({"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"insufficient state"}}})
    );
    let info = ClientInfo {
        user: "u".into(),
        client: ClientId(1),
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    };
    assert_eq!(
        push(&Push::Join { channel: "c", info: &info }),
        json!({"push":{"channel":"c","join":{"info":
            {"user":"u","client":"00000000000000000000000000000001"}}}})
    );
}

#[test]
fn messages_of_a_frame_are_joined_by_line_feeds() {
    let mut frame = Vec::new();
    Format::Json.reply(&mut frame, 1, &Reply::Publish);
    Format::Json.reply(&mut frame, 2, &Reply::Ping);
    assert_eq!(frame, b"{\"id\":1,\"publish\":{}}\n{\"id\":2,\"ping\":{}}");
}
