//! Tables in a terminal: columns as wide as their widest cell, measured as a terminal measures.

use unicode_width::UnicodeWidthStr as _;

/// Rows of cells under a heading.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; one that begins with `>` is aligned to the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let first = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![first], right }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The whole table, a line a row, with three spaces between columns.
    pub(crate) fn render(&self) -> String {
        let mut widths = vec![0; self.right.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                if !line.is_empty() {
                    line.push_str("   ");
                }
                let fill = " ".repeat(width.saturating_sub(cell.width()));
                if *right {
                    line.push_str(&fill);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&fill);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `text` filled with spaces to `width` columns of a terminal.
pub(crate) fn fill(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Text from a peer without what could move the cursor or change colours: a peer chooses its agent and its messages, not what our
/// terminal does. Tabs stay.
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .map(
            |c| {
                if (c.is_control() && c != '\t') || is_direction(c) { char::REPLACEMENT_CHARACTER } else { c }
            },
        )
        .collect()
}

/// The same for a text that may have several lines.
pub(crate) fn tame_text(text: &str) -> String {
    text.split('\n').map(tame).collect::<Vec<_>>().join("\n")
}

/// Marks that reorder the text after them.
const fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_measured_as_a_terminal_does() {
        let mut table = Table::new(&["PEER", ">RTT"]);
        table.row(["小林".to_owned(), "1 ms".to_owned()]);
        table.row(["bob".to_owned(), "138 ms".to_owned()]);
        assert_eq!(table.render(), "PEER      RTT\n小林     1 ms\nbob    138 ms\n");
    }

    #[test]
    fn a_peer_cannot_drive_the_terminal() {
        assert_eq!(tame("a\u{1b}[2Jb\u{202e}c\td"), "a\u{fffd}[2Jb\u{fffd}c\td");
    }
}
