//! What a run is made of: the scenario and seed from the command line, sizes and fault rates drawn
//! from the seed.
use std::ops::Range;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Parser, value_parser};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::scenario::Scenario;

/// How many whole nodes there may be: as few as have somebody in the middle.
const NODES: Range<u64> = 3..11;
/// How many nodes' cores are measured.
const GROWTH: Range<u64> = 3..201;
/// Clients of whole nodes.
const CLIENTS: Range<u64> = 1..201;

/// Simulations of Orbweb's cores.
#[derive(Parser, Debug)]
pub(crate) struct Arguments {
    /// Which scenario; all of the cores if not given.
    #[arg(long)]
    pub(crate) scenario: Option<Scenario>,
    /// All scenarios of whole nodes, if none is given.
    #[arg(long, conflicts_with = "scenario")]
    pub(crate) whole: bool,
    /// Run one seed of each scenario of whole nodes twice, and compare.
    #[arg(long)]
    pub(crate) meta: bool,
    /// One seed, to replay it.
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    pub(crate) seed: Option<u64>,
    /// How many seeds, from 0 or from `--from`.
    #[arg(long, default_value_t = 200, conflicts_with = "minutes")]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// Run random seeds for so many minutes.
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// Switch a rule of the cores off (needs a build with `--cfg mutants`); a check must then fail.
    #[arg(long)]
    pub(crate) without: Option<String>,
    /// Measure the cores of clusters of so many nodes each, without faults: 3,10,30,100.
    #[arg(long, value_delimiter = ',', value_parser = sized(GROWTH), value_name = "NODES")]
    pub(crate) scale: Vec<usize>,
    /// Print the names of the rules that can be switched off.
    #[arg(long)]
    pub(crate) rules: bool,
    /// Whole nodes at the start, if not as many as the seed gives.
    #[arg(long, value_parser = sized(NODES))]
    pub(crate) nodes: Option<usize>,
    /// Clients of whole nodes, if not as many as the seed gives.
    #[arg(long, value_parser = sized(CLIENTS))]
    pub(crate) clients: Option<usize>,
    /// Steps of a swarm's plan that are left out, by number: 3,5.
    #[arg(long, value_delimiter = ',')]
    pub(crate) leave_out: Vec<usize>,
    /// Find the smallest run of a failing seed of `swarm` that fails in the same way.
    #[arg(long, requires = "seed", requires = "scenario")]
    pub(crate) shrink: bool,
    /// Write a page that shows what happened in the run of one seed of whole nodes.
    #[arg(long, requires = "seed", value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Print what happens: faults, claims, what clients see. Twice: every frame, too.
    #[arg(long, action = clap::ArgAction::Count)]
    pub(crate) trace: u8,
}

impl Arguments {
    /// Whether something was asked for that only runs of whole nodes have.
    pub(crate) fn are_of_whole_nodes(&self) -> bool {
        let sized = self.nodes.is_some() || self.clients.is_some();
        sized || !self.leave_out.is_empty() || self.report.is_some()
    }
}

fn sized(within: Range<u64>) -> impl TypedValueParser<Value = usize> {
    value_parser!(u64).range(within).map(|number| number as usize)
}

/// Milliseconds between two publications to one channel in `crashes`, on average and at least.
const CHANNEL_EVERY_MS: u64 = 20;

/// Sizes and rates of one run. Each seed draws its own subset of the faults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swarm {
    pub(crate) scenario: Scenario,
    pub(crate) nodes: usize,
    /// Users who come and go, and are watched.
    pub(crate) people: usize,
    pub(crate) slots: u16,
    pub(crate) copies: u8,
    pub(crate) channels: usize,
    /// Channels whose streams are short.
    pub(crate) brief: usize,
    /// Channels whose streams are short and expire.
    pub(crate) fleeting: usize,
    /// Bytes beside each publication's payload.
    pub(crate) padding: usize,
    /// Virtual milliseconds with faults.
    pub(crate) faulty_ms: u64,
    /// Milliseconds between two publications of the run.
    pub(crate) publish_every_ms: u64,
    /// Milliseconds between two readers who ask for what there is.
    pub(crate) read_every_ms: u64,
    pub(crate) latency_ms: u64,
    /// Milliseconds that a part of a copy takes on its way beside, while there are faults; 0 = none.
    pub(crate) bulk_ms: u64,
    /// Frames lost, in 10,000.
    pub(crate) loss: u32,
    /// Frames that arrive twice, in 10,000.
    pub(crate) twice: u32,
    /// Frames that overtake those before them, in 10,000.
    pub(crate) overtaking: u32,
    /// Milliseconds between two crashes; 0 = none.
    pub(crate) crash_every_ms: u64,
    /// Milliseconds between two joins or leaves; 0 = none.
    pub(crate) move_every_ms: u64,
    /// Milliseconds between two false suspicions; 0 = none.
    pub(crate) suspect_every_ms: u64,
    /// Milliseconds between two subscribers that go to another node with their position.
    pub(crate) roam_every_ms: u64,
    /// Milliseconds between two cuts of a link, both ways or one way; 0 = none.
    pub(crate) cut_every_ms: u64,
    /// Milliseconds between two pauses of a node; 0 = none.
    pub(crate) pause_every_ms: u64,
    /// Milliseconds after which the links of a paused node end, with what is on its way to it.
    pub(crate) idle_ms: u64,
    /// Whether pauses may be as long as an operator's SIGSTOP.
    pub(crate) long_pauses: bool,
    /// When the others fall quiet, so many nodes are heard by nobody for ever, if all copies can bear it.
    pub(crate) mute_for_ever: u8,
    /// Likewise so many hear nobody.
    pub(crate) deaf_for_ever: u8,
}

impl Swarm {
    pub(crate) fn draw(scenario: Scenario, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let mut maybe = |chance: f64, range: Range<u64>| {
            let drawn = random.random_range(range);
            if random.random_bool(chance) { drawn } else { 0 }
        };
        let of = |scenarios: &[Scenario], chance: f64| match scenarios.contains(&scenario) {
            true => chance,
            false => 0.0,
        };
        let (crashes, storms, chaos) = (Scenario::Crashes, Scenario::Storms, Scenario::Chaos);
        let moves = if scenario == chaos { 0.3 } else { of(&[Scenario::Moves, storms], 1.0) };
        let outcasts = maybe(of(&[chaos], 0.3), 1..3) as u8;
        let deaf_for_ever = outcasts.min(maybe(0.7, 1..3) as u8);
        let large = maybe(0.03, 1..2) > 0;
        let (faulty_ms, publish_every_ms) =
            if large { (8_000..20_000, 2..30) } else { (2_000..7_000, 10..70) };
        let most_nodes = if maybe(0.3, 1..2) > 0 { 9 } else { 6 };
        let drawn = Self {
            scenario,
            crash_every_ms: maybe(of(&[chaos], 0.8) + of(&[crashes], 1.0), 500..5_000),
            suspect_every_ms: maybe(of(&[storms], 0.4) + of(&[chaos], 0.6), 700..5_000),
            loss: maybe(of(&[storms, chaos], 0.5), 1..300) as u32,
            twice: maybe(of(&[crashes, storms, chaos], 0.3), 1..500) as u32,
            overtaking: maybe(of(&[storms, chaos], 0.3), 1..500) as u32,
            roam_every_ms: maybe(1.0, 100..1_000),
            move_every_ms: maybe(moves + of(&[crashes], 0.3), 1_000..4_000),
            latency_ms: maybe(1.0, 1..40),
            bulk_ms: maybe(of(&[crashes, storms, chaos], 0.3), 10..400),
            publish_every_ms: maybe(1.0, publish_every_ms),
            read_every_ms: maybe(1.0, 20..200),
            faulty_ms: maybe(1.0, faulty_ms),
            nodes: maybe(1.0, 3..most_nodes + 1) as usize,
            people: maybe(0.35, 3..4) as usize,
            channels: maybe(1.0, 3..20) as usize,
            brief: maybe(0.4, 1..4) as usize,
            fleeting: maybe(0.5, 1..6) as usize,
            padding: maybe(0.3, 500..4_000) as usize,
            slots: maybe(1.0, 8..65) as u16,
            copies: maybe(1.0, 2..4) as u8,
            cut_every_ms: maybe(of(&[storms, chaos], 0.5), 500..4_000),
            pause_every_ms: maybe(of(&[crashes, storms, chaos], 0.4), 1_000..6_000),
            long_pauses: maybe(of(&[storms, chaos], 0.1), 1..2) > 0,
            mute_for_ever: outcasts - deaf_for_ever,
            deaf_for_ever,
            idle_ms: match maybe(0.6, 50..1_000) {
                0 => 1_000,
                drawn => drawn,
            },
        };
        // Where all positions must be recovered, nobody misses more of a channel while it looks for
        // a node than one answer carries.
        let least_ms =
            if scenario == crashes { CHANNEL_EVERY_MS / drawn.channels as u64 } else { 0 };
        Self { publish_every_ms: drawn.publish_every_ms.max(least_ms), ..drawn }
    }
}
