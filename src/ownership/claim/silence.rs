//! Nodes that a claim waits for: those that are silent are asked again and count as missing in the
//! end, those that are gone aren't waited for. Copies on their way are a sign of life.
use crate::mutant::{Rule, without};
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::protocol::ids::Incarnation;
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// A node that has been silent for this long, while asked or while its copies are awaited, is
/// missing: the claim goes on without it.
pub const SILENT_MS: u64 = 1_000;
/// Pause before a node that is silent is asked again.
const ASK_AGAIN_MS: u64 = 250;
/// Pause before one that is missing is: if all are slow since there is much to do, asking is more of it.
const ASK_MISSING_MS: u64 = 2 * SILENT_MS;
/// Questions to one node whose answers may get lost in the middle before the claim goes on without it.
const ATTEMPTS_MAX: u32 = 16;

impl Ownership {
    /// Notes that a part of a copy has come from a node: it isn't silent, and what claims wait for
    /// may be behind others of its copies.
    pub(in crate::ownership) fn note_transfer(&mut self, from: Incarnation, now: Millis) {
        if without(Rule::TransferIsAnswer) {
            return;
        }
        let asked = self.claims.values_mut().filter_map(|claim| claim.asked.get_mut(&from));
        for asked in asked.filter(|asked| asked.promised) {
            (asked.heard, asked.tries) = (now, 0);
        }
    }

    /// Notes who is silent, and asks silent nodes again: the question, or the answer, may be lost. So
    /// may be a part of what is pulled.
    pub(in crate::ownership) fn check_silent_claims(&mut self, now: Millis, out: &mut Out) {
        let numbers: Vec<u64> = self.claims.keys().copied().collect();
        for number in numbers {
            let Some(claim) = self.claims.get_mut(&number) else { continue };
            let mut again = Vec::new();
            for (node, asked) in &mut claim.asked {
                let silent_ms = now.since(asked.heard);
                if asked.promised && asked.pulls.iter().any(|pull| !self.pulling.contains_key(pull))
                {
                    // Parts of its answer are lost, or don't fit. Not for ever: what it has is a stray
                    // then.
                    asked.missing |= asked.attempt >= ATTEMPTS_MAX;
                    again.extend((!asked.missing).then(|| (*node, asked.begin_again())));
                    continue;
                }
                let pause_ms = match asked.missing {
                    true => ASK_MISSING_MS,
                    false => (asked.tries + 1) * ASK_AGAIN_MS,
                };
                if asked.done() || silent_ms < pause_ms {
                    continue;
                }
                asked.tries += 1;
                if silent_ms < SILENT_MS {
                    // Copies may be long on their way.
                    again.extend((!asked.promised).then(|| (*node, asked.ask_again())));
                    continue;
                }
                asked.missing = true;
                (asked.heard, asked.tries) = (now, 0);
                again.push((*node, asked.begin_again()));
            }
            let slots = claim.prepare.clone();
            for (node, attempt) in again {
                let (claim, slots) = (number, slots.clone());
                out.send(node, Lane::Control, PeerFrame::Prepare { claim, attempt, slots });
            }
            self.check_claim(number, now, out);
        }
    }

    /// The world has changed: stops waiting for nodes that are gone. Claims that too few have promised
    /// to are put to all who are here; what of them belongs elsewhere now is given up, since somebody
    /// else may own it long since.
    pub(in crate::ownership) fn renew_claims(&mut self, now: Millis, out: &mut Out) {
        let numbers: Vec<u64> = self.claims.keys().copied().collect();
        for number in numbers {
            let Some(claim) = self.claims.get_mut(&number) else { continue };
            claim.asked.retain(|node, _| !self.departed.contains_key(node));
            if claim.won.is_none() && claim.promised() < self.world.required.max(1) {
                self.renew_claim(number, now, out);
            }
            self.check_claim(number, now, out);
        }
    }

    fn renew_claim(&mut self, number: u64, now: Millis, out: &mut Out) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let (me, placement) = (self.me, &self.world.placement);
        for slot in claim.slots.extract_if(.., |slot| placement.owner(*slot) != Some(me)) {
            self.table.give_up(slot);
            claim.interest.remove(&slot);
        }
        if !claim.slots.is_empty() {
            let live = self.world.live.clone();
            self.learn_of(number, &live, now, out);
        }
    }
}
