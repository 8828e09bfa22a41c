//! Text as a terminal shows it: harmless, measured in columns, cut and wrapped between graphemes only.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

use crate::cli::table::tame;

/// A tab is shown as so many spaces.
const TAB: &str = "    ";
/// A grapheme may have so many characters; the longest of the emoji have ten. Whoever piles up more marks
/// would draw over the lines above.
const GRAPHEME_CHARS_MAX: usize = 16;

/// So many columns: nothing that is written is wider, and the narrowest row has room for it. What is are signs that do
/// not belong together, as a flag with colours of skin.
const GRAPHEME_COLUMNS_MAX: usize = 5;

/// How a grapheme is shown, and its columns. Something always is: what has no width of its own, or too much, becomes
/// the replacement character, so that a person sees that it is there.
pub(super) fn shown(grapheme: &str) -> (Cow<'_, str>, usize) {
    if grapheme == "\t" {
        return (Cow::Borrowed(TAB), TAB.len());
    }
    // A joiner that joins nothing yet: terminals keep it for whatever is drawn next, wherever that is.
    let mut text = Cow::Borrowed(grapheme.trim_end_matches('\u{200d}'));
    if grapheme.chars().count() > GRAPHEME_CHARS_MAX {
        let first: String = grapheme.chars().take(GRAPHEME_CHARS_MAX).collect();
        text = Cow::Owned(first.trim_end_matches('\u{200d}').to_owned());
    }
    let tamed = tame(&text);
    if tamed != *text {
        text = Cow::Owned(tamed);
    }
    match text.width() {
        0 => (Cow::Borrowed("\u{fffd}"), 1),
        columns if columns > GRAPHEME_COLUMNS_MAX => (Cow::Borrowed("\u{fffd}"), 1),
        columns => (text, columns),
    }
}

/// The columns of a text on one line.
pub(super) fn columns(text: &str) -> usize {
    text.graphemes(true).map(|grapheme| shown(grapheme).1).sum()
}

/// A text of a peer on one line: a line break is a space.
pub(super) fn one_line(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.trim()
        .graphemes(true)
        .map(|grapheme| if is_break(grapheme) { " ".into() } else { shown(grapheme).0 })
        .collect()
}

/// The same, in at most `width` columns; `~` ends what was cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    let text = one_line(text);
    if columns(&text) <= width {
        return text;
    }
    let (mut part, mut used) = (String::new(), 0);
    for grapheme in text.graphemes(true) {
        let (shown, columns) = shown(grapheme);
        if used + columns + 1 > width {
            break;
        }
        part.push_str(&shown);
        used += columns;
    }
    if width > 0 {
        part.push('~');
    }
    part
}

/// `cut`, filled with spaces to exactly `width` columns.
pub(super) fn cell(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let fill = width.saturating_sub(columns(&text));
    format!("{text}{}", " ".repeat(fill))
}

/// A text in rows of at most `width` columns: broken at spaces and beside wide characters where it can be,
/// between graphemes where it must.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    wrap_after(text, width, width)
}

/// The same, where the first row has `first` columns, and the others have `width`.
pub(super) fn wrap_after(text: &str, first: usize, width: usize) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    let mut rows = Vec::new();
    for line in text.split(is_break_char) {
        wrap_line(line, [first.max(2), width.max(2)], &mut rows);
    }
    rows
}

fn wrap_line(line: &str, widths: [usize; 2], rows: &mut Vec<String>) {
    let (mut row, mut used) = (String::new(), 0);
    // Where the row may be cut in two, and whether it may be just before the next grapheme.
    let (mut seam, mut breakable) = (None, false);
    for grapheme in line.graphemes(true) {
        let width = if rows.is_empty() { widths[0] } else { widths[1] };
        let (text, wide) = shown(grapheme);
        if breakable && !closes(grapheme) {
            seam = Some(row.len());
        }
        if used + wide > width {
            if grapheme == " " {
                // The space at the end of a row is the break itself.
                rows.push(std::mem::take(&mut row));
                (used, seam, breakable) = (0, None, false);
                continue;
            }
            let rest = seam.filter(|at| *at > 0).map(|at| row.split_off(at)).unwrap_or_default();
            rows.push(std::mem::replace(&mut row, rest).trim_end().to_owned());
            (used, seam) = (columns(&row), None);
        }
        row.push_str(&text);
        used += wide;
        breakable = grapheme == " " || wide == 2;
    }
    rows.push(row);
}

/// What may not begin a row in Chinese and Japanese.
fn closes(grapheme: &str) -> bool {
    "\u{3001}\u{3002}\u{ff0c}\u{ff0e}\u{ff01}\u{ff1f}\u{ff1a}\u{ff1b}\u{300d}\u{300f}\u{ff09}\u{3011}\u{3009}\u{300b} "
        .contains(grapheme)
}

/// Everything that a terminal might take for the end of a line.
fn is_break_char(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_break(grapheme: &str) -> bool {
    grapheme.chars().any(is_break_char)
}

/// A row of the editor as it is shown.
pub(super) fn shown_row(text: &str) -> String {
    text.graphemes(true).map(|grapheme| shown(grapheme).0).collect()
}

/// Bytes in one short word, for limits.
pub(super) fn size(bytes: usize) -> String {
    crate::cli::values::bytes(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_break_at_spaces_and_beside_wide_characters() {
        assert_eq!(wrap("did the lookup land?", 10), ["did the", "lookup", "land?"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("中文字", 5), ["中文", "字"]);
        assert_eq!(wrap("say 中文字", 7), ["say 中", "文字"]);
        assert_eq!(wrap("a\nb\r\n\nc", 10), ["a", "b", "", "c"]);
    }

    #[test]
    fn a_full_stop_does_not_begin_a_row() {
        assert_eq!(wrap("中文字。", 6), ["中文", "字。"]);
    }

    #[test]
    fn a_grapheme_is_never_cut() {
        let family = "👨\u{200d}👩\u{200d}👧\u{200d}👦";
        assert_eq!(shown(family), (family.into(), 2));
        assert_eq!(wrap(&family.repeat(3), 5), [family.repeat(2), family.to_owned()]);
        assert_eq!(cut("中文字幕", 6), "中文~");
        assert_eq!(cut("中文字", 6), "中文字");
        assert_eq!(cell("中", 4), "中  ");
        assert_eq!(cut("anything", 0), "");
    }

    #[test]
    fn what_could_drive_a_terminal_is_shown_instead() {
        assert_eq!(
            one_line("a\u{1b}[2Jb\u{9b}31m\u{202e}c\nd\te"),
            "a\u{fffd}[2Jb\u{fffd}31m\u{fffd}c d    e"
        );
        assert_eq!(wrap("a\u{7}\u{2028}b", 80), ["a\u{fffd}", "b"]);
        let piled = format!("e{}", "\u{301}".repeat(500));
        assert_eq!(shown(&piled).0.chars().count(), GRAPHEME_CHARS_MAX);
        assert_eq!(shown("\u{200b}"), ("\u{fffd}".into(), 1));
        assert_eq!(shown("👩\u{200d}"), ("👩".into(), 2), "a joiner never waits in the terminal");
    }
}
