//! The loop that every machine runs in: what waits for it and its deadline, then the machine, then what it said.
//!
//! A machine whose turns may take long has them on a thread of the pool, so that whatever else runs in this process
//! goes on meanwhile. What came while it had its turn it is given together.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use wattle_types::{Machine, Outbox, Time, UnixTime};

use crate::clock::{Believed, unix_now};

/// What a machine is given at once: beyond it what it said first would wait for long.
const TOGETHER: usize = 64;

/// Turns that are had where the machine is before whatever else waits has its turn.
const FEW_TURNS: usize = 4;

type InputOf<L> = <<L as Lane>::Machine as Machine>::Input;
type OutputOf<L> = <<L as Lane>::Machine as Machine>::Output;

/// Something for a machine.
pub(crate) enum Turn<M: Machine> {
    /// It happened.
    Input(M::Input),
    /// Somebody wants to know something.
    Look(Box<dyn FnOnce(&M) + Send>),
}

/// What is around one machine: where its inputs come from, and what is done of its outputs.
pub(crate) trait Lane: Send + 'static {
    /// Which.
    type Machine: Machine<Input: Send, Output: Send> + Send + 'static;
    /// What waits for it.
    type Item: Send;
    /// An output, and what the machine knows of it.
    type Act: Send + 'static;

    /// Whether these few turns may take long now.
    fn are_long(machine: &Self::Machine, now: Time, turns: &[Turn<Self::Machine>]) -> bool;

    /// The input that says that a deadline passed.
    fn wake() -> InputOf<Self>;

    /// The input that says what time it is by the wall clock.
    fn clock(now: UnixTime) -> InputOf<Self>;

    /// Makes a turn of what waited, if it still means something.
    fn open(&mut self, item: Self::Item) -> Option<Turn<Self::Machine>>;

    /// Makes one turn of several where the machine does them better together.
    fn together(turns: Vec<Turn<Self::Machine>>) -> Vec<Turn<Self::Machine>> {
        turns
    }

    /// What the machine knows of what it just said.
    fn read(machine: &Self::Machine, output: OutputOf<Self>) -> Self::Act;

    /// What the machine hears at once because of what it said.
    fn follows(_output: &OutputOf<Self>) -> Option<InputOf<Self>> {
        None
    }

    /// After some turns, before anything is done of what they came to: there may be more to do. Of what was opened
    /// together with them some may be `left`.
    fn after(&mut self, _machine: &Self::Machine, _left: bool, _acts: &mut Vec<Self::Act>) {}

    /// Does what the machine said.
    fn act(&mut self, act: Self::Act) -> impl Future<Output = ()> + Send;
}

/// Drives a machine until `stop`, or until nobody is left who could give it anything.
pub(crate) async fn drive<L: Lane>(
    mut lane: L,
    machine: L::Machine,
    inbox: impl Stream<Item = L::Item> + Send + Unpin,
    started: Instant,
    stop: CancellationToken,
) {
    let mut inbox = inbox.ready_chunks(TOGETHER);
    let mut machine = Box::new(machine);
    let mut turns = Vec::new();
    let mut clock = Believed::now(unix_now());
    loop {
        if turns.is_empty() {
            let wake = machine.deadline().map(|at| started + Duration::from_micros(at.as_micros()));
            let items = tokio::select! {
                () = stop.cancelled() => return,
                () = passed(wake) => Vec::new(),
                items = inbox.next() => match items {
                    Some(items) => items,
                    None => return,
                },
            };
            turns = L::together(items.into_iter().filter_map(|item| lane.open(item)).collect());
            if wake.is_some_and(|at| at <= Instant::now()) {
                turns.push(Turn::Input(L::wake()));
            }
        } else {
            tokio::task::yield_now().await;
            if stop.is_cancelled() {
                return;
            }
        }
        if let Some(now) = clock.news() {
            turns.insert(0, Turn::Input(L::clock(now)));
        }
        let mut acts;
        let now = Time::since_start(started.elapsed());
        let few = turns.len().min(FEW_TURNS);
        (machine, acts) = if L::are_long(&machine, now, turns.get(..few).unwrap_or_default()) {
            let turns = std::mem::take(&mut turns);
            let long = tokio::task::spawn_blocking(move || run::<L>(machine, turns, started));
            match long.await.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(done) => done,
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // The runtime ends.
                Err(Err(_cancelled)) => return,
            }
        } else {
            let rest = turns.split_off(few);
            run::<L>(machine, std::mem::replace(&mut turns, rest), started)
        };
        lane.after(&machine, !turns.is_empty(), &mut acts);
        for act in acts {
            lane.act(act).await;
        }
    }
}

async fn passed(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn run<L: Lane>(
    mut machine: Box<L::Machine>,
    turns: Vec<Turn<L::Machine>>,
    started: Instant,
) -> (Box<L::Machine>, Vec<L::Act>) {
    let (mut acts, mut out) = (Vec::new(), Outbox::new());
    for turn in turns {
        let mut next = VecDeque::new();
        match turn {
            Turn::Input(input) => next.push_back(input),
            Turn::Look(look) => look(&machine),
        }
        while let Some(input) = next.pop_front() {
            machine.handle(Time::since_start(started.elapsed()), input, &mut out);
            for output in out.drain() {
                next.extend(L::follows(&output));
                acts.push(L::read(&machine, output));
            }
        }
    }
    (machine, acts)
}

#[cfg(test)]
mod tests;
