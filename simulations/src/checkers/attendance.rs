//! I1 and I9 for who is connected: nobody is called offline who wasn't away for the time that the
//! configuration allows, nobody online who had no connection, no change is told twice to somebody
//! who watches, and in the end everybody is told what is so.
use anyhow::ensure;
use orbweb::protocol::ids::{ClientId, Incarnation};

/// How long somebody may be without a connection and isn't called offline, where it is checked when
/// that is said. Longer than what is lost takes to be told again.
pub(crate) const OFFLINE_AFTER_MS: u64 = 6_500;
/// The same where only the end is checked: owners that come late into their own wait anew.
pub(crate) const OFFLINE_SOON_MS: u64 = 3_000;
/// Within this after a change everybody who watches was told, or was told of a later one.
const TOLD_WITHIN_MS: u64 = 9_000;

/// A user with one connection at a time, and somebody who watches.
#[derive(Default)]
pub(crate) struct Person {
    /// Where the connection is, or is being made.
    pub(crate) at: Option<(Incarnation, ClientId)>,
    /// Whether it was made.
    pub(crate) connected: bool,
    /// While there is none: when the next is tried, if any is.
    pub(crate) back_at: Option<u64>,
    /// From when until when at least the node of the connection did nothing: others may have taken
    /// it for dead, and its connections are heard of again only a while after it is back.
    hung: Option<(u64, u64)>,
    /// From when until when there was a connection, or might have been.
    here: Vec<(u64, Option<u64>)>,
    /// From when until when there was certainly none.
    away: Vec<(u64, Option<u64>)>,
    /// Where somebody watches, and what was told there last.
    pub(crate) watched: Option<(Incarnation, ClientId)>,
    pub(crate) told: Option<bool>,
}

impl Person {
    /// Looks for a connection from now on.
    pub(crate) fn come(&mut self, node: Incarnation, client: ClientId, now: u64) {
        self.at = Some((node, client));
        self.back_at = None;
        self.here.push((now, None));
    }

    /// The connection is made.
    pub(crate) fn arrive(&mut self, now: u64) {
        self.connected = true;
        self.away.last_mut().into_iter().for_each(|(_, until)| *until = until.or(Some(now)));
    }

    /// Whether the node that the connection is to does nothing at all.
    pub(crate) fn hang(&mut self, hung: bool, now: u64) {
        self.hung = self.hung.filter(|(_, until)| now.saturating_sub(*until) < TOLD_WITHIN_MS);
        if hung {
            self.hung = Some((self.hung.map_or(now, |(since, _)| since), now));
        }
    }

    /// There is no connection any more, nor is one being made.
    pub(crate) fn go(&mut self, now: u64, back_at: u64) {
        self.at = None;
        self.back_at = Some(back_at);
        self.here.last_mut().into_iter().for_each(|(_, until)| *until = Some(now));
        let since = self.hung.take().map_or(now, |(since, _)| since);
        if std::mem::take(&mut self.connected) || self.away.is_empty() {
            self.away.push((since, None));
        }
    }

    /// Somebody who watches is told.
    pub(crate) fn tell(&mut self, online: bool, now: u64, strict: bool) -> anyhow::Result<()> {
        let before = self.told.replace(online);
        ensure!(before != Some(online), "I9: told twice that online is {online}");
        if !strict {
            return Ok(());
        }
        let recent = now.saturating_sub(TOLD_WITHIN_MS);
        if online {
            // Each owner in turn may have waited for somebody to come back.
            let news = before.is_some();
            let mut here = self.here.iter();
            let here = !news || here.any(|(_, until)| until.is_none_or(|until| until >= recent));
            ensure!(here, "I9: called online without a connection: {:?}", self.here);
        } else if before.is_none() {
            // To who begins to watch somebody who has just come, it may not be known yet.
            let ended = self.away.last().and_then(|(_, until)| *until);
            let settled = self.connected && ended.is_some_and(|ended| ended < recent);
            ensure!(!settled, "I1: called offline, but there since {ended:?}");
        } else {
            let long = |from: u64, until: u64| until.min(now) - from.min(now) >= OFFLINE_AFTER_MS;
            let gone = |(from, until): &(u64, Option<u64>)| {
                let until = until.unwrap_or(now);
                until >= recent && long(*from, until)
            };
            let hung = self.hung.map(|(since, _)| (since, None));
            let away = self.away.iter().chain(&hung).any(gone);
            ensure!(away, "I1: called offline, but was away only {:?}", self.away);
        }
        Ok(())
    }

    /// What is so at the end must be told, to who asks and to who watched.
    pub(crate) fn check_end(&self, name: &str, online: bool) -> anyhow::Result<()> {
        let truth = self.connected;
        ensure!(online == truth, "I1: {name} is told to be online = {online}, but it is {truth}");
        let told = self.told.filter(|_| self.watched.is_some());
        ensure!(
            told.is_none_or(|told| told == truth),
            "I1: who watches {name} was told last that online is {told:?}, but it is {truth}"
        );
        Ok(())
    }
}
