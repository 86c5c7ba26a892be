//! The rules of the client protocol, one test each.
use serde_json::{Value, json};

use super::rig::{Client, Read, config, run, token};

fn error(code: u32) -> impl Fn(&Value) -> bool {
    move |reply| reply["error"]["code"] == code
}

async fn refused(client: &mut Client, command: Value, code: u32) {
    let reply = client.ask(command.clone()).await;
    assert!(error(code)(&reply), "{command} was answered by {reply}");
}

#[tokio::test(start_paused = true)]
async fn a_client_connects_subscribes_publishes_and_reads() {
    run(config(), async |rig| {
        let mut alice = rig.connect("alice").await;
        let mut bob = rig.connect("bob").await;
        for client in [&mut alice, &mut bob] {
            let reply =
                client.ask(json!({"id": 2, "subscribe": {"channel": "a", "flag": 1}})).await;
            assert_eq!(reply, json!({"id": 2, "subscribe": {}}));
        }
        let reply = alice.ask(json!({"id": 3, "publish": {"channel": "a", "data": {"t": "hi"}}}));
        assert_eq!(reply.await, json!({"id": 3, "publish": {}}));
        let push = bob.message().await;
        assert_eq!(push["push"]["channel"], "a");
        assert_eq!(push["push"]["pub"]["data"], json!({"t": "hi"}));
        assert_eq!(push["push"]["pub"]["info"]["user"], "alice");
        assert_eq!(push["push"]["pub"].get("offset"), None);
        let reply = bob.ask(json!({"id": 4, "unsubscribe": {"channel": "a"}})).await;
        assert_eq!(reply, json!({"id": 4, "unsubscribe": {}}));
        assert_eq!(rig.core.subscribers("a"), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_inbox_is_subscribed_by_the_server_and_recovers() {
    run(config(), async |rig| {
        let mut alice = rig.open("").await;
        let token = token(&json!({"sub": "alice", "info": {"n": 1}, "channels": ["chat:x"]}));
        let reply = alice.ask(json!({"id": 1, "connect": {"token": token}})).await;
        let subs = &reply["connect"]["subs"];
        assert_eq!(subs["#alice"]["recoverable"], true);
        assert_eq!(subs["chat:x"]["positioned"], true);
        assert_eq!(reply["connect"]["ping"], 25);
        assert_eq!(reply["connect"]["pong"], true);
        rig.core.publish("#alice", "1", true);
        let push = alice.message().await;
        assert_eq!(push["push"]["pub"], json!({"data": 1, "offset": 1}));
        let epoch = subs["#alice"]["epoch"].clone();
        drop(alice);
        rig.core.publish("#alice", "2", true);
        rig.core.publish("#alice", "3", true);
        let mut again = rig.open("").await;
        let position = json!({"recover": true, "epoch": epoch, "offset": 1});
        let connect = json!({"token": token, "subs": {"#alice": position, "#gone": position}});
        let reply = again.ask(json!({"id": 1, "connect": connect})).await;
        let inbox = &reply["connect"]["subs"]["#alice"];
        assert_eq!((&inbox["was_recovering"], &inbox["recovered"]), (&json!(true), &json!(true)));
        assert_eq!(inbox["offset"], 1, "the position in front of the publications");
        assert_eq!(
            inbox["publications"],
            json!([{"data": 2, "offset": 2}, {"data": 3, "offset": 3}])
        );
        assert_eq!(reply["connect"]["subs"].get("#gone"), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_credentials_nobody_gets_in() {
    run(config(), async |rig| {
        let expired = token(&json!({"sub": "u", "exp": 1000}));
        for (connect, code) in [
            (json!({}), 3500),
            (json!({"token": "x"}), 3500),
            (json!({"token": token(&json!({"sub": "a,b"}))}), 3500),
            (json!({"data": {"user": "eve"}}), 3500),
        ] {
            let mut client = rig.open("?user=eve").await;
            client.send(json!({"id": 1, "connect": connect})).await;
            assert_eq!(client.closed().await, code, "{connect}");
        }
        let mut client = rig.open("").await;
        refused(&mut client, json!({"id": 1, "connect": {"token": expired}}), 109).await;
        client.send(json!({"id": 2, "subscribe": {"channel": "a"}})).await;
        assert_eq!(client.closed().await, 3501);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn anonymous_clients_have_no_inbox() {
    let mut anonymous = config();
    anonymous.allow_anonymous = true;
    run(anonymous, async |rig| {
        let mut client = rig.open("").await;
        let reply = client.ask(json!({"id": 1, "connect": {}})).await;
        assert_eq!(reply["connect"].get("subs"), None);
        refused(&mut client, json!({"id": 2, "publish": {"channel": "#bob", "data": 1}}), 103)
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn development_takes_users_without_a_token_and_allows_everything() {
    let mut dev = config();
    dev.channels.dev = true;
    run(dev, async |rig| {
        let mut alice = rig.open("?user=alice").await;
        let reply = alice.ask(json!({"id": 1, "connect": {}})).await;
        assert_eq!(reply["connect"]["subs"]["#alice"]["recoverable"], true);
        let mut bob = rig.open("").await;
        let reply = bob.ask(json!({"id": 1, "connect": {"data": {"user": "bob"}}})).await;
        assert_eq!(reply["connect"]["subs"]["#bob"]["recoverable"], true);
        let reply = bob.ask(json!({"id": 2, "subscribe": {"channel": "quiet:x"}})).await;
        assert_eq!(reply, json!({"id": 2, "subscribe": {}}));
        bob.ask(json!({"id": 3, "publish": {"channel": "#alice", "data": "psst"}})).await;
        let push = alice.message().await;
        assert_eq!(push["push"]["pub"]["data"], "psst");
        assert_eq!(push["push"]["pub"]["info"]["user"], "bob");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn development_allows_what_the_configuration_does_not() {
    for (dev, code) in [(false, json!(103)), (true, Value::Null)] {
        let mut config = config();
        config.channels.dev = dev;
        let chat = config.channels.namespaces.get_mut("chat").expect("a namespace");
        (chat.allow_presence, chat.allow_history) = (false, false);
        run(config, async |rig| {
            let mut alice = rig.connect("alice").await;
            let reply = alice.ask(json!({"id": 2, "subscribe": {"channel": "chat:x"}})).await;
            assert!(reply.get("subscribe").is_some(), "{reply}");
            for command in [
                json!({"id": 3, "presence": {"channel": "chat:x"}}),
                json!({"id": 3, "history": {"channel": "chat:x"}}),
                json!({"id": 3, "rpc": {"method": "session_get", "data": {}}}),
                json!({"id": 3, "subscribe": {"channel": "@bob"}}),
            ] {
                let reply = alice.ask(command.clone()).await;
                assert_eq!(reply["id"], 3, "{reply}");
                assert_eq!(reply["error"]["code"], code, "dev = {dev}: {command}");
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn breaking_the_protocol_closes_with_3501() {
    run(config(), async |rig| {
        let token = token(&json!({"sub": "u"}));
        let connect = json!({"id": 1, "connect": {"token": token}}).to_string();
        for (commands, what) in [
            ("{\"id\":1,\"ping\":{}}".to_owned(), "a command before connect"),
            ("{}".to_owned(), "a pong before connect"),
            ("{\"connect\":{}}".to_owned(), "a connect without id"),
            ("{\"id\":1,\"connect\":".to_owned(), "half a command"),
            (format!("{connect}\n{connect}"), "a second connect"),
            (format!("{connect}\n{{}}"), "a pong without a ping"),
            (format!("{connect}\n{{\"subscribe\":{{\"channel\":\"a\"}}}}"), "no id"),
            (format!("{connect}\n{{\"id\":2,\"subscribe\":{{}}}}"), "no channel"),
            (
                format!(
                    "{connect}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"a\",\"delta\":\"x\"}}}}"
                ),
                "an unknown delta",
            ),
            (format!("{connect}\nnonsense"), "nonsense"),
        ] {
            let mut client = rig.open("").await;
            client.say(&commands).await;
            assert_eq!(client.closed().await, 3501, "{what}");
        }
        assert_eq!(rig.gateway.stats().closed_bad.get(), 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_gets_its_error() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        let subscribe = |channel: &str| json!({"id": 9, "subscribe": {"channel": channel}});
        client.ask(subscribe("a")).await;
        refused(&mut client, subscribe("a"), 105).await;
        refused(&mut client, subscribe("#u"), 105).await;
        refused(&mut client, subscribe("#v"), 103).await;
        refused(&mut client, subscribe("dm#v,w"), 103).await;
        refused(&mut client, subscribe("quiet:x"), 103).await;
        refused(&mut client, subscribe("none:x"), 102).await;
        refused(&mut client, subscribe(&"x".repeat(256)), 107).await;
        assert_eq!(client.ask(subscribe("dm#u,w")).await["subscribe"], json!({}));
        for (command, code) in [
            (json!({"publish": {"channel": "b", "data": 1}}), 103),
            (json!({"publish": {"channel": "a"}}), 107),
            (json!({"publish": {"channel": "#v", "data": 1}}), 103),
            (json!({"presence": {"channel": "a"}}), 108),
            (json!({"presence": {"channel": "chat:x"}}), 103),
            (json!({"presence_stats": {"channel": "none:x"}}), 102),
            (json!({"history": {"channel": "a"}}), 108),
            (json!({"history": {"channel": "chat:x"}}), 103),
            (json!({"rpc": {"method": "nope"}}), 104),
            (json!({"sub_refresh": {"channel": "a", "token": "x"}}), 108),
            (json!({"unsubscribe": {"channel": "#u"}}), 103),
            (json!({"unheard_of": {}}), 104),
        ] {
            let mut command = command;
            command["id"] = 7.into();
            refused(&mut client, command, code).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn small_commands_are_answered() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        assert_eq!(client.ask(json!({"id": 2, "ping": {}})).await, json!({"id": 2, "ping": {}}));
        client.send(json!({"send": {"data": 1}})).await;
        let reply = client.ask(json!({"id": 3, "rpc": {"method": "orbweb.node"}})).await;
        assert_eq!(reply, json!({"id": 3, "rpc": {"data": {"node": "n1"}}}));
        let reply = client.ask(json!({"id": 4, "unsubscribe": {"channel": "never"}})).await;
        assert_eq!(reply, json!({"id": 4, "unsubscribe": {}}));
        client.frame(0x89, b"are you there").await;
        assert_eq!(client.read().await, Read::Pong(b"are you there".to_vec()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn commands_behind_connect_wait_for_its_reply() {
    run(config(), async |rig| {
        let mut client = rig.open("").await;
        let token = token(&json!({"sub": "u"}));
        client
            .say(&format!(
                "{}\n{}\n{}",
                json!({"id": 1, "connect": {"token": token}}),
                json!({"id": 2, "subscribe": {"channel": "a"}}),
                json!({"id": 3, "publish": {"channel": "b", "data": 1}})
            ))
            .await;
        assert!(client.message().await.get("connect").is_some());
        assert!(error(103)(&client.message().await), "publish without a subscription");
        assert_eq!(client.message().await, json!({"id": 2, "subscribe": {}}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn presence_counts_and_joins() {
    run(config(), async |rig| {
        let mut alice = rig.connect("alice").await;
        alice.ask(json!({"id": 2, "subscribe": {"channel": "chat:x"}})).await;
        let reply = alice.ask(json!({"id": 3, "presence": {"channel": "chat:x"}})).await;
        let present = reply["presence"]["presence"].as_object().expect("a map");
        let (client, info) = present.iter().next().expect("one");
        assert_eq!(info, &json!({"user": "alice", "client": client}));
        let reply = alice.ask(json!({"id": 4, "presence_stats": {"channel": "chat:x"}})).await;
        assert_eq!(reply["presence_stats"], json!({"num_clients": 1, "num_users": 1}));
        alice.ask(json!({"id": 5, "subscribe": {"channel": "seen:x"}})).await;
        assert_eq!(alice.message().await["push"]["join"]["info"]["user"], "alice");
        let mut bob = rig.connect("bob").await;
        bob.ask(json!({"id": 2, "subscribe": {"channel": "seen:x"}})).await;
        assert_eq!(alice.message().await["push"]["join"]["info"]["user"], "bob");
        drop(bob);
        assert_eq!(alice.message().await["push"]["leave"]["info"]["user"], "bob");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn tokens_are_refreshed_or_run_out() {
    run(config(), async |rig| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("a clock after 1970").as_secs();
        let until = |exp: u64| token(&json!({"sub": "u", "exp": exp}));
        let mut client = rig.open("").await;
        let reply = client.ask(json!({"id": 1, "connect": {"token": until(now + 100)}})).await;
        assert_eq!(reply["connect"]["expires"], true);
        let ttl = reply["connect"]["ttl"].as_u64().expect("a ttl");
        assert!((95..=100).contains(&ttl), "{ttl}");
        let reply = client.ask(json!({"id": 2, "refresh": {"token": until(now + 500)}})).await;
        assert!(reply["refresh"]["ttl"].as_u64() > Some(400), "{reply}");
        client.send(json!({"id": 3, "refresh": {"token": until(now - 500)}})).await;
        assert_eq!(client.closed().await, 3005, "SDKs get a new token when they connect again");
        let mut client = rig.open("").await;
        client.ask(json!({"id": 1, "connect": {"token": until(now - 26)}})).await;
        let other = token(&json!({"sub": "v"}));
        client.send(json!({"id": 2, "refresh": {"token": other}})).await;
        assert_eq!(client.closed().await, 3500, "another user's token");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_behind_an_unsubscribe_or_to_who_comes_after() {
    run(config(), async |rig| {
        let mut alice = rig.connect("alice").await;
        alice.ask(json!({"id": 2, "subscribe": {"channel": "a"}})).await;
        alice.ask(json!({"id": 3, "subscribe": {"channel": "b"}})).await;
        alice.ask(json!({"id": 4, "unsubscribe": {"channel": "a"}})).await;
        rig.core.publish("a", "1", false);
        rig.core.publish("#alice", "2", true);
        assert_eq!(alice.message().await["push"]["pub"]["data"], 2);
        drop(alice);
        while rig.core.subscribers("b") > 0 {
            tokio::task::yield_now().await;
        }
        // One on each shard, so that one of them is where alice was.
        for user in ["bob", "carol"] {
            let mut next = rig.connect(user).await;
            rig.core.publish("b", "3", false);
            rig.core.publish(&format!("#{user}"), "4", true);
            assert_eq!(next.message().await["push"]["pub"]["data"], 4);
        }
    })
    .await;
}
