//! A plan from a seed: some classes of faults, and steps of them within what is promised.
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, SeedableRng};

use super::{Class, Part, Step};
use crate::cluster::conditions::{Cut, Weather};
use crate::cluster::setup::Setup;

/// All classes that seeds draw from.
const CLASSES: [Class; 13] = [
    Class::Kill,
    Class::Drain,
    Class::Join,
    Class::Isolate,
    Class::OneWay,
    Class::Halves,
    Class::Flap,
    Class::Slow,
    Class::Loss,
    Class::Disorder,
    Class::Still,
    Class::Pause,
    Class::Clients,
];
/// How many of them a seed has.
const CLASSES_LEAST: usize = 2;
const CLASSES_MOST: usize = 6;
const ROUNDS_MAX: usize = 3;
/// Steps of a round.
const STEPS: (usize, usize) = (2, 5);
/// So many draws of a step, of which some aren't allowed, make a round.
const DRAWS_MAX: usize = 30;
/// When a step begins, at the latest. A round is over before a view could become the membership that a
/// node must see half of.
const AT_MS_MAX: u64 = 3_000;
/// How long a step lasts, in milliseconds.
const LASTS_MS: (u64, u64) = (300, 6_000);
/// Of a flapping link, each way.
const FLAP_MS: (u64, u64) = (100, 2_000);
/// Of a slow one, how much longer each way takes.
const MORE_MS: (u64, u64) = (30, 110);

pub(super) fn steps(seed: u64, setup: &Setup) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x91a7);
    let mut classes = CLASSES;
    classes.shuffle(&mut random);
    let classes = &classes[..random.random_range(CLASSES_LEAST..=CLASSES_MOST)];
    let mut all = Vec::new();
    for number in 0..random.random_range(1..=ROUNDS_MAX) {
        all.extend(round(number, classes, setup, &mut random));
    }
    all.iter_mut().enumerate().for_each(|(place, step)| step.number = place);
    all
}

fn round(round: usize, classes: &[Class], setup: &Setup, random: &mut StdRng) -> Vec<Step> {
    let wanted = random.random_range(STEPS.0..=STEPS.1);
    let most = LASTS_MS.1.min(setup.outage_ms_max()).max(LASTS_MS.0);
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..DRAWS_MAX {
        let Some(class) = classes.choose(random).filter(|_| steps.len() < wanted) else { break };
        let part = part(*class, round, setup.nodes, random);
        let at_ms = random.random_range(0..=AT_MS_MAX);
        let lasts_ms = random.random_range(LASTS_MS.0..=most);
        if is_allowed(&part, &steps, setup.copies) {
            steps.push(Step { number: 0, round, at_ms, lasts_ms, part });
        }
    }
    steps.sort_by_key(|step| step.at_ms);
    steps
}

/// What is promised holds while fewer nodes die than there are copies, before the others have
/// repaired what they held; and a process ends once.
fn is_allowed(part: &Part, before: &[Step], copies: u8) -> bool {
    let deaths = before.iter().filter(|step| step.part.is_death());
    let Some(process) = part.process() else { return true };
    let again = before.iter().any(|step| step.part.process() == Some(process));
    !again && deaths.count() + 1 < usize::from(copies)
}

fn part(class: Class, round: usize, nodes: usize, random: &mut StdRng) -> Part {
    let mut order: Vec<usize> = (0..nodes).collect();
    order.shuffle(random);
    let (one, other) = (order[0], order[1]);
    match class {
        Class::Kill => Part::Kill(one),
        Class::Drain => Part::Drain(one),
        Class::Join => Part::Join(nodes + round),
        Class::Isolate => Part::CutOff(vec![one], Cut::BothWays),
        Class::OneWay => {
            let cut = if random.random_bool(0.5) { Cut::Deaf } else { Cut::Mute };
            Part::CutOff(vec![one], cut)
        }
        Class::Halves => {
            let mut half = order[..nodes / 2].to_vec();
            half.sort_unstable();
            Part::CutOff(half, Cut::BothWays)
        }
        Class::Flap => {
            let every_ms = random.random_range(FLAP_MS.0..=FLAP_MS.1);
            Part::Flap { one, other, every_ms }
        }
        Class::Slow => {
            let more_ms = random.random_range(MORE_MS.0..=MORE_MS.1);
            Part::Slow { one, other, more_ms }
        }
        Class::Loss => Part::Weather(Weather {
            latency_ms: (1, random.random_range(5..=20)),
            loss: random.random_range(50..=300),
            ..Weather::default()
        }),
        Class::Disorder => Part::Weather(Weather {
            latency_ms: (1, random.random_range(5..=20)),
            loss: 0,
            twice: random.random_range(100..=1_000),
            overtaking: random.random_range(100..=1_000),
        }),
        Class::Still => Part::Still(one),
        Class::Pause => Part::Pause(one),
        Class::Clients => Part::CutClients { half_open: random.random_bool(0.5) },
    }
}
