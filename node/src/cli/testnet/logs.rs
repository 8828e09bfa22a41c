//! `testnet logs`: the logs of all nodes as one, in the order of their times.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::state::{Place, Row};
use crate::cli::documents::{TestnetLogKind, TestnetLogLine};
use crate::cli::errors::{Failure, of_io};
use crate::cli::session::Session;
use crate::cli::table::{fill, tame};
use crate::cli::values::clock;

/// How often new lines are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One node's log, and how far it was read.
struct Source {
    index: u32,
    name: String,
    file: PathBuf,
    read: u64,
    /// The beginning of a line that is not whole yet.
    rest: Vec<u8>,
    /// The time of the last line that had one.
    last: Timestamp,
}

pub(super) async fn logs(session: &Session, args: &super::Logs) -> Result<(), Failure> {
    let place = Place::named(session, args.net.name.as_ref())?;
    let state = place.read()?;
    let rows: Vec<&Row> = match &args.which {
        Some(node) => vec![state.node(node)?],
        None => state.nodes.iter().collect(),
    };
    let mut sources = rows.iter().map(|row| Source::of(&place, row)).collect::<Result<Vec<_>, _>>()?;
    let width = sources.iter().map(|source| source.name.len()).max().unwrap_or_default();
    loop {
        let mut lines = Vec::new();
        for source in &mut sources {
            lines.extend(source.more()?);
        }
        // Stable: lines of one node and one time keep their order.
        lines.sort_by_key(|line| line.ts);
        for line in &lines {
            show(session, line, width)?;
        }
        if !args.follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Source {
    fn of(place: &Place, row: &Row) -> Result<Self, Failure> {
        let file = place.paths(&row.name)?.log_file;
        let (index, name) = (row.index, row.name.clone());
        Ok(Self { index, name, file, read: 0, rest: Vec::new(), last: Timestamp::UNIX_EPOCH })
    }

    /// The lines that came since the last look.
    fn more(&mut self) -> Result<Vec<TestnetLogLine>, Failure> {
        let failed = |error: &std::io::Error| Failure::from(of_io("read", &self.file, error));
        let mut file = match File::open(&self.file) {
            Ok(file) => file,
            // A node that was removed says nothing more.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&error)),
        };
        file.seek(SeekFrom::Start(self.read)).map_err(|error| failed(&error))?;
        let count = file.read_to_end(&mut self.rest).map_err(|error| failed(&error))?;
        self.read = self.read.saturating_add(count as u64);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole).into_owned();
        Ok(text.lines().map(|line| self.line(line)).collect())
    }

    fn line(&mut self, line: &str) -> TestnetLogLine {
        let (at, text) = match line.split_once(' ').map(|(at, text)| (at.parse::<Timestamp>(), text)) {
            Some((Ok(at), text)) => (at, text),
            _ => (self.last, line),
        };
        self.last = at;
        TestnetLogLine {
            kind: TestnetLogKind::Log,
            ts: at,
            index: self.index,
            name: self.name.clone(),
            text: text.trim_start().to_owned(),
        }
    }
}

fn show(session: &Session, line: &TestnetLogLine, width: usize) -> Result<(), Failure> {
    if session.out.json {
        return session.out.document(line);
    }
    let who = session.out.paint_number(line.index, &fill(&line.name, width));
    session.out.line(&format!("{} {who} {}", clock(line.ts), tame(&line.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_time_follow_the_line_before_them() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("log");
        std::fs::write(
            &file,
            "2026-01-02T03:04:05.5Z  INFO wattle: one\n  more of it\n2026-01-02T03:04:06Z  WARN ha",
        )
        .unwrap();
        let mut source = Source {
            index: 0,
            name: "alice".to_owned(),
            file: file.clone(),
            read: 0,
            rest: Vec::new(),
            last: Timestamp::UNIX_EPOCH,
        };
        let lines = source.more().unwrap();
        assert_eq!(
            lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
            ["INFO wattle: one", "more of it"]
        );
        assert_eq!(lines[0].ts, lines[1].ts);
        assert!(source.more().unwrap().is_empty(), "half a line is none yet");
        use std::io::Write as _;
        File::options().append(true).open(&file).unwrap().write_all(b"lf\n").unwrap();
        assert_eq!(source.more().unwrap()[0].text, "WARN half");
    }
}
