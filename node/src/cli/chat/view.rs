//! The log as rows of a given width, and the way up and down in it.
//!
//! Only the rows that are shown are made: a block is a message with the lines that belong to it, and blocks
//! are walked from the row at the bottom upwards.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::log::{Late, Log, What};
use super::model::{Kind, Mark, Message};
use super::text::{columns, cut, one_line, wrap, wrap_after};

/// A message shows so many rows at most; `/export` has the rest.
const MESSAGE_ROWS_MAX: usize = 60;
/// The room that a time takes: `10:41 `.
const TIME_COLUMNS: usize = 6;
/// Names stand in a column of their own where there is place for it.
const NICK_COLUMNS: usize = 8;
const NICK_COLUMNS_MAX: usize = 16;
const WIDE: usize = 48;
/// The room that a mark takes: ` (**)`.
const MARK_COLUMNS: usize = 5;

/// How things look to this person.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) color: bool,
    pub(super) zone: TimeZone,
}

impl Look {
    pub(super) fn colored(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn faint(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A colour of its own for each author, always the same.
    fn author(&self, id: &str) -> Style {
        const COLORS: [Color; 5] = [Color::Green, Color::Yellow, Color::Blue, Color::Magenta, Color::Cyan];
        let sum = id.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.colored(COLORS[sum % COLORS.len()])
    }

    fn clock(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%H:%M").to_string()
    }

    fn day(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%a %-d %b %Y").to_string()
    }
}

/// A text of ours that the node does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) text: String,
    pub(super) action: bool,
    pub(super) written: Timestamp,
    /// Why it could not be sent; it will not be tried again by itself.
    pub(super) failed: Option<String>,
}

/// The row at the bottom of what is shown: a block and a row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) block: usize,
    pub(super) row: usize,
}

/// The log at one width.
pub(super) struct View<'a> {
    pub(super) log: &'a Log,
    pub(super) pending: &'a [Pending],
    pub(super) look: &'a Look,
    pub(super) now: Timestamp,
    pub(super) width: usize,
    /// The message that a search or a jump led to.
    pub(super) found: Option<&'a str>,
}

impl View<'_> {
    /// One block a message, and one for what stands below the last.
    fn blocks(&self) -> usize {
        self.log.messages().len() + 1
    }

    /// The rows of one block.
    fn block(&self, index: usize) -> Vec<Line<'static>> {
        let mut rows = Vec::new();
        if index == 0 {
            self.log.notes_after(None).for_each(|what| rows.extend(self.note(what)));
        }
        let Some(message) = self.log.messages().get(index) else {
            self.pending.iter().for_each(|pending| rows.extend(self.pending(pending)));
            return rows;
        };
        let before = index.checked_sub(1).map(|before| &self.log.messages()[before]);
        let day = self.look.day(message.sent);
        let same_day = match before {
            Some(before) => self.look.day(before.sent) == day,
            None => self.look.day(self.now) == day,
        };
        if !same_day && !message.late {
            rows.push(self.rule(&day));
        }
        if let Some(late) = self.log.late_row(index) {
            rows.push(self.rule(&late_text(&late, self.look)));
        }
        if message.flagged && !self.log.messages()[..index].iter().any(|other| is_fork(other, message)) {
            let text =
                format!("{} signed two histories: believe neither (!)", cut(&message.nick, NICK_COLUMNS_MAX));
            rows.push(self.rule(&text).style(self.look.colored(Color::Red)));
        }
        rows.extend(self.message(message));
        self.log.notes_after(Some(&message.id)).for_each(|what| rows.extend(self.note(what)));
        rows
    }

    fn rule(&self, text: &str) -> Line<'static> {
        let text = cut(text, self.width.saturating_sub(6));
        Line::styled(format!("-- {text} --"), self.look.faint())
    }

    fn note(&self, what: &What) -> Vec<Line<'static>> {
        match what {
            What::Late(late) => {
                let text = format!("Ctrl-G: {}", late_text(late, self.look));
                vec![self.rule(&text).style(self.look.colored(Color::Yellow))]
            }
            What::Said(text) => {
                let rows = wrap(text, self.width.saturating_sub(3));
                rows.into_iter().map(|row| Line::styled(format!("-- {row}"), self.look.faint())).collect()
            }
        }
    }

    fn message(&self, message: &Message) -> Vec<Line<'static>> {
        let (label, style) = self.label(message);
        let mut text = if message.deleted { "(deleted)".to_owned() } else { message.text.clone() };
        if message.edited && !message.deleted {
            text.push_str(" (edited)");
        }
        let body = match message.kind {
            Kind::Text => Style::new(),
            Kind::Action => Style::new().add_modifier(Modifier::ITALIC),
            Kind::Notice => self.look.faint(),
        };
        let body = if message.deleted { self.look.faint() } else { body };
        let body = if self.found == Some(&message.id) { body.add_modifier(Modifier::REVERSED) } else { body };
        let mark = message.own.then_some(message.mark);
        self.lay(&Entry { time: self.look.clock(message.sent), label, style, text, body, mark })
    }

    fn pending(&self, pending: &Pending) -> Vec<Line<'static>> {
        let (label, mut text) = match pending.action {
            true => ("* you ".to_owned(), pending.text.clone()),
            false => (self.padded("you"), pending.text.clone()),
        };
        if let Some(why) = &pending.failed {
            text.push_str(&format!("\n-- not sent: {why}; Up on an empty line brings it back"));
        }
        let (style, body) = (self.look.faint(), self.look.faint());
        let time = self.look.clock(pending.written);
        self.lay(&Entry { time, label, style, text, body, mark: Some(Mark::Local) })
    }

    /// Who wrote it, as it stands before the text.
    fn label(&self, message: &Message) -> (String, Style) {
        let nick = if message.own { "you".to_owned() } else { name(&message.nick, &message.author) };
        let (fork, late) = (if message.flagged { "!" } else { "" }, if message.late { " ~" } else { "" });
        let style = match message.own {
            true => Style::new().add_modifier(Modifier::BOLD),
            false => self.look.author(&message.author).add_modifier(Modifier::BOLD),
        };
        match message.kind {
            Kind::Text => (self.padded(&format!("{nick}{fork}{late}")), style),
            Kind::Action => (format!("* {nick}{fork}{late} "), style),
            Kind::Notice => ("-- ".to_owned(), self.look.faint()),
        }
    }

    fn padded(&self, label: &str) -> String {
        let missing = if self.width < WIDE { 0 } else { (NICK_COLUMNS - 1).saturating_sub(columns(label)) };
        format!("{label}{} ", " ".repeat(missing))
    }

    /// Sets time and label before a text, and its mark at the right of the last row.
    fn lay(&self, entry: &Entry) -> Vec<Line<'static>> {
        // In a narrow window only the first row gives way to the name.
        let label = columns(&entry.label);
        let hang = if self.width < WIDE { 2 } else { TIME_COLUMNS + label };
        let marks = if entry.mark.is_some() { MARK_COLUMNS } else { 0 };
        let first = self.width.saturating_sub(TIME_COLUMNS + label + marks);
        let width = self.width.saturating_sub(hang + marks);
        let mut texts = wrap_after(&entry.text, first, width);
        if texts.len() > MESSAGE_ROWS_MAX {
            let more = texts.len() - MESSAGE_ROWS_MAX;
            texts.truncate(MESSAGE_ROWS_MAX);
            texts.push(format!("-- {more} more rows: /export writes all"));
        }
        let last = texts.len() - 1;
        let mut rows = Vec::with_capacity(texts.len());
        for (number, text) in texts.into_iter().enumerate() {
            let mut spans = if number == 0 {
                let time = Span::styled(format!("{} ", entry.time), self.look.faint());
                vec![time, Span::styled(entry.label.clone(), entry.style)]
            } else {
                vec![Span::raw(" ".repeat(hang))]
            };
            spans.push(Span::styled(text, entry.body));
            if let Some(mark) = entry.mark.filter(|_| number == last) {
                let used: usize = spans.iter().map(|span| columns(&span.content)).sum();
                let fill = self.width.saturating_sub(used + columns(mark.text()));
                spans.push(Span::raw(" ".repeat(fill)));
                spans.push(Span::styled(mark.text(), self.look.faint()));
            }
            rows.push(Line::from(spans));
        }
        rows
    }
}

/// What stands on the rows of one message.
struct Entry {
    time: String,
    label: String,
    style: Style,
    text: String,
    body: Style,
    mark: Option<Mark>,
}

/// Walking.
impl View<'_> {
    /// The rows to show, the last at the bottom: those that end at `at`, or the newest.
    pub(super) fn rows(&self, at: Option<At>, height: usize) -> Vec<Line<'static>> {
        let mut rows: Vec<Line<'static>> = Vec::new();
        let bottom = at.unwrap_or(At { block: self.blocks() - 1, row: usize::MAX });
        for index in (0..=bottom.block).rev() {
            let mut block = self.block(index);
            if index == bottom.block {
                block.truncate(bottom.row.saturating_add(1));
            }
            rows.splice(0..0, block);
            if rows.len() >= height {
                rows.drain(..rows.len() - height);
                break;
            }
        }
        rows
    }

    /// The row `count` rows above, but no farther than where the first row of all is at the top. The second
    /// value tells whether it is there.
    pub(super) fn up(&self, at: Option<At>, count: usize, height: usize) -> (Option<At>, bool) {
        let mut at = at.or_else(|| self.newest());
        let mut left = count;
        while let Some(At { block, row }) = at.filter(|_| left > 0) {
            let step = row.min(left);
            left -= step;
            at = Some(At { block, row: row - step });
            if left > 0 {
                let Some(above) = self.last_row_before(block) else { break };
                (at, left) = (Some(above), left - 1);
            }
        }
        let least = self.first_full(height);
        (at.max(least), at <= least)
    }

    /// The row `count` rows below; `None` when that is the end, which is then followed.
    pub(super) fn down(&self, at: Option<At>, count: usize) -> Option<At> {
        let At { mut block, row } = at?;
        let mut row = row + count;
        while block < self.blocks() {
            let rows = self.block(block).len();
            if row < rows {
                let newest = self.newest();
                return Some(At { block, row }).filter(|at| Some(*at) < newest);
            }
            (block, row) = (block + 1, row - rows);
        }
        None
    }

    /// The row at which a message is shown with half a screen below it.
    pub(super) fn around(&self, id: &str, height: usize) -> Option<At> {
        let block = self.log.index_of(id)?;
        let row = self.block(block).len().saturating_sub(1);
        let below = self.down(Some(At { block, row }), height / 2)?;
        Some(below).max(self.first_full(height))
    }

    fn newest(&self) -> Option<At> {
        self.last_row_before(self.blocks())
    }

    fn last_row_before(&self, block: usize) -> Option<At> {
        (0..block).rev().find_map(|block| Some(At { block, row: self.block(block).len().checked_sub(1)? }))
    }

    /// The bottom row of the window when the first row of all is at its top.
    fn first_full(&self, height: usize) -> Option<At> {
        let mut left = height;
        let mut last = None;
        for block in 0..self.blocks() {
            let rows = self.block(block).len();
            if rows >= left {
                return Some(At { block, row: left.saturating_sub(1) });
            }
            left -= rows;
            last = rows.checked_sub(1).map(|row| At { block, row }).or(last);
        }
        last
    }
}

fn is_fork(message: &Message, of: &Message) -> bool {
    message.flagged && message.author == of.author
}

/// A name that can be seen; who has none is called by the end of the id.
pub(super) fn name(nick: &str, id: &str) -> String {
    let nick = cut(nick, NICK_COLUMNS_MAX);
    let visible = nick.chars().any(|c| !c.is_whitespace() && c != char::REPLACEMENT_CHARACTER);
    if visible {
        return nick;
    }
    let end: String = one_line(id).chars().rev().take(6).collect();
    format!("..{}", end.chars().rev().collect::<String>())
}

/// `3 late messages from carol (written 09:10-09:14 while offline)`.
fn late_text(late: &Late, look: &Look) -> String {
    let nick = name(&late.nick, &late.author);
    let (first, last) = (look.clock(late.first), look.clock(late.last));
    let days = (look.day(late.first), look.day(late.last));
    let when = match (first == last, days.0 == days.1) {
        (true, true) => first,
        (_, true) => format!("{first}-{last}"),
        (_, false) => format!("{} {first} - {} {last}", days.0, days.1),
    };
    let messages = if late.count == 1 { "message" } else { "messages" };
    format!("{} late {messages} from {nick} (written {when} while offline)", late.count)
}
