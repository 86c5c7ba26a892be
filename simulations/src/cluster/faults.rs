//! What scenarios do to the network and to the clients' connections.
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use super::brake::Brake;
use super::conditions::{Conditions, Cut, Weather};
use super::setup::name;
use super::story::Mark;
use super::{Cluster, clock};

/// Of a thousand milliseconds a machine's monotonic clock may be so many off.
const RATE_OFF: i64 = 100;
/// Milliseconds by which a wall clock may be off.
const WALL_OFF_MS: i64 = 3_600_000;

impl Cluster {
    /// All connections of clients are cut at once. Nodes aren't told if they are `half_open`.
    pub(crate) fn cut_clients(&self, half_open: bool) {
        self.doors.cut(half_open);
        self.trace.tell(format_args!("all clients are cut off, half open: {half_open}"));
        self.story.tell(Mark::ClientsCut);
    }

    /// Some of the clients neither read nor send any more, and keep their connections.
    pub(crate) fn still_clients(&mut self) {
        let mut clients: Vec<usize> = (0..self.setup.clients).collect();
        clients.shuffle(&mut self.random);
        clients.truncate(self.random.random_range(1..=self.setup.clients / 2));
        self.trace.tell(format_args!("{clients:?} stand still"));
        self.still.send_replace(clients.into_iter().collect());
    }

    /// They go on.
    pub(crate) fn wake_clients(&self) {
        self.trace.tell("all clients go on");
        self.still.send_replace(BTreeSet::new());
    }

    /// Each machine gets clocks of its own, before anything runs on it.
    pub(super) fn skew_clocks(&mut self) {
        for machine in 0..clock::MACHINES {
            clock::set_rate(machine, self.random.random_range(-RATE_OFF..=RATE_OFF));
            self.set_wall_clock(machine);
        }
    }

    /// A machine's wall clock is set anew.
    pub(crate) fn set_wall_clock(&mut self, machine: usize) {
        let ahead_ms = self.random.random_range(-WALL_OFF_MS..=WALL_OFF_MS);
        clock::set_wall(machine, ahead_ms);
        self.trace
            .tell(format_args!("by the clock of {} it is {ahead_ms} ms later", name(machine)));
    }

    /// A node's process is stopped.
    pub(crate) fn stop(&self, node: usize) {
        self.change(|conditions| _ = conditions.stopped.insert(node));
        self.trace.tell(format_args!("{} is stopped", name(node)));
    }

    /// Two nodes can't reach each other.
    pub(crate) fn cut_link(&self, one: usize, other: usize) {
        self.change(|conditions| conditions.cut_link(one, other));
        self.trace.tell(format_args!("{} and {} are cut off", name(one), name(other)));
    }

    /// What two nodes say to each other takes so much longer.
    pub(crate) fn slow_link(&self, one: usize, other: usize, more_ms: u64) {
        self.change(|conditions| conditions.slow_link(one, other, more_ms));
        let names = (name(one), name(other));
        self.trace.tell(format_args!("{more_ms} ms more between {} and {}", names.0, names.1));
    }

    /// The owner of some channel.
    pub(crate) async fn some_owner(&mut self) -> anyhow::Result<usize> {
        let number = self.random.random_range(0..self.setup.channels);
        self.owner_of(self.setup.channel(number).as_str()).await
    }

    /// Two different nodes.
    pub(crate) fn two(&mut self) -> (usize, usize) {
        let mut nodes = self.running();
        nodes.shuffle(&mut self.random);
        (nodes[0], nodes[1])
    }

    /// Cuts a part of the cluster off from the rest.
    pub(crate) fn cut(&self, part: &[usize], cut: Cut) {
        self.change(|conditions| conditions.cut(part, self.setup.machines(), cut));
        let names: Vec<String> = part.iter().map(|node| name(*node)).collect();
        self.trace.tell(format_args!("{names:?} are cut off: {cut:?}"));
    }

    /// Leaves things as they are for so many milliseconds, but not for so long that a client could
    /// miss more than one answer carries.
    pub(crate) async fn hold_ms(&mut self, range: RangeInclusive<u64>) {
        let drawn = self.random.random_range(range);
        sleep(Duration::from_millis(drawn.min(self.setup.outage_ms_max()))).await;
    }

    /// Everything goes everywhere again, as fast as the weather lets it.
    pub(crate) fn heal(&self) {
        self.change(|conditions| *conditions = Conditions::fair(conditions.weather));
        self.trace.tell("all is healed");
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.change(|conditions| conditions.weather = weather);
        self.trace.tell(format_args!("{weather:?}"));
    }

    /// All that becomes of datagrams from now on.
    pub(crate) fn set_conditions(&self, conditions: Conditions) {
        let before = self.network.conditions();
        if conditions != before {
            self.network.set_conditions(conditions.clone());
            self.let_stand_still(&before.stopped, &conditions.stopped);
            self.trace.event(format_args!("{conditions:?}"));
            self.story.tell(Mark::Conditions(conditions));
        }
    }

    fn let_stand_still(&self, before: &BTreeSet<usize>, now: &BTreeSet<usize>) {
        let brakes = self.brakes.borrow();
        now.difference(before).filter_map(|node| brakes.get(node)).for_each(Brake::pull);
        before.difference(now).filter_map(|node| brakes.get(node)).for_each(Brake::release);
        self.stopped.send_if_modified(|told| {
            told.clone_from(now);
            before != now
        });
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Conditions)) {
        let mut conditions = self.network.conditions();
        change(&mut conditions);
        self.set_conditions(conditions);
    }
}
