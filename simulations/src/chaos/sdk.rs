//! A real SDK: npm `centrifuge`, unmodified, in a process of its own. It follows its channels and
//! publishes one by one, and writes the same history as virtual clients do. It tells the epoch of a
//! subscription, but not of each publication.
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{Position, StreamEpoch};
use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cluster::client::Doing;
use crate::cluster::history::{self, Seen};
use crate::cluster::trace::Trace;

/// What holds one connection of the SDK and speaks JSON lines: that of the tests on real nodes.
const DRIVER: &str = include_str!("../../../tests/e2e/js/driver.js");

/// See the module.
pub(super) struct Sdk {
    pub(super) number: history::Client,
    pub(super) channels: Vec<Channel>,
    /// Between two publications, on average.
    pub(super) pace: Duration,
    pub(super) doing: watch::Receiver<Doing>,
    pub(super) history: history::Shared,
    pub(super) trace: Trace,
    pub(super) random: StdRng,
}

/// What a command without an answer yet asked for.
enum Asked {
    Connect,
    Subscribe(Channel),
    Publish(u64),
    Presence(Channel),
}

/// An answer, or (without an id) an event.
#[derive(Deserialize)]
struct Said {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    error: Option<Value>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    was_recovering: bool,
    #[serde(default)]
    recovered: bool,
}

/// The SDK's process.
struct Driver {
    _process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    fn start(modules: &Path) -> anyhow::Result<Self> {
        ensure!(
            modules.join("node_modules/centrifuge").is_dir(),
            "npm centrifuge isn't in {}; install it: .ci/test setup",
            modules.display()
        );
        let driver = modules.join("driver.js");
        std::fs::write(&driver, DRIVER)?;
        let mut process = Command::new("node")
            .arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("node (of nodejs) doesn't start")?;
        let input = process.stdin.take().context("a pipe to the SDK")?;
        let output = process.stdout.take().context("a pipe from the SDK")?;
        Ok(Self { _process: process, input, lines: BufReader::new(output).lines() })
    }
}

/// A run of an [`Sdk`].
struct Session {
    sdk: Sdk,
    driver: Driver,
    commands: u64,
    open: BTreeMap<u64, Asked>,
    positions: BTreeMap<Channel, Position>,
    publish_at: Instant,
    publishing: bool,
    /// Publications between two failed ones: each was answered before the next was sent.
    line: u32,
    /// The last number that it asked for who is there.
    asked: u64,
}

impl Sdk {
    /// Goes on until the task is dropped; what it returns is why it couldn't.
    pub(super) async fn run(self, modules: &Path, url: &str) -> anyhow::Result<()> {
        let mut session = Session {
            driver: Driver::start(modules)?,
            commands: 0,
            open: BTreeMap::new(),
            positions: BTreeMap::new(),
            publish_at: Instant::now(),
            publishing: false,
            line: 0,
            asked: 0,
            sdk: self,
        };
        let connect = json!({ "do": "connect", "url": url, "token": "", "tokens": [] });
        session.ask(Asked::Connect, connect).await?;
        for channel in session.sdk.channels.clone() {
            let subscribe =
                json!({ "do": "subscribe", "channel": channel.as_str(), "options": {} });
            session.ask(Asked::Subscribe(channel), subscribe).await?;
        }
        loop {
            // Reading lines is cancel-safe.
            tokio::select! {
                line = session.driver.lines.next_line() => {
                    let line = line?.context("the SDK's process ended")?;
                    let said = serde_json::from_str(&line).with_context(|| line.clone())?;
                    session.hear(said).with_context(|| line)?;
                }
                () = sleep_until(session.publish_at) => session.tick().await?,
            }
        }
    }
}

impl Session {
    async fn ask(&mut self, asked: Asked, mut command: Value) -> anyhow::Result<()> {
        self.commands += 1;
        command["id"] = json!(self.commands);
        self.open.insert(self.commands, asked);
        let line = format!("{command}\n");
        self.driver.input.write_all(line.as_bytes()).await.context("the SDK's process ended")
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        let pace = self.sdk.pace.as_millis() as u64;
        let pause = self.sdk.random.random_range(pace / 2..=pace * 3 / 2);
        self.publish_at = Instant::now() + Duration::from_millis(pause.max(1));
        let doing = *self.sdk.doing.borrow();
        match doing {
            Doing::Publish if !self.publishing && !self.positions.is_empty() => {
                self.publish().await
            }
            Doing::Ask(number) if number != self.asked => {
                self.asked = number;
                for channel in self.sdk.channels.clone() {
                    let presence = json!({ "do": "presence", "channel": channel.as_str() });
                    self.ask(Asked::Presence(channel), presence).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        self.publishing = true;
        let choice = self.sdk.random.random_range(0..self.sdk.channels.len());
        let channel = self.sdk.channels[choice].clone();
        let Sdk { number, history, .. } = &self.sdk;
        let number = history.borrow_mut().send(*number, self.line, channel.clone());
        let publish = json!({ "do": "publish", "channel": channel.as_str(), "data": number });
        self.ask(Asked::Publish(number), publish).await
    }

    fn hear(&mut self, said: Said) -> anyhow::Result<()> {
        if let Some(id) = said.id {
            let asked = self.open.remove(&id).context("an answer to nothing")?;
            return self.answered(asked, said);
        }
        match said.kind.as_str() {
            "connected" => self.sdk.history.borrow_mut().connections += 1,
            "subscribed" => self.subscribed(said)?,
            "publication" => self.received(said)?,
            "disconnected" | "unsubscribed" => anyhow::bail!("the SDK gave up"),
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, asked: Asked, said: Said) -> anyhow::Result<()> {
        let (number, failed) = (self.sdk.number, said.error);
        match (asked, failed) {
            (Asked::Publish(publication), None) => {
                self.publishing = false;
                self.sdk.trace.event(format_args!("publication {publication} acknowledged"));
                self.sdk.history.borrow_mut().acknowledge(publication);
            }
            (Asked::Publish(publication), Some(error)) => {
                self.publishing = false;
                self.line += 1;
                self.sdk.trace.tell(format_args!("publication {publication}: SDK says {error}"));
            }
            (Asked::Presence(channel), None) => {
                let there: BTreeMap<String, String> = serde_json::from_value(said.result)?;
                let mut users: Vec<String> = there.into_values().collect();
                users.sort_unstable();
                self.sdk.history.borrow_mut().present.insert((number, channel), users);
            }
            // It is asked again.
            (Asked::Presence(_), Some(_)) => {}
            (Asked::Connect | Asked::Subscribe(_), None) => {}
            (Asked::Connect, Some(error)) => anyhow::bail!("the SDK doesn't connect: {error}"),
            (Asked::Subscribe(channel), Some(error)) => {
                anyhow::bail!("the SDK doesn't get into {channel}: {error}")
            }
        }
        Ok(())
    }

    fn subscribed(&mut self, said: Said) -> anyhow::Result<()> {
        let channel = Channel::parse(&said.channel)?;
        let epoch: StreamEpoch = said.epoch.context("no epoch")?.parse()?;
        let position = Position { epoch, offset: said.offset.context("no offset")? };
        let mut history = self.sdk.history.borrow_mut();
        let seen = match (said.was_recovering, said.recovered) {
            (true, true) => {
                history.resumed += 1;
                Seen::Continued(position)
            }
            (gap, _) => Seen::Began { position, at_ms: crate::cluster::clock::now_ms(), gap },
        };
        self.sdk.trace.tell(format_args!("SDK {} in {channel}: {seen:?}", self.sdk.number));
        history.see(self.sdk.number, &channel, seen);
        self.positions.insert(channel, position);
        Ok(())
    }

    fn received(&mut self, said: Said) -> anyhow::Result<()> {
        let channel = Channel::parse(&said.channel)?;
        let data = said.data.as_u64().context("a publication that isn't a number")?;
        let position = self.positions.get_mut(&channel).context("before it subscribed")?;
        position.offset = said.offset.context("no offset")?;
        let seen = Seen::Publication(*position, data);
        self.sdk.history.borrow_mut().see(self.sdk.number, &channel, seen);
        Ok(())
    }
}
