//! From eligibility to the view: leaving is immediate, entering is too for who is new, and who left
//! comes back only after it was eligible for a while, so that a flapping node doesn't drag its
//! slots to and fro. Each node waits by its own clock and gossips for whom; who is outside is decided by
//! what most of them say, so that all see the same. Pure.
use std::collections::BTreeMap;

use crate::ownership::view::{Awaited, Candidate, View};
use crate::protocol::ids::Incarnation;
use crate::protocol::time::Millis;

/// How long an incarnation that left must be eligible to come back.
pub const RETURN_AFTER_MS: u64 = 2_000;
/// The most that this doubles to.
pub const RETURN_AFTER_MS_MAX: u64 = 60_000;
/// Who leaves again within this of coming back waits twice as long.
pub const FLAP_WITHIN_MS: u64 = 60_000;
/// When an incarnation outside the view is forgotten; longer than any wait.
const FORGET_AFTER_MS: u64 = 2 * RETURN_AFTER_MS_MAX;

/// What is remembered of an incarnation.
#[derive(Clone, Debug)]
enum Standing {
    Inside {
        /// When it came back; `None` if it never left.
        back_at: Option<Millis>,
        /// What it had to wait for that.
        waited_ms: u64,
        /// It has qualified since it entered. Before, it is there only because nobody did, and
        /// dropping out then is no flap: links are still being made.
        qualified: bool,
    },
    Outside {
        left_at: Millis,
        wait_ms: u64,
        eligible_since: Option<Millis>,
    },
}

/// Remembers who is eligible, who was, and when.
#[derive(Clone, Debug)]
pub struct ViewTracker {
    me: Incarnation,
    standings: BTreeMap<Incarnation, Standing>,
    /// Eligibility is quadratic in the members and changes rarely.
    last: Option<Eligibility>,
}

#[derive(Clone, Debug)]
struct Eligibility {
    candidates: Vec<Candidate>,
    qualified: View,
    eligible: View,
}

impl ViewTracker {
    /// The tracker of a node that has seen nobody yet.
    pub fn new(me: Incarnation) -> Self {
        Self { me, standings: BTreeMap::new(), last: None }
    }

    /// For whom this node waits, to be gossiped: who has left, live or not, and isn't back for long
    /// enough. Sorted.
    pub fn awaits(&self) -> Vec<Awaited> {
        let outside = self.standings.iter().filter(|(node, standing)| {
            matches!(standing, Standing::Outside { .. }) && **node != self.me
        });
        let mut awaits: Vec<Awaited> = outside.map(|(node, _)| Awaited::of(*node)).collect();
        awaits.sort_unstable();
        awaits
    }

    /// The view at this moment, from the live `up` members, what they report of their links and for
    /// whom they wait.
    pub fn observe(&mut self, now: Millis, candidates: Vec<Candidate>) -> View {
        let seen = match self.last.take() {
            Some(last) if last.candidates == candidates => last,
            _ => Eligibility {
                qualified: View::qualified(&candidates),
                eligible: View::eligible(&candidates),
                candidates,
            },
        };
        self.dismiss(now, &seen.eligible);
        for member in seen.eligible.members() {
            self.admit(now, member.id.incarnation, &seen.qualified);
        }
        let awaits = self.awaits();
        let mut view = seen.eligible.agreed(&seen.candidates, (self.me, &awaits));
        if view.is_empty() && !seen.eligible.is_empty() {
            // Each is awaited by most: nobody gains by an empty view.
            view = seen.eligible.clone();
            for member in view.members() {
                self.enter(now, member.id.incarnation, &seen.qualified);
            }
        }
        self.last = Some(seen);
        view
    }

    /// Everybody who isn't eligible is out at once.
    fn dismiss(&mut self, now: Millis, eligible: &View) {
        self.standings.retain(|&node, standing| {
            if eligible.contains(node) {
                return true;
            }
            match standing {
                Standing::Inside { qualified: false, back_at: None, .. } => false,
                Standing::Inside { back_at, waited_ms, .. } => {
                    let flaps = back_at.is_some_and(|at| now.since(at) < FLAP_WITHIN_MS);
                    let doubled = (2 * *waited_ms).min(RETURN_AFTER_MS_MAX);
                    let wait_ms = if flaps { doubled } else { RETURN_AFTER_MS };
                    *standing = Standing::Outside { left_at: now, wait_ms, eligible_since: None };
                    true
                }
                Standing::Outside { left_at, eligible_since, .. } => {
                    *eligible_since = None;
                    now.since(*left_at) < FORGET_AFTER_MS
                }
            }
        });
    }

    fn admit(&mut self, now: Millis, node: Incarnation, qualified: &View) {
        match self.standings.get_mut(&node) {
            None => self.enter(now, node, qualified),
            Some(Standing::Inside { qualified: once, .. }) => *once |= qualified.contains(node),
            Some(Standing::Outside { wait_ms, eligible_since, .. }) => {
                let since = *eligible_since.get_or_insert(now);
                if now.since(since) >= *wait_ms {
                    self.enter(now, node, qualified);
                }
            }
        }
    }

    fn enter(&mut self, now: Millis, node: Incarnation, qualified: &View) {
        let (back_at, waited_ms) = match self.standings.get(&node) {
            Some(Standing::Outside { wait_ms, .. }) => (Some(now), *wait_ms),
            _ => (None, 0),
        };
        let qualified = qualified.contains(node);
        self.standings.insert(node, Standing::Inside { back_at, waited_ms, qualified });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::tests::live_member;
    use crate::ownership::view::NameHash;

    /// The tracker of node `a`, which is shown nodes, one letter each, all linked with each other. All
    /// that are in the view see what `a` sees.
    struct Track {
        tracker: ViewTracker,
        now: Millis,
    }

    impl Default for Track {
        fn default() -> Self {
            Self { tracker: ViewTracker::new(node('a')), now: Millis(0) }
        }
    }

    fn node(name: char) -> Incarnation {
        Incarnation(name as u128)
    }

    fn candidate(name: char, linked: &str, awaits: &[Awaited]) -> Candidate {
        let hash = |name: char| NameHash::of(&name.to_string().parse().unwrap());
        let mut links: Vec<NameHash> = linked.chars().map(hash).collect();
        links.sort();
        let member = live_member(&name.to_string(), name as u128).member();
        Candidate { member, links, awaits: awaits.to_vec() }
    }

    fn names(view: &View) -> String {
        view.members().iter().map(|m| m.id.name.as_str()).collect()
    }

    impl Track {
        fn sees(&mut self, nodes: &str) -> String {
            self.sees_linked(nodes, nodes)
        }

        /// Sees nodes of which only some have links.
        fn sees_linked(&mut self, nodes: &str, linked: &str) -> String {
            let links = |name: char| if linked.contains(name) { linked } else { "" };
            let awaits = self.tracker.awaits();
            let away = |name: char| awaits.contains(&Awaited::of(node(name)));
            let said = |name: char| if away(name) { &[][..] } else { &awaits };
            let candidates = nodes.chars().map(|name| candidate(name, links(name), said(name)));
            names(&self.tracker.observe(self.now, candidates.collect()))
        }

        /// Sees the same for so long, in small steps, and returns the last view.
        fn sees_for(&mut self, ms: u64, nodes: &str) -> String {
            let end = self.now + ms;
            while self.now < end {
                self.now = (self.now + 50).min(end);
                self.sees(nodes);
            }
            self.sees(nodes)
        }

        /// How long it takes until all of these are in the view.
        fn time_to_see(&mut self, nodes: &str) -> u64 {
            let start = self.now;
            while self.sees(nodes) != nodes {
                self.now = self.now + 50;
                assert!(self.now.since(start) <= 10 * RETURN_AFTER_MS_MAX, "never saw {nodes}");
            }
            self.now.since(start)
        }
    }

    /// Nodes, one letter each, with a tracker of its own each; what one gossips reaches whom it can.
    struct Nodes {
        trackers: BTreeMap<char, ViewTracker>,
        now: Millis,
    }

    impl Nodes {
        fn new(names: &str) -> Self {
            let tracker = |name| (name, ViewTracker::new(node(name)));
            Self { trackers: names.chars().map(tracker).collect(), now: Millis(0) }
        }

        /// Each sees its own part, what was gossiped before included. Returns the views of all.
        fn see(&mut self, parts: &[&str]) -> Vec<String> {
            let awaits: BTreeMap<char, Vec<Awaited>> =
                self.trackers.iter().map(|(name, tracker)| (*name, tracker.awaits())).collect();
            let mut views = Vec::new();
            for part in parts {
                for one in part.chars() {
                    let others = part.chars().map(|name| candidate(name, part, &awaits[&name]));
                    let tracker = self.trackers.get_mut(&one).expect("one of them");
                    views.push(names(&tracker.observe(self.now, others.collect())));
                }
            }
            views
        }

        /// They are apart for a while, and then reach each other: what all see then.
        fn apart(&mut self, parts: &[&str]) -> String {
            assert_eq!(
                self.see(parts),
                parts.iter().flat_map(|part| part.chars().map(|_| *part)).collect::<Vec<_>>()
            );
            self.now = self.now + 3_000;
            self.see(parts);
            self.together()
        }

        /// What all see, once all have heard what the others gossip.
        fn together(&mut self) -> String {
            let all: String = self.trackers.keys().collect();
            self.see(&[&all]);
            let views = self.see(&[&all]);
            assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "{views:?}");
            views[0].clone()
        }

        /// How long it takes until all see all; at each step they see the same.
        fn time_to_be_whole(&mut self) -> u64 {
            let (start, all) = (self.now, self.trackers.keys().collect::<String>());
            while self.together() != all {
                self.now = self.now + 50;
                assert!(self.now.since(start) <= 10 * RETURN_AFTER_MS_MAX, "never saw {all}");
            }
            self.now.since(start)
        }
    }

    #[test]
    fn after_a_split_all_see_the_greater_part_and_then_all_at_once() {
        let mut nodes = Nodes::new("abcde");
        assert_eq!(nodes.together(), "abcde");
        for wait in [2_000, 4_000, 8_000] {
            assert_eq!(nodes.apart(&["ab", "cde"]), "cde");
            assert_eq!(nodes.time_to_be_whole(), wait);
        }
    }

    #[test]
    fn who_knows_of_no_split_sees_what_the_others_see() {
        let mut nodes = Nodes::new("abcde");
        nodes.together();
        assert_eq!(nodes.apart(&["a", "bcde"]), "bcde");
        nodes.trackers.insert('f', ViewTracker::new(node('f')));
        assert_eq!(nodes.together(), "bcdef");
    }

    #[test]
    fn of_parts_none_of_which_is_the_greater_one_nobody_is_left_out() {
        for parts in [&["a", "b"][..], &["ab", "cd"], &["a", "b", "c"], &["ab", "cd", "e"]] {
            let all = parts.concat();
            let mut nodes = Nodes::new(&all);
            nodes.together();
            assert_eq!(nodes.apart(parts), all);
        }
    }

    #[test]
    fn whom_one_alone_lost_sight_of_is_back_at_once() {
        let mut nodes = Nodes::new("abcd");
        nodes.together();
        let alone = ["a", "b", "c"].map(|name| candidate(name.chars().next().unwrap(), "abc", &[]));
        let tracker = nodes.trackers.get_mut(&'a').expect("one of them");
        assert_eq!(names(&tracker.observe(Millis(0), alone.to_vec())), "abc");
        assert_eq!(nodes.together(), "abcd");
    }

    #[test]
    fn first_entries_are_immediate_and_so_is_leaving() {
        let mut track = Track::default();
        assert_eq!(track.sees("a"), "a");
        assert_eq!(track.sees("abc"), "abc");
        assert_eq!(track.sees("ab"), "ab");
    }

    #[test]
    fn who_left_comes_back_after_two_stable_seconds() {
        let mut track = Track::default();
        track.sees("abc");
        track.sees("ab");
        assert_eq!(track.sees_for(RETURN_AFTER_MS - 50, "abc"), "ab");
        track.sees("ab");
        assert_eq!(track.time_to_see("abc"), RETURN_AFTER_MS, "stability begins anew");
    }

    #[test]
    fn flapping_doubles_the_wait_up_to_a_minute() {
        let mut track = Track::default();
        track.sees("abc");
        for wait in [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            track.sees_for(500, "ab");
            assert_eq!(track.time_to_see("abc"), wait);
            track.sees_for(500, "abc");
        }
        track.sees_for(FLAP_WITHIN_MS, "abc");
        track.sees("ab");
        assert_eq!(track.time_to_see("abc"), RETURN_AFTER_MS, "a quiet minute is forgiven");
    }

    #[test]
    fn a_new_incarnation_enters_at_once() {
        let mut track = Track::default();
        track.sees("ab");
        track.sees("a");
        let mut candidates = vec![candidate('a', "ab", &[]), candidate('b', "ab", &[])];
        candidates[1].member.id.incarnation = Incarnation(999);
        let view = track.tracker.observe(track.now, candidates);
        assert!(view.contains(Incarnation(999)));
    }

    #[test]
    fn a_node_cut_from_most_leaves_and_waits_to_return() {
        let mut track = Track::default();
        track.sees("abcd");
        assert_eq!(track.sees_linked("abcd", "abc"), "abc");
        assert_eq!(track.time_to_see("abcd"), RETURN_AFTER_MS);
    }

    #[test]
    fn waiting_for_links_at_the_start_is_no_flap() {
        let mut track = Track::default();
        assert_eq!(track.sees_linked("abc", ""), "abc", "nobody qualifies yet");
        assert_eq!(track.sees_linked("abc", "ab"), "ab");
        assert_eq!(track.sees("abc"), "abc");
    }

    #[test]
    fn old_incarnations_are_forgotten() {
        let mut track = Track::default();
        track.sees("ab");
        track.sees_for(FORGET_AFTER_MS + 100, "a");
        assert_eq!(track.tracker.standings.len(), 1);
        assert_eq!(track.tracker.awaits(), []);
    }
}
