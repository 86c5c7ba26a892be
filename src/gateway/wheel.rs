//! A timer wheel: one for all connections of a shard instead of a timer each. Deadlines are in ticks
//! of the shard; it never reads a clock.

/// Ticks ahead that the wheel reaches; later deadlines come up early and are set again.
const SPOKES: u64 = 128;

/// Keys by the tick when they are due.
#[derive(Debug)]
pub struct Wheel<K> {
    spokes: Vec<Vec<K>>,
    now: u64,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Self { spokes: (0..SPOKES).map(|_| Vec::new()).collect(), now: 0 }
    }
}

impl<K> Wheel<K> {
    /// Sets a key for the tick `due`, or for the last tick within reach if that is earlier; the
    /// next tick at the earliest. Returns the tick.
    pub fn set(&mut self, due: u64, key: K) -> u64 {
        let tick = due.clamp(self.now + 1, self.now + SPOKES - 1);
        self.spokes[(tick % SPOKES) as usize].push(key);
        tick
    }

    /// The current tick.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Goes on by one tick and returns its keys.
    pub fn advance(&mut self) -> Vec<K> {
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
        assert_eq!(wheel.set(3, 'a'), 3);
        assert_eq!(wheel.set(0, 'b'), 1);
        assert_eq!(wheel.set(1000, 'c'), SPOKES - 1);
        let due: Vec<_> = (0..SPOKES).map(|_| wheel.advance()).collect();
        assert_eq!(due[0], ['b']);
        assert_eq!(due[2], ['a']);
        assert_eq!(due[SPOKES as usize - 2], ['c']);
        assert_eq!(due.iter().flatten().count(), 3);
    }
}
