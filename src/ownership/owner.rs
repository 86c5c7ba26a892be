//! `Ownership`: all that a node is to slots. Frames for owners, claimants and holders come in here;
//! what is to be sent goes into [`Out`]. Called by the delivery core, which also answers for this
//! node's own interest.
use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::attendance::{Attendance, Sessions};
use super::audience::{self, Audience};
use super::claim::Claim;
use super::following::{Following, Owed, Wanted};
use super::holding::Holding;
use super::learner::Learning;
use super::lease::Leases;
use super::log::Log;
use super::out::{Out, World};
use super::parked::{PARKED_MS, Parked, Request};
use super::pull::{Pull, Pulling};
use super::replication::Due;
use super::table::{Role, SlotTable};
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{Change, Lane, Outcome, PeerFrame};
use crate::protocol::time::Millis;

/// How long a slot that was won while a holder was missing gives temporary answers to positions
/// that it doesn't know, and how long a node that vanished counts as such a holder.
pub const INCOMPLETE_MS: u64 = 5_000;
/// How long an owner that stepped down leaves a slot that is its own, as it sees the view, to a
/// living claimant at least: until it sees what the other sees.
const LEFT_MS: u64 = 500;
/// How long it is remembered what wasn't committed when a slot was lost: its senders have given up by
/// then.
const DOUBTFUL_MS: u64 = 2 * PARKED_MS;
/// How long after a change of the world strays are shown.
const STRAYS_AFTER_CHANGE_MS: u64 = 500;
/// How often audiences are looked through for gateways that died.
const SWEEP_MS: u64 = 5_000;
/// Holdings looked at for expired publications in one tick.
const EXPIRED_PER_TICK: usize = 64;

/// A node that isn't alive any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departed {
    pub(super) at: Millis,
    /// It was in the view until then: it didn't leave in order.
    pub(super) member: bool,
}

/// What keeps a slot from being claimed for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) until: Millis,
    pub(super) step_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Ownership {
    pub(super) me: Incarnation,
    /// As many nodes are to hold everything, this one included.
    pub(super) copies: u8,
    pub(super) table: SlotTable,
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
    /// Changes of records that weren't committed when their slot was lost, when that was, and under
    /// which epoch each was made.
    pub(super) doubtful: BTreeMap<Slot, (Millis, BTreeMap<OperationId, Epoch>)>,
    pub(super) following: BTreeMap<Slot, Following>,
    pub(super) wanted: BTreeMap<Slot, Wanted>,
    pub(super) owed: Owed,
    pub(super) leases: Leases,
    pub(super) sessions: Sessions,
    pub(super) attendance: Attendance,
    pub(super) departed: BTreeMap<Incarnation, Departed>,
    pub(super) world: World,
    pub(super) random: StdRng,
    pub(super) leaving: bool,
    /// Fingerprints of strays that their owners have.
    pub(super) kept: BTreeMap<Slot, u64>,
    pub(super) announced_strays: Millis,
    sweep_due: Millis,
    unseen: BTreeSet<Incarnation>,
    pub(super) strays_due: Millis,
    /// Fingerprints of strays as they were when they were pulled.
    pub(super) taken_in: BTreeMap<(Incarnation, Slot), u64>,
    expire_from: Slot,
}

/// What happened to slots since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Claims begun, each of many slots.
    pub begun: u64,
    /// Slots won.
    pub won: u64,
    /// Slots lost to a higher promise.
    pub rejected: u64,
    /// Slots won while a live node was silent.
    pub incomplete: u64,
    /// Changes that weren't committed when their slot was lost.
    pub fenced: u64,
    /// Changes committed.
    pub committed: u64,
    /// Whole copies that this node has pulled.
    pub copied: u64,
    /// Nodes that stood in for a silent one.
    pub spares: u64,
    /// Frames that waited for a slot and were handled here then.
    pub replayed: u64,
    /// Operations that came again, and were known.
    pub repeated: u64,
    /// Questions that waited for a commit.
    pub deferred: u64,
    /// Publications that were held beside a stream, and appended anew.
    pub adopted: u64,
}

/// Whether a request can be served here.
pub(super) enum Gate {
    /// Now.
    Serve,
    /// Soon.
    Park,
    /// At this node, as far as this one knows.
    Elsewhere(Option<Incarnation>),
}

impl Ownership {
    /// The ownership of a node that has just started. `copies` is the configured number, 1 to 5;
    /// `seed` is the source of its jitter.
    pub fn new(me: Incarnation, slots: u16, copies: u8, sessions: Sessions, seed: u64) -> Self {
        Self {
            me,
            copies: copies.max(1),
            table: SlotTable::new(me, slots),
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
            world: World::default(),
            random: StdRng::seed_from_u64(seed),
            leaving: false,
            kept: BTreeMap::new(),
            announced_strays: Millis(0),
            sweep_due: Millis(0),
            unseen: BTreeSet::new(),
            strays_due: Millis(0),
            taken_in: BTreeMap::new(),
            expire_from: Slot(0),
        }
    }

    /// Takes a new world: forgets who died, claims what belongs here now, gives copies to who is to
    /// have them.
    pub fn set_world(&mut self, world: World, now: Millis, out: &mut Out) {
        let gone = self.world.live.iter().filter(|node| !world.lives(**node));
        for node in gone.copied().collect::<Vec<_>>() {
            let member = self.world.members.binary_search(&node).is_ok();
            self.departed.insert(node, Departed { at: now, member });
            self.forget_gateway(node, now, out);
        }
        let came = world.live.iter().filter(|node| !self.world.lives(**node) && **node != self.me);
        let came: Vec<Incarnation> = came.copied().collect();
        self.announce_owned(&came, self.table.all().filter(|s| self.table.owns(*s)), out);
        self.departed.retain(|node, departed| {
            !world.lives(*node) && now.since(departed.at) < 2 * INCOMPLETE_MS
        });
        self.world = world;
        self.drop_departed_from_claims(now, out);
        // A slot isn't left to the dead.
        let (table, world) = (&self.table, &self.world);
        self.backoffs.retain(|slot, _| world.lives(table.promised(*slot).owner));
        self.claims_due = Some(now);
        // Not at once: who owns slots now may have to claim them first.
        self.strays_due = self.strays_due.min(now + STRAYS_AFTER_CHANGE_MS);
        let world = &self.world;
        self.taken_in.retain(|(node, _), _| world.lives(*node));
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
        self.parked.expire(now);
        self.doubtful.retain(|_, (lost, _)| now.since(*lost) < DOUBTFUL_MS);
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
                last,
            } => {
                let answer = super::claim::PromiseAnswer {
                    rejected,
                    digests,
                    interest,
                    live,
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
            PeerFrame::Kept { slots } => self.handle_kept(slots),
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

    /// The world as last told.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Slots owned, and slots that are being claimed or still have to be.
    pub fn roles(&self) -> (u32, u32) {
        let belongs = |slot| self.world.placement.owner(slot) == Some(self.me);
        self.table.all().fold((0, 0), |(owned, claiming), slot| match self.table.role(slot) {
            // To be claimed again when its backoff is over, or when this node may serve.
            Role::Idle if belongs(slot) => (owned, claiming + 1),
            Role::Idle => (owned, claiming),
            Role::Claiming(_) => (owned, claiming + 1),
            Role::Owner { .. } => (owned + 1, claiming),
        })
    }

    /// Streams held, and frames parked.
    pub fn sizes(&self) -> (u64, u64) {
        let streams = self.holdings.values().map(|holding| holding.streams().count() as u64);
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

    /// Whether a request for a slot can be served here; `epoch` is the highest that its sender
    /// promised, and ends an ownership that the sender knows to be over.
    pub(super) fn gate(&mut self, slot: Slot, epoch: Epoch, now: Millis) -> Gate {
        if epoch > self.table.promised(slot) {
            self.promise_to(slot, epoch, now);
        }
        let home = self.world.placement.owner(slot);
        match self.table.role(slot) {
            Role::Owner { .. } if self.world.required > 0 => Gate::Serve,
            Role::Owner { .. } | Role::Claiming(_) => Gate::Park,
            Role::Idle if home == Some(self.me) && self.table.contains(slot) => {
                let claimant = self.claimant(slot, now);
                claimant.map_or(Gate::Park, |claimant| Gate::Elsewhere(Some(claimant)))
            }
            Role::Idle => Gate::Elsewhere(home),
        }
    }

    /// Who claimed a slot that belongs here, while this node leaves it to them.
    fn claimant(&self, slot: Slot, now: Millis) -> Option<Incarnation> {
        let claimant = self.table.promised(slot).owner;
        let waits = self.backoffs.get(&slot).is_some_and(|backoff| backoff.until > now);
        (waits && claimant != self.me && self.world.lives(claimant)).then_some(claimant)
    }

    /// Promises a slot to another node, and ends this node's role in it. Gives back the higher
    /// promise for which it can't.
    pub(super) fn promise_to(&mut self, slot: Slot, epoch: Epoch, now: Millis) -> Option<Epoch> {
        let before = self.table.promised(slot);
        match self.table.promise(slot, epoch) {
            super::table::Promised::Refused(higher) => Some(higher),
            super::table::Promised::Given { was } => {
                if epoch.owner == self.me || epoch == before {
                    return None;
                }
                if before != Epoch::NONE {
                    // It may not be asked itself: from now on it can't show what it has as current.
                    self.owe_fence(before.owner, slot, epoch);
                }
                self.close_log((slot, before), epoch.owner, now);
                self.end_lease(slot);
                self.wanted.remove(&slot);
                self.audiences.remove(&slot);
                self.attendance.forget(slot);
                self.look_for_claims(now);
                // Who lives may see a view that this node is about to see, in which the slot isn't
                // its own any more: claimed at once it would go back and forth.
                let early = self.world.placement.owner(slot) == Some(self.me)
                    && self.world.lives(epoch.owner);
                match was {
                    Role::Owner { .. } if early => self.back_off_for(LEFT_MS, slot, now),
                    Role::Owner { won, .. } if now.since(won) < 10_000 => self.back_off(slot, now),
                    Role::Claiming(claim) => {
                        self.leave_claim(claim, slot);
                        self.back_off(slot, now);
                    }
                    _ => {}
                }
                None
            }
        }
    }

    /// Keeps a slot from being claimed for 0.2 to 10 s, doubling, with jitter.
    pub(super) fn back_off(&mut self, slot: Slot, now: Millis) {
        self.back_off_for(0, slot, now);
    }

    /// The same for `least_ms` at least.
    fn back_off_for(&mut self, least_ms: u64, slot: Slot, now: Millis) {
        let step = self.backoffs.get(&slot).map_or(200, |last| (last.step_ms * 2).min(10_000));
        let jitter = self.random.random_range(0..=step / 2);
        let pause = if without(Rule::ClaimAgain) { u64::MAX } else { step / 2 + jitter };
        let until = now + pause.max(least_ms);
        self.backoffs.insert(slot, Backoff { until, step_ms: step });
        self.claims_due = Some(self.claims_due.map_or(until, |due| due.min(until)));
    }

    /// Keeps a request until the slot is served here, or bounces it.
    pub(super) fn park(&mut self, slot: Slot, request: Request, out: &mut Out) {
        if let Err(request) = self.parked.try_push(slot, request) {
            self.bounce(request, None, out);
        }
    }

    /// Tells a sender that it must look elsewhere, or try again.
    pub(super) fn bounce(&self, request: Request, owner: Option<Incarnation>, out: &mut Out) {
        let from = request.from;
        match request.frame {
            PeerFrame::Operation(operation) => {
                let (slot, number) = (operation.slot, operation.number);
                let outcome = Outcome::NotOwner(owner);
                out.send(from, Lane::Data, PeerFrame::Result { slot, number, outcome });
            }
            PeerFrame::Ask { number, .. } => {
                out.send(from, Lane::Data, PeerFrame::NotOwner { number, owner });
            }
            // The rest is repaired by digests, or was sent at most once.
            _ => {}
        }
    }

    /// Handles what has waited for a slot, in order.
    pub(super) fn replay(&mut self, slot: Slot, now: Millis, out: &mut Out) {
        for waiting in self.parked.take(slot) {
            if self.departed.contains_key(&waiting.from) {
                continue;
            }
            self.counts.replayed += 1;
            self.take_request(waiting, now, out);
        }
    }

    /// Tells gateways who came or left.
    pub(super) fn announce(&self, slot: Slot, change: audience::Change, here: bool, out: &mut Out) {
        let audience::Change { channel, gateways, info } = change;
        out.send_all(&gateways, Lane::Data, PeerFrame::Presence { slot, channel, info, here });
    }

    /// Forgets gateways that aren't alive: what they sent may have come after they were forgotten.
    fn sweep_audiences(&mut self, now: Millis, out: &mut Out) {
        if now < self.sweep_due {
            return;
        }
        self.sweep_due = now + SWEEP_MS;
        let gateways = self.audiences.values().flat_map(Audience::all_gateways);
        let unseen: BTreeSet<Incarnation> =
            gateways.filter(|g| !self.world.lives(*g) && *g != self.me).collect();
        // Who isn't seen may be new: only the second time in a row it counts as dead.
        for gateway in self.unseen.intersection(&unseen).copied().collect::<Vec<_>>() {
            self.forget_gateway(gateway, now, out);
        }
        self.unseen = unseen;
    }

    fn forget_gateway(&mut self, gateway: Incarnation, now: Millis, out: &mut Out) {
        let followed = self.inboxes_of(gateway, None);
        let mut left = Vec::new();
        for (slot, audience) in &mut self.audiences {
            left.extend(audience.forget(gateway).into_iter().map(|change| (*slot, change)));
        }
        for (slot, change) in left {
            self.announce(slot, change, false, out);
        }
        for (slot, user) in followed {
            self.attend(slot, &user, now);
        }
    }

    fn expire_some(&mut self, now: Millis) {
        let range = self.holdings.range(self.expire_from..).take(EXPIRED_PER_TICK);
        let followed: BTreeSet<Slot> =
            range.map(|(slot, _)| *slot).filter(|slot| self.follows(*slot)).collect();
        let (world, copies) = (&self.world, usize::from(self.copies));
        let mut next = Slot(0);
        let (mut empty, mut idle, mut tombstones) = (Vec::new(), Vec::new(), Vec::new());
        let mut owned = Vec::new();
        let holdings = self.holdings.range_mut(self.expire_from..);
        for (seen, (slot, holding)) in holdings.enumerate() {
            if seen == EXPIRED_PER_TICK {
                next = *slot;
                break;
            }
            let audience = self.audiences.get(slot);
            // What an owner still has is followed, as far as its followers can know; and who claims
            // decides nothing before it owns.
            let role = self.table.role(*slot);
            let kept = followed.contains(slot) || matches!(role, Role::Claiming(_));
            holding.expire(now);
            holding.forget_gateways(|gateway| world.lives(gateway));
            let mut preference = world.placement.preference(*slot).take(copies);
            let mine = role != Role::Idle || preference.any(|node| node == self.me);
            match (mine, self.kept.get(slot)) {
                (true, _) => holding.touch_users(now),
                // Its owner has it, as have those who are to hold it.
                (false, Some(kept)) if *kept == holding.digest() => holding.forget_stale_users(now),
                _ => {}
            }
            owned.extend(matches!(role, Role::Owner { .. }).then_some(*slot));
            if !kept {
                let users = holding.idle_users(now).into_iter();
                tombstones.extend(users.map(|(user, upto)| (*slot, user, upto)));
            }
            for (channel, position) in holding.idle(now) {
                match kept || audience.is_some_and(|a| a.wants(&channel)) {
                    true => holding.touch(&channel, now),
                    false => idle.push((*slot, channel, position)),
                }
            }
            if holding.is_empty() {
                empty.push(*slot);
            }
        }
        self.expire_from = next;
        for (slot, channel, position) in idle {
            self.forget_stream(slot, channel, position, now);
        }
        for (slot, user, upto) in tombstones {
            self.forget_user(slot, user, upto, now);
        }
        for slot in owned {
            self.attend_all(slot, now);
            self.end_sessions(slot, now);
        }
        for slot in empty.into_iter().filter(|slot| !self.table.owns(*slot)) {
            self.holdings.remove(&slot);
        }
    }

    /// Forgets a stream in which nobody can resume. Its owner decides that; its followers are told.
    fn forget_stream(&mut self, slot: Slot, channel: Channel, position: Position, now: Millis) {
        if self.table.owns(slot) {
            if !self.takes_changes(slot) || self.world.required == 0 {
                return;
            }
            let Some((_, index)) = self.table.next_index(slot) else { return };
            let holding = self.holdings.entry(slot).or_default();
            holding.forget(&channel, position);
            self.log_change(slot, index, Change::Forget { channel, position }, None, now);
        } else if let Some(holding) = self.holdings.get_mut(&slot) {
            holding.forget(&channel, position);
        }
    }
}
