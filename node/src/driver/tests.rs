use std::sync::{Arc, Mutex};

use futures::stream;

use super::*;

/// A machine that says what it hears.
struct Echo;

impl Machine for Echo {
    type Input = u32;
    type Output = u32;

    fn handle(&mut self, _now: Time, input: u32, out: &mut Outbox<u32>) {
        out.push(input);
    }

    fn deadline(&self) -> Option<Time> {
        None
    }
}

/// What happened: what the machine said, that it had some turns and whether more are left, and that another task ran.
#[derive(Debug, PartialEq, Eq)]
enum Happened {
    Said(u32),
    After { left: bool },
    Other,
}

struct Noting(Arc<Mutex<Vec<Happened>>>);

impl Noting {
    fn note(&self, what: Happened) {
        self.0.lock().unwrap().push(what);
    }
}

impl Lane for Noting {
    type Machine = Echo;
    type Item = u32;
    type Act = u32;

    fn are_long(_machine: &Echo, _now: Time, turns: &[Turn<Echo>]) -> bool {
        turns.iter().any(|turn| matches!(turn, Turn::Input(1000..)))
    }

    fn wake() -> u32 {
        0
    }

    fn clock(_now: UnixTime) -> u32 {
        0
    }

    fn open(&mut self, item: u32) -> Option<Turn<Echo>> {
        Some(Turn::Input(item))
    }

    fn read(_machine: &Echo, output: u32) -> u32 {
        output
    }

    fn after(&mut self, _machine: &Echo, left: bool, _acts: &mut Vec<u32>) {
        self.note(Happened::After { left });
    }

    async fn act(&mut self, act: u32) {
        self.note(Happened::Said(act));
    }
}

/// What happens when a machine finds these in its inbox, beside a task that always has something to do.
async fn driven(items: Vec<u32>) -> Vec<Happened> {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let other = Noting(Arc::clone(&notes));
    let beside = tokio::spawn(async move {
        loop {
            other.note(Happened::Other);
            tokio::task::yield_now().await;
        }
    });
    let (lane, stop) = (Noting(Arc::clone(&notes)), CancellationToken::new());
    drive(lane, Echo, stream::iter(items), Instant::now(), stop).await;
    beside.abort();
    let mut notes = std::mem::take(&mut *notes.lock().unwrap());
    // How often the other task ran in a row is the runtime's affair.
    notes.dedup();
    notes
}

#[tokio::test]
async fn a_few_short_turns_are_had_at_a_time_in_order_and_others_run_between() {
    let mut expected = Vec::new();
    for (few, left) in [(1..5, true), (5..9, true), (9..11, false)] {
        expected.push(Happened::After { left });
        expected.extend(few.map(Happened::Said));
        expected.push(Happened::Other);
    }
    // Nobody waits after the last of them.
    expected.pop();
    let happened = driven((1..11).collect()).await;
    assert_eq!(happened, expected);
}

#[tokio::test]
async fn what_may_take_long_has_all_its_turns_on_another_thread() {
    let said = |happened: &[Happened]| {
        let said = happened.iter().filter_map(|it| match it {
            Happened::Said(what) => Some(*what),
            Happened::After { .. } | Happened::Other => None,
        });
        said.collect::<Vec<_>>()
    };
    let happened = driven(vec![1, 1000, 3, 4, 5, 6]).await;
    assert_eq!(said(&happened), [1, 1000, 3, 4, 5, 6]);
    assert!(!happened.contains(&Happened::After { left: true }));
    // What is short before it does not wait for it.
    let happened = driven(vec![1, 2, 3, 4, 1000, 6]).await;
    assert_eq!(said(&happened), [1, 2, 3, 4, 1000, 6]);
    assert!(happened.contains(&Happened::After { left: true }));
}
