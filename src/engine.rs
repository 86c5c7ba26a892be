//! The engine: the one task that runs the cores. Takes events from the shells' mailbox and frames
//! from the links, and carries out the cores' actions in order. It decides nothing.
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::delivery::core::Core;
use crate::delivery::event::{Action, CoreStatus, Event, TICK_MS};
use crate::delivery::mailbox::{ShardMessage, ShardSender};
use crate::peers::{PeerEvent, Peers};
use crate::protocol::ids::Incarnation;
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// Events taken from a queue at once; their actions are carried out before the next are taken.
const EVENTS_AT_ONCE: usize = 256;
/// Every how many ticks the status is made anew.
const STATUS_TICKS: u64 = 10;

/// How far the node is in its life, as the cores say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// It has a copy of all that it will own.
    pub caught_up: bool,
    /// It owns nothing more and nobody needs it.
    pub drained: bool,
}

/// An answer to a question about another node.
#[derive(Debug)]
pub struct Inspected {
    /// Who answered.
    pub from: Incarnation,
    /// The number of the question.
    pub number: u64,
    /// JSON.
    pub report: Bytes,
}

/// Something that links say which isn't for the cores.
#[derive(Debug)]
pub enum LinkNews {
    /// This node was refused, and trying again can't help.
    Refused(String),
    /// Somebody wants to know of this node.
    Inspect {
        /// Who asks.
        from: Incarnation,
        /// Its number for the question.
        number: u64,
    },
    /// Somebody answered.
    Inspected(Inspected),
}

/// Everything that the engine is connected to.
pub struct Engine {
    /// The cores.
    pub core: Core,
    /// What shells and the node tell.
    pub mailbox: mpsc::Receiver<Event>,
    /// Links, if there is a mesh.
    pub peers: Option<Peers>,
    /// What links tell; closed if there is no mesh.
    pub peer_events: mpsc::Receiver<PeerEvent>,
    /// The gateway's shards and, last, the API's, in the order of their ids.
    pub shards: Vec<ShardSender>,
    /// What isn't for the cores.
    pub news: mpsc::Sender<LinkNews>,
    /// How far the node is.
    pub progress: watch::Sender<Progress>,
    /// The cores' status, made anew some times a second.
    pub status: Arc<ArcSwap<CoreStatus>>,
    /// The clock.
    pub clock: fn() -> Millis,
}

impl Engine {
    /// Runs until the mailbox's senders are gone.
    pub async fn run(mut self) {
        let mut tick = interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u64;
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut from_links = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut linked = self.peers.is_some();
        loop {
            tokio::select! {
                taken = self.mailbox.recv_many(&mut events, EVENTS_AT_ONCE) => {
                    if taken == 0 {
                        return;
                    }
                }
                taken = self.peer_events.recv_many(&mut from_links, EVENTS_AT_ONCE), if linked => {
                    linked = taken > 0;
                    for event in from_links.drain(..) {
                        events.extend(self.link_event(event));
                    }
                }
                _ = tick.tick() => {
                    ticks += 1;
                    events.push(Event::Tick);
                }
            }
            // In another view other slots are this node's: who asks is told at once.
            let moved = events.iter().any(|event| matches!(event, Event::Outlook(_)));
            let ticked = matches!(events.last(), Some(Event::Tick));
            self.handle(&mut events);
            if moved || ticked && ticks.is_multiple_of(STATUS_TICKS) {
                self.status.store(Arc::new(self.core.status()));
            }
        }
    }

    fn handle(&mut self, events: &mut Vec<Event>) {
        let now = (self.clock)();
        let mut actions = Vec::new();
        for event in events.drain(..) {
            self.core.handle(event, now, &mut actions);
        }
        for action in actions {
            self.act(action);
        }
    }

    fn link_event(&self, event: PeerEvent) -> Option<Event> {
        match event {
            PeerEvent::Up { id, .. } => Some(Event::LinkUp(id.incarnation)),
            PeerEvent::Down { id, .. } => Some(Event::LinkDown(id.incarnation)),
            PeerEvent::Frames { from, frames } => Some(Event::Frames { from, frames }),
            PeerEvent::Refused { by, reason, fatal } => {
                if fatal {
                    self.tell(LinkNews::Refused(format!("{by} refused this node: {reason}")));
                }
                None
            }
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::Send { to, lane, frame } => self.send(&to, lane, &frame),
            Action::Reply { to, reply } => {
                if let Some(shard) = self.shards.get(usize::from(to.shard.0)) {
                    shard.push(ShardMessage::Reply { number: to.number, reply });
                }
            }
            Action::Deliver { shards, delivery } => {
                for shard in shards {
                    if let Some(shard) = self.shards.get(usize::from(shard.0)) {
                        shard.push(ShardMessage::Deliver(delivery.clone()));
                    }
                }
            }
            Action::Inspect { from, number } => self.tell(LinkNews::Inspect { from, number }),
            Action::Inspected { from, number, report } => {
                self.tell(LinkNews::Inspected(Inspected { from, number, report }));
            }
            Action::Drained => self.progress.send_modify(|progress| progress.drained = true),
            Action::CaughtUp => self.progress.send_modify(|progress| progress.caught_up = true),
        }
    }

    fn send(&self, to: &[Incarnation], lane: Lane, frame: &PeerFrame) {
        let Some(peers) = &self.peers else { return };
        // Frames that don't leave are counted there; the cores find out by their own numbers.
        if let Err(error) = peers.send(to, lane, frame) {
            tracing::error!(%error, "frame.not_encoded");
        }
    }

    /// Questions that find the queue full are lost, and asked again by whoever asked.
    fn tell(&self, news: LinkNews) {
        if self.news.try_send(news).is_err() {
            tracing::debug!("news.dropped");
        }
    }
}
