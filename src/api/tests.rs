//! The API's shapes, limits and errors, with a core that answers from a script.
use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use axum::http::HeaderValue;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::config::Namespace;
use crate::delivery::event::{Ask, Event, Reply};
use crate::delivery::mailbox::{ShardMessage, ShardSender};
use crate::ownership::serving::Serving;
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{ClientId, Epoch, Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::{ClientInfo, Message, Publication};
use crate::protocol::time;

mod users;

const KEY: &str = "0123456789abcdef";
const EPOCH: StreamEpoch =
    StreamEpoch { epoch: Epoch { term: 3, owner: Incarnation(7) }, index: 5 };
const EPOCH_TEXT: &str = "3.5.00000000000000000000000000000007";

fn named(name: &str) -> NodeRef {
    NodeRef { name: name.parse().expect("a name"), incarnation: Incarnation(7) }
}

fn report() -> NodeReport {
    NodeReport {
        name: "n1".parse().expect("a name"),
        incarnation: Incarnation(7),
        state: NodeState::Up,
        serving: Serving::Standalone.into(),
        client_url: "http://127.0.0.1:8000".to_owned(),
        link_address: None,
        slots_owned: 16384,
        slots_claiming: 0,
        slots_under_replicated: 0,
        slots_unrepaired: 0,
        slots_astray: 0,
        changes_uncommitted: 0,
        links: 0,
        link_versions: BTreeMap::new(),
        connections: 4,
        users: Some(2),
        subscriptions: None,
        channels: None,
        uptime_s: 60,
        version: "0.1.0".to_owned(),
        view_hash: "00000000000000ff".to_owned(),
    }
}

/// Facts of a node; not ready if it has reasons.
struct Facts {
    reasons: Vec<String>,
    registry: Arc<Registry>,
}

#[async_trait]
impl NodeFacts for Facts {
    async fn ready(&self) -> Result<(), Vec<String>> {
        if self.reasons.is_empty() { Ok(()) } else { Err(self.reasons.clone()) }
    }

    fn report(&self) -> NodeReport {
        report()
    }

    async fn cluster(&self) -> Vec<NodeReport> {
        vec![report()]
    }

    async fn locate(&self, key: &str) -> Located {
        Located {
            slot: Slot::of(key, 16384),
            owner: Some(named("n1")),
            successors: vec![named("n2")],
        }
    }

    fn metrics(&self) -> Arc<Registry> {
        self.registry.clone()
    }
}

/// A node: its routes, and what its core was asked.
struct Node {
    router: Router,
    asked: Arc<Mutex<Vec<(String, Ask)>>>,
}

fn config() -> Config {
    let chat = Namespace { allow_publish: false, ..Channels::dev_chat() };
    let mut config = Config { dev: true, ..Config::default() };
    config.api.keys = vec![SecretText::new("fedcba9876543210"), SecretText::new(KEY)];
    config.channels.namespaces.insert("chat".to_owned(), chat);
    config.channels.dev = true;
    config
}

fn node() -> Node {
    node_with(&config(), Vec::new())
}

fn node_with(config: &Config, reasons: Vec<String>) -> Node {
    let (cores, mut events) = CoreSender::channel();
    let (replies, mailbox) = ShardSender::channel();
    let mut registry = Registry::default();
    let metrics = ApiMetrics::register(&mut registry);
    let facts = Arc::new(Facts { reasons, registry: Arc::new(registry) });
    let api = Api::new(config, cores, ShardId(4), facts, metrics, time::wall);
    let asked = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(api.read_replies(mailbox));
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Some(Event::Request(request)) = events.recv().await {
            let reply = core(request.channel.as_str(), &request.ask);
            seen.lock().expect("no panic").push((request.channel.to_string(), request.ask));
            replies.push(ShardMessage::Reply { number: request.id.number, reply });
        }
    });
    Node { router: router(api), asked }
}

/// The scripted core: by channel, with something of everything.
fn core(channel: &str, ask: &Ask) -> Reply {
    let top = Position { epoch: EPOCH, offset: 8 };
    let alice = ClientInfo {
        user: "alice".into(),
        client: ClientId(1),
        conn_info: r#"{"name":"A"}"#.into(),
        chan_info: Default::default(),
    };
    match (channel, ask) {
        ("chat:failing", _) => Reply::Failed(ErrorCode::Internal),
        ("plain", Ask::Publish { .. }) => Reply::Published { position: None, copies: 0 },
        (_, Ask::Publish { .. }) => Reply::Published { position: Some(top), copies: 2 },
        (_, Ask::Presence) => Reply::Presence(vec![alice]),
        (_, Ask::PresenceStats) => Reply::PresenceStats { clients: 3, users: 2 },
        (_, Ask::History(wanted)) => {
            let message = Arc::new(Message {
                data: r#"{"t":"hi"}"#.into(),
                info: Some(alice),
                tags: [("k".to_owned(), "v".to_owned())].into(),
                time_ms: 0,
            });
            let all = vec![Publication { epoch: EPOCH, offset: 8, message }];
            let publications = if wanted.limit > 0 { all } else { Vec::new() };
            Reply::History { publications, position: top }
        }
        (_, Ask::Change(_)) => Reply::Changed { copies: 2 },
        (_, Ask::Attributes(_)) => Reply::Attributes(vec![("k".into(), r#"{"n":1}"#.into())]),
        (_, ask) => panic!("the API never asks for {ask:?}"),
    }
}

impl Node {
    async fn send(&self, request: Request) -> (StatusCode, HeaderMap, String) {
        let response = TowerToHyperService::new(self.router.clone()).call(request).await;
        let response = response.expect("routes answer");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("x-api-key", KEY).body(Body::empty());
        let (status, _, body) = self.send(request.expect("a sound request")).await;
        (status, body)
    }

    async fn post(&self, method: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post(format!("/api/{method}")).header("x-api-key", KEY);
        let (status, _, body) = self.send(request.body(body.into()).expect("a request")).await;
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// Calls a method that answers with status 200.
    async fn call(&self, method: &str, body: Value) -> Value {
        let (status, reply) = self.post(method, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        reply
    }

    /// Calls a method that must fail; its code and message.
    async fn refused(&self, method: &str, body: Value) -> (u64, String) {
        let reply = self.call(method, body).await;
        let error = &reply["error"];
        let text = error["message"].as_str().unwrap_or_default().to_owned();
        (error["code"].as_u64().unwrap_or_default(), text)
    }

    fn asked(&self) -> Vec<(String, Ask)> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }

    fn published(&self) -> Arc<Message> {
        match self.asked().pop() {
            Some((_, Ask::Publish { message, .. })) => message,
            other => panic!("nothing was published, but {other:?}"),
        }
    }
}

#[tokio::test]
async fn publish_answers_with_the_place_in_the_stream() {
    let node = node();
    let call = json!({"channel": "chat:x", "data": {"t": 1}, "tags": {"k": "v"}});
    let reply = node.call("publish", call).await;
    assert_eq!(reply, json!({"result": {"offset": 8, "epoch": EPOCH_TEXT, "copies": 2}}));
    let message = node.published();
    assert_eq!(message.data, r#"{"t":1}"#);
    assert_eq!((message.info.is_none(), message.tags["k"].as_str()), (true, "v"));
    assert!(message.time_ms > 0);
    let reply = node.call("publish", json!({"channel": "plain", "data": 1})).await;
    assert_eq!(reply, json!({"result": {}}));
}

#[tokio::test]
async fn inboxes_are_channels_too() {
    let node = node();
    node.call("publish", json!({"channel": "#bob", "data": "hi"})).await;
    assert_eq!(node.asked()[0].0, "#bob");
}

#[tokio::test]
async fn line_breaks_never_reach_frames() {
    let node = node();
    let body = "{\"channel\": \"plain\",\n \"data\": {\r\n \"t\": \"a\\nb\"\n}}";
    let (status, _) = node.post("publish", body).await;
    assert_eq!(status, StatusCode::OK);
    let data = node.published().data.clone();
    assert!(!data.contains(&b'\n') && !data.contains(&b'\r'));
    let value: Value = serde_json::from_slice(&data).expect("JSON still");
    assert_eq!(value, json!({"t": "a\nb"}));
}

#[tokio::test]
async fn payloads_in_base64_must_be_json() {
    let node = node();
    let call = |text: &str| json!({"channel": "plain", "data": {}, "b64data": text});
    node.call("publish", call("eyJhIjoxfQ==")).await;
    assert_eq!(node.published().data, r#"{"a":1}"#);
    assert_eq!(node.refused("publish", call("/////w==")).await.0, 108);
    assert_eq!(node.refused("publish", call("%")).await.0, 107);
}

#[tokio::test]
async fn what_is_not_done_is_refused_and_not_ignored() {
    let node = node();
    for (call, code, word) in [
        (json!({"channel": "plain", "data": 1, "idempotency_key": "k"}), 108, "idempotency_key"),
        (json!({"channel": "chat:x", "data": 1, "skip_history": true}), 108, "skip_history"),
        (
            json!({"channel": "chat:x", "data": 1, "idempotency_key": "k".repeat(256)}),
            106,
            "at most 255",
        ),
        (json!({"channel": "plain", "data": 1, "delta": true}), 107, "unknown field `delta`"),
        (json!({"channel": "plain"}), 107, "`data` is missing"),
        (json!({"data": 1}), 107, "missing field `channel`"),
        (json!({"channel": "", "data": 1}), 107, "the channel name is empty"),
        (json!({"channel": "x".repeat(256), "data": 1}), 107, "at most 255"),
        (json!({"channel": "nope:x", "data": 1}), 102, "`nope:x`"),
        (json!({"channel": "plain", "data": "x".repeat(64 * 1024)}), 106, "at most 65536"),
        (json!({"channel": "plain", "data": 1, "tags": {"k": "v".repeat(5000)}}), 106, "tags"),
        (json!({"channel": "chat:failing", "data": 1}), 100, "internal server error"),
    ] {
        let (got, message) = node.refused("publish", call).await;
        assert!(got == code && message.contains(word), "{got} {message}; wanted {code} {word}");
    }
    assert_eq!(node.asked().len(), 1, "only the failing channel was asked");
    node.call("publish", json!({"channel": "plain", "data": 1, "skip_history": true})).await;
}

#[tokio::test]
async fn broadcast_answers_for_each_channel() {
    let node = node();
    let call = json!({"channels": ["chat:x", "nope:x", "plain"], "data": {}});
    let reply = node.call("broadcast", call).await;
    let responses = &reply["result"]["responses"];
    assert_eq!(responses[0], json!({"result": {"offset": 8, "epoch": EPOCH_TEXT, "copies": 2}}));
    assert_eq!(responses[1]["error"]["code"], 102);
    assert_eq!(responses[2], json!({"result": {}}));
    let mut many = vec!["plain"; BROADCAST_CHANNELS_MAX];
    let reply = node.call("broadcast", json!({"channels": many, "data": 1})).await;
    assert_eq!(reply["result"]["responses"].as_array().map(Vec::len), Some(many.len()));
    many.push("plain");
    node.asked();
    assert_eq!(node.refused("broadcast", json!({"channels": many, "data": 1})).await.0, 106);
    assert!(node.asked().is_empty(), "none of them is published");
    assert_eq!(node.refused("broadcast", json!({"channels": [], "data": 1})).await.0, 107);
}

#[tokio::test]
async fn presence_is_by_client() {
    let node = node();
    let reply = node.call("presence", json!({"channel": "chat:x"})).await;
    let id = "00000000000000000000000000000001";
    let alice = json!({"client": id, "user": "alice", "conn_info": {"name": "A"}});
    assert_eq!(reply, json!({"result": {"presence": {id: alice}}}));
    let reply = node.call("presence_stats", json!({"channel": "chat:x"})).await;
    assert_eq!(reply, json!({"result": {"num_clients": 3, "num_users": 2}}));
    assert_eq!(node.refused("presence", json!({"channel": "plain"})).await.0, 108);
}

#[tokio::test]
async fn history_reads_the_stream() {
    let node = node();
    let reply = node.call("history", json!({"channel": "chat:x", "limit": 10})).await;
    let alice = json!({"client": "00000000000000000000000000000001", "user": "alice", "conn_info": {"name": "A"}});
    let publication = json!({"data": {"t": "hi"}, "offset": 8, "info": alice, "tags": {"k": "v"}});
    let whole = json!({"publications": [publication], "offset": 8, "epoch": EPOCH_TEXT});
    assert_eq!(reply, json!({"result": whole}));
    let reply = node.call("history", json!({"channel": "chat:x"})).await;
    assert_eq!(reply["result"]["publications"], json!([]));
    assert_eq!(node.refused("history", json!({"channel": "plain"})).await.0, 108);
}

#[tokio::test]
async fn history_limits_and_positions_are_mapped() {
    let node = node();
    for (limit, asked) in [(-1, HISTORY_MAX), (0, 0), (5, 5), (i64::MAX, HISTORY_MAX)] {
        node.call("history", json!({"channel": "chat:x", "limit": limit})).await;
        let Some((_, Ask::History(wanted))) = node.asked().pop() else { panic!("no history") };
        assert_eq!((wanted.limit, wanted.since), (asked, None));
    }
    let since = |epoch: &str| json!({"channel": "chat:x", "limit": 1, "reverse": true, "since": {"offset": 3, "epoch": epoch}});
    for epoch in [EPOCH_TEXT, ""] {
        node.call("history", since(epoch)).await;
        let Some((_, Ask::History(wanted))) = node.asked().pop() else { panic!("no history") };
        assert_eq!(wanted.since, Some(Position { epoch: EPOCH, offset: 3 }));
        assert!(wanted.reverse);
    }
    assert_eq!(node.refused("history", since("foreign")).await.0, 112);
}

#[tokio::test]
async fn info_lists_nodes() {
    let reply = node().call("info", json!({})).await;
    let id = "00000000000000000000000000000007";
    let n1 = json!({"uid": id, "name": "n1", "version": "0.1.0", "num_clients": 4, "num_users": 2, "uptime": 60});
    assert_eq!(reply, json!({"result": {"nodes": [n1]}}));
}

#[tokio::test]
async fn status_and_owner_answer_both_ways() {
    let node = node();
    let (_, text) = node.get("/api/status").await;
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        node.call("status", json!({})).await
    );
    let reply: Value = serde_json::from_str(&text).expect("JSON");
    let status: ClusterStatus = serde_json::from_value(reply["result"].clone()).expect("a status");
    assert_eq!(status.nodes, [report()]);
    let by_post = node.call("owner", json!({"key": "#alice"})).await;
    let (_, text) = node.get("/api/owner?key=alice").await;
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), by_post);
    assert_eq!(by_post["result"]["slot"], 5808);
    let n1 = json!({"name": "n1", "incarnation": "00000000000000000000000000000007"});
    assert_eq!(by_post["result"]["owner"], n1);
    assert_eq!(node.get("/api/publish").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_batch_answers_each_command_under_its_name() {
    let node = node();
    for parallel in [false, true] {
        let commands = json!([
            {"publish": {"channel": "plain", "data": 1}},
            {"presence_stats": {"channel": "chat:x"}},
            {"publish": {"channel": "nope:x", "data": 1}},
            {"publish": {}, "info": {}},
            {"batch": {"commands": []}},
        ]);
        let reply = node.call("batch", json!({"commands": commands, "parallel": parallel})).await;
        let replies = &reply["replies"];
        assert_eq!(replies[0], json!({"publish": {}}));
        assert_eq!(replies[1], json!({"presence_stats": {"num_clients": 3, "num_users": 2}}));
        let codes = [2, 3, 4].map(|i| replies[i]["error"]["code"].as_u64());
        assert_eq!(codes, [Some(102), Some(107), Some(104)]);
    }
}

#[tokio::test]
async fn a_batch_of_too_many_commands_is_not_begun() {
    let node = node();
    let batch = |count| vec![json!({"publish": {"channel": "plain", "data": 1}}); count];
    for parallel in [false, true] {
        let most = json!({"commands": batch(BATCH_COMMANDS_MAX), "parallel": parallel});
        let reply = node.call("batch", most).await;
        assert_eq!(reply["replies"].as_array().map(Vec::len), Some(BATCH_COMMANDS_MAX));
        assert_eq!(node.asked().len(), BATCH_COMMANDS_MAX);
        let more = json!({"commands": batch(BATCH_COMMANDS_MAX + 1), "parallel": parallel});
        assert_eq!(node.refused("batch", more).await.0, 106);
        assert!(node.asked().is_empty());
    }
}

#[tokio::test]
async fn the_door_opens_to_keys_only() {
    let open = node();
    let closed = node_with(&Config::default(), Vec::new());
    let knock = |name: &'static str, value: &'static str| {
        let mut request = Request::post("/api/info").body(Body::empty()).expect("a request");
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request
    };
    for (node, request, status) in [
        (&open, knock("x-api-key", KEY), 200),
        (&open, knock("x-api-key", "fedcba9876543210"), 200),
        (&open, knock("authorization", "apikey 0123456789abcdef"), 200),
        (&open, knock("authorization", "Bearer 0123456789abcdef"), 401),
        (&open, knock("x-api-key", "0123456789abcdeg"), 401),
        (&open, knock("x-api-key", ""), 401),
        (&open, knock("x-other", KEY), 401),
        (&closed, knock("x-api-key", KEY), 401),
        (&closed, knock("x-api-key", ""), 401),
    ] {
        let (got, _, body) = node.send(request).await;
        assert_eq!(got.as_u16(), status, "{body}");
        let reply: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(reply["error"]["code"] == 101, status == 401);
    }
    let request = Request::get("/api/status").body(Body::empty()).expect("a request");
    assert_eq!(open.send(request).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn bodies_have_limits_and_must_be_json() {
    let node = node();
    let (status, reply) = node.post("publish", "{\"channel\": ").await;
    assert_eq!((status, &reply["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(107)));
    let (status, reply) = node.post("publish", " ".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!((status, &reply["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(106)));
    assert_eq!(node.refused("disconnect", json!({"user": "u"})).await.0, 104);
    assert_eq!(node.call("info", json!({})).await["result"]["nodes"][0]["name"], "n1");
}

#[tokio::test]
async fn readiness_says_why_not() {
    assert_eq!(
        node().get("/readyz").await,
        (StatusCode::OK, r#"{"ready":true,"reasons":[]}"#.to_owned())
    );
    let joining = node_with(&config(), vec!["no link to a peer yet".to_owned()]);
    let (status, body) = joining.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, r#"{"ready":false,"reasons":["no link to a peer yet"]}"#);
    assert_eq!(joining.get("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let node = node();
    node.call("info", json!({})).await;
    node.refused("publish", json!({"channel": "nope:x", "data": 1})).await;
    node.refused("made-up", json!({})).await;
    let (status, text) = node.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"orbweb_api_calls_total{method="info",code="0"} 1"#,
        r#"orbweb_api_calls_total{method="publish",code="102"} 1"#,
        r#"orbweb_api_calls_total{method="unknown",code="104"} 1"#,
        "# EOF",
    ] {
        assert!(text.contains(line), "{text} lacks {line}");
    }
}

#[tokio::test]
async fn the_demo_page_is_there_in_development_only() {
    let dev = node();
    let (status, page) = dev.get("/demo").await;
    assert_eq!(status, StatusCode::OK);
    for id in ["user", "send", "messages", "node", "status", "online", "dm-to", "text", "nodes"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "the page lacks {id}");
    }
    assert!(
        page.contains("class Client") && page.contains("--accent"),
        "script or style is missing"
    );
    assert!(!page.contains("https://"), "the page fetches something from elsewhere");
    let nodes: Value = serde_json::from_str(&dev.get("/demo/nodes").await.1).expect("JSON");
    assert_eq!(nodes, json!([{"name": "n1", "url": "http://127.0.0.1:8000", "state": "up"}]));
    let safe = node_with(&Config::default(), Vec::new());
    assert_eq!(safe.get("/demo").await.0, StatusCode::NOT_FOUND);
    assert_eq!(safe.get("/demo/nodes").await.0, StatusCode::NOT_FOUND);
}
