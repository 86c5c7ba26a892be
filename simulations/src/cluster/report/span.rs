//! What is so from one moment to another.

/// From and to, in milliseconds.
pub(super) type Time = (u64, u64);

/// Something that is one way or another, or not at all, as time goes by.
pub(super) struct Track<T> {
    open: Option<(u64, T)>,
    spans: Vec<(Time, T)>,
}

impl<T> Default for Track<T> {
    fn default() -> Self {
        Self { open: None, spans: Vec::new() }
    }
}

impl<T: PartialEq> Track<T> {
    /// From this moment on it is so.
    pub(super) fn set(&mut self, at_ms: u64, now: Option<T>) {
        if self.open.as_ref().map(|(_, open)| open) == now.as_ref() {
            return;
        }
        if let Some((from_ms, was)) = self.open.take() {
            self.spans.push(((from_ms, at_ms), was));
        }
        self.open = now.map(|now| (at_ms, now));
    }

    /// Whether it was ever so, in one way or another.
    pub(super) fn has_begun(&self) -> bool {
        self.open.is_some() || !self.spans.is_empty()
    }

    /// What it was, and when, until the end.
    pub(super) fn finish(mut self, end_ms: u64) -> Vec<(Time, T)> {
        self.set(end_ms, None);
        self.spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_the_same_is_one_span() {
        let mut track = Track::default();
        for (at_ms, now) in [(1, Some('a')), (2, Some('a')), (5, None), (7, Some('b'))] {
            track.set(at_ms, now);
        }
        assert_eq!(track.finish(9), [((1, 5), 'a'), ((7, 9), 'b')]);
    }
}
