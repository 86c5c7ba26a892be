//! What a connection may not exceed, and that others don't notice.
use std::time::Duration;

use serde_json::json;

use super::rig::{Read, config, run, token};
use crate::gateway::token::USER_BYTES_MAX;
use crate::gateway::ws::MESSAGE_BYTES_MAX;
use crate::gateway::{CHANNELS_MAX, COMMANDS_BURST, HISTORY_BYTES_MAX, REQUESTS_MAX};

#[tokio::test(start_paused = true)]
async fn an_oversize_message_closes_one_connection_only() {
    run(config(), async |rig| {
        let mut good = rig.connect("good").await;
        let mut bad = rig.connect("bad").await;
        bad.frame(0x81, &vec![b' '; MESSAGE_BYTES_MAX + 1]).await;
        assert_eq!(bad.closed().await, 1009);
        let fits =
            format!("{}{}", json!({"id": 9, "ping": {}}), " ".repeat(MESSAGE_BYTES_MAX - 20));
        good.say(&fits).await;
        assert_eq!(good.message().await, json!({"id": 9, "ping": {}}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_closed_and_the_others_get_everything() {
    run(config(), async |rig| {
        let mut slow = rig.connect("slow").await;
        let mut good = rig.connect("good").await;
        for client in [&mut slow, &mut good] {
            client.ask(json!({"id": 2, "subscribe": {"channel": "a"}})).await;
        }
        let payload: &'static str = format!("\"{}\"", "x".repeat(60_000)).leak();
        for _ in 0..30 {
            rig.core.publish("a", payload, false);
            assert_eq!(good.message().await["push"]["pub"]["data"], payload[1..60_001]);
        }
        assert_eq!(rig.gateway.stats().closed_slow.get(), 1);
        assert_eq!(rig.core.subscribers("a"), 1);
        assert_eq!(slow.closed().await, 3008, "frames that were begun are finished before");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_stale() {
    run(config(), async |rig| {
        let started = tokio::time::Instant::now();
        let mut client = rig.open("").await;
        assert_eq!(client.closed().await, 3502);
        let waited = started.elapsed();
        assert!((9..12).contains(&waited.as_secs()), "{waited:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pings_come_in_time_and_silence_ends() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        let started = tokio::time::Instant::now();
        assert_eq!(client.read().await, Read::Messages(vec![json!({})]));
        let first = started.elapsed();
        assert!((12..=25).contains(&first.as_secs()), "{first:?}");
        client.say("{}").await;
        assert_eq!(client.read().await, Read::Messages(vec![json!({})]));
        let second = started.elapsed() - first;
        assert!((24..=26).contains(&second.as_secs()), "{second:?}");
        assert_eq!(client.closed().await, 3012);
        let silent = started.elapsed() - first - second;
        assert!((8..=9).contains(&silent.as_secs()), "{silent:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_commands_is_stopped() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        client.ignore_pings();
        let many = "{\"send\":{}}\n".repeat(COMMANDS_BURST as usize + 1);
        client.say(&many).await;
        assert_eq!(client.closed().await, 3013);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn channels_of_a_connection_are_limited() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        for n in 1..CHANNELS_MAX {
            let channel = format!("c{n}");
            let reply = client.ask(json!({"id": n, "subscribe": {"channel": channel}})).await;
            assert_eq!(reply["subscribe"], json!({}), "channel {n} beside the inbox");
        }
        let reply = client.ask(json!({"id": 200, "subscribe": {"channel": "one more"}})).await;
        assert_eq!(reply["error"]["code"], 106);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_are_limited_and_room_comes_back_with_their_answers() {
    run(config(), async |rig| {
        let (mut busy, mut other) = (rig.connect("busy").await, rig.connect("other").await);
        for client in [&mut busy, &mut other] {
            client.ask(json!({"id": 2, "subscribe": {"channel": "chat:a"}})).await;
        }
        rig.core.be_silent("chat:a");
        let publish = |id: usize| json!({"id": id, "publish": {"channel": "chat:a", "data": 1}});
        for id in 0..REQUESTS_MAX {
            busy.send(publish(1000 + id)).await;
        }
        assert_eq!(busy.ask(publish(3)).await["error"]["code"], 111);
        // What needs no answer of the cores has one, and each connection has a count of its own.
        other.send(publish(4)).await;
        for client in [&mut busy, &mut other] {
            assert_eq!(
                client.ask(json!({"id": 5, "ping": {}})).await,
                json!({"id": 5, "ping": {}})
            );
        }
        rig.core.answer_late();
        for id in (0..REQUESTS_MAX).map(|id| 1000 + id) {
            let answer = loop {
                let message = busy.message().await;
                if message["id"].is_u64() {
                    break message;
                }
            };
            assert_eq!(answer, json!({"id": id, "publish": {}}));
        }
        assert_eq!(busy.ask(publish(6)).await, json!({"id": 6, "publish": {}}));
        while other.message().await != json!({"id": 4, "publish": {}}) {}
        assert_eq!(rig.core.published("chat:a"), REQUESTS_MAX + 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_history_is_cut_at_its_bytes_and_goes_on_behind_them() {
    run(config(), async |rig| {
        let payload: &'static str = format!("\"{}\"", "x".repeat(60_000)).leak();
        let (count, page) = (20, HISTORY_BYTES_MAX / payload.len());
        let mut client = rig.connect("u").await;
        client.ask(json!({"id": 2, "subscribe": {"channel": "chat:a"}})).await;
        for _ in 0..count {
            rig.core.publish("chat:a", payload, true);
            client.message().await;
        }
        let (mut since, mut pages) = (json!(null), Vec::new());
        loop {
            let history = json!({"channel": "chat:a", "limit": -1, "since": since});
            let reply = client.ask(json!({"id": 3, "history": history})).await;
            let publications = reply["history"]["publications"].as_array().map_or(&[][..], |p| p);
            let offsets = publications.iter().map(|p| p["offset"].as_u64().expect("an offset"));
            let offsets: Vec<u64> = offsets.collect();
            let Some(last) = offsets.last() else { break };
            since = json!({"epoch": reply["history"]["epoch"], "offset": last});
            pages.push(offsets);
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [page, page, count - 2 * page]);
        assert_eq!(pages.concat(), (1..=count as u64).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_user_with_too_long_an_id_is_kept_out() {
    run(config(), async |rig| {
        rig.connect(&"u".repeat(USER_BYTES_MAX)).await;
        let mut client = rig.open("").await;
        let token = token(&json!({ "sub": "u".repeat(USER_BYTES_MAX + 1) }));
        client.send(json!({"id": 1, "connect": {"token": token}})).await;
        assert_eq!(client.closed().await, 3500);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn connections_are_limited() {
    let mut few = config();
    few.limits.connections_per_ip_max = 2;
    run(few, async |rig| {
        let first = rig.connect("a").await;
        let _second = rig.connect("b").await;
        let (answer, _) = rig.handshake("", "").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        drop(first);
        while rig.gateway.connections() > 1 {
            tokio::task::yield_now().await;
        }
        rig.connect("c").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn handshakes_that_are_not_for_us_are_refused() {
    run(config(), async |rig| {
        for (query, headers, status) in [
            ("", "Origin: https://evil.org\r\n", "403"),
            ("", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n", "501"),
            ("?cf_protocol=protobuf", "", "501"),
            ("", "X: \u{7f}\r\n", "400"),
        ] {
            let (answer, _) = rig.handshake(query, headers).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?}: {answer}");
        }
        let json = "Sec-WebSocket-Protocol: centrifuge-json\r\nOrigin: http://a.org\r\n";
        let (answer, _) = rig.handshake("", json).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("centrifuge-json"), "{answer}");
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_routes_of_the_caller_are_served() {
    run(config(), async |rig| {
        let (answer, _) = rig.get("/hello").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (answer, _) = rig.get(crate::gateway::PATH).await;
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_not_waited_for() {
    run(config(), async |rig| {
        let started = tokio::time::Instant::now();
        let mut client = rig.raw().await;
        client.write(b"GET / HTTP/1.1\r\nHost: ").await;
        assert_eq!(client.read().await, Read::End);
        assert_eq!(started.elapsed().as_secs(), 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_all_with_3001_over_the_time_given() {
    run(config(), async |rig| {
        let mut clients = Vec::new();
        for n in 0..8 {
            clients.push(rig.connect(&format!("u{n}")).await);
        }
        let started = tokio::time::Instant::now();
        let clients = async {
            let mut times = Vec::new();
            for client in &mut clients {
                assert_eq!(client.closed().await, 3001);
                times.push(started.elapsed());
                client.frame(0x88, &3001u16.to_be_bytes()).await;
            }
            times
        };
        let (times, ()) = tokio::join!(clients, rig.gateway.drain(Duration::from_secs(1)));
        assert!(times[7] - times[0] >= Duration::from_millis(500), "{times:?}");
        assert_eq!(rig.gateway.connections(), 0);
        rig.gateway.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_answers_of_a_connection() {
    run(config(), async |rig| {
        let (mut busy, mut idle) = (rig.connect("busy").await, rig.connect("idle").await);
        for (id, channel) in [(2, "chat:a"), (3, "chat:b")] {
            busy.ask(json!({"id": id, "subscribe": {"channel": channel}})).await;
        }
        rig.core.be_silent("chat:a");
        busy.send(json!({"id": 4, "publish": {"channel": "chat:a", "data": 1}})).await;
        let clients = async {
            assert_eq!(idle.closed().await, 3001);
            idle.frame(0x88, &3001u16.to_be_bytes()).await;
            // What it begins before it is closed is carried out as ever.
            let late =
                busy.ask(json!({"id": 5, "publish": {"channel": "chat:b", "data": 2}})).await;
            assert!(late["error"].is_null(), "{late}");
            assert_eq!(rig.core.published("chat:b"), 1);
            tokio::time::sleep(Duration::from_secs(2)).await;
            rig.core.answer_late();
            while busy.message().await["id"] != 4 {}
            assert_eq!(busy.closed().await, 3001);
            busy.frame(0x88, &3001u16.to_be_bytes()).await;
        };
        tokio::join!(clients, rig.gateway.drain(Duration::ZERO));
        rig.gateway.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_nothing_that_it_can_not_answer() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        client.ask(json!({"id": 2, "subscribe": {"channel": "chat:a"}})).await;
        rig.core.be_silent("chat:a");
        client.send(json!({"id": 3, "publish": {"channel": "chat:a", "data": 1}})).await;
        let started = tokio::time::Instant::now();
        let clients = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            client.send(json!({"id": 4, "publish": {"channel": "chat:a", "data": 2}})).await;
            assert_eq!(client.closed().await, 3001);
            client.frame(0x88, &3001u16.to_be_bytes()).await;
        };
        tokio::join!(clients, rig.gateway.drain(Duration::ZERO));
        assert!((5..8).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        rig.core.answer_late();
        assert_eq!(rig.core.published("chat:a"), 1);
        rig.gateway.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn lost_messages_close_every_connection_of_the_shard() {
    run(config(), async |rig| {
        let mut client = rig.connect("u").await;
        // Nothing else runs meanwhile, so the mailbox overflows.
        for _ in 0..=crate::delivery::mailbox::SHARD_MAILBOX_LEN {
            rig.core.publish("unheard", "1", false);
        }
        assert_eq!(client.closed().await, 3010);
    })
    .await;
}
