//! What may happen in a run, by name.
use std::fmt;

use clap::ValueEnum;

/// What may happen in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// Nodes join and leave while clients publish; nothing fails.
    Moves,
    /// Nodes crash, pause and restart, one at a time and the next when the copies are back, over
    /// links that lose nothing: nothing is lost, nothing comes twice, every position resumes, and
    /// every read is current.
    Crashes,
    /// Nodes join and leave, frames are lost, links are cut, nodes pause and are taken for dead; but
    /// nobody dies, so nothing that was acknowledged may be lost.
    Storms,
    /// Everything at once.
    Chaos,
    /// Whole nodes: nothing bad happens.
    Smoke,
    /// Whole nodes: owners lose their power, and come back after repair.
    KillOwner,
    /// Whole nodes: nodes of clients lose their power, and come back at once.
    KillGateway,
    /// Whole nodes: who claims a slot loses its power amid that.
    KillClaimant,
    /// Whole nodes: each leaves and comes back.
    RollingRestart,
    /// Whole nodes: leaving ones lose their power.
    KillLeaving,
    /// Whole nodes: one more, and another.
    Join,
    /// Whole nodes: five more at once.
    JoinFive,
    /// Whole nodes: all clients are cut off at once, and come back.
    ReconnectStorm,
    /// Whole nodes: some clients stand still for a while.
    SlowClients,
    /// Whole nodes: one is cut off.
    IsolateOne,
    /// Whole nodes: one hears nothing, another is heard by nobody.
    OneWay,
    /// Whole nodes: two are cut off from each other, again and again.
    FlappingLink,
    /// Whole nodes: what two say to each other takes long.
    SlowLink,
    /// Whole nodes: two parts are cut off from each other.
    SplitHalves,
    /// Whole nodes: three parts are cut off from each other.
    ThreeWay,
    /// Whole nodes: two parts are cut off from each other, and each takes more than is kept.
    Overflow,
    /// Whole nodes: one is cut off, and later an owner loses its power.
    Aftermath,
    /// Whole nodes: two parts that only one node reaches both of.
    Bridge,
    /// Whole nodes: a bad network.
    Loss,
    /// Whole nodes: a very bad network.
    HeavyLoss,
    /// Whole nodes: a network that repeats and overtakes.
    Disorder,
    /// Whole nodes: the sockets of one stand still.
    Standstill,
    /// Whole nodes: processes are stopped, and go on.
    Pause,
    /// Whole nodes: processes get little of the CPU.
    Starvation,
    /// Whole nodes: all clients in one channel.
    HotChannel,
    /// Whole nodes: owners of what is kept of users lose their power.
    Records,
    /// Whole nodes: clocks that differ, and are set.
    Clocks,
    /// Whole nodes: beside another cluster.
    Strangers,
    /// Whole nodes: newcomers that are configured otherwise.
    Misfits,
    /// Whole nodes: one after the other comes back in another version.
    Upgrade,
    /// Whole nodes: a plan of many faults, drawn from the seed.
    Swarm,
}

impl Scenario {
    /// Those of the cores alone.
    pub(crate) const CORES: [Self; 4] = [Self::Moves, Self::Crashes, Self::Storms, Self::Chaos];
    /// Those of whole nodes.
    pub(crate) const WHOLE: [Self; 32] = [
        Self::Smoke,
        Self::KillOwner,
        Self::KillGateway,
        Self::KillClaimant,
        Self::RollingRestart,
        Self::KillLeaving,
        Self::Join,
        Self::JoinFive,
        Self::ReconnectStorm,
        Self::SlowClients,
        Self::IsolateOne,
        Self::OneWay,
        Self::FlappingLink,
        Self::SlowLink,
        Self::SplitHalves,
        Self::ThreeWay,
        Self::Overflow,
        Self::Aftermath,
        Self::Bridge,
        Self::Loss,
        Self::HeavyLoss,
        Self::Disorder,
        Self::Standstill,
        Self::Pause,
        Self::Starvation,
        Self::HotChannel,
        Self::Records,
        Self::Clocks,
        Self::Strangers,
        Self::Misfits,
        Self::Upgrade,
        Self::Swarm,
    ];

    pub(crate) fn is_whole(self) -> bool {
        Self::WHOLE.contains(&self)
    }

    /// Whether two parts of the cluster may serve unknown to each other. In a swarm that is up to its
    /// plan.
    pub(crate) fn splits(self) -> bool {
        matches!(
            self,
            Self::IsolateOne
                | Self::OneWay
                | Self::SplitHalves
                | Self::ThreeWay
                | Self::Overflow
                | Self::Aftermath
                | Self::HeavyLoss
                | Self::Standstill
                | Self::Pause
                | Self::Starvation
        )
    }

    /// Whether never two nodes serve a slot at once, and nothing that was acknowledged dies.
    pub(crate) fn is_strict(self) -> bool {
        matches!(self, Self::Moves | Self::Crashes)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is hidden from the command line");
        f.write_str(value.get_name())
    }
}
