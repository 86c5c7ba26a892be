//! What outlives a user's connections, by the API.
use super::*;
use crate::protocol::channel::Channel;
use crate::protocol::user::UserChange;

fn changed(node: &Node) -> (String, UserChange) {
    match node.asked().pop() {
        Some((inbox, Ask::Change(change))) => (inbox, change),
        other => panic!("nothing was changed, but {other:?}"),
    }
}

#[tokio::test]
async fn subscriptions_and_attributes_are_changes_in_the_inbox_of_the_user() {
    let node = node();
    let news = || Channel::parse("chat:news").expect("a name");
    let key = || "k".into();
    for (method, fields, change) in [
        ("subscribe", json!({"channel": "chat:news"}), UserChange::Subscribe(news())),
        ("unsubscribe", json!({"channel": "chat:news"}), UserChange::Unsubscribe(news())),
        (
            "session_set",
            json!({"key": "k", "value": [1]}),
            UserChange::Set { key: key(), value: "[1]".into() },
        ),
        ("session_delete", json!({"key": "k"}), UserChange::Delete { key: key() }),
    ] {
        let mut call = fields;
        call["user"] = json!("alice");
        assert_eq!(node.call(method, call).await, json!({"result": {"copies": 2}}));
        assert_eq!(changed(&node), ("#alice".to_owned(), change));
    }
}

#[tokio::test]
async fn attributes_are_read_by_key_or_all() {
    let node = node();
    let reply = node.call("session_get", json!({"user": "alice"})).await;
    assert_eq!(reply, json!({"result": {"attributes": {"k": {"n": 1}}}}));
    node.call("session_get", json!({"user": "alice", "key": "k"})).await;
    let keys = node.asked().into_iter().map(|(_, ask)| match ask {
        Ask::Attributes(key) => key,
        other => panic!("asked for {other:?}"),
    });
    assert_eq!(keys.collect::<Vec<_>>(), [None, Some("k".into())]);
}

#[tokio::test]
async fn what_is_not_done_for_users_is_refused() {
    let node = node();
    for (method, call, code, word) in [
        ("subscribe", json!({"user": "a", "channel": "nope:x"}), 102, "`nope:x`"),
        ("subscribe", json!({"user": "a", "channel": "#b"}), 107, "inbox"),
        ("subscribe", json!({"user": "", "channel": "plain"}), 107, "`user`"),
        ("subscribe", json!({"user": "a,b", "channel": "plain"}), 107, "`user`"),
        ("subscribe", json!({"user": "u".repeat(255), "channel": "plain"}), 107, "`user`"),
        (
            "subscribe",
            json!({"user": "a", "channel": "plain", "recover_since": {}}),
            107,
            "unknown field `recover_since`",
        ),
        ("unsubscribe", json!({"user": "a", "channel": "plain", "client": "c"}), 107, "`client`"),
        ("session_set", json!({"user": "a", "key": "k"}), 107, "missing field `value`"),
        ("session_set", json!({"user": "a", "key": "", "value": 1}), 106, "1 to 128"),
        (
            "session_set",
            json!({"user": "a", "key": "k", "value": "v".repeat(4096)}),
            106,
            "at most 4096",
        ),
        ("session_delete", json!({"user": "a", "key": "k".repeat(129)}), 106, "129 bytes"),
    ] {
        let (got, message) = node.refused(method, call).await;
        assert!(got == code && message.contains(word), "{got} {message}; wanted {code} {word}");
    }
    assert_eq!(node.asked().len(), 0);
}
