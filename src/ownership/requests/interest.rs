//! What gateways want, as the owner keeps it: compared by fingerprint, replaced by spans, and
//! served with what a gateway lacks of the streams that it follows.
use super::deliver;
use crate::ownership::audience::{Audience, tops_digest};
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::ownership::stream::{CATCH_UP_LEN_MAX, Resume, Stream};
use crate::ownership::user::{user_digest, with_users};
use crate::ownership::users::user_state;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::message::Publication;
use crate::protocol::peer::{ChannelInterest, Lane, PeerFrame, SlotInterest, Span, UNASKED};
use crate::protocol::time::Millis;

impl Ownership {
    pub(super) fn compare_interest(
        &self,
        from: Incarnation,
        slots: &[(Slot, u64)],
        now: Millis,
        out: &mut Out,
    ) {
        let owned = slots.iter().filter(|(slot, _)| self.table.owns(*slot));
        let answers: Vec<(Slot, bool, u64)> = owned
            .map(|(slot, digest)| {
                let audience = self.audiences.get(slot);
                let ours =
                    audience.map_or_else(|| Audience::default().digest(from), |a| a.digest(from));
                let holding = self.holdings.get(slot);
                let wanted = || audience.into_iter().flat_map(|a| a.channels_of(from));
                let tops = wanted().filter_map(|channel| {
                    let stream = holding?.stream(channel)?;
                    Some((channel, stream.committed()))
                });
                let users = wanted().filter_map(|channel| {
                    let state = user_state(holding?, channel, now)?;
                    Some((channel, user_digest(&state)))
                });
                (*slot, ours == *digest, with_users(tops_digest(tops), users))
            })
            .collect();
        if !answers.is_empty() {
            out.send(from, Lane::Data, PeerFrame::DigestAnswer { slots: answers });
        }
    }

    pub(super) fn replace_interest(
        &mut self,
        from: Incarnation,
        interest: SlotInterest,
        span: &Span,
        now: Millis,
        out: &mut Out,
    ) {
        let SlotInterest { slot, channels } = interest;
        let positions: Vec<ChannelInterest> =
            channels.iter().map(|c| ChannelInterest { present: vec![], ..c.clone() }).collect();
        let mut followed = self.inboxes_of(from, Some(slot));
        let (came, left) = self.audiences.entry(slot).or_default().replace(from, channels, span);
        followed.extend(self.inboxes_of(from, Some(slot)));
        for (slot, user) in followed {
            self.attend(slot, &user, now);
        }
        for change in left {
            self.announce(slot, change, false, out);
        }
        for change in came {
            self.announce(slot, change, true, out);
        }
        self.bring_up_to_date(from, slot, &positions, now, out);
    }

    /// Sends a gateway what it lacks of the streams that it follows.
    pub(in crate::ownership) fn bring_up_to_date(
        &mut self,
        gateway: Incarnation,
        slot: Slot,
        channels: &[ChannelInterest],
        now: Millis,
        out: &mut Out,
    ) {
        let mut asks = false;
        for ChannelInterest { channel, position, .. } in channels {
            let Some(position) = *position else { continue };
            let stream = self.holdings.get(&slot).and_then(|h| h.stream(channel));
            let short = stream
                .is_none_or(|stream| stream.falls_short_of(position) || !stream.knows(position));
            let resume = stream.map(|stream| stream.resume(position, CATCH_UP_LEN_MAX));
            let top = stream.map_or(position, Stream::committed);
            if short && self.may_know(gateway, slot, now) {
                // Somebody else may know what it saw.
                continue;
            }
            match resume.unwrap_or(Resume::Unknown) {
                // What is left out behind the last of them it has seen under other names: where it
                // stands then only an answer tells.
                Resume::Continued(publications)
                    if publications.last().map_or(position, Publication::position) != top =>
                {
                    asks = true;
                }
                Resume::Continued(publications) => {
                    let mut follows = position;
                    for publication in publications {
                        let next = publication.position();
                        let frame = deliver(slot, channel, follows, publication);
                        out.send(gateway, Lane::Data, frame);
                        follows = next;
                    }
                }
                Resume::Unsettled(_) => asks = true,
                // It has seen all that is committed.
                Resume::Ahead => {}
                Resume::Gone | Resume::Unknown => {
                    let channel = channel.clone();
                    out.send(gateway, Lane::Data, PeerFrame::Lost { slot, channel });
                }
            }
        }
        if asks {
            let slots = vec![(slot, true, UNASKED)];
            out.send(gateway, Lane::Data, PeerFrame::DigestAnswer { slots });
        }
    }
}
