//! The one shape of every protocol.

use crate::Time;

/// A protocol as a pure function of what happened: no clock, no IO, no threads, no randomness but its seed.
pub trait Machine {
    /// What happened.
    type Input;
    /// What must happen now.
    type Output;

    /// The only mutator. Total: never panics, never blocks; work is linear in the input.
    fn handle(&mut self, now: Time, input: Self::Input, out: &mut Outbox<Self::Output>);

    /// When `handle` must next be called with the machine's wake input, at the latest.
    fn deadline(&self) -> Option<Time>;
}

/// Where a machine puts its outputs, in order.
#[derive(Debug)]
pub struct Outbox<O>(Vec<O>);

impl<O> Outbox<O> {
    /// An empty outbox.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends one output.
    pub fn push(&mut self, output: O) {
        self.0.push(output);
    }

    /// Takes all outputs, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = O> + '_ {
        self.0.drain(..)
    }

    /// All outputs so far, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[O] {
        &self.0
    }
}

impl<O> Default for Outbox<O> {
    fn default() -> Self {
        Self::new()
    }
}
