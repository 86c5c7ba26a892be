//! The router: takes requests of this node's clients to the owners of their channels, and what
//! owners send to the shards that want it. Asks again when an owner changes or is silent.
mod pending;
mod positions;
mod questions;
mod told;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Action, Ask, DeliveryBody, Recover, Reply, Request, RequestId};
use super::interest::{Interests, Joining, Subscriber};
use super::operations::Operations;
use crate::mutant::{Rule, without};
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{Incarnation, Position, Slot};
use crate::protocol::peer::{Body, Lane, PeerFrame, Query, SlotRange};
use crate::protocol::time::Millis;
use crate::protocol::user::UserState;
use questions::{Purpose, Questions};
pub use questions::{QUESTION_BYTES_MAX, QUESTION_MS, QUESTIONS_MAX};

/// Pause before a question goes to the owner again that said it isn't, or isn't ready.
const ELSEWHERE_MS: u64 = 50;

/// What the handling of one event works with.
pub struct Turn<'a> {
    /// The slots' side of this node.
    pub ownership: &'a Ownership,
    /// The time.
    pub now: Millis,
    /// Frames for nodes.
    pub out: &'a mut Out,
    /// What is for this node's shards.
    pub actions: &'a mut Vec<Action>,
}

/// See the module. `out` takes frames for nodes, `actions` what is for this node's shards.
#[derive(Debug)]
pub struct Router {
    slots: u16,
    interests: Interests,
    operations: Operations,
    questions: Questions,
    asked: u64,
    compare_from: Slot,
    compared: Millis,
    /// Slots of which interest was told and owners may believe in some still.
    told: BTreeSet<Slot>,
    /// Slots of which interest ended, and until when questions that told of it may still come before
    /// an owner: they are asked again, of other nodes too, and answered late by some.
    straying: BTreeMap<Slot, Millis>,
}

impl Router {
    /// The router of a node that has just started.
    pub fn new(slots: u16) -> Self {
        Self {
            slots,
            interests: Interests::default(),
            operations: Operations::default(),
            questions: Questions::default(),
            asked: 0,
            compare_from: Slot(0),
            compared: Millis(0),
            told: BTreeSet::new(),
            straying: BTreeMap::new(),
        }
    }

    /// What owners are told of this node's interest in a slot.
    pub fn interest(&self, slot: Slot) -> Vec<crate::protocol::peer::ChannelInterest> {
        self.interests.of(slot)
    }

    /// Requests that wait, and channels with subscribers.
    pub fn sizes(&self) -> (u64, u64) {
        ((self.operations.len() + self.questions.len()) as u64, self.interests.channels())
    }

    /// Whether nothing waits for an owner.
    pub fn is_idle(&self) -> bool {
        self.operations.is_empty() && self.questions.is_empty()
    }

    /// Takes a request of a client or the API.
    pub fn handle_request(&mut self, request: Request, turn: &mut Turn<'_>) {
        let Request { id, channel, options, ask } = request;
        let slot = channel.slot(self.slots);
        let query = match ask {
            Ask::Unsubscribe { client } => {
                return self.unsubscribe(slot, channel, client, turn);
            }
            Ask::Publish { message, key } => {
                let body = Body::Publish { message, key };
                return self.operate(id, slot, channel, options, body, turn);
            }
            Ask::Change(change) => {
                let body = Body::User(change);
                return self.operate(id, slot, channel, options, body, turn);
            }
            Ask::Subscribe { client, info, recover } => {
                let known = self.interests.get_mut(slot, &channel);
                let plain = !options.is_stream() && info.is_none() && recover == Recover::No;
                // What is to be told of a user the owner knows.
                let plain = plain && channel.user().is_none();
                if plain && let Some(interest) = known.filter(|i| !i.subscribers.is_empty()) {
                    interest.add(client, Subscriber { shard: id.shard, info: None });
                    let reply = Reply::Subscribed {
                        position: None,
                        recovered: false,
                        publications: vec![],
                        user: UserState::None,
                    };
                    return turn.actions.push(Action::Reply { to: id, reply });
                }
                let shown = info.clone().map(Box::new);
                let purpose = Purpose::Subscribe { request: id, client, info: info.clone() };
                let query = Query::Subscribe { info, recover };
                match self.ask(slot, channel.clone(), options, query, purpose, turn) {
                    Some(number) => {
                        let interest = self.interests.entry(slot, &channel);
                        interest.options = options;
                        let joining = Joining { question: number, info: shown };
                        if let Some(older) = interest.joining.insert(client, joining) {
                            self.questions.remove(older.question);
                        }
                    }
                    None => fail(id, ErrorCode::TooManyRequests, turn),
                }
                return;
            }
            Ask::History(history) => Query::History(history),
            Ask::Presence => Query::Presence,
            Ask::PresenceStats => Query::PresenceStats,
            Ask::Attributes(key) => Query::Attributes(key),
            Ask::Status => Query::User,
        };
        let purpose = Purpose::Read(id);
        if self.ask(slot, channel, options, query, purpose, turn).is_none() {
            fail(id, ErrorCode::TooManyRequests, turn);
        }
    }

    /// Takes a frame from an owner. Gives back a frame that isn't.
    pub fn handle(
        &mut self,
        from: Incarnation,
        frame: PeerFrame,
        turn: &mut Turn<'_>,
    ) -> Option<PeerFrame> {
        match frame {
            PeerFrame::Result { slot, number, outcome } => {
                self.handle_result(from, slot, number, outcome, turn);
            }
            PeerFrame::Answer { number, answer } => {
                self.handle_answer(from, number, answer, turn);
            }
            PeerFrame::NotOwner { number, owner } => {
                self.handle_not_owner(from, number, owner, turn);
            }
            PeerFrame::Deliver { slot, channel, follows, publication } => {
                let follows = follows.unwrap_or(Position {
                    epoch: publication.epoch,
                    offset: publication.offset.saturating_sub(1),
                });
                self.deliver(slot, &channel, follows, publication, turn);
            }
            PeerFrame::Ephemeral { slot, channel, message } => {
                self.hand_on(slot, channel, DeliveryBody::plain(message), turn);
            }
            PeerFrame::Presence { slot, channel, info, here } => {
                let body = if here { DeliveryBody::Join(info) } else { DeliveryBody::Leave(info) };
                self.hand_on(slot, channel, body, turn);
            }
            PeerFrame::UserChanged { slot, channel } => {
                self.ask_user(slot, &channel, turn);
            }
            PeerFrame::Lost { slot, channel } => {
                // The word of one who may be fenced doesn't count: the owner is asked.
                if turn.ownership.promised(slot).owner == from {
                    self.lose(slot, channel, turn);
                } else {
                    self.catch_up(slot, &channel, turn);
                }
            }
            PeerFrame::DigestAnswer { slots } => {
                for (slot, equal, tops) in slots {
                    self.compare(from, slot, equal, tops, turn);
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Sends what waits for slots that have a new owner.
    pub fn handle_owned(
        &mut self,
        from: Incarnation,
        slots: &[(SlotRange, u64)],
        turn: &mut Turn<'_>,
    ) {
        let within =
            |slot: Slot| slots.iter().any(|(range, _)| (range.first..=range.last).contains(&slot));
        for slot in self.operations.slots().into_iter().filter(|slot| within(*slot)) {
            self.send_operations(slot, 0, from, turn);
        }
        // An owner that didn't know this node when it claimed hears now what is wanted here.
        let told = self.told.iter().filter(|slot| within(**slot));
        let digests: Vec<_> = told.map(|slot| (*slot, self.interests.digest(*slot))).collect();
        if !digests.is_empty() && !without(Rule::InterestInClaims) {
            turn.out.send(from, Lane::Data, PeerFrame::Digest { slots: digests });
        }
        let asked = self.questions.iter().filter(|(_, question)| within(question.slot));
        for number in asked.map(|(number, _)| number).collect::<Vec<_>>() {
            self.send_question(number, from, turn);
        }
    }

    /// Sends again what waits for owners that have changed (`renewed` = the link to it is new).
    pub fn reroute(&mut self, renewed: Option<Incarnation>, turn: &mut Turn<'_>) {
        let placement = turn.ownership.world().placement.clone();
        for slot in self.operations.slots() {
            let Some(owner) = placement.owner(slot) else { continue };
            if self.operations.owner(slot) != Some(owner) || renewed == Some(owner) {
                self.send_operations(slot, 0, owner, turn);
            }
        }
        let moved = self.questions.iter().filter_map(|(number, question)| {
            let owner = placement.owner(question.slot)?;
            (question.asked != Some(owner) || renewed == Some(owner)).then_some((number, owner))
        });
        for (number, owner) in moved.collect::<Vec<_>>() {
            self.send_question(number, owner, turn);
        }
        if renewed.is_some() {
            // What was sent to gateways meanwhile may be lost: compare at once.
            self.compared = Millis(0);
            self.compare_from = Slot(0);
        }
    }

    /// Sends again what is due, gives up what has waited too long, compares interest.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        for pending in self.operations.expire(turn.now) {
            fail(pending.request, ErrorCode::Internal, turn);
        }
        let placement = turn.ownership.world().placement.clone();
        for slot in self.operations.silent(turn.now) {
            if let Some(owner) = placement.owner(slot) {
                self.send_operations(slot, 0, owner, turn);
            }
        }
        self.expire_questions(turn);
        let due = self.questions.iter_mut().filter(|(_, q)| turn.now.since(q.sent) >= q.retry_ms);
        let due: Vec<(u64, Slot)> = due
            .map(|(number, question)| {
                question.retry_ms = (question.retry_ms * 2).clamp(ELSEWHERE_MS, QUESTION_MS);
                question.sent = turn.now;
                (number, question.slot)
            })
            .collect();
        for (number, slot) in due {
            if let Some(owner) = placement.owner(slot) {
                self.send_question(number, owner, turn);
            }
        }
        self.compare_some(turn);
    }
}

/// Where to turn when `from` isn't the owner: to the one it names if `from` is the slot's home, else
/// to the home again after a pause, so that two nodes that name each other don't bounce a request.
fn redirect(
    slot: Slot,
    from: Incarnation,
    named: Option<Incarnation>,
    turn: &Turn<'_>,
) -> Option<Incarnation> {
    let home = turn.ownership.world().placement.owner(slot);
    named.filter(|named| *named != from && home == Some(from))
}

fn fail(to: RequestId, code: ErrorCode, turn: &mut Turn<'_>) {
    turn.actions.push(Action::Reply { to, reply: Reply::Failed(code) });
}
