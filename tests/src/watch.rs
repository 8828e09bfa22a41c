//! `members --watch --json` of one node, as a script reads it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binary::Machine;
use crate::overlay::fail;

/// How long something that must come may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each line with when it came.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    lines: Receiver<(Instant, Value)>,
    seen: Vec<(Instant, Value)>,
}

impl Watch {
    /// Watches from now on.
    ///
    /// # Panics
    /// When the command does not start.
    #[must_use]
    pub fn start(machine: &Machine, node: &str) -> Self {
        let words = ["-n", node, "members", "--watch", "--json"];
        let child = machine.command(&words).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| fail(&error.to_string()));
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let line = serde_json::from_str(&line).unwrap_or_default();
                    if sender.send((Instant::now(), line)).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that says that `id` is `to`; how long after `since` it came.
    ///
    /// # Panics
    /// When it does not come.
    pub fn until(&mut self, id: &str, to: &str, since: Instant) -> Duration {
        let is_it = |line: &Value| line["id"] == id && line["to"] == to;
        let already = self.seen.iter().find(|(at, line)| *at >= since && is_it(line)).map(|(at, _)| *at);
        if let Some(at) = already {
            return at.duration_since(since);
        }
        loop {
            let left = PATIENCE.saturating_sub(since.elapsed());
            let Ok((at, line)) = self.lines.recv_timeout(left) else {
                let seen = self.all();
                fail(&format!("{id} did not become {to}: {seen:#?}"))
            };
            self.seen.push((at, line.clone()));
            if is_it(&line) {
                return at.duration_since(since);
            }
        }
    }

    /// Everything that came so far.
    pub fn all(&mut self) -> Vec<Value> {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Whom it called faulty that is none of these.
    pub fn false_alarms(&mut self, dead: &[&str]) -> Vec<Value> {
        let is_false = |line: &Value| line["to"] == "faulty" && !dead.iter().any(|id| line["id"] == **id);
        self.all().into_iter().filter(is_false).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Ignored because it may have ended with its node.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
