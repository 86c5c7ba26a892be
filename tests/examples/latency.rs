//! Measures publish → deliver and publish → acknowledge over two nodes that are running: `latency
//! PUBLISH_URL SUBSCRIBE_URL CHANNEL RATE SECONDS`, run by `tests/measure`. Three threads and blocking sockets, so that the
//! client costs little beside what it measures. Prints one JSON object.
//!
//! Tokens come in `PUBLISH_TOKEN` and `SUBSCRIBE_TOKEN`. A message is due at a fixed time; its
//! latency counts from when it was due, so that a publisher that was held up hides nothing.
#![expect(clippy::print_stdout, reason = "the result is what it is for")]

use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// Messages sent before the measurement, so that caches and connections are warm.
const WARM_UP: u64 = 500;
/// How long the last deliveries may take.
const TAIL: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [publish_url, subscribe_url, channel, rate, seconds] = &arguments[..] else {
        bail!("usage: latency PUBLISH_URL SUBSCRIBE_URL CHANNEL RATE SECONDS");
    };
    let rate: u64 = rate.parse().context("RATE: messages a second")?;
    let seconds: u64 = seconds.parse().context("SECONDS: a whole number")?;
    ensure!(rate > 0 && seconds > 0, "RATE and SECONDS must be above 0");
    let total = WARM_UP + rate * seconds;

    let mut subscriber = Client::connect(subscribe_url, "SUBSCRIBE_TOKEN")?;
    subscriber.call(&json!({"subscribe": {"channel": channel}}))?;
    let mut publisher = Client::connect(publish_url, "PUBLISH_TOKEN")?;
    publisher.call(&json!({"subscribe": {"channel": channel}}))?;

    let start = Instant::now() + Duration::from_millis(100);
    let pause = Duration::from_secs(1) / u32::try_from(rate).context("RATE is too high")?;
    let due = move |number: u64| start + pause * u32::try_from(number).unwrap_or(u32::MAX);

    let answers = publisher.reader()?;
    let first_id = publisher.id + 1;
    let (acks_out, acks) = mpsc::channel();
    let (deliveries_out, deliveries) = mpsc::channel();
    std::thread::spawn(move || acks_out.send(take_acks(answers, first_id, total, due)));
    std::thread::spawn(move || deliveries_out.send(receive(subscriber, total, due)));

    let mut late = Vec::new();
    for number in 0..total {
        std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
        late.push(due(number).elapsed());
        publisher.publish(channel, number)?;
    }
    let limit = TAIL + pause * 2;
    let acks = acks.recv_timeout(limit).context("publishes were not all answered in time")??;
    let latencies = deliveries.recv_timeout(limit).context("deliveries are missing")??;
    let measured = usize::try_from(WARM_UP)?;
    println!(
        "{}",
        json!({
            "rate": rate,
            "sent": latencies.len(),
            "messages": latencies.len() - measured,
            "deliver_us": quantiles(&latencies[measured..]),
            "acknowledge_us": quantiles(&acks[measured..]),
            "publisher_late_us": quantiles(&late[measured..]),
        })
    );
    Ok(())
}

/// One WebSocket that speaks the client protocol, as little of it as is needed.
struct Client {
    socket: WebSocket<TcpStream>,
    id: u64,
}

impl Client {
    fn connect(url: &str, token_variable: &str) -> Result<Self> {
        let address = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next());
        let stream = TcpStream::connect(address.context("the URL must begin with ws://")?)?;
        stream.set_nodelay(true)?;
        let (socket, _) = tungstenite::client(url, stream).context("the WebSocket handshake")?;
        let mut client = Self { socket, id: 0 };
        let token = std::env::var(token_variable).unwrap_or_default();
        client.call(&json!({"connect": {"token": token}}))?;
        Ok(client)
    }

    /// Sends a command and waits for its reply; what comes before is dropped.
    fn call(&mut self, command: &Value) -> Result<()> {
        self.id += 1;
        let mut command = command.clone();
        command["id"] = self.id.into();
        self.socket.send(Message::text(command.to_string()))?;
        loop {
            for line in self.socket.read()?.to_text()?.lines() {
                let reply: Value = serde_json::from_str(line)?;
                if reply["id"] == self.id {
                    ensure!(reply.get("error").is_none(), "{command} was answered {reply}");
                    return Ok(());
                }
            }
        }
    }

    fn publish(&mut self, channel: &str, number: u64) -> Result<()> {
        self.id += 1;
        let id = self.id;
        // 100 bytes, the size of a short chat message.
        let frame = format!(
            r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{{"n":{number},"text":"{:x<80}"}}}}}}"#,
            ""
        );
        Ok(self.socket.send(Message::text(frame))?)
    }

    /// A second handle that reads while this one writes.
    fn reader(&self) -> Result<WebSocket<TcpStream>> {
        Ok(WebSocket::from_raw_socket(self.socket.get_ref().try_clone()?, Role::Client, None))
    }
}

/// Reads replies and pushes until `each` says that it has had enough; answers pings. `each` is told
/// when the frame came.
fn read_answers(
    socket: &mut WebSocket<TcpStream>,
    mut each: impl FnMut(Instant, &Value) -> Result<bool>,
) -> Result<()> {
    loop {
        let frame = socket.read()?;
        let came = Instant::now();
        for line in frame.to_text()?.lines() {
            if line == "{}" {
                socket.send(Message::text("{}"))?;
            } else if each(came, &serde_json::from_str(line)?)? {
                return Ok(());
            }
        }
    }
}

/// Waits until every publish is answered without an error; returns how long after its due time each
/// was.
fn take_acks(
    mut socket: WebSocket<TcpStream>,
    first_id: u64,
    total: u64,
    due: impl Fn(u64) -> Instant,
) -> Result<Vec<Duration>> {
    let mut latencies = vec![Duration::ZERO; usize::try_from(total)?];
    let mut answered = 0;
    read_answers(&mut socket, |came, answer| {
        ensure!(answer.get("error").is_none(), "a publish was answered {answer}");
        let Some(id) = answer["id"].as_u64() else { return Ok(false) };
        let number = id.checked_sub(first_id).context("an answer to nothing that was published")?;
        let latency = latencies.get_mut(usize::try_from(number)?).context("an unknown answer")?;
        *latency = came.saturating_duration_since(due(number));
        answered += 1;
        Ok(answered == total)
    })?;
    Ok(latencies)
}

/// Receives all messages, in order, each once; returns how long after its due time each came.
fn receive(mut client: Client, total: u64, due: impl Fn(u64) -> Instant) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    read_answers(&mut client.socket, |came, answer| {
        let Some(number) = answer["push"]["pub"]["data"]["n"].as_u64() else { return Ok(false) };
        let expected = latencies.len() as u64;
        ensure!(number == expected, "message {number} came where {expected} was due");
        latencies.push(came.saturating_duration_since(due(number)));
        Ok(number + 1 == total)
    })?;
    Ok(latencies)
}

fn quantiles(sample: &[Duration]) -> Value {
    let mut micros: Vec<u128> = sample.iter().map(Duration::as_micros).collect();
    micros.sort_unstable();
    let at = |per_mille: usize| micros[(micros.len() - 1) * per_mille / 1000];
    json!({"p50": at(500), "p90": at(900), "p99": at(990), "p999": at(999), "max": at(1000)})
}
