//! A timer wheel: one for all connections of a shard instead of a timer each. Deadlines are in ticks
//! of the shard; it never reads a clock.

/// Ticks ahead that the wheel reaches; later deadlines come up early and are set again.
const SPOKES: u64 = 128;

/// Keys by the tick when they are due.
#[derive(Debug)]
pub(super) struct Wheel<K> {
    spokes: Vec<Vec<K>>,
    now: u64,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Self { spokes: (0..SPOKES).map(|_| Vec::new()).collect(), now: 0 }
    }
}

impl<K> Wheel<K> {
    /// The tick at which a key that is due at `due` comes up: no later than the last within reach,
    /// and the next at the earliest.
    pub(super) fn within_reach(&self, due: u64) -> u64 {
        due.clamp(self.now + 1, self.now + SPOKES - 1)
    }

    /// Sets a key for a tick that is within reach.
    pub(super) fn set(&mut self, tick: u64, key: K) {
        let tick = self.within_reach(tick);
        self.spokes[(tick % SPOKES) as usize].push(key);
    }

    /// The current tick.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Goes on by one tick and returns its keys.
    pub(super) fn advance(&mut self) -> Vec<K> {
        self.now += 1;
        std::mem::take(&mut self.spokes[(self.now % SPOKES) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_up_at_their_tick() {
        let mut wheel = Wheel::default();
        for (due, key) in [(3, 'a'), (0, 'b'), (1000, 'c')] {
            wheel.set(due, key);
        }
        let due: Vec<_> = (0..SPOKES).map(|_| wheel.advance()).collect();
        assert_eq!(due[0], ['b']);
        assert_eq!(due[2], ['a']);
        assert_eq!(due[SPOKES as usize - 2], ['c']);
        assert_eq!(due.iter().flatten().count(), 3);
    }
}
