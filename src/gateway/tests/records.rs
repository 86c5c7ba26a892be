//! What outlives connections: subscriptions of a user's record, and attributes by RPC.
use serde_json::{Value, json};

use super::rig::{Client, Rig, config, run, token};
use crate::protocol::codes::ErrorCode;

/// Connects with positions of former server-side subscriptions.
async fn connect(rig: &Rig, subs: Value) -> (Client, Value) {
    let mut client = rig.open("").await;
    let connect = json!({"token": token(&json!({"sub": "u"})), "subs": subs});
    let reply = client.ask(json!({"id": 1, "connect": connect})).await;
    (client, reply["connect"]["subs"].clone())
}

fn position(offset: u64) -> Value {
    let epoch = "1.1.00000000000000000000000000000007";
    json!({"recover": true, "epoch": epoch, "offset": offset})
}

#[tokio::test(start_paused = true)]
async fn a_connect_brings_the_subscriptions_of_the_record_with_what_was_missed() {
    run(config(), async |rig| {
        rig.core.record("u", &["chat:x", "plain"]);
        for data in ["1", "2"] {
            rig.core.publish("chat:x", data, true);
        }
        let (mut client, subs) = connect(&rig, json!({"chat:x": position(1)})).await;
        assert_eq!(subs["chat:x"]["recovered"], true);
        assert_eq!(subs["chat:x"]["publications"], json!([{"data": 2, "offset": 2}]));
        assert!(subs["plain"].is_object() && subs["#u"].is_object(), "{subs}");
        rig.core.publish("chat:x", "3", true);
        assert_eq!(client.message().await["push"]["pub"], json!({"data": 3, "offset": 3}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_come_and_go_while_connected() {
    run(config(), async |rig| {
        let (mut client, _) = connect(&rig, json!({})).await;
        rig.core.record("u", &["chat:x"]);
        let push = client.message().await["push"].take();
        assert_eq!(push["channel"], "chat:x");
        assert_eq!(
            (&push["subscribe"]["recoverable"], push["subscribe"]["epoch"].is_string()),
            (&json!(true), true)
        );
        rig.core.publish("chat:x", "1", true);
        assert_eq!(client.message().await["push"]["pub"], json!({"data": 1, "offset": 1}));
        rig.core.record("u", &["chat:x"]);
        rig.core.record("u", &[]);
        let push = client.message().await["push"].take();
        assert_eq!(
            (&push["channel"], &push["unsubscribe"]["code"]),
            (&json!("chat:x"), &json!(2000))
        );
        assert_eq!(rig.core.subscribers("chat:x"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_token_and_the_client_asked_for_stays() {
    run(config(), async |rig| {
        let mut client = rig.open("").await;
        let connect = json!({"token": token(&json!({"sub": "u", "channels": ["chat:t"]}))});
        client.ask(json!({"id": 1, "connect": connect})).await;
        client.ask(json!({"id": 2, "subscribe": {"channel": "chat:own"}})).await;
        rig.core.record("u", &["chat:t", "chat:own", "chat:x"]);
        assert_eq!(client.message().await["push"]["channel"], "chat:x");
        rig.core.record("u", &[]);
        let push = client.message().await["push"].take();
        assert_eq!((&push["channel"], push["unsubscribe"].is_object()), (&json!("chat:x"), true));
        for channel in ["chat:t", "chat:own"] {
            assert_eq!(rig.core.subscribers(channel), 1, "{channel}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_the_record_is_not_known_positions_are_kept() {
    run(config(), async |rig| {
        rig.core.record("u", &["chat:x"]);
        for data in ["1", "2"] {
            rig.core.publish("chat:x", data, true);
        }
        rig.core.refuse_subscribes(Some(ErrorCode::Internal));
        let claimed = json!({"chat:x": position(1), "chat:gone": position(1)});
        let (mut client, subs) = connect(&rig, claimed).await;
        for channel in ["chat:x", "chat:gone"] {
            assert_eq!(
                (&subs[channel]["recovered"], &subs[channel]["offset"]),
                (&json!(true), &json!(1))
            );
        }
        rig.core.refuse_subscribes(None);
        let mut told = [client.message().await, client.message().await, client.message().await];
        told.sort_by_key(|message| message["push"]["channel"].to_string());
        assert_eq!(told[0]["push"]["channel"], "#u");
        assert_eq!(told[1]["push"]["unsubscribe"]["code"], 2000);
        assert_eq!(told[2]["push"]["pub"], json!({"data": 2, "offset": 2}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_while_connecting_is_left_out() {
    run(config(), async |rig| {
        rig.core.record("u", &["chat:slow", "chat:x"]);
        rig.core.be_silent("chat:slow");
        let mut client = rig.open("").await;
        client.send(json!({"id": 1, "connect": {"token": token(&json!({"sub": "u"}))}})).await;
        while rig.core.subscribers("chat:x") == 0 {
            tokio::task::yield_now().await;
        }
        let started = tokio::time::Instant::now();
        rig.core.record("u", &[]);
        let reply = client.message().await;
        let subs = reply["connect"]["subs"].as_object().expect("subscriptions");
        assert_eq!(subs.keys().collect::<Vec<_>>(), ["#u"]);
        assert!(started.elapsed().as_secs() < 1, "it waits for nothing more");
    })
    .await;
}

async fn rpc(client: &mut Client, method: &str, data: Value) -> Value {
    client.ask(json!({"id": 7, "rpc": {"method": method, "data": data}})).await
}

#[tokio::test(start_paused = true)]
async fn clients_keep_attributes_of_their_user_if_that_is_allowed() {
    let mut allowed = config();
    allowed.allow_sessions = true;
    run(allowed, async |rig| {
        let mut client = rig.connect("u").await;
        let reply =
            rpc(&mut client, "session_set", json!({"key": "k", "value": {"n": 1.50}})).await;
        assert_eq!(reply["rpc"]["data"], json!({"copies": 2}));
        let reply = rpc(&mut client, "session_get", json!({})).await;
        assert_eq!(reply["rpc"]["data"], json!({"attributes": {"k": {"n": 1.50}}}));
        rpc(&mut client, "session_delete", json!({"key": "k"})).await;
        let reply = rpc(&mut client, "session_get", json!({"key": "k"})).await;
        assert_eq!(reply["rpc"]["data"], json!({"attributes": {}}));
        for (method, data, code) in [
            ("session_set", json!({"key": "", "value": 1}), 106),
            ("session_set", json!({"key": "k".repeat(129), "value": 1}), 106),
            ("session_set", json!({"key": "k", "value": "v".repeat(4096)}), 106),
            ("session_set", json!({"key": "k"}), 107),
            ("session_get", json!({"user": "other"}), 107),
            ("session_delete", json!({}), 107),
            ("session_list", json!({}), 104),
        ] {
            assert_eq!(rpc(&mut client, method, data).await["error"]["code"], code, "{method}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn attributes_are_nobodys_by_default_and_never_those_of_the_anonymous() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        assert_eq!(rpc(&mut client, "session_get", json!({})).await["error"]["code"], 103);
    })
    .await;
    let mut anonymous = config();
    (anonymous.allow_anonymous, anonymous.allow_sessions) = (true, true);
    run(anonymous, async |rig| {
        let mut client = rig.open("").await;
        client.ask(json!({"id": 1, "connect": {}})).await;
        assert_eq!(rpc(&mut client, "session_get", json!({})).await["error"]["code"], 103);
    })
    .await;
}
