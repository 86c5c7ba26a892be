//! What few have: where there is nothing of it, it takes one word.
use std::ops::{Deref, DerefMut};

/// A value that mostly is nothing. Read it as if it were there; to change it makes room for it.
#[derive(Clone, Debug)]
pub(super) struct Rare<T>(Option<Box<T>>);

/// What a value is that holds nothing.
pub(super) trait Nothing: Default + PartialEq + 'static {
    const NOTHING: &'static Self;
}

impl<T: Nothing> Rare<T> {
    pub(super) fn new(value: T) -> Self {
        Self((value != *T::NOTHING).then(|| Box::new(value)))
    }

    /// Gives its room back if there is nothing in it.
    pub(super) fn tidy(&mut self) {
        self.0.take_if(|value| **value == *T::NOTHING);
    }

    /// The value, and nothing is left.
    pub(super) fn take(&mut self) -> T {
        self.0.take().map_or_else(T::default, |value| *value)
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Nothing> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::NOTHING)
    }
}

impl<T: Nothing> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Nothing> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    impl Nothing for BTreeSet<u8> {
        const NOTHING: &'static Self = &Self::new();
    }

    #[test]
    fn nothing_takes_no_room_of_its_own() {
        let mut rare = Rare::new(BTreeSet::new());
        assert!(rare.is_empty() && rare.0.is_none());
        rare.insert(1);
        assert!(rare.contains(&1) && rare != Rare::default());
        rare.remove(&1);
        assert!(rare.0.is_some() && rare == Rare::default(), "what it holds is compared");
        rare.tidy();
        assert!(rare.0.is_none());
    }

    #[test]
    fn what_is_there_can_be_taken() {
        let mut rare = Rare::new(BTreeSet::from([7]));
        assert_eq!(rare.take(), BTreeSet::from([7]));
        assert!(rare.0.is_none() && rare.take().is_empty());
    }
}
