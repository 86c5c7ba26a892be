//! The hub: local subscribers by channel. A shard of the gateway keeps one for its connections;
//! it knows nothing of what a subscriber is.
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Channels with fewer subscribers are searched one by one, which is faster and smaller than an
/// index of them.
const INDEX_FROM: usize = 32;

/// Subscribers by channel. `K` names a subscriber, `V` is what a delivery must know of it.
#[derive(Debug)]
pub struct Hub<C, K, V> {
    channels: HashMap<C, Subscribers<K, V>>,
}

#[derive(Debug)]
struct Subscribers<K, V> {
    list: Vec<(K, V)>,
    /// Boxed, since most channels have none.
    index: Option<Box<Index<K>>>,
}

/// Where each subscriber is in the list.
#[derive(Debug)]
struct Index<K>(HashMap<K, usize>);

impl<C, K, V> Default for Hub<C, K, V> {
    fn default() -> Self {
        Self { channels: HashMap::new() }
    }
}

impl<C: Eq + Hash, K: Copy + Eq + Hash, V> Hub<C, K, V> {
    /// Adds a subscriber, or replaces what is known of it.
    pub fn subscribe(&mut self, channel: C, key: K, value: V) {
        let empty = || Subscribers { list: Vec::with_capacity(1), index: None };
        self.channels.entry(channel).or_insert_with(empty).insert(key, value);
    }

    /// Removes a subscriber; whether there was one.
    pub fn unsubscribe<Q>(&mut self, channel: &Q, key: K) -> bool
    where
        C: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let Some(subscribers) = self.channels.get_mut(channel) else { return false };
        let found = subscribers.remove(key);
        if subscribers.list.is_empty() {
            self.channels.remove(channel);
        }
        found
    }

    /// The subscribers of a channel.
    pub fn subscribers<Q>(&self, channel: &Q) -> &[(K, V)]
    where
        C: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.channels.get(channel).map_or(&[], |subscribers| &subscribers.list)
    }

    /// Channels with subscribers.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there is no subscriber at all.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

impl<K: Copy + Eq + Hash, V> Subscribers<K, V> {
    fn insert(&mut self, key: K, value: V) {
        if let Some(at) = self.find(key) {
            self.list[at].1 = value;
            return;
        }
        self.list.push((key, value));
        match &mut self.index {
            Some(index) => {
                index.0.insert(key, self.list.len() - 1);
            }
            None if self.list.len() >= INDEX_FROM => {
                let index = self.list.iter().enumerate().map(|(n, e)| (e.0, n)).collect();
                self.index = Some(Box::new(Index(index)));
            }
            None => {}
        }
    }

    fn find(&self, key: K) -> Option<usize> {
        match &self.index {
            Some(index) => index.0.get(&key).copied(),
            None => self.list.iter().position(|entry| entry.0 == key),
        }
    }

    fn remove(&mut self, key: K) -> bool {
        let Some(at) = self.find(key) else { return false };
        self.list.swap_remove(at);
        if let Some(index) = &mut self.index {
            index.0.remove(&key);
            if let Some(moved) = self.list.get(at) {
                index.0.insert(moved.0, at);
            }
        }
        // Half of the threshold, so that a channel on it doesn't build its index over and over.
        if self.list.len() < INDEX_FROM / 2 {
            self.index = None;
        }
        if self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_channels_leave_nothing() {
        let mut hub = Hub::default();
        hub.subscribe("a", 1, 'x');
        hub.subscribe("a", 1, 'y');
        assert_eq!(hub.subscribers("a"), [(1, 'y')]);
        assert!(hub.unsubscribe("a", 1));
        assert!(!hub.unsubscribe("a", 1));
        assert!(hub.is_empty());
        assert!(hub.subscribers("a").is_empty());
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_map_would(steps in prop::collection::vec((any::<bool>(), 0..3u8, 0..90u32), 0..900)) {
            let mut hub = Hub::default();
            let mut plain: BTreeMap<(u8, u32), usize> = BTreeMap::new();
            for (n, (add, channel, key)) in steps.into_iter().enumerate() {
                if add {
                    hub.subscribe(channel, key, n);
                    plain.insert((channel, key), n);
                } else {
                    prop_assert_eq!(hub.unsubscribe(&channel, key), plain.remove(&(channel, key)).is_some());
                }
            }
            for channel in 0..3u8 {
                let mut held = hub.subscribers(&channel).to_vec();
                held.sort_unstable();
                let wanted: Vec<_> = plain.range((channel, 0)..=(channel, u32::MAX)).map(|(k, v)| (k.1, *v)).collect();
                prop_assert_eq!(held, wanted);
            }
        }
    }
}
