//! Which packets of a peer were opened already (RFC 6479: a ring of bits instead of a shifted one).

const WORD_BITS: u64 = 64;
/// One word more than the window is wide, so that the word being entered can be cleared.
const WORDS: usize = 17;
/// How far behind the newest a packet may be.
pub(super) const WINDOW: u64 = (WORDS as u64 - 1) * WORD_BITS;

/// The last [`WINDOW`] counters of a peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// One more than the greatest seen.
    next: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// Whether this counter was not added yet, and is not too old to tell.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        counter >= self.next
            || (self.next - counter <= WINDOW && self.seen[word(counter)] & bit(counter) == 0)
    }

    /// Adds a counter that is new.
    pub(super) fn add(&mut self, counter: u64) {
        if counter >= self.next {
            let (last, now) = (self.next.saturating_sub(1) / WORD_BITS, counter / WORD_BITS);
            let entered = (now - last).min(WORDS as u64);
            for step in 0..entered {
                self.seen[word((now - step) * WORD_BITS)] = 0;
            }
            self.next = counter + 1;
        }
        self.seen[word(counter)] |= bit(counter);
    }
}

fn word(counter: u64) -> usize {
    // Less than WORDS, so it fits.
    ((counter / WORD_BITS) % WORDS as u64) as usize
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{WINDOW, Window};

    #[test]
    fn a_counter_is_new_once() {
        let mut window = Window::default();
        for counter in [0, 5, 3, 4, 70, 1100, 1099] {
            assert!(window.is_new(counter), "{counter} comes for the first time");
            window.add(counter);
            assert!(!window.is_new(counter), "{counter} came already");
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_refused() {
        let mut window = Window::default();
        window.add(WINDOW + 9);
        assert!(!window.is_new(9));
        assert!(window.is_new(10));
    }

    proptest! {
        #[test]
        fn the_window_tells_what_a_set_would_tell(counters in prop::collection::vec(0u64..5_000, 1..400)) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            for counter in counters {
                let newest = seen.last().copied();
                let too_old = newest.is_some_and(|newest| counter < newest && newest - counter >= WINDOW);
                prop_assert_eq!(window.is_new(counter), !too_old && !seen.contains(&counter));
                if window.is_new(counter) {
                    window.add(counter);
                    seen.insert(counter);
                }
            }
        }
    }
}
