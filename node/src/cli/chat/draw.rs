//! The screen as it is drawn: rooms at the left, members at the right, both only where there is place.
//!
//! Lines are drawn with ASCII alone: box characters are one column wide here and two in many a terminal of
//! China and Japan.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect, Size};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::model::{Link, Member, Page, Presence, Room};
use super::screen::{Mode, Question, Screen};
use super::text::{cell, columns, cut, one_line, wrap};
use super::view::name;

/// Less than this is no window to chat in.
const WIDTH_MIN: u16 = 20;
const HEIGHT_MIN: u16 = 6;
/// From this width on, rooms and members are shown beside the messages.
const WIDE: u16 = 76;
/// The rows that the editor grows to.
const EDITOR_ROWS_MAX: u16 = 5;
const PROMPT: &str = "> ";

/// Where everything stands.
pub(super) struct Areas {
    title: Rect,
    rooms: Rect,
    pub(super) log: Rect,
    members: Rect,
    rule: Rect,
    editor: Rect,
    foot: Rect,
}

/// The columns of a row in the editor.
pub(super) fn editor_width(width: u16) -> usize {
    usize::from(width).saturating_sub(PROMPT.len())
}

/// Divides the window.
pub(super) fn areas(screen: &Screen, size: Size) -> Areas {
    let rows = screen.editor.layout(editor_width(size.width)).rows.len();
    let most = (size.height / 4).clamp(1, EDITOR_ROWS_MAX);
    let editor = match &screen.mode {
        Mode::Write => u16::try_from(rows).unwrap_or(most).clamp(1, most),
        Mode::Ask(_) | Mode::Search { .. } => 1,
    };
    let whole = Rect::new(0, 0, size.width, size.height);
    let (foot, _) = foot_text(screen, usize::from(size.width));
    let foot = u16::try_from(foot.len()).unwrap_or(1).min((size.height / 4).max(1));
    let rows = [1, 0, 1, editor, foot]
        .map(|rows| if rows == 0 { Constraint::Fill(1) } else { Constraint::Length(rows) });
    let [title, middle, rule, editor, foot] = Layout::vertical(rows).areas(whole);
    // A page has the whole width: a ticket is copied from it.
    let sides = size.width >= WIDE && (screen.page.is_none() || matches!(screen.mode, Mode::Search { .. }));
    let (left, right) = if !sides { (0, 0) } else { side_widths(screen, size.width) };
    let widths = [Constraint::Length(left), Constraint::Fill(1), Constraint::Length(right)];
    let [rooms, log, members] = Layout::horizontal(widths).areas(middle);
    Areas { title, rooms, log, members, rule, editor, foot }
}

fn side_widths(screen: &Screen, width: u16) -> (u16, u16) {
    let room = screen.rooms.iter().map(|room| columns(&room_text(room)) + 3).max().unwrap_or(0);
    let left = u16::try_from(room).unwrap_or(u16::MAX).clamp(11, width / 6);
    let member = screen.members.iter().map(|member| columns(&member_text(screen, member)) + 2).max();
    let right = u16::try_from(member.unwrap_or(0)).unwrap_or(u16::MAX).clamp(12, width / 4);
    (left, right)
}

/// Draws everything, and puts the cursor where the next character goes.
pub(super) fn draw(screen: &Screen, frame: &mut Frame<'_>) {
    let size = frame.area().as_size();
    if size.width < WIDTH_MIN || size.height < HEIGHT_MIN {
        let text = format!("{WIDTH_MIN}x{HEIGHT_MIN} is the least");
        frame.render_widget(Paragraph::new(text), frame.area());
        return;
    }
    let areas = areas(screen, size);
    draw_title(screen, frame, areas.title);
    if areas.rooms.width > 0 {
        draw_rooms(screen, frame, areas.rooms);
        draw_members(screen, frame, areas.members);
    }
    draw_middle(screen, frame, areas.log);
    draw_rule(screen, frame, areas.rule);
    draw_editor(screen, frame, areas.editor);
    draw_foot(screen, frame, areas.foot);
}

fn draw_title(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width);
    let (left, right) = match screen.room() {
        None => ("wattle chat".to_owned(), String::new()),
        Some(room) => {
            let topic = room.topic.as_deref().map(|topic| format!("  {}", one_line(topic)));
            let left = format!("#{}  {} here{}", one_line(&room.name), room.here, topic.unwrap_or_default());
            (left, sync_text(screen, room, width.saturating_sub(30)))
        }
    };
    let left = cut(&left, width.saturating_sub(columns(&right) + 1));
    // `cut` trims; the margin is put back.
    let left = format!(" {left}");
    let fill = width.saturating_sub(columns(&left) + columns(&right) + 1);
    let text = format!("{left}{}{right} ", " ".repeat(fill));
    let style = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(Line::styled(cell_exact(&text, width), style)), area);
}

/// How much of the room is here, in as many words as there is place for.
fn sync_text(screen: &Screen, room: &Room, width: usize) -> String {
    if let Link::Down(_) = screen.link {
        return "node away".to_owned();
    }
    let sync = room.sync;
    let messages = format!("{} message{}", sync.have, if sync.have == 1 { "" } else { "s" });
    let (long, short) = if sync.peers == 0 && sync.is_behind() {
        (
            format!("connecting... nobody is here yet, {} of {} messages", sync.have, sync.known),
            format!("{}/{}", sync.have, sync.known),
        )
    } else if sync.is_behind() {
        (
            format!("connecting... {} peers, fetching {} of {} messages", sync.peers, sync.have, sync.known),
            format!("fetching {}/{}", sync.have, sync.known),
        )
    } else if screen.log.loading && screen.log.messages().is_empty() {
        ("loading...".to_owned(), "loading".to_owned())
    } else if sync.peers == 0 {
        (format!("nobody else is here, {messages}"), format!("alone, {messages}"))
    } else {
        (
            format!("synced with {} of {}, {messages}", sync.with, sync.peers),
            format!("synced {}/{}", sync.with, sync.peers),
        )
    };
    if columns(&long) <= width { long } else { short }
}

fn room_text(room: &Room) -> String {
    let unread = if room.unread > 0 { format!("  {}", room.unread) } else { String::new() };
    format!("#{}{unread}", one_line(&room.name))
}

fn draw_rooms(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width).saturating_sub(2);
    let height = usize::from(area.height);
    let at = screen.rooms.iter().position(|room| screen.is_open(&room.id)).unwrap_or(0);
    // The open room is always among those that are shown.
    let first = (at + 1).saturating_sub(height.saturating_sub(1));
    let heading: String = format!("-- rooms {}", "-".repeat(width)).chars().take(width).collect();
    let mut lines = vec![Line::styled(heading, screen.look.faint())];
    for room in screen.rooms.iter().skip(first) {
        let open = screen.is_open(&room.id);
        let unread = if room.unread > 0 { format!("  {}", room.unread) } else { String::new() };
        let place = width.saturating_sub(1 + unread.len());
        let sign = if open { ">" } else { " " };
        let style = match (open, room.unread > 0) {
            (true, _) => Style::new().add_modifier(Modifier::REVERSED),
            (false, true) => screen.look.colored(Color::Yellow).add_modifier(Modifier::BOLD),
            (false, false) => Style::new(),
        };
        let name = cut(&format!("#{}", room.name), place);
        lines.push(Line::from(Span::styled(cell_exact(&format!("{sign}{name}{unread}"), width), style)));
    }
    lines.resize_with(height.max(lines.len()), || Line::raw(" ".repeat(width)));
    for line in &mut lines {
        line.push_span(Span::styled("| ", screen.look.faint()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// A text in exactly `width` columns; unlike `cell` it keeps the spaces at the begin.
fn cell_exact(text: &str, width: usize) -> String {
    let kept = text.len() - text.trim_start_matches(' ').len();
    let kept = kept.min(width);
    format!("{}{}", " ".repeat(kept), cell(text, width - kept))
}

/// A member in one line: `* bob  1 ms`.
fn member_text(screen: &Screen, member: &Member) -> String {
    let nick = if member.own { "you".to_owned() } else { name(&member.nick, &member.id) };
    let types = screen.typing.contains_key(&member.nick);
    let word = match (types, &member.path) {
        (true, _) => "typing".to_owned(),
        (false, Some(path)) if member.presence == Presence::Here => one_line(path),
        (false, _) => presence_word(screen, &member.presence),
    };
    format!("{} {nick}  {word}", sign(&member.presence))
}

const fn sign(presence: &Presence) -> &'static str {
    match presence {
        Presence::Here => "*",
        Presence::Behind => "~",
        Presence::Offline(_) => " ",
    }
}

fn presence_word(screen: &Screen, presence: &Presence) -> String {
    match presence {
        Presence::Here => "here".to_owned(),
        Presence::Behind => "fetching".to_owned(),
        Presence::Offline(None) => "offline".to_owned(),
        Presence::Offline(Some(since)) => {
            let span = std::time::Duration::try_from(screen.now.duration_since(*since)).unwrap_or_default();
            format!("offline {}", crate::cli::values::short(span))
        }
    }
}

/// The members as a page.
pub(super) fn who(screen: &Screen) -> Vec<String> {
    let row = |member: &Member| {
        let nick =
            if member.own { format!("{} (you)", one_line(&member.nick)) } else { one_line(&member.nick) };
        let path = member.path.as_deref().map(one_line).unwrap_or_default();
        let word = presence_word(screen, &member.presence);
        let end = member.id.get(member.id.len().saturating_sub(6)..).unwrap_or_default();
        format!("{} {} {} ..{end}  {path}", sign(&member.presence), cell(&nick, 16), cell(&word, 13))
    };
    screen.members.iter().map(|member| row(member).trim_end().to_owned()).collect()
}

fn draw_members(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width).saturating_sub(2);
    let height = usize::from(area.height);
    let more = screen.members.len().saturating_sub(height);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for member in screen.members.iter().take(height) {
        let style = match member.presence {
            Presence::Here => screen.look.colored(Color::Green),
            Presence::Behind => screen.look.colored(Color::Yellow),
            Presence::Offline(_) => screen.look.faint(),
        };
        lines.push(Line::styled(cell_exact(&member_text(screen, member), width), style));
    }
    if more > 0 {
        lines.pop();
        lines.push(Line::raw(format!("{} more: /who", more + 1)));
    }
    lines.resize_with(height.max(lines.len()), Line::default);
    for line in &mut lines {
        line.spans.insert(0, Span::styled("| ", screen.look.faint()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The messages, or what was opened over them.
fn draw_middle(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut lines = if let Mode::Search { query, selected } = &screen.mode {
        hit_rows(screen, query.text(), *selected, width, height)
    } else if let Some(open) = &screen.page {
        let rows = page_rows(&open.page, width).into_iter().skip(open.top).take(height);
        let lines: Vec<Line<'_>> = rows.map(Line::raw).collect();
        frame.render_widget(Paragraph::new(lines), area);
        return;
    } else {
        let pending = screen.pending();
        screen.view(&pending, width).rows(screen.at(), height)
    };
    if lines.is_empty() {
        lines = empty_rows(screen, width).into_iter().map(Line::raw).collect();
    }
    // The newest stands just above the editor.
    let missing = height.saturating_sub(lines.len());
    lines.splice(0..0, std::iter::repeat_n(Line::default(), missing));
    frame.render_widget(Paragraph::new(lines), area);
}

fn empty_rows(screen: &Screen, width: usize) -> Vec<String> {
    let text = match (&screen.mode, screen.room()) {
        (Mode::Search { .. }, _) => "type a word of the message, or of its author's name",
        (_, None) if screen.rooms.is_empty() => {
            "no room yet\n  /join TICKET            enter one\n  wattle room new NAME    make one, in a shell"
        }
        (_, None) => "Ctrl-N opens a room",
        (_, Some(_)) if screen.log.loading => "loading...",
        (_, Some(_)) => "nothing was said here yet; /invite makes a ticket for others",
    };
    wrap(text, width)
}

/// A page as rows of the given width.
pub(super) fn page_rows(page: &Page, width: usize) -> Vec<String> {
    page.lines.iter().flat_map(|line| wrap(line, width)).collect()
}

/// The messages found, the newest at the bottom.
fn hit_rows(
    screen: &Screen,
    query: &str,
    selected: usize,
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    let hits = screen.hits(query);
    let skip = (selected + 1).saturating_sub(height);
    let shown = hits.iter().enumerate().skip(skip).take(height);
    let mut lines: Vec<Line<'static>> = shown
        .map(|(index, message)| {
            let at = message.sent.to_zoned(screen.look.zone.clone()).strftime("%-d %b %H:%M").to_string();
            let nick = if message.own { "you".to_owned() } else { name(&message.nick, &message.author) };
            let sign = if index == selected { ">" } else { " " };
            let text = cell_exact(&format!("{sign} {at} {nick}: {}", message.text), width);
            let reversed = Style::new().add_modifier(Modifier::REVERSED);
            Line::styled(text, if index == selected { reversed } else { Style::new() })
        })
        .collect();
    lines.reverse();
    lines
}

/// The line above the editor: who types, what is below, what is open.
fn draw_rule(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width);
    let text = if let Mode::Search { query, .. } = &screen.mode {
        let (found, among) = (screen.hits(query.text()).len(), screen.log.messages().len());
        let more = if screen.log.loading { ", loading older" } else { "" };
        format!("{found} found in {among} messages{more}; Up Down Enter, Esc closes")
    } else if let Some(open) = &screen.page {
        format!("{}; PgUp PgDn, Esc closes", open.page.title)
    } else if screen.anchor.is_some() {
        "older messages; PgDn, Esc goes to the newest".to_owned()
    } else {
        typing_text(screen)
    };
    let text =
        if text.is_empty() { String::new() } else { format!(" {} ", cut(&text, width.saturating_sub(6))) };
    let line = format!("--{text}{}", "-".repeat(width.saturating_sub(2 + columns(&text))));
    frame.render_widget(Paragraph::new(Line::styled(line, screen.look.faint())), area);
}

fn typing_text(screen: &Screen) -> String {
    let names: Vec<String> = screen.typing.keys().map(|nick| cut(nick, 16)).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!("{one} is typing"),
        [one, other] => format!("{one} and {other} are typing"),
        [one, rest @ ..] => format!("{one} and {} others are typing", rest.len()),
    }
}

fn draw_editor(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let question = match &screen.mode {
        Mode::Write => return draw_text(frame, area, PROMPT, &screen.editor),
        Mode::Search { query, .. } => return draw_text(frame, area, "search: ", query),
        Mode::Ask(Question::Paste(text)) => {
            let lines = screen.editor.with(text).trim_end().lines().count();
            format!("send {lines} lines? y/n, e edits them first")
        }
        Mode::Ask(Question::Leave(room)) => format!("leave #{} for good? y/n", screen.name_of(room)),
    };
    let text = cut(&question, usize::from(area.width).saturating_sub(2));
    let column = u16::try_from(columns(&text) + 1).unwrap_or(0);
    let style = screen.look.colored(Color::Yellow).add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(Line::styled(text, style)), area);
    frame.set_cursor_position(Position::new(area.x + column.min(area.width - 1), area.y));
}

/// A text with its prompt, and the cursor of the terminal in it: an input method opens its window there.
fn draw_text(frame: &mut Frame<'_>, area: Rect, prompt: &str, editor: &super::editor::Editor) {
    let layout = editor.layout(usize::from(area.width).saturating_sub(prompt.len()));
    let height = usize::from(area.height);
    let first = (layout.row + 1).saturating_sub(height);
    let mut lines = Vec::new();
    for (number, row) in layout.rows.iter().enumerate().skip(first).take(height) {
        let lead = if number == 0 { prompt.to_owned() } else { " ".repeat(prompt.len()) };
        lines.push(Line::raw(format!("{lead}{}", super::text::shown_row(&editor.text()[row.clone()]))));
    }
    frame.render_widget(Paragraph::new(lines), area);
    let column = u16::try_from(prompt.len() + layout.column).unwrap_or(u16::MAX).min(area.width - 1);
    let row = u16::try_from(layout.row - first).unwrap_or(0);
    frame.set_cursor_position(Position::new(area.x + column, area.y + row));
}

fn draw_foot(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let (rows, style) = foot_text(screen, usize::from(area.width));
    let rows: Vec<Line<'_>> = rows.into_iter().map(|row| Line::styled(format!(" {row}"), style)).collect();
    frame.render_widget(Paragraph::new(rows), area);
}

/// The last rows: what went wrong, what was done, or what there is to type.
fn foot_text(screen: &Screen, width: usize) -> (Vec<String>, Style) {
    let bold = |color| screen.look.colored(color).add_modifier(Modifier::BOLD);
    let (text, style) = if let Link::Down(why) = &screen.link {
        let text = format!("the node is away ({}); trying again, what you send is kept", one_line(why));
        (text, bold(Color::Red))
    } else if let Some(status) = &screen.status {
        (one_line(&status.text), bold(if status.bad { Color::Red } else { Color::Green }))
    } else {
        (legend(width), screen.look.faint())
    };
    (wrap(&text, width.saturating_sub(2)), style)
}

fn legend(width: usize) -> String {
    let marks = "() not sent yet   (*) reached 1+ peer   (**) everyone here has it";
    let keys = "/help  Ctrl-N next room  Ctrl-K search";
    let place = width.saturating_sub(2);
    if marks.len() + keys.len() + 2 <= place {
        let fill = " ".repeat(place - marks.len() - keys.len());
        format!("{marks}{fill}{keys}")
    } else if marks.len() + 9 <= place {
        format!("{marks}{}/help", " ".repeat(place - marks.len() - 5))
    } else {
        cut(keys, place)
    }
}
