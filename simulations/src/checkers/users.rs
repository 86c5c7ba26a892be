//! I1 for what outlives connections: an acknowledged change of a user's record is in the owner's record
//! at the end, unless one that began later undid it, and in every answer to who asked after it was
//! acknowledged; and nothing is there that nobody asked for.
use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use orbweb::delivery::core::Core;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Incarnation;
use orbweb::protocol::user::{Field, UserChange};

/// A change, from when it was asked for until it was acknowledged, if it was.
#[derive(Clone, Debug)]
struct Write {
    change: UserChange,
    began: u64,
    acknowledged: Option<u64>,
}

/// All changes of a run, by inbox and field.
#[derive(Default)]
pub(crate) struct Writes {
    asked: BTreeMap<(Channel, Field), Vec<Write>>,
}

impl Writes {
    /// Notes that a change is asked for; its number among those of its field.
    pub(crate) fn begin(&mut self, user: &Channel, change: UserChange, now: u64) -> usize {
        let writes = self.asked.entry((user.clone(), change.field())).or_default();
        writes.push(Write { change, began: now, acknowledged: None });
        writes.len() - 1
    }

    pub(crate) fn acknowledge(&mut self, user: &Channel, field: Field, number: usize, now: u64) {
        if let Some(writes) = self.asked.get_mut(&(user.clone(), field)) {
            writes[number].acknowledged = Some(now);
        }
    }

    /// What was read of an attribute by somebody who asked at `asked`, and got the answer now.
    pub(crate) fn check_read(
        &self,
        user: &Channel,
        key: &str,
        read: Option<&[u8]>,
        asked: u64,
    ) -> anyhow::Result<()> {
        let field = Field::Attribute(key.into());
        let Some(writes) = self.asked.get(&(user.clone(), field)) else {
            ensure!(read.is_none(), "I9: {user} has {key}, which nobody asked for");
            return Ok(());
        };
        let before = |write: &&Write| write.acknowledged.is_some_and(|at| at < asked);
        let undone = |write: &Write| {
            let ended = write.acknowledged.unwrap_or(u64::MAX);
            writes.iter().filter(before).any(|later| later.began > ended)
        };
        let reads = |write: &&Write| match &write.change {
            UserChange::Set { value, .. } => read == Some(&value[..]),
            _ => read.is_none(),
        };
        let untouched = read.is_none() && !writes.iter().any(|write| before(&write));
        ensure!(
            untouched || writes.iter().filter(reads).any(|write| !undone(write)),
            "I1: stale read of {key} of {user} asked at {asked}: {read:?} of {writes:?}"
        );
        Ok(())
    }

    /// Where two may own a slot unknown to each other (`split`), an acknowledged change may have
    /// lost to one of the other side, whichever began later.
    pub(crate) fn check(
        &self,
        nodes: &[(Incarnation, &Core)],
        slots: u16,
        split: bool,
    ) -> anyhow::Result<()> {
        for ((user, field), writes) in &self.asked {
            let slot = user.slot(slots);
            let owner = nodes.iter().find(|(_, core)| core.ownership().owns(slot));
            let (_, core) = owner.with_context(|| format!("nobody owns {slot:?}"))?;
            let record = core.ownership().holding(slot).and_then(|holding| holding.user(user));
            let last = record.and_then(|record| record.last(field)).map(|last| &last.change);
            let acknowledged = writes.iter().filter(|write| write.acknowledged.is_some());
            let Some(last) = last else {
                let lost = acknowledged.last();
                ensure!(lost.is_none(), "I1: {lost:?} of {user} was acknowledged and is gone");
                continue;
            };
            let candidates: Vec<&Write> = writes.iter().filter(|w| w.change == *last).collect();
            ensure!(!candidates.is_empty(), "I9: {user} has {last:?}, which nobody asked for");
            let undone = |write: &Write| {
                let ended = write.acknowledged.unwrap_or(u64::MAX);
                acknowledged.clone().any(|later| later.began > ended)
            };
            ensure!(
                split || candidates.iter().any(|write| !undone(write)),
                "I1: {user} has {last:?}, but a later change was acknowledged: {writes:?}"
            );
        }
        Ok(())
    }
}
