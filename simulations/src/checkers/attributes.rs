//! I1 of whole nodes for what outlives connections: an attribute is what was acknowledged last, or a
//! change of which nobody was told what became (I12).
use anyhow::ensure;

use crate::cluster::history::History;

pub(crate) fn check(history: &History) -> anyhow::Result<()> {
    for (client, kept) in &history.kept {
        let Some(shown) = kept.shown else {
            anyhow::bail!("I1: client {client} is told nothing of its attribute");
        };
        let (last, unknown) = (kept.last(), shown.is_some_and(|value| kept.is_unknown(value)));
        ensure!(
            shown == last || unknown,
            "I1: client {client} reads {shown:?}, {last:?} was acknowledged last"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_what_was_acknowledged_last_or_unknown() {
        let mut history = History::default();
        let kept = history.kept.entry(3).or_default();
        for _ in 0..4 {
            kept.send();
        }
        kept.acknowledge(1);
        kept.acknowledge(3);
        let mut reads = |shown| {
            history.kept.entry(3).or_default().shown = shown;
            check(&history).is_ok()
        };
        let nothing = [None, Some(None)].map(&mut reads);
        assert_eq!(nothing, [false, false]);
        let values = [1, 2, 3, 4, 5].map(|value| reads(Some(Some(value))));
        assert_eq!(values, [false, true, true, true, false]);
    }
}
