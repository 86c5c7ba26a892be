//! What a cluster costs as it grows: the cores of some nodes from their start on, at rest, while
//! clients publish, when one dies and when one joins. It is checked that all ends where it belongs
//! and that nothing fails; the rest is for other runs.
use std::fmt;
use std::time::Instant;

use rand::Rng as _;

use super::timeline::Timeline;
use super::{World, all_channels};
use crate::membership::State;
use crate::options::Swarm;
use crate::scenario::Scenario;

/// Slots of these clusters, as nodes have them by default.
const SLOTS: u16 = 16_384;
/// Milliseconds of the phases in which nothing changes.
const REST_MS: u64 = 5_000;
const PUBLISH_EVERY_MS: u64 = 5;
/// How often it is looked whether all is where it belongs.
const LOOK_EVERY_MS: u64 = 20;
/// How long that may take.
const CONVERGED_WITHIN_MS: u64 = 60_000;

/// What was sent between nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// A change of who is there, until every slot has its owner and its copies.
#[derive(Debug)]
struct Change {
    virtual_ms: u64,
    claims: u64,
    sent: Sent,
}

/// One size. Printed as a line of [`HEADER`]'s table.
#[derive(Debug)]
pub(crate) struct Growth {
    nodes: usize,
    start: Change,
    /// Of all nodes in [`REST_MS`].
    idle: Sent,
    /// Of this machine, for one node and one virtual second, the simulation included.
    idle_cpu_us: f64,
    frames_a_publication: f64,
    death: Change,
    join: Change,
}

/// The columns of [`Growth`].
pub(crate) const HEADER: &str = "\
| nodes | start, s | idle frames a node, 1/s | idle bytes a node, 1/s | idle CPU a node, \u{b5}s/s | frames a publication | death: s | claims | frames | KiB | join: s | claims | frames | KiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node_seconds = self.nodes as f64 * REST_MS as f64 / 1_000.0;
        let rate = |all: u64| all as f64 / node_seconds;
        write!(f, "| {} | {:.2} ", self.nodes, self.start.virtual_ms as f64 / 1_000.0)?;
        write!(f, "| {:.1} | {:.0} ", rate(self.idle.frames), rate(self.idle.bytes))?;
        write!(f, "| {:.0} | {:.2} ", self.idle_cpu_us, self.frames_a_publication)?;
        for Change { virtual_ms, claims, sent } in [&self.death, &self.join] {
            let (seconds, kib) = (*virtual_ms as f64 / 1_000.0, sent.bytes / 1_024);
            write!(f, "| {seconds:.2} | {claims} | {} | {kib} ", sent.frames)?;
        }
        write!(f, "|")
    }
}

/// Measures a cluster of so many nodes.
pub(crate) fn grow(nodes: usize, seed: u64) -> anyhow::Result<Growth> {
    let swarm = Swarm {
        nodes,
        slots: SLOTS,
        copies: 2,
        channels: 100,
        brief: 0,
        fleeting: 0,
        padding: 0,
        latency_ms: 2,
        bulk_ms: 0,
        ..Swarm::draw(Scenario::Moves, seed)
    };
    World { checks: false, ..World::new(swarm, seed, Timeline::default()) }.grow()
}

impl World {
    fn grow(mut self) -> anyhow::Result<Growth> {
        let nodes = self.swarm.nodes;
        let start = self.change(|world| {
            (0..nodes).try_for_each(|number| world.start(number, number == 0).map(drop))
        })?;
        for channel in all_channels(&self.swarm) {
            for _ in 0..2 {
                self.add_subscriber(&channel)?;
            }
        }
        self.advance(self.now + REST_MS)?;

        let (before, began) = (self.sent, Instant::now());
        self.advance(self.now + REST_MS)?;
        let idle = self.sent_since(before);
        let micros = began.elapsed().as_secs_f64() * 1e6;
        let idle_cpu_us = micros / nodes as f64 / (REST_MS as f64 / 1_000.0);

        let before = self.sent;
        let publications = REST_MS / PUBLISH_EVERY_MS;
        for _ in 0..publications {
            self.advance(self.now + PUBLISH_EVERY_MS)?;
            let Some(node) = self.any_up() else { break };
            let channel = self.any_channel();
            self.publish_on(node, channel, false)?;
        }
        let frames = self.sent_since(before).frames.saturating_sub(idle.frames);
        let frames_a_publication = frames as f64 / publications as f64;
        self.advance(self.now + REST_MS)?;

        let dies = self.up()[self.random.random_range(0..nodes)];
        let death = self.change(|world| {
            world.remove(dies);
            Ok(())
        })?;
        self.advance(self.now + REST_MS)?;
        let join = self.change(|world| world.start(nodes, false).map(drop))?;
        // Some subscribers publish, too, when they subscribe.
        let (acknowledged, failed) = (self.clients.acknowledged_count(), self.clients.failed);
        anyhow::ensure!(
            acknowledged >= publications && failed == 0,
            "{publications} and more were published, {acknowledged} acknowledged, {failed} failed"
        );
        Ok(Growth { nodes, start, idle, idle_cpu_us, frames_a_publication, death, join })
    }

    /// Does something and waits until all nodes are up and everything is where it belongs.
    fn change(
        &mut self,
        what: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Change> {
        let begun = |world: &Self| -> u64 {
            world.nodes.values().map(|node| node.core.ownership().counts().begun).sum()
        };
        let (began, sent) = (self.now, self.sent);
        what(self)?;
        let claims = begun(self);
        loop {
            self.advance(self.now + LOOK_EVERY_MS)?;
            let virtual_ms = self.now - began;
            let all_up = self.nodes.values().all(|node| node.state == State::Up);
            match self.check_converged() {
                Ok(()) if all_up => {
                    let claims = begun(self) - claims;
                    return Ok(Change { virtual_ms, claims, sent: self.sent_since(sent) });
                }
                Err(why) if virtual_ms > CONVERGED_WITHIN_MS => return Err(why),
                _ => anyhow::ensure!(virtual_ms <= CONVERGED_WITHIN_MS, "not all are up"),
            }
        }
    }

    fn sent_since(&self, before: Sent) -> Sent {
        let Sent { frames, bytes } = self.sent;
        Sent { frames: frames - before.frames, bytes: bytes - before.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_costs_as_many_frames_among_ten_nodes_as_among_four() {
        let [four, ten] = [4, 10].map(|nodes| grow(nodes, 1).expect("it converges"));
        let [few, many] = [&four, &ten].map(|growth| growth.frames_a_publication);
        assert!(few > 1.0 && many < 2.0 * few, "{few} and {many}");
        assert!(ten.death.claims > 0 && ten.join.claims > 0, "{ten:?}");
    }
}
