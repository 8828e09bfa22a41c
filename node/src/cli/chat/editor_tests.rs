use proptest::prelude::*;

use super::*;

const MANY: usize = 1 << 20;
const FAMILY: &str = "👨\u{200d}👩\u{200d}👧\u{200d}👦";

fn editor(text: &str) -> Editor {
    let mut editor = Editor::default();
    editor.insert(text, MANY).unwrap();
    editor
}

/// The text with `|` where the cursor is.
fn shown_with_cursor(editor: &Editor) -> String {
    let (before, after) = editor.text.split_at(editor.cursor);
    format!("{before}|{after}")
}

#[test]
fn what_looks_like_one_character_is_deleted_as_one() {
    for one in ["a", "中", FAMILY, "🇩🇪", "e\u{301}\u{302}", "👍🏽", "한", "ก็"] {
        let mut editor = editor(&format!("x{one}y"));
        editor.left();
        editor.backspace();
        assert_eq!(shown_with_cursor(&editor), "x|y", "{one}");
        editor.insert(one, MANY).unwrap();
        editor.left();
        assert_eq!(shown_with_cursor(&editor), format!("x|{one}y"));
        editor.delete();
        assert_eq!(shown_with_cursor(&editor), "x|y", "{one}");
    }
}

#[test]
fn what_is_wider_than_anything_written_takes_one_column_and_fits_a_row() {
    let layout = editor("🇩🇪🏽🏽").layout(6);
    assert_eq!((layout.row, layout.column), (0, 1), "{layout:?}");
}

#[test]
fn letters_that_join_into_a_flag_leave_the_cursor_behind_it() {
    let mut editor = editor("🇪");
    editor.home();
    editor.insert("🇩", MANY).unwrap();
    assert_eq!(shown_with_cursor(&editor), "🇩🇪|");
}

#[test]
fn a_word_to_the_left_begins_where_a_grapheme_does() {
    // After the letter with a mark, words pair the next two letters in another way than graphemes do.
    let mut editor = editor("🇩\u{301}🇩🇪a");
    editor.left();
    editor.word_left();
    assert_eq!(shown_with_cursor(&editor), "🇩\u{301}|🇩🇪a");
    editor.end();
    editor.delete_word();
    editor.delete_word();
    assert_eq!(shown_with_cursor(&editor), "🇩\u{301}|");
}

#[test]
fn words_are_deleted_and_put_back() {
    let mut editor = editor("did the lookup, land? ");
    editor.delete_word();
    assert_eq!(editor.text(), "did the lookup, land");
    editor.delete_word();
    editor.delete_word();
    assert_eq!(editor.text(), "did the lookup");
    editor.delete_to_start();
    assert!(editor.is_empty());
    editor.put_back(MANY).unwrap();
    assert_eq!(shown_with_cursor(&editor), "did the lookup|");
    editor.home();
    editor.word_right();
    editor.word_right();
    assert_eq!(shown_with_cursor(&editor), "did the| lookup");
    editor.word_left();
    assert_eq!(shown_with_cursor(&editor), "did |the lookup");
}

#[test]
fn the_cursor_stands_after_wide_characters() {
    let layout = |text: &str| editor(text).layout(20);
    assert_eq!((layout("中文").row, layout("中文").column), (0, 4));
    assert_eq!(layout(&format!("a{FAMILY}")).column, 3);
    assert_eq!(layout("🇩🇪e\u{301}").column, 3);
    assert_eq!(layout("\t").column, 4);
}

#[test]
fn a_wide_character_that_does_not_fit_begins_the_next_row() {
    assert_eq!(editor("abc中文").layout(5).rows, [0..3, 3..9]);
    let editor = editor("ab中文字");
    // Five columns, of which the last is the cursor's.
    let layout = editor.layout(5);
    let rows: Vec<&str> = layout.rows.iter().map(|row| &editor.text[row.clone()]).collect();
    assert_eq!(rows, ["ab中", "文字"]);
    assert_eq!((layout.row, layout.column), (1, 4));
}

#[test]
fn lines_of_a_text_are_rows_and_the_cursor_moves_between_them() {
    let mut editor = editor("one\r\n中文字\ntri");
    assert_eq!(editor.text(), "one\n中文字\ntri");
    assert!(editor.up(20));
    // Column 3 is inside of a wide character: the cursor stands before it.
    assert_eq!(shown_with_cursor(&editor), "one\n中|文字\ntri");
    assert!(editor.up(20));
    assert_eq!(shown_with_cursor(&editor), "on|e\n中文字\ntri");
    assert!(!editor.up(20));
    editor.end();
    assert!(editor.down(20) && editor.down(20) && !editor.down(20));
}

#[test]
fn control_characters_are_left_out_and_too_much_is_refused_whole() {
    let mut editor = editor("a\u{1b}[31m\u{7}b\tc\rd");
    assert_eq!(editor.text(), "a[31mb\tc\nd");
    assert_eq!(editor.insert("0123456789", 12), Err(TooLong { bytes: 20 }));
    assert_eq!(editor.text(), "a[31mb\tc\nd");
}

/// Pieces that join with their neighbours in every way there is.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "a",
            " ",
            "中",
            "文",
            "\n",
            "\t",
            "e\u{301}",
            "\u{301}",
            "\u{200d}",
            "👩",
            FAMILY,
            "🇩",
            "🇪",
            "🇩🇪",
            "👍🏽",
            "🏽",
            "\u{fe0f}",
            "❤\u{fe0f}",
            "한",
            "ᄒ",
            "ᅡ",
            "\u{200b}",
            "שלום",
            "ก็",
            "\r\n",
            "\u{1b}",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String),
    Do(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![piece().prop_map(Step::Insert), (0..14_u8).prop_map(Step::Do)]
}

fn take(editor: &mut Editor, step: &Step) {
    match step {
        Step::Insert(text) => editor.insert(text, MANY).unwrap(),
        Step::Do(0) => editor.left(),
        Step::Do(1) => editor.right(),
        Step::Do(2) => editor.word_left(),
        Step::Do(3) => editor.word_right(),
        Step::Do(4) => editor.home(),
        Step::Do(5) => editor.end(),
        Step::Do(6) => editor.delete(),
        Step::Do(7) => editor.delete_word(),
        Step::Do(8) => drop(editor.up(7)),
        Step::Do(9) => drop(editor.down(7)),
        Step::Do(10) => editor.put_back(MANY).unwrap(),
        Step::Do(_) => editor.backspace(),
    }
}

/// Whether a byte stands between two graphemes, found the slow way.
fn is_between(text: &str, at: usize) -> bool {
    at == text.len() || text.grapheme_indices(true).any(|(start, _)| start == at)
}

proptest! {
    #[test]
    fn whatever_is_typed_the_cursor_stands_between_graphemes(steps in prop::collection::vec(step(), 0..60)) {
        let mut editor = Editor::default();
        for step in &steps {
            let before = editor.clone();
            take(&mut editor, step);
            prop_assert!(is_between(&editor.text, editor.cursor), "{:?} {:?}", editor, step);
            if matches!(step, Step::Do(11..)) && before.cursor > 0 {
                // Backspace takes away what stood before the cursor and nothing else.
                let kept = before.text[..before.cursor].grapheme_indices(true).next_back().unwrap().0;
                let rest = &before.text[before.cursor..];
                prop_assert_eq!(&editor.text, &format!("{}{}", &before.text[..kept], rest));
            }
        }
    }

    #[test]
    fn rows_hold_the_whole_text_and_no_row_is_too_wide(
        pieces in prop::collection::vec(piece(), 0..40), width in 6..40_usize, lefts in 0..40_usize,
    ) {
        let mut editor = editor(&pieces.concat());
        for _ in 0..lefts {
            editor.left();
        }
        let layout = editor.layout(width);
        let mut at = 0;
        for row in &layout.rows {
            prop_assert!(row.start == at || (row.start == at + 1 && &editor.text[at..row.start] == "\n"));
            prop_assert!(is_between(&editor.text, row.start));
            at = row.end;
            let columns: usize = editor.text[row.clone()].graphemes(true).map(|one| shown(one).1).sum();
            prop_assert!(columns < width, "{:?}", layout);
        }
        prop_assert_eq!(at, editor.text.len());
        let row = layout.rows[layout.row].clone();
        prop_assert!(row.contains(&editor.cursor) || row.end == editor.cursor);
        let before: usize = editor.text[row.start..editor.cursor].graphemes(true).map(|one| shown(one).1).sum();
        prop_assert_eq!(before, layout.column);
        prop_assert!(layout.column < width);
    }
}
