//! What a member gossips of itself: small, rarely changing, under 1 KiB plus the list of links.
use std::fmt::Write as _;
use std::str::FromStr;

use thiserror::Error;
use tokio::sync::watch;

use crate::ownership::view::{Awaited, NameHash};
use crate::protocol::ids::Incarnation;

/// Longest client URL in bytes: it travels to every node.
pub const URL_BYTES_MAX: usize = 256;
/// Greatest weight: 64 times 256 entries are as large a ring as is still quick to compute.
pub const WEIGHT_MAX: u16 = 64;
/// Most links listed, and most whom a member waits for: a value longer than 64 KiB would be corrupted by
/// the gossip codec.
pub const LINKS_MAX: usize = 4_096;

/// Where a node is in its life; it only goes on in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// A learner: it is given copies of what it will own.
    Joining,
    /// It may be in views.
    Up,
    /// Out of views, still answering.
    Leaving,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Up => "up",
            Self::Leaving => "leaving",
        }
    }
}

/// Sets a state unless a later one is set.
pub(super) fn raise(state: &watch::Sender<State>, later: State) {
    state.send_if_modified(|state| {
        let raised = later > *state;
        *state = later.max(*state);
        raised
    });
}

/// What a member says of itself; its name and link address are its identity in gossip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Which start of its name it is.
    pub incarnation: Incarnation,
    /// Where clients reach it.
    pub client_url: String,
    /// Where it is in its life.
    pub state: State,
    /// The peers that it has a working link to, sorted.
    pub links: Vec<NameHash>,
    /// Whom it saw leave the view and waits for, sorted. Who says nothing of it waits for nobody.
    pub awaits: Vec<Awaited>,
    /// Version of the frames between nodes that it speaks.
    pub protocol: u32,
    /// Its number of copies: a member with another one is of another cluster.
    pub copies: u8,
    /// Its number of slots: likewise.
    pub slots: u16,
    /// Its share of the ring.
    pub weight: u16,
}

/// Why what a member gossips can't be used. It doesn't count as a member until it can.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FactsError {
    /// It hasn't arrived yet, or the member doesn't gossip it.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It can't be read.
    #[error("{key} is {value:?}, which this version can't read")]
    Unreadable {
        /// Which fact.
        key: &'static str,
        /// Its first characters.
        value: String,
    },
}

const INCARNATION: &str = "id";
const CLIENT_URL: &str = "url";
/// Key of the state in gossip.
pub(super) const STATE: &str = "state";
/// Key of the list of links in gossip.
pub(super) const LINKS: &str = "links";
/// Key of the list of those waited for in gossip.
pub(super) const AWAITS: &str = "awaits";
const PROTOCOL: &str = "proto";
const COPIES: &str = "copies";
const SLOTS: &str = "slots";
const WEIGHT: &str = "weight";

impl Facts {
    /// As gossip carries them.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let pairs = [
            (INCARNATION, self.incarnation.to_string()),
            (CLIENT_URL, self.client_url.clone()),
            (PROTOCOL, self.protocol.to_string()),
            (COPIES, self.copies.to_string()),
            (SLOTS, self.slots.to_string()),
            (WEIGHT, self.weight.to_string()),
            (LINKS, self.links_text()),
            (AWAITS, self.awaits_text()),
            (STATE, self.state.as_str().to_owned()),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// The value of the state's key.
    pub(super) fn state_text(&self) -> &'static str {
        self.state.as_str()
    }

    /// The value of the links' key.
    pub(super) fn links_text(&self) -> String {
        text_of(self.links.iter().map(|link| link.0))
    }

    /// The value of the key of those waited for.
    pub(super) fn awaits_text(&self) -> String {
        text_of(self.awaits.iter().map(|node| node.0))
    }

    /// Reads what gossip carried; unknown keys are skipped.
    pub fn read<'a>(value_of: impl Fn(&str) -> Option<&'a str>) -> Result<Self, FactsError> {
        let text = |key: &'static str| value_of(key).ok_or(FactsError::Missing(key));
        let client_url = text(CLIENT_URL)?;
        if client_url.len() > URL_BYTES_MAX {
            return Err(unreadable(CLIENT_URL, client_url));
        }
        let weight = number(WEIGHT, text(WEIGHT)?)?;
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(unreadable(WEIGHT, text(WEIGHT)?));
        }
        Ok(Self {
            incarnation: number(INCARNATION, text(INCARNATION)?)?,
            client_url: client_url.to_owned(),
            state: read_state(text(STATE)?)?,
            links: read_list(LINKS, text(LINKS)?, NameHash)?,
            awaits: read_list(AWAITS, value_of(AWAITS).unwrap_or(""), Awaited)?,
            protocol: number(PROTOCOL, text(PROTOCOL)?)?,
            copies: number(COPIES, text(COPIES)?)?,
            slots: number(SLOTS, text(SLOTS)?)?,
            weight,
        })
    }
}

fn unreadable(key: &'static str, value: &str) -> FactsError {
    FactsError::Unreadable { key, value: value.chars().take(40).collect() }
}

fn number<T: FromStr>(key: &'static str, value: &str) -> Result<T, FactsError> {
    value.parse().map_err(|_| unreadable(key, value))
}

fn read_state(text: &str) -> Result<State, FactsError> {
    let states = [State::Joining, State::Up, State::Leaving];
    let state = states.into_iter().find(|state| state.as_str() == text);
    state.ok_or_else(|| unreadable(STATE, text))
}

/// A list in gossip: eight hexadecimal digits an entry.
fn text_of(list: impl ExactSizeIterator<Item = u32>) -> String {
    let mut text = String::with_capacity(8 * list.len());
    for entry in list.take(LINKS_MAX) {
        // Writing to a string can't fail.
        let _ = write!(text, "{entry:08x}");
    }
    text
}

fn read_list<T: Ord>(
    key: &'static str,
    text: &str,
    entry: impl Fn(u32) -> T,
) -> Result<Vec<T>, FactsError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || !text.len().is_multiple_of(8) || text.len() > 8 * LINKS_MAX {
        return Err(unreadable(key, text));
    }
    let number = |at: usize| u32::from_str_radix(&text[at..at + 8], 16);
    let numbers: Result<Vec<u32>, _> = (0..text.len()).step_by(8).map(number).collect();
    let mut list: Vec<T> =
        numbers.map_err(|_| unreadable(key, text))?.into_iter().map(entry).collect();
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn facts() -> Facts {
        Facts {
            incarnation: Incarnation(5 << 100),
            client_url: "ws://a:8000".to_owned(),
            state: State::Up,
            links: vec![NameHash(3), NameHash(0xffff_fff0)],
            awaits: vec![Awaited(7)],
            protocol: 1,
            copies: 2,
            slots: 16384,
            weight: 3,
        }
    }

    fn read(pairs: &BTreeMap<String, String>) -> Result<Facts, FactsError> {
        Facts::read(|key| pairs.get(key).map(String::as_str))
    }

    #[test]
    fn facts_survive_gossip_and_unknown_keys() {
        let mut pairs: BTreeMap<_, _> = facts().to_pairs().into_iter().collect();
        pairs.insert("from-the-future".to_owned(), "x".to_owned());
        assert_eq!(read(&pairs), Ok(facts()));
        pairs.remove(AWAITS);
        let waits_for_nobody = Facts { awaits: vec![], ..facts() };
        assert_eq!(read(&pairs), Ok(waits_for_nobody), "an earlier version doesn't say");
    }

    #[test]
    fn facts_are_small() {
        let bytes: usize =
            facts().to_pairs().iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes + URL_BYTES_MAX < 1_024, "{bytes} bytes of facts");
    }

    #[test]
    fn half_of_the_facts_are_an_error_that_names_the_rest() {
        let mut pairs: BTreeMap<_, _> = facts().to_pairs().into_iter().collect();
        pairs.remove(STATE);
        assert_eq!(read(&pairs), Err(FactsError::Missing(STATE)));
    }

    #[test]
    fn foreign_values_are_errors_not_panics() {
        let cases = [
            (LINKS, "abc"),
            (AWAITS, "0123456"),
            (LINKS, "ééééaaaa"),
            (STATE, "asleep"),
            (WEIGHT, "0"),
            (WEIGHT, "65"),
            (SLOTS, "-1"),
            (INCARNATION, "7"),
        ];
        for (key, value) in cases {
            let mut pairs: BTreeMap<_, _> = facts().to_pairs().into_iter().collect();
            pairs.insert(key.to_owned(), value.to_owned());
            let expected = FactsError::Unreadable { key, value: value.to_owned() };
            assert_eq!(read(&pairs), Err(expected));
        }
    }

    #[test]
    fn states_go_one_way() {
        let state = watch::Sender::new(State::Joining);
        raise(&state, State::Leaving);
        raise(&state, State::Up);
        assert_eq!(*state.borrow(), State::Leaving);
    }
}
