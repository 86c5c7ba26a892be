//! Questions to the owners of channels: asked, asked again elsewhere, and what their answers mean.
//! The router keeps them and says when; what an answer brings goes to positions, users or a client.
use std::collections::BTreeMap;

use super::{ELSEWHERE_MS, Router, Turn, fail, redirect};
use crate::delivery::event::{Action, Reply, RequestId};
use crate::delivery::interest::Subscriber;
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{ClientId, Epoch, Incarnation, Slot};
use crate::protocol::message::ClientInfo;
use crate::protocol::peer::{Answer, Lane, PeerFrame, Query};
use crate::protocol::time::Millis;
use crate::protocol::user::UserState;

/// Questions of this node's clients that may wait for answers.
pub const QUESTIONS_MAX: usize = 65_536;
/// Bytes that they may carry: who subscribes says who it is.
pub const QUESTION_BYTES_MAX: usize = 64 << 20;
/// When a question is given up: as for operations.
pub const QUESTION_MS: u64 = crate::delivery::operations::OPERATION_MS;
/// First pause before an unanswered question is asked again; it doubles.
const RETRY_MS: u64 = 250;

/// What an answer is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
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

#[derive(Debug)]
pub(super) struct Question {
    pub(super) slot: Slot,
    channel: Channel,
    options: ChannelOptions,
    query: Query,
    purpose: Purpose,
    pub(super) asked: Option<Incarnation>,
    /// The highest epoch promised when it was asked last: who answers has at least this one.
    epoch: Epoch,
    since: Millis,
    pub(super) sent: Millis,
    pub(super) retry_ms: u64,
}

/// Questions that wait for their answers, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: BTreeMap<u64, Question>,
    bytes: usize,
}

impl Questions {
    /// Whether there is room for one more.
    fn takes(&self, query: &Query) -> bool {
        self.waiting.len() < QUESTIONS_MAX && self.bytes + query.bytes() <= QUESTION_BYTES_MAX
    }

    fn insert(&mut self, number: u64, question: Question) {
        self.bytes += question.query.bytes();
        self.waiting.insert(number, question);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Question> {
        let question = self.waiting.remove(&number)?;
        self.bytes -= question.query.bytes();
        Some(question)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Question> {
        self.waiting.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Question)> {
        self.waiting.iter().map(|(number, question)| (*number, question))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Question)> {
        self.waiting.iter_mut().map(|(number, question)| (*number, question))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Router {
    pub(super) fn ask(
        &mut self,
        slot: Slot,
        channel: Channel,
        options: ChannelOptions,
        query: Query,
        purpose: Purpose,
        turn: &mut Turn<'_>,
    ) -> Option<u64> {
        if !self.questions.takes(&query) {
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

    pub(super) fn send_question(&mut self, number: u64, owner: Incarnation, turn: &mut Turn<'_>) {
        let Some(question) = self.questions.get_mut(number) else { return };
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

    pub(super) fn handle_not_owner(
        &mut self,
        from: Incarnation,
        number: u64,
        owner: Option<Incarnation>,
        turn: &mut Turn<'_>,
    ) {
        let Some(question) = self.questions.get_mut(number) else { return };
        if question.asked != Some(from) {
            return;
        }
        match redirect(question.slot, from, owner, turn) {
            Some(owner) => self.send_question(number, owner, turn),
            None => (question.sent, question.retry_ms) = (turn.now, ELSEWHERE_MS),
        }
    }

    pub(super) fn handle_answer(
        &mut self,
        from: Incarnation,
        number: u64,
        answer: Answer,
        turn: &mut Turn<'_>,
    ) {
        let Some(question) = self.questions.get_mut(number) else { return };
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
                self.questions.remove(number);
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
                interest.remove_joining(client);
                if interest.subscribers.is_empty() {
                    // The reply tells the only one.
                    interest.user = user.clone();
                    interest.turns = false;
                }
                let info = info.map(Box::new);
                interest.add(client, Subscriber { shard: request.shard, info });
                self.questions.remove(number);
                self.take_user(slot, &channel, user.clone(), turn);
                let reply = Reply::Subscribed { position, recovered, publications, user };
                turn.actions.push(Action::Reply { to: request, reply });
            }
            (Purpose::User, Answer::User(user)) => {
                self.forget_asking(number, slot, &channel);
                self.take_user(slot, &channel, user, turn);
            }
            (Purpose::User, _) => self.forget_asking(number, slot, &channel),
            (Purpose::Subscribe { request, client, .. }, answer) => {
                self.questions.remove(number);
                self.forget_joining(slot, &channel, client, turn);
                turn.actions.push(Action::Reply { to: request, reply: reply(answer) });
            }
            (Purpose::Read(request), answer) => {
                self.questions.remove(number);
                turn.actions.push(Action::Reply { to: request, reply: reply(answer) });
            }
            (Purpose::CatchUp, _) => {
                self.questions.remove(number);
                self.lose(slot, channel, turn);
            }
        }
    }

    pub(super) fn expire_questions(&mut self, turn: &mut Turn<'_>) {
        let old = self.questions.iter().filter(|(_, q)| turn.now.since(q.since) >= QUESTION_MS);
        for number in old.map(|(number, _)| number).collect::<Vec<_>>() {
            let Some(question) = self.questions.remove(number) else { continue };
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
