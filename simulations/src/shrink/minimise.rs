//! The smallest list that still does what the whole one does, by leaving parts of it out: delta debugging
//! (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002). Pure: what a list
//! does is up to the caller.

/// Which of these lists does it, the first in order. An error ends the search.
pub(super) type First<'a, T> = dyn FnMut(&[Vec<T>]) -> anyhow::Result<Option<usize>> + 'a;

/// Some of `whole`, which does it, in its order: it still does, and doesn't without any one of its items.
pub(super) fn minimise<T: Clone>(
    whole: Vec<T>,
    first: &mut First<'_, T>,
) -> anyhow::Result<Vec<T>> {
    if first(&[Vec::new()])?.is_some() {
        return Ok(Vec::new());
    }
    let (mut list, mut parts) = (whole, 2);
    while list.len() > 1 {
        parts = parts.min(list.len());
        let size = list.len().div_ceil(parts);
        let mut smaller: Vec<Vec<T>> = list.chunks(size).map(<[T]>::to_vec).collect();
        let alone = smaller.len();
        // Of two parts, one is all but the other.
        smaller.extend((0..alone).filter(|_| alone > 2).map(|part| all_but(&list, size, part)));
        match first(&smaller)? {
            Some(found) => {
                list = smaller.swap_remove(found);
                parts = if found < alone { 2 } else { (parts - 1).max(2) };
            }
            None if size == 1 => break,
            None => parts *= 2,
        }
    }
    Ok(list)
}

/// A list without one of its parts of that size.
fn all_but<T: Clone>(list: &[T], size: usize, part: usize) -> Vec<T> {
    let kept = list.chunks(size).enumerate().filter(|(place, _)| *place != part);
    kept.flat_map(|(_, chunk)| chunk.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest list that does it by `does`, and how many lists were asked about.
    fn smallest(length: u32, does: impl Fn(&[u32]) -> bool) -> (Vec<u32>, usize) {
        let mut asked = 0;
        let mut first = |lists: &[Vec<u32>]| {
            asked += lists.len();
            Ok(lists.iter().position(|list| does(list)))
        };
        let found = minimise((0..length).collect(), &mut first).expect("nothing fails");
        (found, asked)
    }

    #[test]
    fn what_isnt_needed_is_left_out() {
        for needed in [&[3][..], &[0, 15], &[2, 7, 8], &[0, 1, 2, 3], &[]] {
            let (found, _) = smallest(16, |list| needed.iter().all(|item| list.contains(item)));
            assert_eq!(found, needed);
        }
    }

    #[test]
    fn nothing_more_can_be_left_out_even_if_parts_depend_on_each_other() {
        // Three that are neighbours, or 12 with any other.
        let does = |list: &[u32]| {
            list.windows(3).any(|of| of[0] + 2 == of[2]) || (list.contains(&12) && list.len() == 2)
        };
        let (found, _) = smallest(13, does);
        assert!(does(&found), "{found:?}");
        for left_out in &found {
            let less: Vec<u32> = found.iter().copied().filter(|item| item != left_out).collect();
            assert!(!does(&less), "{found:?} without {left_out}");
        }
    }

    #[test]
    fn one_of_many_is_found_soon() {
        let (found, asked) = smallest(64, |list| list.contains(&50));
        assert_eq!(found, [50]);
        assert!(asked <= 2 * 6 + 1, "{asked}");
    }

    #[test]
    fn an_error_ends_it() {
        let mut first = |_: &[Vec<u8>]| anyhow::bail!("no process");
        assert!(minimise(vec![1, 2], &mut first).is_err());
    }
}
