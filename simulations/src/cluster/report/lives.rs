//! A row a node: what it says of itself, what of the network reaches it, and when it began and ended.
use std::collections::{BTreeMap, BTreeSet};

use orbweb::api::{NodeState, ServingState};

use super::canvas::{Canvas, ROW};
use super::span::Track;
use crate::cluster::conditions::Conditions;
use crate::cluster::setup::{Setup, name};
use crate::cluster::story::{Health, Mark};

/// Of a row's height: above, what of the network is wrong; below, slots that aren't as they should be.
const NETWORK: f64 = 8.0;
const SLOTS: f64 = 4.0;

/// How something looks, and what it is.
type Look = (&'static str, String);

/// What a node was like as time went by.
#[derive(Default)]
struct Life {
    health: Track<Look>,
    network: Track<Look>,
    claims: Track<Look>,
    short: Track<Look>,
    signs: Vec<(u64, &'static str, &'static str)>,
}

/// The nodes of a run, those that joined later too.
fn nodes(marks: &[(u64, Mark)]) -> BTreeSet<usize> {
    let started = marks.iter().filter_map(|(_, mark)| match mark {
        Mark::Started(node) => Some(*node),
        _ => None,
    });
    started.collect()
}

pub(super) fn draw(marks: &[(u64, Mark)], setup: &Setup, canvas: &mut Canvas) {
    canvas.title(
        "nodes",
        "green: serve; blue: catch up; yellow: serve nobody, or with fewer copies; violet: leave; \
         striped above: network, or stopped; below, blue: claim slots, red: lack copies; ▲ started, ✕ lost its \
         power, ▼ left",
    );
    for (node, life) in lives(marks, setup) {
        canvas.row(&name(node), ROW, |canvas, y, height| {
            let end = canvas.end_ms();
            let draw = |canvas: &mut Canvas, track: Track<Look>, (y, height), text: bool| {
                for (time, (class, what)) in track.finish(end) {
                    canvas.bar(class, time, (y, height), &what);
                    if text {
                        canvas.within(time, y + height + 2.0, &what);
                    }
                }
            };
            draw(canvas, life.health, (y, height), false);
            draw(canvas, life.network, (y, NETWORK + 3.0), true);
            draw(canvas, life.claims, (y + height - 2.0 * SLOTS, SLOTS), false);
            draw(canvas, life.short, (y + height - SLOTS, SLOTS), false);
            for (at_ms, sign, what) in life.signs {
                canvas.sign("sign", at_ms, y + height - 6.0, sign, what);
            }
        });
    }
}

fn lives(marks: &[(u64, Mark)], setup: &Setup) -> BTreeMap<usize, Life> {
    let mut lives: BTreeMap<usize, Life> =
        nodes(marks).into_iter().map(|node| (node, Life::default())).collect();
    let all: Vec<usize> = lives.keys().copied().collect();
    for (at_ms, mark) in marks {
        let at_ms = *at_ms;
        match mark {
            Mark::Conditions(conditions) => {
                for (node, life) in &mut lives {
                    life.network.set(at_ms, network(*node, &all, conditions, setup));
                }
            }
            Mark::Started(node) => {
                if let Some(life) = lives.get_mut(node) {
                    life.signs.push((at_ms, "▲", "started"));
                    life.health.set(at_ms, Some(("joining", "starts".to_owned())));
                }
            }
            Mark::Says(node, health) => {
                if let Some(life) = lives.get_mut(node) {
                    life.say(at_ms, *health);
                }
            }
            Mark::Leaves(node) => {
                if let Some(life) = lives.get_mut(node) {
                    life.health.set(at_ms, Some(("leaving", "leaves".to_owned())));
                }
            }
            Mark::Killed(node) | Mark::Left(node) => {
                let sign = match mark {
                    Mark::Killed(_) => ("✕", "lost its power"),
                    _ => ("▼", "left"),
                };
                if let Some(life) = lives.get_mut(node) {
                    life.signs.push((at_ms, sign.0, sign.1));
                    life.health.set(at_ms, None);
                    life.claims.set(at_ms, None);
                    life.short.set(at_ms, None);
                }
            }
            _ => {}
        }
    }
    lives
}

impl Life {
    fn say(&mut self, at_ms: u64, health: Health) {
        let look = match (health.state, health.serving) {
            (NodeState::Joining | NodeState::Silent, _) => ("joining", "catches up"),
            (NodeState::Leaving, _) => ("leaving", "leaves"),
            (NodeState::Up, ServingState::Full) => ("full", "serves"),
            (NodeState::Up, ServingState::Standalone) => ("less", "serves alone"),
            (NodeState::Up, ServingState::Degraded) => ("less", "serves with fewer copies"),
            (NodeState::Up, ServingState::No) => ("not", "doesn't serve"),
        };
        self.health.set(at_ms, Some((look.0, look.1.to_owned())));
        let some =
            |slots: u32, class, what| (slots > 0).then(|| (class, format!("{what} {slots} slots")));
        self.claims.set(at_ms, some(health.claiming, "claims", "claims"));
        self.short.set(at_ms, some(health.short, "short", "lacks copies of"));
    }
}

/// What of the network is wrong for a node, the worst first.
fn network(node: usize, all: &[usize], now: &Conditions, setup: &Setup) -> Option<Look> {
    let others: Vec<usize> = all.iter().copied().filter(|other| *other != node).collect();
    let hears = |other: &usize| !now.cuts.contains(&(*other, node));
    let reaches = |other: &usize| !now.cuts.contains(&(node, *other));
    let named = |nodes: Vec<usize>| nodes.into_iter().map(name).collect::<Vec<_>>().join(" ");
    let (heard, reached) =
        (others.iter().filter(|o| hears(o)).count(), others.iter().filter(|o| reaches(o)).count());
    let apart: Vec<usize> =
        others.iter().copied().filter(|other| !hears(other) || !reaches(other)).collect();
    let slow: Vec<usize> =
        others.iter().copied().filter(|other| now.slow.contains_key(&(node, *other))).collect();
    Some(match (heard, reached) {
        _ if now.stopped.contains(&node) => ("cut", "stopped".to_owned()),
        _ if now.still.contains(&node) => ("cut", "stands still".to_owned()),
        (0, 0) => ("cut", "cut off".to_owned()),
        (0, _) => ("cut", "hears nobody".to_owned()),
        (_, 0) => ("cut", "is heard by nobody".to_owned()),
        _ if !apart.is_empty() => ("apart", format!("apart from {}", named(apart))),
        _ if !slow.is_empty() => ("slow", format!("slow to {}", named(slow))),
        _ if now.weather != setup.weather => ("slow", "bad network".to_owned()),
        _ => return None,
    })
}
