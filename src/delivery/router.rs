//! The router: takes requests of this node's clients to the owners of their channels, and what
//! owners send to the shards that want it. Asks again when an owner changes or is silent.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::{Action, Ask, Delivery, DeliveryBody, Recover, Reply, Request, RequestId};
use super::interest::{Interests, Joining, Subscriber};
use super::operations::Operations;
use crate::mutant::{Rule, without};
use crate::ownership::audience::in_parts;
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::ownership::user::user_digest;
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{ClientId, Epoch, Incarnation, Position, Slot};
use crate::protocol::message::{ClientInfo, Message, Publication};
use crate::protocol::peer::{
    Answer, Body, Lane, Outcome, PeerFrame, Query, SlotInterest, SlotRange,
};
use crate::protocol::time::Millis;
use crate::protocol::user::UserState;

/// Questions of this node's clients that may wait for answers.
pub const QUESTIONS_MAX: usize = 65_536;
/// When a question is given up: as for operations.
pub const QUESTION_MS: u64 = super::operations::OPERATION_MS;
/// First pause before an unanswered question is asked again; it doubles.
const RETRY_MS: u64 = 250;
/// Pause before a question goes to the owner again that said it isn't, or isn't ready.
const ELSEWHERE_MS: u64 = 50;
/// How long a question may still come before an owner after its answer: on its way, and parked.
const STRAYING_MS: u64 = 2 * QUESTION_MS;
/// How often interest is compared with its owner, in milliseconds.
pub const COMPARE_MS: u64 = 5_000;
/// Slots compared in one frame.
const COMPARED_PER_TICK: usize = 1_024;

/// What an answer is for.
#[derive(Clone, Debug)]
enum Purpose {
    Read(RequestId),
    Subscribe {
        request: RequestId,
        client: ClientId,
        info: Option<ClientInfo>,
    },
    CatchUp,
    /// What is told of a user.
    User,
}

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

#[derive(Debug)]
struct Question {
    slot: Slot,
    channel: Channel,
    options: ChannelOptions,
    query: Query,
    purpose: Purpose,
    asked: Option<Incarnation>,
    /// The highest epoch promised when it was asked last: who answers has at least this one.
    epoch: Epoch,
    since: Millis,
    sent: Millis,
    retry_ms: u64,
}

/// See the module. `out` takes frames for nodes, `actions` what is for this node's shards.
#[derive(Debug)]
pub struct Router {
    slots: u16,
    interests: Interests,
    operations: Operations,
    questions: BTreeMap<u64, Question>,
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
            questions: BTreeMap::new(),
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
                let shown = info.clone();
                let purpose = Purpose::Subscribe { request: id, client, info: info.clone() };
                let query = Query::Subscribe { info, recover };
                match self.ask(slot, channel.clone(), options, query, purpose, turn) {
                    Some(number) => {
                        let interest = self.interests.entry(slot, &channel);
                        interest.options = options;
                        let joining = Joining { question: number, info: shown };
                        if let Some(older) = interest.joining.insert(client, joining) {
                            self.questions.remove(&older.question);
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

    fn operate(
        &mut self,
        id: RequestId,
        slot: Slot,
        channel: Channel,
        options: ChannelOptions,
        body: Body,
        turn: &mut Turn<'_>,
    ) {
        let owner = turn.ownership.world().placement.owner(slot);
        if let (Body::Publish { message, .. }, false) = (&body, options.is_stream()) {
            // At most once: handed over is all that is promised.
            let message = message.clone();
            match owner {
                Some(owner) => {
                    let frame = PeerFrame::Fanout { slot, channel, message, forwarded: false };
                    turn.out.send(owner, Lane::Data, frame);
                    let reply = Reply::Published { position: None, copies: 0 };
                    turn.actions.push(Action::Reply { to: id, reply });
                }
                None => fail(id, ErrorCode::Internal, turn),
            }
            return;
        }
        let waiting = self.operations.owner(slot);
        match self.operations.try_push(slot, id, channel, options, body, turn.now) {
            Some(number) => {
                if without(Rule::OwnerAcknowledges) {
                    let reply = Reply::Published { position: None, copies: u8::MAX };
                    turn.actions.push(Action::Reply { to: id, reply });
                }
                if let Some(owner) = waiting.or(owner) {
                    self.send_operations(slot, number, owner, turn);
                }
            }
            None => fail(id, ErrorCode::TooManyRequests, turn),
        }
    }

    fn send_operations(&mut self, slot: Slot, from: u64, owner: Incarnation, turn: &mut Turn<'_>) {
        let epoch = turn.ownership.promised(slot);
        for operation in self.operations.send_from(slot, from, epoch, owner, turn.now) {
            turn.out.send(owner, Lane::Data, PeerFrame::Operation(operation));
        }
    }

    fn ask(
        &mut self,
        slot: Slot,
        channel: Channel,
        options: ChannelOptions,
        query: Query,
        purpose: Purpose,
        turn: &mut Turn<'_>,
    ) -> Option<u64> {
        if self.questions.len() >= QUESTIONS_MAX {
            return None;
        }
        self.asked += 1;
        let number = self.asked;
        if matches!(query, Query::Subscribe { .. } | Query::Resume(_)) {
            self.told.insert(slot);
        }
        let question = Question {
            slot,
            channel,
            options,
            query,
            purpose,
            asked: None,
            epoch: Epoch::NONE,
            since: turn.now,
            sent: turn.now,
            retry_ms: RETRY_MS,
        };
        self.questions.insert(number, question);
        if let Some(owner) = turn.ownership.world().placement.owner(slot) {
            self.send_question(number, owner, turn);
        }
        Some(number)
    }

    fn send_question(&mut self, number: u64, owner: Incarnation, turn: &mut Turn<'_>) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        (question.asked, question.sent) = (Some(owner), turn.now);
        question.epoch = turn.ownership.promised(question.slot);
        let frame = PeerFrame::Ask {
            number,
            slot: question.slot,
            epoch: question.epoch,
            channel: question.channel.clone(),
            options: question.options,
            query: question.query.clone(),
        };
        turn.out.send(owner, Lane::Data, frame);
    }

    fn unsubscribe(&mut self, slot: Slot, channel: Channel, client: ClientId, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        let shown = interest.subscribers.get(&client).is_some_and(|s| s.info.is_some());
        interest.remove(client);
        let asked = interest.joining.remove(&client);
        if let Some(joining) = &asked {
            self.questions.remove(&joining.question);
        }
        let detach = interest.is_empty();
        if detach {
            for number in [interest.catching_up, interest.asking].into_iter().flatten() {
                self.questions.remove(&number);
            }
            self.drop_interest(slot, &channel, turn.now);
        }
        if (shown || detach || asked.is_some())
            && let Some(owner) = turn.ownership.world().placement.owner(slot)
        {
            let frame = PeerFrame::Unsubscribe { slot, channel, client, detach };
            turn.out.send(owner, Lane::Data, frame);
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
                let (position, turns_from) = (None, None);
                let body = DeliveryBody::Publication { message, position, turns_from };
                self.hand_on(slot, channel, body, turn);
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

    fn handle_result(
        &mut self,
        from: Incarnation,
        slot: Slot,
        number: u64,
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) {
        let reply = match outcome {
            Outcome::Published { position, copies } => Reply::Published { position, copies },
            Outcome::Changed { copies } => Reply::Changed { copies },
            Outcome::Failed(code) => Reply::Failed(code),
            Outcome::Expected(expected) => {
                if self.operations.rewind(slot, expected, from, turn.now) {
                    // From the front: what is behind it and was answered is no longer here.
                    self.send_operations(slot, 0, from, turn);
                }
                return;
            }
            Outcome::NotOwner(owner) => {
                // Only what was sent to `from` is answered by it; the first answer moves all.
                if self.operations.owner(slot) != Some(from) {
                    return;
                }
                match redirect(slot, from, owner, turn) {
                    Some(owner) => self.send_operations(slot, 0, owner, turn),
                    None => self.operations.retry_in(slot, ELSEWHERE_MS, turn.now),
                }
                return;
            }
        };
        if let Some(pending) = self.operations.take(slot, number, turn.now) {
            turn.actions.push(Action::Reply { to: pending.request, reply });
        }
    }

    fn handle_not_owner(
        &mut self,
        from: Incarnation,
        number: u64,
        owner: Option<Incarnation>,
        turn: &mut Turn<'_>,
    ) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        if question.asked != Some(from) {
            return;
        }
        match redirect(question.slot, from, owner, turn) {
            Some(owner) => self.send_question(number, owner, turn),
            None => (question.sent, question.retry_ms) = (turn.now, ELSEWHERE_MS),
        }
    }

    fn handle_answer(
        &mut self,
        from: Incarnation,
        number: u64,
        answer: Answer,
        turn: &mut Turn<'_>,
    ) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        let promised = turn.ownership.promised(question.slot);
        if promised > question.epoch && promised.owner != from {
            // Since the question this node has promised the slot to another, who didn't hear it.
            (question.sent, question.retry_ms) = (turn.now, ELSEWHERE_MS);
            return;
        }
        if let (Answer::Failed(code), Purpose::CatchUp | Purpose::User) =
            (&answer, &question.purpose)
            && code.temporary()
        {
            (question.sent, question.retry_ms) = (turn.now, ELSEWHERE_MS);
            return;
        }
        let (slot, channel) = (question.slot, question.channel.clone());
        match (question.purpose.clone(), answer) {
            (Purpose::CatchUp, Answer::Subscribed { position, recovered, publications, .. }) => {
                self.questions.remove(&number);
                self.caught_up(
                    slot,
                    channel,
                    number,
                    position.filter(|_| recovered),
                    publications,
                    turn,
                );
            }
            (
                Purpose::Subscribe { request, client, info },
                Answer::Subscribed { position, recovered, publications, user },
            ) => {
                let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
                let fits = interest.position == position || interest.subscribers.is_empty();
                if !fits || interest.catching_up.is_some() {
                    // Others here stand elsewhere in the stream: bring them up to date first.
                    (question.sent, question.retry_ms) = (turn.now, ELSEWHERE_MS);
                    return self.catch_up(slot, &channel, turn);
                }
                interest.position = position;
                interest.joining.remove(&client);
                if interest.subscribers.is_empty() {
                    // The reply tells the only one.
                    interest.user = user.clone();
                }
                interest.add(client, Subscriber { shard: request.shard, info });
                self.questions.remove(&number);
                self.take_user(slot, &channel, user.clone(), turn);
                let reply = Reply::Subscribed { position, recovered, publications, user };
                turn.actions.push(Action::Reply { to: request, reply });
            }
            (Purpose::User, Answer::User(user)) => {
                self.questions.remove(&number);
                if let Some(interest) = self.interests.get_mut(slot, &channel) {
                    interest.asking = None;
                }
                self.take_user(slot, &channel, user, turn);
            }
            (Purpose::User, _) => self.forget_asking(number, slot, &channel),
            (Purpose::Subscribe { request, client, .. }, answer) => {
                self.questions.remove(&number);
                self.forget_joining(slot, &channel, client, turn);
                turn.actions.push(Action::Reply { to: request, reply: reply(answer) });
            }
            (Purpose::Read(request), answer) => {
                self.questions.remove(&number);
                turn.actions.push(Action::Reply { to: request, reply: reply(answer) });
            }
            (Purpose::CatchUp, _) => {
                self.questions.remove(&number);
                self.lose(slot, channel, turn);
            }
        }
    }

    /// Asks the owner for what is told of a user, unless it is being asked.
    fn ask_user(&mut self, slot: Slot, channel: &Channel, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        if interest.subscribers.is_empty() || interest.asking.is_some() {
            return;
        }
        let options = interest.options;
        let number = self.ask(slot, channel.clone(), options, Query::User, Purpose::User, turn);
        if let Some(interest) = self.interests.get_mut(slot, channel) {
            interest.asking = number;
        }
    }

    /// Notes what is told of a user, and tells those of the channel's subscribers here that don't
    /// know it.
    fn take_user(&mut self, slot: Slot, channel: &Channel, user: UserState, turn: &mut Turn<'_>) {
        if user == UserState::None {
            // Not known yet, if it is about a user at all.
            if channel.user().is_some() {
                self.ask_user(slot, channel, turn);
            }
            return;
        }
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        let untold = interest.user == UserState::None;
        if !untold && user_digest(&interest.user) == user_digest(&user) {
            return;
        }
        interest.user = user.clone();
        let body = match user {
            UserState::Subscriptions(channels) => DeliveryBody::Subscriptions(channels),
            UserState::Status(status) => {
                let data = status.to_json().into();
                let message = Arc::new(Message { data, ..Message::default() });
                DeliveryBody::Publication { message, position: None, turns_from: None }
            }
            UserState::None => return,
        };
        self.hand_on(slot, channel.clone(), body, turn);
    }

    /// The question for what is told of a user came to nothing: the next comparison tells.
    fn forget_asking(&mut self, number: u64, slot: Slot, channel: &Channel) {
        self.questions.remove(&number);
        if let Some(interest) = self.interests.get_mut(slot, channel) {
            interest.asking = None;
        }
    }

    /// Nobody here wants the channel any more.
    fn drop_interest(&mut self, slot: Slot, channel: &Channel, now: Millis) {
        self.interests.remove(slot, channel);
        self.straying.insert(slot, now + STRAYING_MS);
    }

    /// A subscription that came to nothing: the owner may have heard of it all the same.
    fn forget_joining(
        &mut self,
        slot: Slot,
        channel: &Channel,
        client: ClientId,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        interest.joining.remove(&client);
        let detach = interest.is_empty();
        if detach {
            self.drop_interest(slot, channel, turn.now);
        }
        if let Some(owner) = turn.ownership.world().placement.owner(slot) {
            let channel = channel.clone();
            let frame = PeerFrame::Unsubscribe { slot, channel, client, detach };
            turn.out.send(owner, Lane::Data, frame);
        }
    }

    fn deliver(
        &mut self,
        slot: Slot,
        channel: &Channel,
        follows: Position,
        publication: Publication,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        if interest.subscribers.is_empty() {
            return;
        }
        let Some(position) = interest.position else {
            // This node's configuration knows the channel as ephemeral: no position is shown.
            let (message, position, turns_from) = (publication.message, None, None);
            let body = DeliveryBody::Publication { message, position, turns_from };
            return self.hand_on(slot, channel.clone(), body, turn);
        };
        let known = publication.epoch < position.epoch
            || (publication.epoch == position.epoch && publication.offset <= position.offset);
        if known || interest.catching_up.is_some() {
            return;
        }
        if follows != position {
            return self.catch_up(slot, channel, turn);
        }
        self.step(slot, channel, publication, turn);
    }

    /// Hands on a publication that continues the channel's position.
    fn step(
        &mut self,
        slot: Slot,
        channel: &Channel,
        publication: Publication,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        let position = publication.position();
        let held = interest.position.replace(position);
        let turns_from = held.filter(|held| held.epoch != position.epoch);
        let message = publication.message;
        let body = DeliveryBody::Publication { message, position: Some(position), turns_from };
        self.hand_on(slot, channel.clone(), body, turn);
    }

    fn hand_on(&mut self, slot: Slot, channel: Channel, body: DeliveryBody, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        let shards = interest.shards();
        if !shards.is_empty() {
            turn.actions
                .push(Action::Deliver { shards, delivery: Arc::new(Delivery { channel, body }) });
        }
    }

    /// Asks the owner for what lies behind the channel's position.
    fn catch_up(&mut self, slot: Slot, channel: &Channel, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        let (Some(position), None) = (interest.position, interest.catching_up) else { return };
        let (options, query) = (interest.options, Query::Resume(position));
        let number = self.ask(slot, channel.clone(), options, query, Purpose::CatchUp, turn);
        if let Some(interest) = self.interests.get_mut(slot, channel) {
            interest.catching_up = number;
        }
    }

    fn caught_up(
        &mut self,
        slot: Slot,
        channel: Channel,
        number: u64,
        position: Option<Position>,
        publications: Vec<Publication>,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        if interest.catching_up != Some(number) {
            return;
        }
        interest.catching_up = None;
        let Some(position) = position else { return self.lose(slot, channel, turn) };
        for publication in publications {
            self.step(slot, &channel, publication, turn);
        }
        if let Some(interest) = self.interests.get_mut(slot, &channel) {
            interest.position = Some(position);
        }
    }

    /// Ends all subscriptions of a channel here: their clients subscribe again and recover.
    fn lose(&mut self, slot: Slot, channel: Channel, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        if let Some(number) = interest.catching_up.take() {
            self.questions.remove(&number);
        }
        let shards = interest.shards();
        let clients: Vec<ClientId> = interest.subscribers.keys().copied().collect();
        for client in clients {
            interest.remove(client);
        }
        interest.position = None;
        if interest.is_empty() {
            self.drop_interest(slot, &channel, turn.now);
        }
        if !shards.is_empty() {
            let delivery = Arc::new(Delivery { channel, body: DeliveryBody::Lost });
            turn.actions.push(Action::Deliver { shards, delivery });
        }
    }

    fn compare(
        &mut self,
        from: Incarnation,
        slot: Slot,
        equal: bool,
        tops: u64,
        turn: &mut Turn<'_>,
    ) {
        let promised = turn.ownership.promised(slot);
        if equal && self.interests.is_empty(slot) {
            // Another owner may have taken over what this node wanted when it was asked, or may
            // hear a question late.
            let known = promised == Epoch::NONE || promised.owner == from;
            let straying = self.straying.get(&slot).is_some_and(|until| turn.now < *until);
            if known && !straying {
                self.told.remove(&slot);
                self.straying.remove(&slot);
            }
        } else if !equal {
            for (channels, span) in in_parts(self.interests.of(slot)) {
                let interest = SlotInterest { slot, channels };
                turn.out.send(from, Lane::Data, PeerFrame::Interest { interest, span });
            }
        } else if self.interests.tops(slot).is_some_and(|ours| ours != tops) {
            for channel in self.interests.followed(slot) {
                self.catch_up(slot, &channel, turn);
            }
            for channel in self.interests.of_users(slot) {
                self.ask_user(slot, &channel, turn);
            }
        }
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
        for number in asked.map(|(number, _)| *number).collect::<Vec<_>>() {
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
            (question.asked != Some(owner) || renewed == Some(owner)).then_some((*number, owner))
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
                (*number, question.slot)
            })
            .collect();
        for (number, slot) in due {
            if let Some(owner) = placement.owner(slot) {
                self.send_question(number, owner, turn);
            }
        }
        self.compare_some(turn);
    }

    fn expire_questions(&mut self, turn: &mut Turn<'_>) {
        let old = self.questions.iter().filter(|(_, q)| turn.now.since(q.since) >= QUESTION_MS);
        for number in old.map(|(number, _)| *number).collect::<Vec<_>>() {
            let Some(question) = self.questions.remove(&number) else { continue };
            match question.purpose {
                Purpose::Read(request) => fail(request, ErrorCode::Internal, turn),
                Purpose::Subscribe { request, client, .. } => {
                    self.forget_joining(question.slot, &question.channel, client, turn);
                    fail(request, ErrorCode::Internal, turn);
                }
                Purpose::CatchUp => self.lose(question.slot, question.channel, turn),
                Purpose::User => {
                    self.forget_asking(number, question.slot, &question.channel);
                }
            }
        }
    }

    /// Every [`COMPARE_MS`] tells each owner the fingerprint of this node's interest.
    fn compare_some(&mut self, turn: &mut Turn<'_>) {
        if self.compare_from == Slot(0) && turn.now.since(self.compared) < COMPARE_MS {
            return;
        }
        let told = self.told.range(self.compare_from..).take(COMPARED_PER_TICK);
        let slots: Vec<Slot> = told.copied().collect();
        self.compare_from = match slots.last() {
            Some(last) if slots.len() == COMPARED_PER_TICK => Slot(last.0.saturating_add(1)),
            _ => Slot(0),
        };
        if self.compare_from == Slot(0) {
            self.compared = turn.now;
        }
        let mut digests: BTreeMap<Incarnation, Vec<(Slot, u64)>> = BTreeMap::new();
        for slot in slots {
            if let Some(owner) = turn.ownership.world().placement.owner(slot) {
                digests.entry(owner).or_default().push((slot, self.interests.digest(slot)));
            }
        }
        for (owner, slots) in digests {
            turn.out.send(owner, Lane::Data, PeerFrame::Digest { slots });
        }
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

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Subscribed { position, recovered, publications, user } => {
            Reply::Subscribed { position, recovered, publications, user }
        }
        Answer::History { publications, position } => Reply::History { publications, position },
        Answer::Presence(present) => Reply::Presence(present),
        Answer::PresenceStats { clients, users } => Reply::PresenceStats { clients, users },
        Answer::Attributes(attributes) => Reply::Attributes(attributes),
        Answer::User(UserState::Status(status)) => Reply::Status(status),
        // Only the router asks for it.
        Answer::User(_) => Reply::Failed(ErrorCode::Internal),
        Answer::Failed(code) => Reply::Failed(code),
    }
}
