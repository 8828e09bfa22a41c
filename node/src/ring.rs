//! The newest lines of something, numbered, for any number of readers that each go at their own pace.
//!
//! One bounded buffer for all readers: a slow reader costs nothing and delays nobody; it finds a gap and is told how wide.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The newest `capacity` lines; the first one ever has the number 1.
#[derive(Debug)]
pub struct Ring<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct State<T> {
    next: u64,
    lines: VecDeque<T>,
}

/// What a reader has not seen yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread<T> {
    /// Lines that are gone.
    pub lost: u64,
    /// The number of the first of `lines`; of the next one to come, when there are none.
    pub first: u64,
    /// Oldest first.
    pub lines: Vec<T>,
}

impl<T: Clone> Ring<T> {
    /// An empty ring.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let state = Mutex::new(State { next: 1, lines: VecDeque::with_capacity(capacity.min(1024)) });
        Self { capacity: capacity.max(1), state, newest: watch::Sender::new(0) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        // A panic while pushing leaves the ring whole: at worst one line is missing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the line that `make` writes for its number, dropping the oldest one when the ring is full.
    pub fn push(&self, make: impl FnOnce(u64) -> T) {
        let mut state = self.lock();
        let number = state.next;
        state.next = number.saturating_add(1);
        if state.lines.len() == self.capacity {
            state.lines.pop_front();
        }
        state.lines.push_back(make(number));
        drop(state);
        self.newest.send_replace(number);
    }

    /// The number of the newest line; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// What came after the line `seen`. A number that was never given out counts as the newest: a reader from before a restart
    /// starts over.
    #[must_use]
    pub fn after(&self, seen: u64) -> Unread<T> {
        let state = self.lock();
        let newest = state.next.saturating_sub(1);
        let seen = seen.min(newest);
        let held = u64::try_from(state.lines.len()).unwrap_or(u64::MAX);
        let oldest = state.next.saturating_sub(held);
        let lost = oldest.saturating_sub(seen.saturating_add(1));
        let skip = usize::try_from(seen.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let lines: Vec<T> = state.lines.iter().skip(skip).cloned().collect();
        Unread { lost, first: seen.saturating_add(1).max(oldest), lines }
    }

    /// Wakes whenever a line was added.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_keeps_up_sees_every_line_once() {
        let ring = Ring::new(3);
        assert_eq!(ring.after(0), Unread { lost: 0, first: 1, lines: Vec::<u64>::new() });
        ring.push(|number| number);
        ring.push(|number| number);
        assert_eq!(ring.after(0), Unread { lost: 0, first: 1, lines: vec![1, 2] });
        assert_eq!(ring.after(1), Unread { lost: 0, first: 2, lines: vec![2] });
        assert_eq!(ring.after(2), Unread { lost: 0, first: 3, lines: vec![] });
    }

    #[test]
    fn a_reader_that_is_too_slow_is_told_how_many_lines_it_lost() {
        let ring = Ring::new(3);
        for _ in 0..10 {
            ring.push(|number| number);
        }
        assert_eq!(ring.after(2), Unread { lost: 5, first: 8, lines: vec![8, 9, 10] });
        assert_eq!(ring.after(7), Unread { lost: 0, first: 8, lines: vec![8, 9, 10] });
        assert_eq!(ring.after(99), Unread { lost: 0, first: 11, lines: vec![] });
    }
}
