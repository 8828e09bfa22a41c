//! What keys and pastes do to the screen.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use jiff::SignedDuration;

use super::commands::{self, Command, Typed};
use super::draw;
use super::editor::{Editor, clean};
use super::model::{Action, Page};
use super::screen::{Mode, OpenPage, Question, Screen, TEXT_BYTES_MAX, too_long};
use super::text::one_line;

/// Others are told that somebody types here at most so often.
const TYPING_EVERY: SignedDuration = SignedDuration::from_secs(3);

impl Screen {
    /// One key.
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Vec<Action> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return vec![Action::Quit];
        }
        if control && key.code == KeyCode::Char('l') {
            return vec![Action::Redraw];
        }
        self.found = None;
        match self.mode {
            Mode::Ask(_) => self.on_key_ask(key),
            Mode::Search { .. } => self.on_key_search(key),
            Mode::Write => {
                if self.on_key_page(key) {
                    return Vec::new();
                }
                self.on_key_write(key, control)
            }
        }
    }

    /// Text that came in one piece.
    pub(super) fn on_paste(&mut self, text: &str) -> Vec<Action> {
        let text = clean(text);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        match &mut self.mode {
            Mode::Search { query, selected } => {
                *selected = 0;
                // Ignored because nobody looks for so long a line, and it is still there to be pasted again.
                let _long = query.insert(&one_line(text), 256);
                return Vec::new();
            }
            Mode::Ask(Question::Paste(_)) => {
                self.warn("answer first: is the last paste to be sent? (y/n)");
                return Vec::new();
            }
            Mode::Ask(Question::Leave(_)) => return Vec::new(),
            Mode::Write => {}
        }
        let whole = self.editor.text().len() + text.len();
        if whole > TEXT_BYTES_MAX {
            self.warn(format!("{}: nothing was pasted", too_long("with the paste the text", whole)));
            return Vec::new();
        }
        if text.contains('\n') {
            self.mode = Mode::Ask(Question::Paste(text.to_owned()));
            return Vec::new();
        }
        self.insert(text)
    }

    fn on_key_ask(&mut self, key: KeyEvent) -> Vec<Action> {
        let Mode::Ask(question) = std::mem::take(&mut self.mode) else { return Vec::new() };
        match (key.code, question) {
            (KeyCode::Char('y' | 'Y'), Question::Paste(text)) => {
                let text = self.editor.with(&text);
                if let Some(action) = self.send(text.trim_end(), false) {
                    self.editor.take();
                    return vec![action];
                }
                self.editor.set(&text);
            }
            (KeyCode::Char('e' | 'E'), Question::Paste(text)) => return self.insert(&text),
            (KeyCode::Char('y' | 'Y'), Question::Leave(room)) => return vec![Action::LeaveRoom(room)],
            (KeyCode::Char('n' | 'N') | KeyCode::Esc, Question::Paste(_)) => self.tell("nothing was pasted"),
            (KeyCode::Char('n' | 'N') | KeyCode::Esc, Question::Leave(_)) => self.tell("you stay"),
            (_, question) => self.mode = Mode::Ask(question),
        }
        Vec::new()
    }

    fn on_key_search(&mut self, key: KeyEvent) -> Vec<Action> {
        let Mode::Search { query, selected } = &self.mode else { return Vec::new() };
        let (mut query, mut selected) = (query.clone(), *selected);
        let hits: Vec<String> = self.hits(query.text()).iter().map(|message| message.id.clone()).collect();
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, control) {
            (KeyCode::Esc, _) => {
                self.mode = Mode::Write;
                return Vec::new();
            }
            (KeyCode::Enter, _) => {
                if let Some(id) = hits.get(selected).cloned() {
                    self.mode = Mode::Write;
                    self.go_to(&id);
                }
                return Vec::new();
            }
            (KeyCode::Up, _) | (KeyCode::Char('k' | 'p'), true) => selected += 1,
            (KeyCode::Down, _) | (KeyCode::Char('n'), true) => selected = selected.saturating_sub(1),
            (KeyCode::PageUp, _) => selected += self.page_rows(),
            (KeyCode::PageDown, _) => selected = selected.saturating_sub(self.page_rows()),
            _ if edit(&mut query, key, 256) => selected = 0,
            _ => {}
        }
        selected = selected.min(self.hits(query.text()).len().saturating_sub(1));
        self.mode = Mode::Search { query, selected };
        Vec::new()
    }

    /// Keys of an open page; false for a key that is not for it.
    fn on_key_page(&mut self, key: KeyEvent) -> bool {
        let rows = self.page_rows();
        let last = self.page.as_ref().map_or(0, |open| draw::page_rows(&open.page, self.log_size().0).len());
        let Some(open) = &mut self.page else { return false };
        let most = last.saturating_sub(rows);
        match key.code {
            KeyCode::Esc => self.page = None,
            KeyCode::Up => open.top = open.top.saturating_sub(1),
            KeyCode::Down => open.top = (open.top + 1).min(most),
            KeyCode::PageUp => open.top = open.top.saturating_sub(rows),
            KeyCode::PageDown => open.top = (open.top + rows).min(most),
            _ => return false,
        }
        true
    }

    fn on_key_write(&mut self, key: KeyEvent, control: bool) -> Vec<Action> {
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match (key.code, control) {
            (KeyCode::Enter, _) if alt || key.modifiers.contains(KeyModifiers::SHIFT) => {
                return self.insert("\n");
            }
            (KeyCode::Char('j'), true) => return self.insert("\n"),
            (KeyCode::Enter, _) => return self.enter(),
            (KeyCode::Char('n'), true) => return self.next_room(1),
            (KeyCode::Char('p'), true) => return self.next_room(-1),
            (KeyCode::Char('k'), true) => return self.search(""),
            (KeyCode::Char('g'), true) => return self.go_to_late(),
            (KeyCode::PageUp, _) => return self.scroll_up(self.page_rows()),
            (KeyCode::PageDown, _) => self.scroll_down(self.page_rows()),
            (KeyCode::Home, _) if self.editor.is_empty() || control => return self.scroll_up(usize::MAX),
            (KeyCode::End, _) if self.editor.is_empty() || control => self.anchor = None,
            (KeyCode::Esc, _) => (self.anchor, self.status) = (None, None),
            (KeyCode::Up, _) => self.recall(1),
            (KeyCode::Down, _) => self.recall(-1),
            (KeyCode::Tab, _) => return self.insert("\t"),
            (KeyCode::Char('y'), true) => {
                if let Err(long) = self.editor.put_back(TEXT_BYTES_MAX) {
                    self.warn(too_long("the text", long.bytes));
                }
            }
            (KeyCode::Char(c), false) if !alt => return self.insert(c.encode_utf8(&mut [0; 4])),
            _ => {
                edit(&mut self.editor, key, TEXT_BYTES_MAX);
            }
        }
        Vec::new()
    }

    /// Inserts what was typed or pasted, and tells the others that somebody types.
    fn insert(&mut self, text: &str) -> Vec<Action> {
        if let Err(long) = self.editor.insert(text, TEXT_BYTES_MAX) {
            self.warn(format!("{}: nothing was added", too_long("the text", long.bytes)));
            return Vec::new();
        }
        self.recalled = None;
        // What went well was read when somebody types on.
        self.status = self.status.take().filter(|status| status.bad);
        let lately = self.typing_told.is_some_and(|told| self.now < told + TYPING_EVERY);
        // Commands are nobody's business.
        if lately || self.editor.text().starts_with('/') {
            return Vec::new();
        }
        self.typing_told = Some(self.now);
        self.open.clone().map(Action::Typing).into_iter().collect()
    }

    fn enter(&mut self) -> Vec<Action> {
        let line = self.editor.text().trim_end().to_owned();
        if line.is_empty() {
            self.anchor = None;
            return Vec::new();
        }
        let actions = match commands::read(&line) {
            Typed::Wrong(text) => {
                self.warn(text);
                return Vec::new();
            }
            Typed::Say(text) => self.send(&text, false).map(|action| vec![action]),
            Typed::Command(Command::Me(text)) => self.send(&text, true).map(|action| vec![action]),
            Typed::Command(command) => self.command(command),
        };
        // What could not be done stays in the line.
        let Some(actions) = actions else { return Vec::new() };
        if self.editor.text().trim_end() == line {
            self.editor.take();
        }
        self.recalled = None;
        actions
    }

    fn command(&mut self, command: Command) -> Option<Vec<Action>> {
        match command {
            Command::Help => self.page = Some(OpenPage { page: help(), top: 0 }),
            Command::Quit => {
                self.editor.take();
                return Some(vec![Action::Quit]);
            }
            Command::Search(text) => return Some(self.search(&text)),
            Command::Join(what) => return self.join(&what),
            command => {
                let Some(room) = self.open.clone() else {
                    self.warn("no room is open: /join TICKET enters one");
                    return None;
                };
                return Some(self.room_command(command, room));
            }
        }
        Some(Vec::new())
    }

    /// Commands about the open room.
    fn room_command(&mut self, command: Command, room: String) -> Vec<Action> {
        let action = match command {
            Command::Invite => Action::Invite(room),
            Command::Nick(nick) => Action::Nick { room, nick },
            Command::Topic(Some(topic)) => Action::Topic { room, topic },
            Command::Export(file) => Action::Export { room, file },
            Command::Who => {
                let (title, lines) = (format!("who may write in #{}", self.name_of(&room)), draw::who(self));
                self.page = Some(OpenPage { page: Page { title, lines }, top: 0 });
                return Vec::new();
            }
            Command::Leave => {
                self.mode = Mode::Ask(Question::Leave(room));
                return Vec::new();
            }
            _ => {
                let topic = self.room().and_then(|room| room.topic.clone());
                let text = topic.map_or_else(
                    || "no topic yet; /topic TEXT sets one".to_owned(),
                    |topic| format!("topic: {}", one_line(&topic)),
                );
                self.log.say(text);
                return Vec::new();
            }
        };
        vec![action]
    }

    fn join(&mut self, what: &str) -> Option<Vec<Action>> {
        if what.starts_with("wattle:") {
            return Some(vec![Action::JoinTicket(what.to_owned())]);
        }
        let name = what.trim_start_matches('#').to_lowercase();
        let found = self.rooms.iter().find(|room| room.name.to_lowercase() == name || room.id == what);
        if let Some(id) = found.map(|room| room.id.clone()) {
            self.editor.take();
            return Some(self.open_room(id));
        }
        let what = one_line(what);
        self.warn(format!(
            "no room {what} here: /join takes a ticket (wattle:1..), or the name of a room you have"
        ));
        None
    }

    fn next_room(&mut self, step: isize) -> Vec<Action> {
        let count = self.rooms.len();
        if count == 0 {
            self.tell("no room yet: /join TICKET enters one, `wattle room new NAME` makes one");
            return Vec::new();
        }
        let at = self.rooms.iter().position(|room| self.is_open(&room.id));
        let next = match at {
            Some(at) if step > 0 => (at + 1) % count,
            Some(at) => (at + count - 1) % count,
            None => 0,
        };
        self.open_room(self.rooms[next].id.clone())
    }

    fn search(&mut self, text: &str) -> Vec<Action> {
        let mut query = Editor::default();
        query.set(text);
        self.page = None;
        self.mode = Mode::Search { query, selected: 0 };
        self.load_older().into_iter().collect()
    }

    fn go_to_late(&mut self) -> Vec<Action> {
        let Some(id) = self.log.last_late().map(|late| late.id.clone()) else {
            self.tell("nothing came late since you look");
            return Vec::new();
        };
        if self.log.index_of(&id).is_some() {
            self.go_to(&id);
            return Vec::new();
        }
        self.tell("they are older than what is loaded: loading; press Ctrl-G again");
        self.load_older().into_iter().collect()
    }

    fn go_to(&mut self, id: &str) {
        let (width, height) = self.log_size();
        let pending = self.pending();
        let at = self.view(&pending, width).around(id, height);
        self.anchor = self.anchor_of(at);
        self.found = Some(id.to_owned());
    }

    fn scroll_up(&mut self, rows: usize) -> Vec<Action> {
        let (width, height) = self.log_size();
        let pending = self.pending();
        let (at, top) = self.view(&pending, width).up(self.at(), rows, height);
        self.anchor = self.anchor_of(at);
        if top { self.load_older().into_iter().collect() } else { Vec::new() }
    }

    fn scroll_down(&mut self, rows: usize) {
        let (width, _) = self.log_size();
        let pending = self.pending();
        let at = self.view(&pending, width).down(self.at(), rows);
        self.anchor = self.anchor_of(at);
    }

    /// The size of the log, as it is drawn.
    pub(super) fn log_size(&self) -> (usize, usize) {
        let log = draw::areas(self, self.size.into()).log;
        (usize::from(log.width), usize::from(log.height))
    }

    /// A page leaves one row of what was read.
    fn page_rows(&self) -> usize {
        self.log_size().1.saturating_sub(1).max(1)
    }

    /// Up and Down: within the text first, then through what was sent before.
    fn recall(&mut self, step: isize) {
        let width = draw::editor_width(self.size.0);
        let moved = if step > 0 { self.editor.up(width) } else { self.editor.down(width) };
        if moved {
            return;
        }
        if step > 0
            && self.editor.is_empty()
            && let Some(refused) = self.take_refused()
        {
            self.editor.set(&refused);
            return;
        }
        let texts = self.log.own_texts();
        let (at, draft) = match self.recalled.take() {
            Some((at, draft)) => (at.checked_add_signed(step), draft),
            None if step > 0 => (Some(0), self.editor.text().to_owned()),
            None => return,
        };
        match at {
            // Back below the newest: what was being written.
            None => self.editor.set(&draft),
            Some(at) if at < texts.len() => {
                self.editor.set(&texts[at]);
                self.recalled = Some((at, draft));
            }
            Some(at) if at > 0 => self.recalled = Some((at - 1, draft)),
            Some(_) => {}
        }
    }
}

/// Keys that move and delete in a line, and letters; false for a key that does neither.
fn edit(editor: &mut Editor, key: KeyEvent, bytes_max: usize) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let word = control || key.modifiers.contains(KeyModifiers::ALT);
    match key.code {
        KeyCode::Left if word => editor.word_left(),
        KeyCode::Right if word => editor.word_right(),
        KeyCode::Char('b') if word && !control => editor.word_left(),
        KeyCode::Char('f') if word && !control => editor.word_right(),
        KeyCode::Left => editor.left(),
        KeyCode::Right => editor.right(),
        KeyCode::Char('b') if control => editor.left(),
        KeyCode::Char('f') if control => editor.right(),
        KeyCode::Home => editor.home(),
        KeyCode::End => editor.end(),
        KeyCode::Char('a') if control => editor.home(),
        KeyCode::Char('e') if control => editor.end(),
        KeyCode::Backspace if word => editor.delete_word(),
        KeyCode::Char('w') if control => editor.delete_word(),
        KeyCode::Char('u') if control => editor.delete_to_start(),
        KeyCode::Backspace => editor.backspace(),
        KeyCode::Char('h') if control => editor.backspace(),
        KeyCode::Delete => editor.delete(),
        KeyCode::Char('d') if control => editor.delete(),
        KeyCode::Char(c) if !word => return editor.insert(c.encode_utf8(&mut [0; 4]), bytes_max).is_ok(),
        _ => return false,
    }
    true
}

fn help() -> Page {
    let rows = commands::HELP.iter().chain([&("", "")]).chain(commands::KEYS);
    let lines = rows.map(|(typed, does)| format!("{typed:<15} {does}").trim_end().to_owned()).collect();
    Page { title: "help".to_owned(), lines }
}
