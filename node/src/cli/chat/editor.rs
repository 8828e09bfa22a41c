//! The line a person types into, moved through and deleted from by grapheme: what looks like one character
//! is one character, whatever it is made of.

use std::ops::Range;

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation as _};

use super::text::shown;

/// A text with a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Editor {
    text: String,
    /// A byte of `text`, always between two graphemes.
    cursor: usize,
    /// What Ctrl-W and Ctrl-U took away last; Ctrl-Y puts it back.
    killed: String,
}

/// The text was not inserted: it would have more bytes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    pub(super) bytes: usize,
}

/// A text in rows, and where the cursor stands in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Parts of the text; a line break stands between two of them.
    pub(super) rows: Vec<Range<usize>>,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Editor {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Puts another text into place, with the cursor at its end.
    pub(super) fn set(&mut self, text: &str) {
        text.clone_into(&mut self.text);
        self.cursor = self.text.len();
    }

    /// Takes the text out.
    pub(super) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// The text as it would be with `text` inserted at the cursor.
    pub(super) fn with(&self, text: &str) -> String {
        let (before, after) = self.text.split_at(self.cursor);
        format!("{before}{}{after}", clean(text))
    }

    /// Inserts at the cursor, all of it or nothing. Line ends become `\n`; other control characters but the
    /// tab are left out.
    pub(super) fn insert(&mut self, text: &str, bytes_max: usize) -> Result<(), TooLong> {
        let text = clean(text);
        let bytes = self.text.len() + text.len();
        if bytes > bytes_max {
            return Err(TooLong { bytes });
        }
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
        self.snap();
        Ok(())
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.before(self.cursor);
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.after(self.cursor);
    }

    pub(super) fn word_left(&mut self) {
        self.cursor = self.word_before();
    }

    pub(super) fn word_right(&mut self) {
        let rest = &self.text[self.cursor..];
        let words = rest.split_word_bound_indices();
        let end = words.into_iter().find(|(_, word)| !word.trim().is_empty());
        self.cursor = end.map_or(self.text.len(), |(at, word)| self.cursor + at + word.len());
        self.snap();
    }

    /// To the beginning of the line; there, to the beginning of everything.
    pub(super) fn home(&mut self) {
        let start = self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1);
        self.cursor = if start == self.cursor { 0 } else { start };
    }

    /// To the end of the line; there, to the end of everything.
    pub(super) fn end(&mut self) {
        let end = self.text[self.cursor..].find('\n').map_or(self.text.len(), |at| self.cursor + at);
        self.cursor = if end == self.cursor { self.text.len() } else { end };
    }

    /// Deletes the grapheme before the cursor.
    pub(super) fn backspace(&mut self) {
        let start = self.before(self.cursor);
        self.remove(start..self.cursor);
    }

    /// Deletes the grapheme at the cursor.
    pub(super) fn delete(&mut self) {
        let end = self.after(self.cursor);
        self.remove(self.cursor..end);
    }

    /// Deletes the word before the cursor and the space between.
    pub(super) fn delete_word(&mut self) {
        self.kill(self.word_before()..self.cursor);
    }

    /// Deletes everything before the cursor.
    pub(super) fn delete_to_start(&mut self) {
        self.kill(0..self.cursor);
    }

    /// Puts back what was deleted last by word or line.
    pub(super) fn put_back(&mut self, bytes_max: usize) -> Result<(), TooLong> {
        let killed = self.killed.clone();
        self.insert(&killed, bytes_max)
    }

    /// One row up; false in the first row.
    pub(super) fn up(&mut self, width: usize) -> bool {
        let layout = self.layout(width);
        let Some(row) = layout.row.checked_sub(1) else { return false };
        self.cursor = self.at(&layout.rows[row], layout.column);
        true
    }

    /// One row down; false in the last row.
    pub(super) fn down(&mut self, width: usize) -> bool {
        let layout = self.layout(width);
        let Some(row) = layout.rows.get(layout.row + 1) else { return false };
        self.cursor = self.at(row, layout.column);
        true
    }

    /// The rows of the text where a row has `width` columns. The last column is left for the cursor, so that
    /// it has a place after a full row too.
    pub(super) fn layout(&self, width: usize) -> Layout {
        let room = width.saturating_sub(1).max(1);
        let mut layout = Layout { rows: Vec::new(), row: 0, column: 0 };
        let (mut start, mut used) = (0, 0);
        for (at, grapheme) in self.text.grapheme_indices(true) {
            let columns = if grapheme == "\n" { 0 } else { shown(grapheme).1 };
            if used + columns > room && used > 0 {
                layout.rows.push(start..at);
                (start, used) = (at, 0);
            }
            if at == self.cursor {
                (layout.row, layout.column) = (layout.rows.len(), used);
            }
            used += columns;
            if grapheme == "\n" {
                layout.rows.push(start..at);
                (start, used) = (at + 1, 0);
            }
        }
        if self.cursor == self.text.len() {
            (layout.row, layout.column) = (layout.rows.len(), used);
        }
        layout.rows.push(start..self.text.len());
        layout
    }

    /// The byte of `row` that stands in `column`, or before it.
    fn at(&self, row: &Range<usize>, column: usize) -> usize {
        let mut used = 0;
        for (at, grapheme) in self.text[row.clone()].grapheme_indices(true) {
            used += shown(grapheme).1;
            if used > column {
                return row.start + at;
            }
        }
        row.end
    }

    fn before(&self, at: usize) -> usize {
        self.text[..at].grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self, at: usize) -> usize {
        self.text[at..].graphemes(true).next().map_or(at, |grapheme| at + grapheme.len())
    }

    /// Where the word before the cursor begins, or the grapheme in which it does: two letters of a flag are
    /// paired in another way by words than by graphemes where a mark stands between letters.
    fn word_before(&self) -> usize {
        let words = self.text[..self.cursor].split_word_bound_indices();
        let start = words.rev().find(|(_, word)| !word.trim().is_empty()).map_or(0, |(at, _)| at);
        let graphemes = self.text.grapheme_indices(true).map(|(at, _)| at);
        graphemes.take_while(|at| *at <= start).last().unwrap_or(0)
    }

    fn kill(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.text[range.clone()].clone_into(&mut self.killed);
            self.remove(range);
        }
    }

    fn remove(&mut self, range: Range<usize>) {
        self.cursor = range.start;
        self.text.replace_range(range, "");
        self.snap();
    }

    /// Moves the cursor on to the next boundary: what was inserted or deleted may have joined with what
    /// stands after it, as two letters of a flag do.
    fn snap(&mut self) {
        let mut boundary = GraphemeCursor::new(self.cursor, self.text.len(), true);
        if !boundary.is_boundary(&self.text, 0).unwrap_or(true) {
            let next = boundary.next_boundary(&self.text, 0).ok().flatten();
            self.cursor = next.unwrap_or(self.text.len());
        }
    }
}

/// Text as it may stand in a message: line ends as `\n`, no control characters but that and the tab.
pub(super) fn clean(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
#[path = "editor_tests.rs"]
mod tests;
