//! What clients sent, what was acknowledged, and what they saw: all that the checkers go by.
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Position;

use super::clock::now_ms;

/// How long a tally counts, in milliseconds.
pub(crate) const TALLY_MS: u64 = 100;

/// A client of the run, by its number.
pub(crate) type Client = usize;

/// A publication; its number is its payload.
pub(crate) struct Sent {
    pub(crate) client: Client,
    /// Which connection of that client.
    pub(crate) connection: u32,
    pub(crate) channel: Channel,
    pub(crate) at_ms: u64,
    /// Not known to be published unless it is (I12).
    pub(crate) acknowledged: bool,
}

/// What a subscriber saw of a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// It follows the channel from here on; what was before doesn't concern it, or (`gap`) it was
    /// told that something is lost to it.
    Began { position: Position, at_ms: u64, gap: bool },
    /// It goes on from where it was, under a name that may be another.
    Continued(Position),
    /// A publication, with its number.
    Publication(Position, u64),
}

impl Seen {
    /// The publication's number, if it is one.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Publication(_, number) => Some(*number),
            _ => None,
        }
    }

    /// Where the subscriber is then.
    fn position(&self) -> Position {
        match self {
            Self::Began { position, .. }
            | Self::Continued(position)
            | Self::Publication(position, _) => *position,
        }
    }
}

/// An attribute that one client alone changes: to 1, 2, 3 and so on.
#[derive(Default, Debug)]
pub(crate) struct Kept {
    sent: u64,
    acknowledged: BTreeSet<u64>,
    /// What it was when the client asked last.
    pub(crate) shown: Option<Option<u64>>,
}

impl Kept {
    /// The next value is sent.
    pub(crate) fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    pub(crate) fn acknowledge(&mut self, value: u64) {
        self.acknowledged.insert(value);
    }

    /// The last value that is known to be set.
    pub(crate) fn last(&self) -> Option<u64> {
        self.acknowledged.last().copied()
    }

    /// Whether a value may have been set at any time until now: it was sent and not answered (I12).
    pub(crate) fn is_unknown(&self, value: u64) -> bool {
        (1..=self.sent).contains(&value) && !self.acknowledged.contains(&value)
    }
}

/// What clients did and saw within [`TALLY_MS`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u32,
    pub(crate) acknowledged: u32,
    pub(crate) refused: u32,
    pub(crate) received: u32,
    pub(crate) connections: u32,
    pub(crate) resumed: u32,
    pub(crate) gaps: u32,
}

/// See the module.
#[derive(Default)]
pub(crate) struct History {
    /// By time, in steps of [`TALLY_MS`].
    pub(crate) tallies: Vec<Tally>,
    /// Who is to follow what.
    pub(crate) expected: Vec<(Client, Channel)>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) seen: BTreeMap<(Client, Channel), Vec<Seen>>,
    /// Who may stand further in a channel than it was told: no publication has come since all rested
    /// after a split.
    pub(crate) further: BTreeSet<(Client, Channel)>,
    /// Who was there when a client asked last: the user of each connection, in order.
    pub(crate) present: BTreeMap<(Client, Channel), Vec<String>>,
    /// The attributes of clients that keep one.
    pub(crate) kept: BTreeMap<Client, Kept>,
    pub(crate) connections: u64,
    pub(crate) resumed: u64,
    pub(crate) refused: u64,
    /// Connections that nodes ended, with a code or, of who didn't read that in time, without a word.
    pub(crate) closed: u64,
    /// Clients of SDKs that tell the offset of what they received, but not under which epoch.
    pub(crate) epochless: BTreeSet<Client>,
    /// How much of `sent` had come to its end at the last rest, and was checked.
    pub(crate) settled: usize,
    received_before: usize,
    gaps_before: usize,
}

/// The history that all clients of a run write.
pub(crate) type Shared = Rc<RefCell<History>>;

impl History {
    /// A client is connected.
    pub(crate) fn connect(&mut self) {
        self.connections += 1;
        self.tally().connections += 1;
    }

    /// A publication is sent; its number.
    pub(crate) fn send(&mut self, client: Client, connection: u32, channel: Channel) -> u64 {
        let at_ms = now_ms();
        self.tally().sent += 1;
        self.sent.push(Sent { client, connection, channel, at_ms, acknowledged: false });
        self.sent.len() as u64 - 1
    }

    pub(crate) fn acknowledge(&mut self, number: u64) {
        self.sent[number as usize].acknowledged = true;
        self.tally().acknowledged += 1;
    }

    /// A publication is refused.
    pub(crate) fn refuse(&mut self) {
        self.refused += 1;
        self.tally().refused += 1;
    }

    pub(crate) fn see(&mut self, client: Client, channel: &Channel, seen: Seen) {
        let tally = self.tally();
        match seen {
            Seen::Publication(..) => tally.received += 1,
            Seen::Continued(_) => {
                tally.resumed += 1;
                self.resumed += 1;
            }
            Seen::Began { gap, .. } => tally.gaps += u32::from(gap),
        }
        self.seen.entry((client, channel.clone())).or_default().push(seen);
    }

    /// That of now.
    fn tally(&mut self) -> &mut Tally {
        let now = (now_ms() / TALLY_MS) as usize;
        let most = self.tallies.len().max(now + 1);
        self.tallies.resize(most, Tally::default());
        &mut self.tallies[now]
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.sent.iter().filter(|sent| sent.acknowledged).count()
    }

    /// Publications that arrived at subscribers.
    pub(crate) fn received(&self) -> usize {
        let seen = |seen: &Vec<Seen>| seen.iter().filter_map(Seen::number).count();
        self.received_before + self.seen.values().map(seen).sum::<usize>()
    }

    /// How often a subscriber was told that something is lost to it.
    pub(crate) fn gaps(&self) -> usize {
        let gaps = |seen: &&Seen| matches!(seen, Seen::Began { gap: true, .. });
        let seen = |seen: &Vec<Seen>| seen.iter().filter(gaps).count();
        self.gaps_before + self.seen.values().map(seen).sum::<usize>()
    }

    /// Forgets what clients were told when they asked.
    pub(crate) fn ask_again(&mut self) {
        self.present.clear();
        self.kept.values_mut().for_each(|kept| kept.shown = None);
    }

    /// Publications that came again since the last rest.
    pub(crate) fn duplicates(&self) -> usize {
        let again = |seen: &Vec<Seen>| {
            let numbers: Vec<u64> = seen.iter().filter_map(Seen::number).collect();
            let late = |number: &&u64| **number < self.settled as u64;
            let fresh: BTreeSet<&u64> = numbers.iter().filter(|number| !late(number)).collect();
            numbers.len() - fresh.len()
        };
        self.seen.values().map(again).sum()
    }

    /// Everybody rests, and what was seen so far is checked: it is forgotten but for its end. Nothing
    /// that was sent so far may come from now on. After a `split` somebody may stand further than it was
    /// told, and learns it by what it sees next.
    pub(crate) fn settle(&mut self, split: bool) {
        (self.received_before, self.gaps_before) = (self.received(), self.gaps());
        self.settled = self.sent.len();
        let at_ms = now_ms();
        for (reader, seen) in &mut self.seen {
            let Some(last) = seen.last() else { continue };
            if split {
                self.further.insert(reader.clone());
            } else if seen.iter().any(|seen| seen.number().is_some()) {
                self.further.remove(reader);
            }
            *seen = vec![Seen::Began { position: last.position(), at_ms, gap: false }];
        }
    }
}
