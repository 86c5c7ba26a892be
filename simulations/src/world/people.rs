//! Users who come and go, and those who watch whether they are there.
use rand::Rng;

use orbweb::delivery::event::{Ask, DeliveryBody, Recover};
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{ClientId, Incarnation};
use orbweb::protocol::message::Message;
use orbweb::protocol::user::{Status, UserState};

use super::{Due, World};
use crate::checkers::attendance::{OFFLINE_AFTER_MS, Person};
use crate::clients::Asked;

/// How often each looks around.
const LOOK_MS: u64 = 100;

fn inbox(person: usize) -> Channel {
    Channel::inbox(&format!("p{person}")).expect("a short name")
}

fn person_of_inbox(channel: &Channel) -> Option<usize> {
    channel.inbox_user()?.strip_prefix('p')?.parse().ok()
}

/// Whose status a channel tells.
fn person_of(channel: &Channel) -> Option<usize> {
    channel.status_user()?.strip_prefix('p')?.parse().ok()
}

impl World {
    pub(super) fn meet_people(&mut self) {
        for person in 0..self.swarm.people {
            self.clients.people.push(Person::default());
            self.clients.people[person].go(0, 500);
            self.plan(Due::Person(person), 500);
        }
    }

    /// Somebody looks around: a lost connection is noticed, a new one made, or ended.
    pub(super) fn person(&mut self, person: usize) -> anyhow::Result<()> {
        self.plan(Due::Person(person), LOOK_MS);
        self.watch(person)?;
        let now = self.now;
        let reaches =
            |node: Incarnation| self.nodes.contains_key(&node) && !self.outcasts.contains(&node);
        let Person { at, connected, back_at, .. } = self.clients.people[person];
        let hangs = |node: Incarnation| self.nodes.get(&node).is_some_and(|n| n.paused.is_some());
        let hung = at.is_some_and(|(node, _)| hangs(node));
        self.clients.people[person].hang(hung, now);
        match at {
            Some((node, _)) if !reaches(node) => {
                // Those who were on their way in try again; else it may be for long.
                let long = connected && self.random.random_range(0..3) == 0;
                self.leave(person, long);
            }
            Some((node, client)) if connected && !self.quiet && self.random.random_bool(0.07) => {
                self.ask(node, inbox(person), Ask::Unsubscribe { client }, None)?;
                let long = self.random.random_range(0..3) == 0;
                self.leave(person, long);
            }
            Some(_) => {}
            None if back_at.is_some_and(|at| at <= now) && !self.quiet => {
                let Some(node) = self.any_up() else { return Ok(()) };
                let client = ClientId(self.random.random());
                self.clients.people[person].come(node, client, now);
                let ask = Ask::Subscribe { client, info: None, recover: Recover::No };
                self.ask(node, inbox(person), ask, Some(Asked::Attend { person, client }))?;
            }
            None => {}
        }
        Ok(())
    }

    fn leave(&mut self, person: usize, long: bool) {
        let long_ms = if long { OFFLINE_AFTER_MS + 1_500 } else { 0 };
        let back_at = self.now + long_ms + self.random.random_range(50..1_500);
        self.clients.people[person].go(self.now, back_at);
        self.log(format_args!("p{person} is gone until {back_at}"));
    }

    /// Who watches looks for another node when the one before is gone.
    fn watch(&mut self, person: usize) -> anyhow::Result<()> {
        let watched = self.clients.people[person].watched;
        let reaches =
            |node: Incarnation| self.nodes.contains_key(&node) && !self.outcasts.contains(&node);
        if watched.is_some_and(|(node, _)| reaches(node)) {
            return Ok(());
        }
        let Some(node) = self.any_up() else { return Ok(()) };
        let client = ClientId(self.random.random());
        self.clients.people[person].watched = Some((node, client));
        self.clients.people[person].told = None;
        let ask = Ask::Subscribe { client, info: None, recover: Recover::No };
        let asked = Asked::Watch { person, client };
        self.ask(node, inbox(person).status_of_inbox(), ask, Some(asked))
    }

    pub(super) fn attended(&mut self, person: usize, client: ClientId, done: bool) {
        let now = self.now;
        if self.clients.people[person].at.is_none_or(|(_, at)| at != client) {
            return;
        }
        if done {
            self.clients.people[person].arrive(now);
            self.outcome.mark("user connected", 1);
            self.log(format_args!("p{person} is connected"));
        } else {
            self.clients.people[person].go(now, now + 100);
        }
    }

    pub(super) fn watching(
        &mut self,
        (person, client): (usize, ClientId),
        user: Option<UserState>,
    ) -> anyhow::Result<()> {
        let watched = &mut self.clients.people[person].watched;
        match user {
            _ if watched.is_none_or(|(_, at)| at != client) => {}
            Some(UserState::Status(status)) => self.told(person, status.is_online())?,
            Some(other) => anyhow::bail!("I9: a status channel tells {other:?}"),
            None => *watched = None,
        }
        Ok(())
    }

    /// Something was delivered to people on a node, or to those who watch there.
    pub(super) fn people_told(
        &mut self,
        node: Incarnation,
        channel: &Channel,
        body: &DeliveryBody,
    ) -> anyhow::Result<()> {
        if let (Some(person), DeliveryBody::Lost) = (person_of_inbox(channel), body)
            && self.clients.people[person].at.is_some_and(|(at, _)| at == node)
        {
            // Its connection is closed, for it to come back.
            let now = self.now;
            self.clients.people[person].go(now, now + 50);
        }
        let (Some(person), DeliveryBody::Publication { message, .. }) = (person_of(channel), body)
        else {
            return Ok(());
        };
        let told = &self.clients.people[person];
        // Before the answer to its subscription nobody is told.
        if told.watched.is_none_or(|(at, _)| at != node) || told.told.is_none() {
            return Ok(());
        }
        self.outcome.mark("status told", 1);
        self.told(person, message_says_online(message))
    }

    fn told(&mut self, person: usize, online: bool) -> anyhow::Result<()> {
        self.log(format_args!("who watches p{person} is told that online is {online}"));
        // Where a live node may be taken for dead, so may its users be for away.
        let strict = self.swarm.scenario.is_strict();
        let now = self.now;
        self.clients.people[person].tell(online, now, strict)
    }

    /// Asks for everybody's status, to be compared with what is so.
    pub(super) fn ask_status(&mut self) -> anyhow::Result<()> {
        for person in 0..self.swarm.people {
            let Some(node) = self.any_up() else { return Ok(()) };
            let asked = Asked::Status { person };
            self.ask(node, inbox(person).status_of_inbox(), Ask::Status, Some(asked))?;
        }
        Ok(())
    }

    pub(super) fn check_status(&mut self, person: usize, status: Status) -> anyhow::Result<()> {
        self.outcome.mark("status checked", 1);
        self.clients.people[person].check_end(&format!("p{person}"), status.is_online())
    }
}

fn message_says_online(message: &Message) -> bool {
    message.data == Status::Online.to_json()
}
