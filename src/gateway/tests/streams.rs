//! Positions, recovery, history, and streams that turn to another epoch.
use serde_json::{Value, json};

use super::rig::{Client, config, run, token};
use crate::gateway::rules::CHANNELS_MAX;
use crate::protocol::codes::ErrorCode;

async fn subscribe(client: &mut Client, fields: Value) -> Value {
    let mut subscribe = json!({"channel": "chat:x", "flag": 1});
    for (key, value) in fields.as_object().expect("an object") {
        subscribe[key] = value.clone();
    }
    client.ask(json!({"id": 5, "subscribe": subscribe})).await
}

#[tokio::test(start_paused = true)]
async fn a_subscription_recovers_from_its_position() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        let reply = subscribe(&mut client, json!({})).await;
        let epoch = reply["subscribe"]["epoch"].clone();
        assert_eq!(
            reply["subscribe"],
            json!({"recoverable": true, "positioned": true, "epoch": epoch})
        );
        client.ask(json!({"id": 6, "unsubscribe": {"channel": "chat:x"}})).await;
        for data in ["1", "2", "3"] {
            rig.core.publish("chat:x", data, true);
        }
        let from = json!({"recover": true, "epoch": epoch, "offset": 1});
        let reply = subscribe(&mut client, from.clone()).await;
        assert_eq!(
            reply["subscribe"],
            json!({"recoverable": true, "positioned": true, "epoch": epoch, "offset": 1,
                "publications": [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}],
                "recovered": true, "was_recovering": true})
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn foreign_positions_are_not_recovered() {
    run(config(), async |rig| {
        rig.core.publish("chat:x", "1", true);
        for epoch in ["_", "", "xyz"] {
            let mut client = rig.connect("u").await;
            let from = json!({"recover": true, "epoch": epoch});
            let reply = subscribe(&mut client, from).await["subscribe"].take();
            assert_eq!(reply["was_recovering"], true);
            assert_eq!(reply.get("recovered"), None);
            assert_eq!(reply["offset"], 1);
            client.ask(json!({"id": 6, "unsubscribe": {"channel": "chat:x"}})).await;
            let reject = json!({"recover": true, "epoch": epoch, "flag": 3});
            let reply = subscribe(&mut client, reject).await;
            assert_eq!(reply["error"]["code"], 112);
            assert_eq!(rig.core.subscribers("chat:x"), 0);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn history_is_paged() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        subscribe(&mut client, json!({})).await;
        for data in ["1", "2", "3"] {
            rig.core.publish("chat:x", data, true);
        }
        let offsets = |reply: &Value| -> Vec<u64> {
            let publications = reply["history"]["publications"].as_array().expect("a list");
            publications.iter().filter_map(|publication| publication["offset"].as_u64()).collect()
        };
        let top = client.ask(json!({"id": 6, "history": {"channel": "chat:x"}})).await;
        assert_eq!(top["history"]["offset"], 3);
        assert!(offsets(&top).is_empty());
        let epoch = &top["history"]["epoch"];
        for (fields, wanted) in [
            (json!({"limit": -1}), vec![1, 2, 3]),
            (json!({"limit": 2}), vec![1, 2]),
            (json!({"limit": 9, "reverse": true}), vec![3, 2, 1]),
            (json!({"limit": 9, "since": {"offset": 1, "epoch": epoch}}), vec![2, 3]),
            (json!({"limit": 9, "since": {"offset": 2}}), vec![3]),
        ] {
            let mut history = fields;
            history["channel"] = "chat:x".into();
            let reply = client.ask(json!({"id": 7, "history": history})).await;
            assert_eq!(offsets(&reply), wanted, "{history}");
        }
        let foreign = json!({"channel": "chat:x", "since": {"offset": 1, "epoch": "zzz"}});
        let reply = client.ask(json!({"id": 8, "history": foreign})).await;
        assert_eq!(reply["error"]["code"], 112);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn javascript_takes_a_new_epoch_from_the_publication() {
    run(config(), async |rig| {
        let mut client = rig.connect_as("u", "js").await;
        let old = subscribe(&mut client, json!({})).await["subscribe"]["epoch"].take();
        rig.core.turn("chat:x");
        rig.core.publish("chat:x", "1", true);
        let publication = client.message().await["push"]["pub"].take();
        assert_eq!(publication["offset"], 1);
        assert!(publication["epoch"].is_string() && publication["epoch"] != old);
        rig.core.publish("chat:x", "2", true);
        let next = client.message().await["push"]["pub"].take();
        assert_eq!(next, json!({"data": 2, "offset": 2}), "the epoch is told once");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn other_sdks_subscribe_again_to_learn_a_new_epoch() {
    run(config(), async |rig| {
        // Without the flag it is a JavaScript SDK from before it understood epochs.
        for (sdk, flag) in [("python", 1), ("js", 0)] {
            let mut client = rig.connect_as("u", sdk).await;
            let reply = subscribe(&mut client, json!({"flag": flag})).await["subscribe"].take();
            rig.core.turn("chat:x");
            rig.core.publish("chat:x", "1", true);
            assert_eq!(
                client.message().await["push"],
                json!({"channel": "chat:x",
                    "unsubscribe": {"code": 2500, "reason": "insufficient state"}})
            );
            let from = json!({"flag": flag, "recover": true, "epoch": reply["epoch"],
                "offset": reply["offset"].as_u64().unwrap_or(0)});
            let again = subscribe(&mut client, from).await["subscribe"].take();
            assert_eq!(again["recovered"], true);
            assert_eq!(again["publications"][0]["data"], 1);
            assert_ne!(again["epoch"], reply["epoch"]);
        }
        assert_eq!(rig.gateway.stats().resubscribes.get(), 2);
    })
    .await;
}

/// The answer to a publish.
async fn publish(client: &mut Client) -> Value {
    client.ask(json!({"id": 8, "publish": {"channel": "chat:x", "data": 9}})).await
}

#[tokio::test(start_paused = true)]
async fn who_is_to_subscribe_again_may_publish_meanwhile() {
    run(config(), async |rig| {
        let mut client = rig.connect_as("u", "python").await;
        subscribe(&mut client, json!({})).await;
        rig.core.turn("chat:x");
        rig.core.publish("chat:x", "1", true);
        assert_eq!(client.message().await["push"]["unsubscribe"]["code"], 2500);
        assert_eq!(publish(&mut client).await, json!({"id": 8, "publish": {}}));
        client.ask(json!({"id": 9, "unsubscribe": {"channel": "chat:x"}})).await;
        assert_eq!(publish(&mut client).await["error"]["code"], 103, "it wants no more of it");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_to_try_later_may_publish_meanwhile() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        for (code, publishes) in [(ErrorCode::Internal, true), (ErrorCode::LimitExceeded, false)] {
            rig.core.refuse_subscribes(Some(code));
            let reply = subscribe(&mut client, json!({})).await;
            assert_eq!(reply["error"]["code"], code.code());
            assert_eq!(publish(&mut client).await.get("error").is_none(), publishes, "{code:?}");
            assert_eq!(rig.core.subscribers("chat:x"), 0);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_that_are_never_tried_again_take_no_room() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        for (code, round) in [(Some(ErrorCode::Internal), "a"), (None, "b")] {
            rig.core.refuse_subscribes(code);
            // The inbox is one of as many as are allowed.
            for n in 1..CHANNELS_MAX {
                let subscribe = json!({"channel": format!("chat:{round}{n}")});
                let reply = client.ask(json!({"id": n, "subscribe": subscribe})).await;
                assert_eq!(reply["error"]["code"].as_u64(), code.map(|_| 100), "{round}{n}");
            }
        }
        let reply = client.ask(json!({"id": 999, "subscribe": {"channel": "chat:c"}})).await;
        assert_eq!(reply["error"]["code"], 106);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn server_side_subscriptions_learn_a_new_epoch_by_a_push() {
    run(config(), async |rig| {
        let mut client = rig.connect_as("u", "js").await;
        rig.core.publish("#u", "1", true);
        client.message().await;
        rig.core.turn("#u");
        rig.core.publish("#u", "2", true);
        let push = client.message().await["push"].take();
        assert_eq!(push["channel"], "#u");
        assert_eq!(push["subscribe"]["offset"], 1);
        assert_eq!(push["subscribe"]["recoverable"], true);
        let publication = client.message().await["push"]["pub"].take();
        assert_eq!(publication, json!({"data": 2, "offset": 2}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_subscription_learns_in_its_way_where_it_stands_without_a_publication() {
    run(config(), async |rig| {
        let mut javascript = rig.connect_as("u", "js").await;
        subscribe(&mut javascript, json!({})).await;
        let mut python = rig.connect_as("v", "python").await;
        subscribe(&mut python, json!({})).await;
        rig.core.reach("chat:x", 7);
        assert_eq!(python.message().await["push"]["unsubscribe"]["code"], 2500);
        rig.core.reach("#u", 5);
        let push = javascript.message().await["push"].take();
        assert_eq!((&push["channel"], &push["subscribe"]["offset"]), (&json!("#u"), &json!(5)));
        assert_eq!(push["subscribe"]["recoverable"], true);
        // Who has subscribed again knows, and isn't asked to once more.
        subscribe(&mut python, json!({})).await;
        rig.core.publish("chat:x", "1", true);
        assert_eq!(python.message().await["push"]["pub"], json!({"data": 1, "offset": 1}));
        let publication = javascript.message().await["push"]["pub"].take();
        assert!(publication["epoch"].is_string(), "{publication}");
        rig.core.publish("chat:x", "2", true);
        assert_eq!(javascript.message().await["push"]["pub"], json!({"data": 2, "offset": 2}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_is_begun_again() {
    run(config(), async |rig| {
        let mut client = rig.connect_as("u", "js").await;
        subscribe(&mut client, json!({})).await;
        rig.core.lose("chat:x");
        let push = client.message().await["push"].take();
        assert_eq!(push["unsubscribe"]["code"], 2500);
        assert_eq!(rig.core.subscribers("chat:x"), 0);
        rig.core.lose("#u");
        assert_eq!(client.closed().await, 3010, "the SDK would forget an inbox on 2500");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_is_not_ready_keeps_its_position_and_is_caught_up_later() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        rig.core.publish("#u", "1", true);
        client.message().await;
        drop(client);
        let mut client = rig.open("").await;
        let token = token(&json!({"sub": "u"}));
        let epoch = "1.1.00000000000000000000000000000007";
        rig.core.publish("#u", "2", true);
        rig.core.refuse_subscribes(Some(ErrorCode::Internal));
        let position = json!({"recover": true, "epoch": epoch, "offset": 1});
        let connect = json!({"token": token, "subs": {"#u": position}});
        let reply = client.ask(json!({"id": 1, "connect": connect})).await;
        assert_eq!(
            reply["connect"]["subs"]["#u"],
            json!({"recoverable": true, "positioned": true, "epoch": epoch, "offset": 1,
                "recovered": true, "was_recovering": true})
        );
        rig.core.refuse_subscribes(None);
        assert_eq!(client.message().await["push"]["pub"], json!({"data": 2, "offset": 2}));
        rig.core.publish("#u", "3", true);
        assert_eq!(client.message().await["push"]["pub"], json!({"data": 3, "offset": 3}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn temporary_errors_reach_the_client() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        rig.core.refuse_subscribes(Some(ErrorCode::Internal));
        let reply = subscribe(&mut client, json!({})).await;
        assert_eq!(reply["error"]["temporary"], true);
        rig.core.refuse_subscribes(None);
        assert!(subscribe(&mut client, json!({})).await.get("subscribe").is_some());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_unready_inbox_could_not_continue_is_told_late() {
    run(config(), async |rig| {
        let token = token(&json!({"sub": "u"}));
        rig.core.publish("#u", "1", true);
        let connect = async |position: Value| {
            rig.core.refuse_subscribes(Some(ErrorCode::Internal));
            let mut client = rig.open("").await;
            let connect = json!({"token": token, "subs": {"#u": position}});
            let reply = client.ask(json!({"id": 1, "connect": connect})).await;
            rig.core.refuse_subscribes(None);
            (client, reply["connect"]["subs"].clone())
        };
        let (mut fresh, subs) = connect(json!({})).await;
        assert_eq!(subs, Value::Null, "there is no position to keep");
        let push = fresh.message().await["push"].take();
        assert_eq!((&push["channel"], &push["subscribe"]["offset"]), (&json!("#u"), &json!(1)));
        let ours = |term: u8, owner: u8| json!({"recover": true, "epoch": format!("{term}.1.{owner:032x}"), "offset": 1});
        let (mut lost, _) = connect(ours(1, 8)).await;
        assert_eq!(lost.closed().await, 3010, "the position proves to be unknown");
        rig.core.turn("#u");
        rig.core.publish("#u", "2", true);
        let (mut turned, subs) = connect(ours(1, 7)).await;
        assert_eq!(subs["#u"]["offset"], 1);
        let push = turned.message().await["push"].take();
        assert_eq!(push["subscribe"]["offset"], 1);
        assert_eq!(turned.message().await["push"]["pub"]["offset"], 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn connecting_doesnt_wait_for_ever_and_deliveries_stay_behind_the_reply() {
    run(config(), async |rig| {
        let token = token(&json!({"sub": "u", "channels": ["chat:x"]}));
        rig.core.be_silent("chat:x");
        let mut client = rig.open("").await;
        client.send(json!({"id": 1, "connect": {"token": token}})).await;
        while rig.core.subscribers("#u") == 0 {
            tokio::task::yield_now().await;
        }
        rig.core.publish("#u", "1", true);
        let started = tokio::time::Instant::now();
        let reply = client.message().await;
        assert!(reply["connect"]["subs"]["#u"].is_object(), "{reply}");
        assert_eq!(reply["connect"]["subs"].get("chat:x"), None);
        assert!((2..=3).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        assert_eq!(client.message().await["push"]["pub"], json!({"data": 1, "offset": 1}));
        rig.core.answer_late();
        let push = client.message().await["push"].take();
        assert_eq!(
            (&push["channel"], &push["subscribe"]["positioned"]),
            (&json!("chat:x"), &json!(true))
        );
    })
    .await;
}
