//! `Ownership`: all that a node is to slots. Frames for owners, claimants and holders come in here;
//! what is to be sent goes into [`Out`]. Called by the delivery core, which also answers for this
//! node's own interest.
mod backoff;
mod counts;
mod expiry;
mod gate;
mod gateways;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::attendance::{Attendance, Sessions};
use super::audience::Audience;
use super::claim::Claim;
use super::doubtful::Doubtful;
use super::following::{Following, Owed, Wanted};
use super::holding::Holding;
use super::learner::Learning;
use super::lease::Leases;
use super::log::Log;
use super::out::{Out, World};
use super::parked::Parked;
use super::pull::{Pull, Pulling};
use super::replication::Due;
use super::stray::{Show, Shown, TakenIn};
use super::table::{Role, SlotTable, ranges};
use crate::mutant::{Rule, without};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame, SlotRange};
use crate::protocol::time::Millis;
pub(super) use backoff::Backoff;
pub use counts::Counts;
pub(super) use gate::Gate;

/// How long a slot that was won while a holder was missing gives temporary answers to positions
/// that it doesn't know, and how long a node that vanished counts as such a holder.
pub const INCOMPLETE_MS: u64 = 5_000;
/// How long it is remembered who vanished.
const DEPARTED_MS: u64 = 2 * INCOMPLETE_MS;
/// Nodes that were here at any time and are remembered; over it only those that are here now.
pub(super) const KNOWN_MAX: usize = 1_024;

/// A node that isn't alive any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departed {
    pub(super) at: Millis,
    /// It was in the view until then: it didn't leave in order.
    pub(super) member: bool,
    /// When it told of a position that isn't known here, for the first time since.
    pub(super) told: Option<Millis>,
}

/// What a node is to all slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roles {
    /// Slots owned.
    pub owned: u32,
    /// Slots that are being claimed or still have to be.
    pub claiming: u32,
    /// Which are owned, in order.
    pub ranges: Arc<[SlotRange]>,
}

/// See the module.
#[derive(Debug)]
pub struct Ownership {
    pub(super) me: Incarnation,
    /// As many nodes are to hold everything, this one included.
    pub(super) copies: u8,
    pub(super) table: SlotTable,
    /// The roles when the table had made so many turns, in this world.
    roles_seen: RefCell<Option<(u64, Roles)>>,
    pub(super) holdings: BTreeMap<Slot, Holding>,
    pub(super) audiences: BTreeMap<Slot, Audience>,
    pub(super) claims: BTreeMap<u64, Claim>,
    pub(super) claims_begun: u64,
    pub(super) counts: Counts,
    /// When slots are to be looked through for a claim; `None` = after the next change.
    pub(super) claims_due: Option<Millis>,
    pub(super) pulls: BTreeMap<(Incarnation, u64), Pull>,
    pub(super) pulling: BTreeMap<u64, Pulling>,
    /// Slots of which a copy of what was lacking didn't fit to what is here: all is asked for.
    pub(super) misfits: BTreeSet<Slot>,
    pub(super) pulls_begun: u64,
    pub(super) backoffs: BTreeMap<Slot, Backoff>,
    pub(super) parked: Parked,
    /// How many requests came so far.
    pub(super) requests: u64,
    pub(super) learning: Learning,
    pub(super) logs: BTreeMap<Slot, Log>,
    pub(super) due: Due,
    /// Answers to those who waited for a slot that is owned no more.
    pub(super) bounced: Vec<(Incarnation, PeerFrame)>,
    pub(super) doubtful: BTreeMap<Slot, Doubtful>,
    pub(super) following: BTreeMap<Slot, Following>,
    pub(super) wanted: BTreeMap<Slot, Wanted>,
    pub(super) owed: Owed,
    pub(super) leases: Leases,
    pub(super) sessions: Sessions,
    pub(super) attendance: Attendance,
    pub(super) departed: BTreeMap<Incarnation, Departed>,
    /// When members vanished, as others saw it.
    pub(super) heard_departed: BTreeMap<Incarnation, Millis>,
    pub(super) world: World,
    pub(super) random: StdRng,
    pub(super) leaving: bool,
    /// Fingerprints of strays that their owners have.
    pub(super) kept: BTreeMap<Slot, u64>,
    pub(super) announced_strays: Millis,
    sweep_due: Millis,
    unseen: BTreeSet<Incarnation>,
    pub(super) show: Show,
    pub(super) shown: BTreeMap<Slot, Shown>,
    pub(super) taken_in: BTreeMap<(Slot, Incarnation), TakenIn>,
    expire_from: Slot,
    /// Until then somebody who came back a moment ago may show what nobody here has.
    pub(super) settled_at: Millis,
    /// Who was here at any time.
    pub(super) known: BTreeSet<Incarnation>,
}

impl Ownership {
    /// The ownership of a node that has just started. `copies` is the configured number, 1 to 5;
    /// `seed` is the source of its jitter.
    pub fn new(me: Incarnation, slots: u16, copies: u8, sessions: Sessions, seed: u64) -> Self {
        Self {
            me,
            copies: copies.max(1),
            table: SlotTable::new(me, slots),
            roles_seen: RefCell::default(),
            holdings: BTreeMap::new(),
            audiences: BTreeMap::new(),
            claims: BTreeMap::new(),
            claims_begun: 0,
            counts: Counts::default(),
            claims_due: None,
            pulls: BTreeMap::new(),
            pulling: BTreeMap::new(),
            misfits: BTreeSet::new(),
            pulls_begun: 0,
            backoffs: BTreeMap::new(),
            parked: Parked::default(),
            requests: 0,
            learning: Learning::default(),
            logs: BTreeMap::new(),
            due: Due::default(),
            bounced: Vec::new(),
            doubtful: BTreeMap::new(),
            following: BTreeMap::new(),
            wanted: BTreeMap::new(),
            owed: Owed::default(),
            leases: Leases::default(),
            sessions,
            attendance: Attendance::default(),
            departed: BTreeMap::new(),
            heard_departed: BTreeMap::new(),
            world: World::default(),
            random: StdRng::seed_from_u64(seed),
            leaving: false,
            kept: BTreeMap::new(),
            announced_strays: Millis(0),
            sweep_due: Millis(0),
            unseen: BTreeSet::new(),
            show: Show::default(),
            shown: BTreeMap::new(),
            taken_in: BTreeMap::new(),
            expire_from: Slot(0),
            settled_at: Millis(0),
            known: BTreeSet::new(),
        }
    }

    /// Takes a new world: forgets who died, claims what belongs here now, gives copies to who is to
    /// have them.
    pub fn set_world(&mut self, world: World, now: Millis, out: &mut Out) {
        let gone = self.world.live.iter().filter(|node| !world.lives(**node));
        for node in gone.copied().collect::<Vec<_>>() {
            let member = self.world.members.binary_search(&node).is_ok();
            self.departed.insert(node, Departed { at: now, member, told: None });
            self.forget_gateway(node, now, out);
        }
        let came = world.live.iter().filter(|node| !self.world.lives(**node) && **node != self.me);
        let came: Vec<Incarnation> = came.copied().collect();
        // Whoever is here for the first time has nothing. And it isn't put off by each who comes back:
        // somebody does all the time where a link is bad.
        let back = came.iter().any(|node| self.known.contains(node));
        if back && now >= self.settled_at {
            self.settled_at = now + INCOMPLETE_MS;
        }
        self.known.extend(&world.live);
        if self.known.len() > KNOWN_MAX {
            self.known = world.live.iter().copied().collect();
        }
        self.announce_owned(&came, self.table.all().filter(|s| self.table.owns(*s)), out);
        let away =
            |node: &Incarnation, at: Millis| !world.lives(*node) && now.since(at) < DEPARTED_MS;
        self.departed.retain(|node, departed| away(node, departed.at));
        self.heard_departed.retain(|node, at| away(node, *at));
        self.world = world;
        self.roles_seen.take();
        self.renew_claims(now, out);
        // A slot isn't left to the dead.
        let (table, world) = (&self.table, &self.world);
        self.backoffs.retain(|slot, _| world.lives(table.promised(*slot).owner));
        self.claims_due = Some(now);
        self.announced_strays = Millis(0);
        self.show_strays_soon(now);
        let world = &self.world;
        let table = &self.table;
        let owns = |slot| table.owns(slot) || world.placement.owner(slot) == Some(self.me);
        self.taken_in.retain(|(slot, node), _| world.lives(*node) && owns(*slot));
        // Who has them now may not be who had them then.
        self.kept.clear();
        self.claim_due_slots(now, out);
        self.plan_all_followers(now);
        if without(Rule::KeepStrays) {
            let (placement, copies) = (&self.world.placement, usize::from(self.copies));
            let mine = |slot: &Slot| placement.preference(*slot).take(copies).any(|n| n == self.me);
            self.holdings.retain(|slot, _| mine(slot));
        }
        self.check_caught_up(out);
        for slot in self.parked.slots() {
            if !matches!(self.table.role(slot), Role::Claiming(_)) {
                self.replay(slot, now, out);
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Millis, out: &mut Out) {
        self.note_time(now);
        self.parked.expire(now);
        self.doubtful.retain(|_, doubtful| !doubtful.is_over(now));
        self.expire_pulls(now, out);
        self.check_silent_claims(now, out);
        self.claim_due_slots(now, out);
        self.check_copies(now, out);
        self.pull_wanted(now, out);
        self.check_leases(now);
        self.check_founding(now, out);
        self.announce_strays(now, out);
        self.show_strays(now, out);
        self.expire_some(now);
        self.check_attendance(now);
        self.sweep_audiences(now, out);
    }

    /// Ends the handling of what happened at one time: sends what has gathered meanwhile.
    pub fn send_gathered(&mut self, now: Millis, out: &mut Out) {
        self.send_tails(now, out);
        self.ask_for_leases(now, out);
        self.pay(out);
        for (to, frame) in std::mem::take(&mut self.bounced) {
            out.send(to, Lane::Data, frame);
        }
    }

    /// Takes a frame for an owner, claimant or holder. Gives back a frame that isn't.
    pub fn handle(
        &mut self,
        from: Incarnation,
        frame: PeerFrame,
        now: Millis,
        out: &mut Out,
    ) -> Option<PeerFrame> {
        self.note_time(now);
        match frame {
            PeerFrame::Operation(_)
            | PeerFrame::Fanout { .. }
            | PeerFrame::Ask { .. }
            | PeerFrame::Unsubscribe { .. }
            | PeerFrame::Digest { .. }
            | PeerFrame::Interest { .. } => self.handle_request(from, frame, now, out),
            PeerFrame::Promise {
                claim,
                attempt,
                part,
                rejected,
                digests,
                interest,
                live,
                vanished,
                last,
            } => {
                let answer = super::claim::PromiseAnswer {
                    rejected,
                    digests,
                    interest,
                    live,
                    vanished,
                    attempt,
                    part,
                    last,
                };
                self.handle_promise(from, claim, answer, now, out);
            }
            PeerFrame::Pull { claim, pull, slots } => {
                self.handle_pull(from, (claim, pull), slots, now, out);
            }
            PeerFrame::Pulled { claim, pull, number, copies, last } => {
                self.handle_pulled(from, claim, (pull, number), (copies, last), now, out);
            }
            PeerFrame::Stray { slots } => self.handle_stray(from, slots, now, out),
            PeerFrame::PulledAck { pull, number } => {
                self.handle_pulled_ack(from, (pull, number), now, out);
            }
            PeerFrame::Replicate { tails } => self.handle_replicate(from, tails, now),
            PeerFrame::Replicated { slots } => self.handle_replicated(from, slots, now, out),
            PeerFrame::Fenced { slots } => self.handle_fenced(&slots, now, out),
            PeerFrame::Follow { slots } => self.handle_follow(from, &slots, now, out),
            PeerFrame::Followed { slots } => self.handle_followed(from, &slots, now, out),
            PeerFrame::Confirm { number, slots } => {
                self.handle_confirm(from, (number, slots), now, out);
            }
            PeerFrame::Confirmed { number, slots } => {
                self.handle_confirmed(number, slots, now, out);
            }
            PeerFrame::Kept { slots } => self.handle_kept(from, slots),
            PeerFrame::Covered => self.handle_covered(from, out),
            other => return Some(other),
        }
        None
    }

    /// The highest epoch promised for a slot.
    pub fn promised(&self, slot: Slot) -> Epoch {
        self.table.promised(slot)
    }

    /// Whether this node owns a slot.
    pub fn owns(&self, slot: Slot) -> bool {
        self.table.owns(slot)
    }

    /// What this node holds of a slot.
    pub fn holding(&self, slot: Slot) -> Option<&Holding> {
        self.holdings.get(&slot)
    }

    /// Whether members vanished a moment ago without having left.
    pub fn misses_members(&self, now: Millis) -> bool {
        self.departed.values().any(|d| d.member && now.since(d.at) < DEPARTED_MS)
    }

    /// The world as last told.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What this node is to all slots.
    pub fn roles(&self) -> Roles {
        let turns = self.table.turns();
        let mut seen = self.roles_seen.borrow_mut();
        match &*seen {
            Some((then, roles)) if *then == turns => roles.clone(),
            _ => seen.insert((turns, self.look_at_roles())).1.clone(),
        }
    }

    fn look_at_roles(&self) -> Roles {
        let belongs = |slot| self.world.placement.owner(slot) == Some(self.me);
        let all = || self.table.all().map(|slot| (slot, self.table.role(slot)));
        let owned = || all().filter(|(_, role)| matches!(role, Role::Owner { .. }));
        let claiming = all().filter(|(slot, role)| match role {
            Role::Claiming(_) => true,
            // To be claimed again when its backoff is over, or when this node may serve.
            Role::Idle => belongs(*slot),
            Role::Owner { .. } => false,
        });
        Roles {
            owned: owned().count() as u32,
            claiming: claiming.count() as u32,
            ranges: ranges(owned().map(|(slot, _)| slot)).into(),
        }
    }

    /// Streams held, and frames parked.
    pub fn sizes(&self) -> (u64, u64) {
        let streams = self.holdings.values().map(|holding| holding.streams_len() as u64);
        (streams.sum(), self.parked.len() as u64)
    }

    /// What happened to slots since the start.
    pub fn counts(&self) -> Counts {
        Counts { begun: self.claims_begun, ..self.counts }
    }

    /// Slots may have come home without an owner: they are looked through at the next tick.
    pub(super) fn look_for_claims(&mut self, now: Millis) {
        self.claims_due = Some(self.claims_due.map_or(now, |due| due.min(now)));
    }
}
