//! Sets of blocks, a bit each, in memory of whatever kind.

/// Words that hold so many bits.
pub(crate) fn words(bits: u64) -> usize {
    usize::try_from(bits.div_ceil(64)).expect("the size of a disk is limited")
}

/// Calls `f` with each word that has bits of `start..start + count`, and the mask of those.
fn each(start: u64, count: u64, mut f: impl FnMut(usize, u64) -> bool) -> bool {
    let end = start + count;
    let mut at = start;
    while at < end {
        let first = at % 64;
        let n = (64 - first).min(end - at);
        let mask = (u64::MAX >> (64 - n)) << first;
        if !f((at / 64) as usize, mask) {
            return false;
        }
        at += n;
    }
    true
}

/// Adds blocks.
pub(crate) fn set(bits: &mut [u64], start: u64, count: u64) {
    each(start, count, |word, mask| {
        bits[word] |= mask;
        true
    });
}

/// Takes blocks out.
pub(crate) fn clear(bits: &mut [u64], start: u64, count: u64) {
    each(start, count, |word, mask| {
        bits[word] &= !mask;
        true
    });
}

/// Is it in?
#[inline]
pub(crate) fn has(bits: &[u64], block: u64) -> bool {
    bits[(block / 64) as usize] >> (block % 64) & 1 != 0
}

/// Is none of these in?
pub(crate) fn none(bits: &[u64], start: u64, count: u64) -> bool {
    each(start, count, |word, mask| bits[word] & mask == 0)
}

/// How many blocks from `start` on are as the first one, at most `count`.
pub(crate) fn run(bits: &[u64], start: u64, count: u64) -> u64 {
    let flip = if has(bits, start) { u64::MAX } else { 0 };
    let mut length = 0;
    each(start, count, |word, mask| {
        let other = (bits[word] ^ flip) & mask;
        if other == 0 {
            length += u64::from(mask.count_ones());
            return true;
        }
        length += u64::from(other.trailing_zeros() - mask.trailing_zeros());
        false
    });
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_what_a_list_of_flags_is() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
        let (mut bits, mut flags) = (vec![0; words(300)], vec![false; 300]);
        for _ in 0..2000 {
            let start = rng.random_range(0..300u64);
            let count = rng.random_range(0..=300 - start);
            let range = start as usize..(start + count) as usize;
            if rng.random() {
                set(&mut bits, start, count.min(40));
                flags[range.clone()].iter_mut().take(40).for_each(|f| *f = true);
            } else {
                clear(&mut bits, start, count.min(40));
                flags[range.clone()].iter_mut().take(40).for_each(|f| *f = false);
            }
            assert_eq!(none(&bits, start, count), flags[range.clone()].iter().all(|f| !f));
            assert_eq!(has(&bits, start), flags[start as usize]);
            let same = flags[range].iter().take_while(|f| **f == flags[start as usize]).count();
            assert_eq!(run(&bits, start, count), same as u64);
        }
    }
}
