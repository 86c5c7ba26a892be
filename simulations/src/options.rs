//! What a run is made of: the scenario and seed from the command line, sizes and fault rates drawn
//! from the seed.
use std::fmt;
use std::ops::Range;

use clap::{Parser, ValueEnum};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Simulations of Orbweb's cores.
#[derive(Parser, Debug)]
pub(crate) struct Arguments {
    /// Which scenario; all of them if not given.
    #[arg(long)]
    pub(crate) scenario: Option<Scenario>,
    /// One seed, to replay it.
    #[arg(long, conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// How many seeds, from 0 or from `--from`.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Switch a rule of the cores off (needs a build with `--cfg mutants`); a check must then fail.
    #[arg(long)]
    pub(crate) without: Option<String>,
    /// Print the names of the rules that can be switched off.
    #[arg(long)]
    pub(crate) rules: bool,
    /// Print every event.
    #[arg(long)]
    pub(crate) trace: bool,
}

impl Arguments {
    pub(crate) fn seeds(&self) -> Range<u64> {
        match self.seed {
            Some(seed) => seed..seed + 1,
            None => self.from..self.from + self.seeds,
        }
    }
}

/// What may happen in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// Nodes join and leave while clients publish; nothing fails.
    Moves,
    /// Nodes crash and restart, frames are lost, nodes are taken for dead that aren't.
    Chaos,
    /// Nodes join and leave, frames are lost, links are cut, nodes pause and are taken for dead; but
    /// nobody dies, so nothing that was acknowledged may be lost.
    Storms,
}

impl Scenario {
    pub(crate) const ALL: [Self; 3] = [Self::Moves, Self::Chaos, Self::Storms];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Moves => "moves",
            Self::Chaos => "chaos",
            Self::Storms => "storms",
        })
    }
}

/// Sizes and rates of one run. Each seed draws its own subset of the faults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swarm {
    pub(crate) scenario: Scenario,
    pub(crate) nodes: usize,
    pub(crate) slots: u16,
    pub(crate) channels: usize,
    /// Virtual milliseconds with faults.
    pub(crate) faulty_ms: u64,
    /// Milliseconds between two publications of the run.
    pub(crate) publish_every_ms: u64,
    pub(crate) latency_ms: u64,
    /// Frames lost, in 10,000.
    pub(crate) loss: u32,
    /// Milliseconds between two crashes; 0 = none.
    pub(crate) crash_every_ms: u64,
    /// Milliseconds between two joins or leaves; 0 = none.
    pub(crate) move_every_ms: u64,
    /// Milliseconds between two false suspicions; 0 = none.
    pub(crate) suspect_every_ms: u64,
    /// Milliseconds between two subscribers that go to another node with their position.
    pub(crate) roam_every_ms: u64,
    /// Milliseconds between two cuts of a link; 0 = none.
    pub(crate) cut_every_ms: u64,
    /// Milliseconds between two pauses of a node; 0 = none.
    pub(crate) pause_every_ms: u64,
}

impl Swarm {
    pub(crate) fn draw(scenario: Scenario, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let mut maybe = |chance: f64, range: Range<u64>| {
            let drawn = random.random_range(range);
            if random.random_bool(chance) { drawn } else { 0 }
        };
        let chaos = scenario == Scenario::Chaos;
        let storms = scenario == Scenario::Storms;
        let rate = |chance: f64| if chaos { chance } else { 0.0 };
        let faulty = |chance: f64| if chaos || storms { chance } else { 0.0 };
        let stormy = |chance: f64| if storms { chance } else { 0.0 };
        Self {
            scenario,
            crash_every_ms: maybe(rate(0.8), 1_500..8_000),
            suspect_every_ms: maybe(faulty(if storms { 0.4 } else { 0.6 }), 700..5_000),
            loss: maybe(faulty(0.6), 1..300) as u32,
            roam_every_ms: maybe(1.0, 100..1_000),
            move_every_ms: maybe(if chaos { 0.3 } else { 1.0 }, 1_000..4_000),
            latency_ms: maybe(1.0, 1..40),
            publish_every_ms: maybe(1.0, 2..30),
            faulty_ms: maybe(1.0, 8_000..20_000),
            nodes: maybe(1.0, 3..8) as usize,
            channels: maybe(1.0, 3..20) as usize,
            slots: maybe(1.0, 8..65) as u16,
            cut_every_ms: maybe(stormy(0.5), 500..4_000),
            pause_every_ms: maybe(stormy(0.4), 1_000..6_000),
        }
    }
}
