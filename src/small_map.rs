//! A sorted map for the many places that hold one or two entries: a vector of just those while they
//! are few, a tree of the standard library once they are many. A tree alone has room for eleven from
//! the first entry on, which of maps by slot, channel or connection is most of what an idle client takes.
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::{slice, vec};

/// From this many entries on it is a tree, until half of them are left.
const MANY: usize = 9;

/// See the module. Ordered by the keys, whatever it is inside.
#[derive(Clone)]
pub struct SmallMap<K, V>(Entries<K, V>);

#[derive(Clone)]
enum Entries<K, V> {
    /// Sorted.
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self(Entries::Few(Vec::new()))
    }
}

impl<K, V> SmallMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Entries::Few(few) => few.len(),
            Entries::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in the order of the keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        match &self.0 {
            Entries::Few(few) => Iter::Few(few.iter()),
            Entries::Many(many) => Iter::Many(many.iter()),
        }
    }

    /// The same, to change the values.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        match &mut self.0 {
            Entries::Few(few) => IterMut::Few(few.iter_mut()),
            Entries::Many(many) => IterMut::Many(many.iter_mut()),
        }
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The same, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.0 {
            Entries::Few(few) => find(few, key).ok().map(|at| &few[at].1),
            Entries::Many(many) => many.get(key),
        }
    }

    /// The same, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            Entries::Few(few) => find(few, key).ok().map(|at| &mut few[at].1),
            Entries::Many(many) => many.get_mut(key),
        }
    }

    /// Whether there is a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Sets the value of a key, and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let few = match &mut self.0 {
            Entries::Few(few) => few,
            Entries::Many(many) => return many.insert(key, value),
        };
        match find(few, &key) {
            Ok(at) => return Some(std::mem::replace(&mut few[at].1, value)),
            Err(at) => add(few, at, (key, value)),
        }
        if few.len() >= MANY {
            self.spread();
        }
        None
    }

    /// The value of a key, made if there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if let Entries::Few(few) = &self.0
            && few.len() + 1 >= MANY
            && find(few, &key).is_err()
        {
            self.spread();
        }
        match &mut self.0 {
            Entries::Few(few) => {
                let at = find(few, &key).unwrap_or_else(|at| {
                    add(few, at, (key, make()));
                    at
                });
                &mut few[at].1
            }
            Entries::Many(many) => many.entry(key).or_insert_with(make),
        }
    }

    /// The same with the value that is there by default.
    pub fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.get_or_insert_with(key, V::default)
    }

    /// Takes a key's value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let gone = match &mut self.0 {
            Entries::Few(few) => find(few, key).ok().map(|at| few.remove(at).1),
            Entries::Many(many) => many.remove(key),
        };
        self.gather();
        gone
    }

    /// Keeps only the entries of which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        match &mut self.0 {
            Entries::Few(few) => few.retain_mut(|(key, value)| keep(key, value)),
            Entries::Many(many) => many.retain(keep),
        }
        self.gather();
    }

    /// Becomes a tree.
    fn spread(&mut self) {
        if let Entries::Few(few) = &mut self.0 {
            self.0 = Entries::Many(std::mem::take(few).into_iter().collect());
        }
    }

    /// Becomes a vector if there are few; an empty one keeps no room.
    fn gather(&mut self) {
        match &mut self.0 {
            Entries::Few(few) if few.is_empty() => *few = Vec::new(),
            Entries::Many(many) if many.len() <= MANY / 2 => {
                self.0 = Entries::Few(std::mem::take(many).into_iter().collect());
            }
            _ => {}
        }
    }
}

fn find<K: Borrow<Q>, Q: Ord + ?Sized, V>(few: &[(K, V)], key: &Q) -> Result<usize, usize> {
    few.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// Most vectors begin with room for four; most maps have one or two entries.
fn add<T>(few: &mut Vec<T>, at: usize, entry: T) {
    if few.len() == few.capacity() {
        few.reserve_exact(few.len().max(1));
    }
    few.insert(at, entry);
}

impl<K: PartialEq, V: PartialEq> PartialEq for SmallMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SmallMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SmallMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

/// Borrowed entries in order.
pub enum Iter<'a, K, V> {
    /// Of a vector.
    Few(slice::Iter<'a, (K, V)>),
    /// Of a tree.
    Many(btree_map::Iter<'a, K, V>),
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(key, value)| (key, value)),
            Self::Many(many) => many.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(few) => few.size_hint(),
            Self::Many(many) => many.size_hint(),
        }
    }
}

/// Entries in order, to change the values.
pub enum IterMut<'a, K, V> {
    /// Of a vector.
    Few(slice::IterMut<'a, (K, V)>),
    /// Of a tree.
    Many(btree_map::IterMut<'a, K, V>),
}

impl<'a, K, V> Iterator for IterMut<'a, K, V> {
    type Item = (&'a K, &'a mut V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(key, value)| (&*key, value)),
            Self::Many(many) => many.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(few) => few.size_hint(),
            Self::Many(many) => many.size_hint(),
        }
    }
}

/// Owned entries in order.
pub enum IntoIter<K, V> {
    /// Of a vector.
    Few(vec::IntoIter<(K, V)>),
    /// Of a tree.
    Many(btree_map::IntoIter<K, V>),
}

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next(),
            Self::Many(many) => many.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(few) => few.size_hint(),
            Self::Many(many) => many.size_hint(),
        }
    }
}

impl<K, V> IntoIterator for SmallMap<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> IntoIter<K, V> {
        match self.0 {
            Entries::Few(few) => IntoIter::Few(few.into_iter()),
            Entries::Many(many) => IntoIter::Many(many.into_iter()),
        }
    }
}

impl<'a, K, V> IntoIterator for &'a SmallMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut SmallMap<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;

    fn into_iter(self) -> IterMut<'a, K, V> {
        self.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u8),
        Make(u8),
        Remove(u8),
        /// Keys that leave this remainder by three go.
        Retain(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0..24_u8;
        let step = prop_oneof![
            4 => key.clone().prop_map(Step::Insert),
            2 => key.clone().prop_map(Step::Make),
            4 => key.prop_map(Step::Remove),
            1 => (0..3_u8).prop_map(Step::Retain),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn it_is_what_a_tree_is(steps in steps()) {
            let (mut small, mut tree) = (SmallMap::default(), BTreeMap::new());
            for (nth, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(key) => prop_assert_eq!(small.insert(key, nth), tree.insert(key, nth)),
                    Step::Make(key) => {
                        let made = *small.get_or_insert_with(key, || nth);
                        prop_assert_eq!(made, *tree.entry(key).or_insert(nth));
                    }
                    Step::Remove(key) => prop_assert_eq!(small.remove(&key), tree.remove(&key)),
                    Step::Retain(rest) => {
                        small.retain(|key, _| key % 3 != rest);
                        tree.retain(|key, _| key % 3 != rest);
                    }
                }
                small.values_mut().for_each(|value| *value += 1);
                tree.values_mut().for_each(|value| *value += 1);
                prop_assert_eq!(small.len(), tree.len());
                prop_assert!(small.iter().eq(tree.iter()), "{small:?}, {tree:?}");
                prop_assert_eq!(small.iter().size_hint(), tree.iter().size_hint());
                for key in 0..24 {
                    prop_assert_eq!(small.get(&key), tree.get(&key));
                }
            }
            let again: SmallMap<_, _> = tree.iter().rev().map(|(key, value)| (*key, *value)).collect();
            prop_assert!(small == again && small.into_iter().eq(tree));
        }
    }

    #[test]
    fn one_entry_takes_room_for_one_and_none_takes_none() {
        let mut map = SmallMap::default();
        map.insert("a", 1);
        assert!(matches!(&map.0, Entries::Few(few) if few.capacity() == 1));
        map.remove("a");
        assert!(matches!(&map.0, Entries::Few(few) if few.capacity() == 0));
    }

    #[test]
    fn many_entries_are_a_tree_until_half_are_left() {
        let mut map: SmallMap<usize, ()> = (0..MANY).map(|key| (key, ())).collect();
        assert!(matches!(map.0, Entries::Many(_)));
        map.retain(|key, ()| *key <= MANY / 2);
        assert!(matches!(map.0, Entries::Many(_)), "no to and fro at the border");
        map.remove(&0);
        assert!(matches!(map.0, Entries::Few(_)));
    }
}
