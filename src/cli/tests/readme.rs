//! The tables of README.md that tell what the code says: settings and limits. They are compared
//! here; `ORBWEB_WRITE_README=1 cargo test readme` writes them.
use std::fmt::Write as _;

use crate::config::knobs::{CHANNEL_KNOBS, KNOBS};
use crate::config::{Config, Namespace};
use crate::{api, delivery, gateway, ownership, peers, protocol};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// Compares what stands between the marks of that name.
fn compare(name: &str, expected: &str) {
    let text = std::fs::read_to_string(README).expect("README.md");
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let from = text.find(&begin).expect("the mark before the table") + begin.len();
    let to = from + text[from..].find(&end).expect("the mark behind the table");
    if std::env::var_os("ORBWEB_WRITE_README").is_some() {
        std::fs::write(README, format!("{}{expected}{}", &text[..from], &text[to..]))
            .expect("README.md can be written");
        return;
    }
    assert_eq!(
        &text[from..to],
        expected,
        "README.md, {name}: run `ORBWEB_WRITE_README=1 cargo test readme`"
    );
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_tables_of_the_readme_tell_what_the_code_says() {
    compare("configuration", &configuration());
    compare("channel options", &channel_options());
    compare("limits", &limits());
}

#[test]
fn the_configuration_that_the_readme_shows_is_accepted() {
    let text = std::fs::read_to_string(README).expect("README.md");
    let (_, shown) = text.split_once("```toml\n").expect("an example");
    let (shown, _) = shown.split_once("```").expect("its end");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), shown).expect("written");
    super::orbweb(&format!("config check {}", file.path().display())).expect("a configuration");
}

fn configuration() -> String {
    let defaults = Config::default();
    let mut table =
        String::from("| key | takes | default | meaning |\n| --- | --- | --- | --- |\n");
    for knob in KNOBS {
        // The name is made of the host's.
        let default = knob.get(&defaults).filter(|_| knob.key != "name");
        let default = default.map(|value| format!("`{value}`")).unwrap_or_default();
        let (allowed, doc) = (cell(knob.allowed), cell(knob.doc));
        writeln!(table, "| `{}` | {allowed} | {default} | {doc} |", knob.key).expect("a string");
    }
    table
}

fn channel_options() -> String {
    let (plain, inbox) = (Namespace::default(), Config::default().channels.inbox);
    let mut table = String::from(
        "| key | takes | default | in `[inbox]` | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for knob in CHANNEL_KNOBS {
        let of = |group| knob.get(group).map(|value| format!("`{value}`")).unwrap_or_default();
        writeln!(
            table,
            "| `{}` | {} | {} | {} | {} |",
            knob.key,
            cell(knob.allowed),
            of(&plain),
            of(&inbox),
            cell(knob.doc)
        )
        .expect("a string");
    }
    table
}

fn limits() -> String {
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let mib = |bytes: usize| format!("{} MiB", bytes / 1024 / 1024);
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    let rows: [(&str, String, &str); 27] = [
        ("message of a client", kib(gateway::ws::MESSAGE_BYTES_MAX), "close code 1009"),
        ("publication by the server API", kib(protocol::message::DATA_BYTES_MAX), "error 106"),
        ("channel name", format!("{} bytes", protocol::channel::CHANNEL_BYTES_MAX), "error 107"),
        (
            "user id in a token",
            format!("{} bytes", gateway::token::USER_BYTES_MAX),
            "close code 3500",
        ),
        ("channels of a connection", gateway::CHANNELS_MAX.to_string(), "error 106"),
        (
            "requests of a connection that wait for an answer",
            gateway::REQUESTS_MAX.to_string(),
            "error 111",
        ),
        (
            "commands of a connection a second",
            format!("{}, {} in a burst", gateway::COMMANDS_PER_SECOND, gateway::COMMANDS_BURST),
            "close code 3013",
        ),
        (
            "bytes that wait for a client that reads slowly",
            mib(delivery::outbox::OUTBOX_BYTES_MAX),
            "close code 3008",
        ),
        (
            "publications in one history",
            format!("{} or {}", gateway::HISTORY_MAX, kib(gateway::HISTORY_BYTES_MAX)),
            "page on with `since`",
        ),
        (
            "publications that a client that comes back can have missed",
            format!(
                "{} or {}",
                ownership::stream::READ_LEN_MAX,
                mib(ownership::stream::READ_BYTES_MAX)
            ),
            "`recovered: false`",
        ),
        (
            "clients that presence lists in a channel",
            format!(
                "{} or {}",
                ownership::audience::PRESENT_MAX,
                mib(ownership::audience::PRESENT_BYTES_MAX)
            ),
            "the rest isn't listed",
        ),
        (
            "server-side subscriptions of a user made by the API",
            protocol::user::USER_SUBSCRIPTIONS_MAX.to_string(),
            "error 106",
        ),
        ("attributes of a user", protocol::user::ATTRIBUTES_MAX.to_string(), "error 106"),
        (
            "key, value of an attribute",
            format!(
                "{} bytes, {}",
                protocol::user::ATTRIBUTE_KEY_BYTES_MAX,
                kib(protocol::user::ATTRIBUTE_VALUE_BYTES_MAX)
            ),
            "error 106",
        ),
        (
            "unanswered requests of a node's clients",
            format!(
                "{} or {}",
                delivery::operations::OPERATIONS_MAX,
                mib(delivery::operations::OPERATION_BYTES_MAX)
            ),
            "error 111",
        ),
        (
            "the same towards one slot",
            delivery::operations::SLOT_OPERATIONS_MAX.to_string(),
            "error 111",
        ),
        (
            "unanswered subscriptions and questions of a node's clients",
            format!(
                "{} or {}",
                delivery::router::QUESTIONS_MAX,
                mib(delivery::router::QUESTION_BYTES_MAX)
            ),
            "error 111",
        ),
        (
            "time until an unanswered request counts as unknown",
            seconds(delivery::operations::OPERATION_MS),
            "error 100",
        ),
        (
            "changes of one slot that too few nodes hold yet",
            format!("{} or {}", ownership::UNCOMMITTED_MAX, mib(ownership::UNCOMMITTED_BYTES_MAX)),
            "error 111",
        ),
        (
            "idempotency keys of one slot within 5 minutes",
            ownership::holding::KEYS_MAX.to_string(),
            "error 111",
        ),
        (
            "requests that wait for a claim at an owner",
            format!(
                "{} or {}",
                ownership::parked::PARKED_MAX,
                mib(ownership::parked::PARKED_BYTES_MAX)
            ),
            "error 100",
        ),
        ("how long they wait", seconds(ownership::parked::PARKED_MS), "error 100"),
        ("body of a call of the server API", mib(api::BODY_BYTES_MAX), "status 413"),
        (
            "channels of a broadcast, commands of a batch",
            api::BROADCAST_CHANNELS_MAX.to_string(),
            "error 106",
        ),
        (
            "publications in one history of the server API",
            format!("{} or {}", api::HISTORY_MAX, mib(ownership::stream::READ_BYTES_MAX)),
            "page on with `since`",
        ),
        (
            "publications of parts of a split that wait beside a stream",
            format!(
                "{} times its size, or {}",
                ownership::holding::LINES_MAX,
                ownership::holding::LOOSE_MIN
            ),
            "the earliest go, as they would from the stream",
        ),
        ("frame between nodes", mib(peers::FRAME_BYTES_MAX), "the link is closed"),
    ];
    let mut table = String::from("| what | at most | beyond it |\n| --- | --- | --- |\n");
    for (what, most, beyond) in rows {
        writeln!(table, "| {what} | {most} | {beyond} |").expect("a string");
    }
    table
}
