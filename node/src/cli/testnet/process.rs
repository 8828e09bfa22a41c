//! A process of another program's run, told apart from one that has its number by chance.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process: its number, and when it started since which boot. Numbers are used again; all three together are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    pub(super) pid: u32,
    started_ticks: u64,
    boot: String,
}

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Its memory now.
    pub(super) rss_bytes: u64,
    /// Since it began, on all processors together.
    pub(super) cpu: Duration,
}

impl Taken {
    /// An equal part of it.
    pub(super) fn divided(self, parts: u64) -> Self {
        let parts = parts.max(1);
        Self { rss_bytes: self.rss_bytes / parts, cpu: self.cpu / u32::try_from(parts).unwrap_or(u32::MAX) }
    }
}

/// How a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Gone,
    Running,
    Frozen,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn now(pid: u32) -> Option<Self> {
        let (_, started_ticks) = stat(pid)?;
        Some(Self { pid, started_ticks, boot: boot()? })
    }

    /// How it does. One that ended and that nobody has asked after yet is gone.
    pub(super) fn look(&self) -> Look {
        match stat(self.pid) {
            Some((state, started))
                if started == self.started_ticks && boot().as_ref() == Some(&self.boot) =>
            {
                match state {
                    'Z' | 'X' => Look::Gone,
                    'T' | 't' => Look::Frozen,
                    _ => Look::Running,
                }
            }
            _ => Look::Gone,
        }
    }

    /// What it takes; `None` when it is gone.
    pub(super) fn taken(&self) -> Option<Taken> {
        let fields = fields(self.pid).filter(|_| self.look() != Look::Gone)?;
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let ticks = number(11)? + number(12)?;
        let pages = number(21)?;
        Some(Taken {
            rss_bytes: pages * rustix::param::page_size() as u64,
            cpu: Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?,
        })
    }

    /// Sends a signal to it, and to no other process that has its number meanwhile. False when it is gone.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(Ok(handle)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
        // The handle is of one process, whatever happens to the number from here on.
        self.look() != Look::Gone && pidfd_send_signal(handle, signal).is_ok()
    }
}

/// The fields of proc(5) from the state on: the name before them may hold anything, even `)`.
fn fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// The state of a process and when it started.
fn stat(pid: u32) -> Option<(char, u64)> {
    let fields = fields(pid)?;
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_number_that_is_used_again_is_not_the_process_that_had_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::now(child.id()).unwrap();
        assert_eq!(process.look(), Look::Running);
        let earlier = Process { started_ticks: process.started_ticks - 1, ..process.clone() };
        let rebooted = Process { boot: "another".to_owned(), ..process };
        for other in [&earlier, &rebooted] {
            assert_eq!(other.look(), Look::Gone);
            assert!(!other.signal(Signal::KILL), "it would kill a stranger");
        }
        assert!(process.signal(Signal::STOP));
        while process.look() != Look::Frozen {
            std::thread::yield_now();
        }
        assert!(process.signal(Signal::KILL));
        child.wait().unwrap();
        assert_eq!(process.look(), Look::Gone);
        assert!(!process.signal(Signal::KILL));
    }
}
