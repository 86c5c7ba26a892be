//! What follows when a claim is won: the slots are owned with what is held of them, the interest
//! that gateways told, and what found no place on a line. Who was missing may complete them later.
use crate::mutant::{Rule, without};
use crate::ownership::audience::Audience;
use crate::ownership::log::Log;
use crate::ownership::out::Out;
use crate::ownership::owner::{INCOMPLETE_MS, Ownership};
use crate::ownership::table::Missing;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::ChannelInterest;
use crate::protocol::time::Millis;

impl Ownership {
    pub(super) fn win(&mut self, number: u64, complete: bool, now: Millis, out: &mut Out) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let slots = claim.slots.clone();
        let mut interest = std::mem::take(&mut claim.interest);
        claim.won = Some(now);
        // Whoever is silent lives, and may hold what was acknowledged with fewer copies. Whom only others
        // have told of may be dead: it is as gone as who vanished when it was first asked.
        let world = &self.world;
        let silent = claim.asked.iter().filter(|(_, asked)| !asked.done());
        let gone = silent.map(|(node, asked)| if world.lives(*node) { now } else { asked.since });
        let until = gone.max().map(|at| at + INCOMPLETE_MS).unwrap_or_default();
        if complete {
            self.claims.remove(&number);
        }
        let Missing { incomplete_until, short_until } = self.vanished();
        let (incomplete_until, short_until) = (incomplete_until.max(until), short_until.max(until));
        let missing = Missing { incomplete_until, short_until };
        self.counts.won += slots.len() as u64;
        self.counts.incomplete += if complete { 0 } else { slots.len() as u64 };
        for slot in &slots {
            self.table.win(*slot, now, missing);
            let wanted = interest.remove(slot).into_iter().flatten();
            // Nodes that this one doesn't know yet have a say; those that it saw vanish don't.
            let wanted = wanted.filter(|(gateway, _)| !self.departed.contains_key(gateway));
            self.begin_ownership(*slot, wanted.collect(), now, out);
        }
        let live = self.world.live.clone();
        self.announce_owned(&live, slots.iter().copied(), out);
        for slot in slots {
            self.replay(slot, now, out);
        }
    }

    /// Who vanished a moment ago may come back with what nobody here has; and if as many did as there
    /// are copies, with what was acknowledged. Who left in order had nothing that others lack.
    fn vanished(&self) -> Missing {
        // As this node saw it or others did, whichever was later.
        let mut members = self.heard_departed.clone();
        for (node, departed) in self.departed.iter().filter(|(_, departed)| departed.member) {
            let at = members.entry(*node).or_insert(departed.at);
            *at = departed.at.max(*at);
        }
        let mut at: Vec<Millis> = members.into_values().collect();
        at.sort_unstable_by(|one, other| other.cmp(one));
        let until = |at: Option<Millis>| at.map(|at| at + INCOMPLETE_MS).unwrap_or_default();
        let short_until = until(at.get(usize::from(self.copies) - 1).copied());
        let all = self.departed.values().map(|departed| departed.at).chain(at);
        Missing { incomplete_until: until(all.max()), short_until }
    }

    /// Takes up a slot with what is held of it and the interest that gateways told.
    fn begin_ownership(
        &mut self,
        slot: Slot,
        wanted: Vec<(Incarnation, Vec<ChannelInterest>)>,
        now: Millis,
        out: &mut Out,
    ) {
        self.note_seen(slot, wanted.iter().flat_map(|(_, channels)| channels));
        if self.holdings.get(&slot).is_some_and(|holding| !holding.is_empty()) {
            self.open_log(slot, false, now);
            self.log_uncommitted(slot, now);
            self.adopt_loose(slot, now);
            self.logs.get_mut(&slot).into_iter().for_each(Log::take_over);
        }
        let mut audience = Audience::default();
        for (gateway, channels) in wanted {
            self.bring_up_to_date(gateway, slot, &channels, now, out);
            if !without(Rule::InterestInClaims) {
                for channel in channels {
                    adopt(&mut audience, gateway, channel);
                }
            }
        }
        if audience != Audience::default() {
            self.audiences.insert(slot, audience);
        }
        self.attend_all(slot, now);
    }

    /// What a gateway has delivered was committed.
    fn note_seen<'a>(&mut self, slot: Slot, channels: impl Iterator<Item = &'a ChannelInterest>) {
        let Some(holding) = self.holdings.get_mut(&slot) else { return };
        for ChannelInterest { channel, position, .. } in channels {
            if let Some(position) = position {
                holding.commit_seen(channel, *position);
            }
        }
    }

    /// Everybody who is here has answered: what isn't known here isn't known to any of them.
    pub(super) fn complete(&mut self, number: u64) {
        let Some(claim) = self.claims.remove(&number) else { return };
        let missing = self.vanished();
        for slot in claim.slots {
            self.table.complete(slot, missing);
        }
    }

    pub(super) fn adopt_interest(
        &mut self,
        gateway: Incarnation,
        slot: Slot,
        channels: Vec<ChannelInterest>,
        now: Millis,
        out: &mut Out,
    ) {
        if !self.table.owns(slot) {
            return;
        }
        self.note_seen(slot, channels.iter());
        self.bring_up_to_date(gateway, slot, &channels, now, out);
        let audience = self.audiences.entry(slot).or_default();
        for channel in channels {
            adopt(audience, gateway, channel);
        }
        self.attend_all(slot, now);
    }

    /// Appends anew what found no place on its channel's line, with the idempotency key that it has:
    /// followers don't know it otherwise.
    pub(in crate::ownership) fn adopt_loose(&mut self, slot: Slot, now: Millis) {
        let loose = self.holdings.get_mut(&slot).map(|holding| holding.take_loose(now));
        for (channel, options, entry) in loose.into_iter().flatten() {
            if entry.expires > now {
                self.counts.adopted += 1;
                let message = entry.publication.message;
                let key = self.holdings.get(&slot).and_then(|h| h.key_of(entry.operation));
                self.append(slot, &channel, options, (entry.operation, key), message, now);
            }
        }
    }
}

/// Adds to an audience what a gateway told in its answer; nobody is told of clients that were there
/// before.
fn adopt(audience: &mut Audience, gateway: Incarnation, interest: ChannelInterest) {
    let ChannelInterest { channel, options, present, .. } = interest;
    audience.subscribe(gateway, &channel, options.join_leave, None);
    for info in present {
        audience.subscribe(gateway, &channel, options.join_leave, Some(info));
    }
}
