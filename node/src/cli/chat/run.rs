//! The loop around the screen: it owns the terminal, the signals and the tasks that talk to the node.

use std::time::Duration;

use crossterm::event::{Event as Input, EventStream};
use futures::StreamExt as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::api::{Node, read_room};
use super::model::{Action, Event, Link, Room};
use super::outbox::Outbox;
use super::screen::Screen;
use super::terminal::{self, Owned};
use super::view::Look;
use crate::api::documents::{ErrorDocument, IdDocument, RoomsDocument};
use crate::cli::errors::{Failure, advise};
use crate::cli::routes;
use crate::cli::session::Session;
use crate::cli::table::tame;
use crate::cli::values::short;
use crate::exit::ErrorCode;

/// Events that wait for the screen; the tasks wait when it is full.
const EVENTS_MAX: usize = 256;
const TICK: Duration = Duration::from_secs(1);
/// How long the answers for what was sent last are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Where a terminal that nobody reads holds up the end, it ends without.
const END_MAX: Duration = Duration::from_millis(500);

/// Why the chat ended.
enum End {
    Quit,
    /// By this signal.
    Signal(u8),
    Failed(Failure),
}

/// Shows the rooms until somebody closes the chat.
pub(super) async fn run(session: &Session, room: Option<&str>) -> Result<(), Failure> {
    let client = session.client()?;
    // Asked before the terminal is taken: that no node runs is an error like any other.
    let rooms = client.get::<RoomsDocument>(routes::ROOMS).await?.document.rooms;
    let rooms: Vec<_> = rooms.iter().map(read_room).collect();
    let open = match room {
        None => rooms.first().map(|room| room.id.clone()),
        Some(name) => Some(find(&rooms, name)?),
    };
    let node = client.get::<IdDocument>(routes::ID).await?.document.id;
    let outbox = Outbox::open(&session.paths()?, &node.to_string())?;
    let found = outbox.all()?;
    for file in &found.strange {
        session.out.warn(&format!("{} is no text of a chat; it stays where it is", file.display()));
    }
    let mut signals = Signals::listen().map_err(|error| no_terminal(&error))?;
    let mut terminal = Owned::take().map_err(|error| no_terminal(&error))?;
    let size = terminal.size().map_err(|error| no_terminal(&error))?;
    let look = Look { color: session.out.colored(), zone: TimeZone::system() };
    let mut screen = Screen::new(look, Timestamp::now(), size);
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let mut first = vec![Event::Rooms(rooms)];
    first.extend(open.map(Event::Open));
    let (node, waiting) = Node::start(&client, events, outbox, found.letters);
    first.extend(waiting);
    let mut chat = Chat { node, inbox, patience: session.timeout(), away: None, redraw: false };
    let end = chat.until_the_end(&mut screen, &mut terminal, &mut signals, first).await;
    drop(terminal);
    chat.hear_the_last(&mut screen).await;
    for (room, text) in screen.unsent() {
        session.out.warn(&format!("not sent to #{}: {}", tame(&room), tame(&text.replace('\n', "\n  "))));
    }
    for (room, count) in screen.waiting() {
        let texts = if count == 1 { "1 text".to_owned() } else { format!("{count} texts") };
        let room = tame(&room);
        session.out.warn(&format!(
            "{texts} for #{room} wait on this machine: they are sent when the node runs and `{} chat` is opened",
            session.program()
        ));
    }
    match end {
        End::Quit => Ok(()),
        End::Signal(number) => Err(Failure::Told(128 + number)),
        End::Failed(failure) => Err(failure),
    }
}

/// The room that a person means.
fn find(rooms: &[Room], name: &str) -> Result<String, Failure> {
    let wanted = wattle_chat::clean_name(name).to_lowercase();
    let found = rooms.iter().find(|room| room.id == name || room.name.to_lowercase() == wanted);
    if let Some(room) = found {
        return Ok(room.id.clone());
    }
    let document = ErrorDocument::new(ErrorCode::NotFound, format!("no room #{} here", tame(&wanted)));
    let names: Vec<String> = rooms.iter().map(|room| format!("#{}", tame(&room.name))).collect();
    let document = if names.is_empty() { document } else { document.detail("rooms here", names.join(", ")) };
    let document = advise(document, "make it", &format!("wattle room new {}", tame(&wanted)), "");
    Err(document.detail("enter one", "wattle join TICKET, with a ticket that somebody made for you").into())
}

struct Chat {
    node: Node,
    inbox: mpsc::Receiver<Event>,
    /// How long the node may be away before the chat gives up.
    patience: Option<Duration>,
    /// Since when it is, and why.
    away: Option<(Instant, String)>,
    redraw: bool,
}

impl Chat {
    async fn until_the_end(
        &mut self,
        screen: &mut Screen,
        terminal: &mut Owned,
        signals: &mut Signals,
        first: Vec<Event>,
    ) -> End {
        let mut keys = EventStream::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = first;
        loop {
            for event in events.drain(..) {
                if let Err(end) = self.take_in(screen, event) {
                    return end;
                }
            }
            if self.node.is_broken() {
                return End::Failed(ErrorDocument::new(ErrorCode::Failed, "a part of the chat broke").into());
            }
            let cleared = if std::mem::take(&mut self.redraw) { terminal.clear() } else { Ok(()) };
            if let Err(error) = cleared.and_then(|()| terminal.draw(screen)) {
                return End::Failed(no_terminal(&error));
            }
            tokio::select! {
                number = signals.next() => return End::Signal(number),
                input = keys.next() => match input {
                    Some(Ok(input)) => events.extend(read_input(input)),
                    Some(Err(error)) => return End::Failed(no_terminal(&error)),
                    None => return End::Failed(no_terminal(&std::io::ErrorKind::UnexpectedEof.into())),
                },
                Some(event) = self.inbox.recv() => {
                    events.push(event);
                    // Whatever else is there already is shown with it.
                    while events.len() < EVENTS_MAX && let Ok(event) = self.inbox.try_recv() {
                        events.push(event);
                    }
                }
                _ = tick.tick() => events.push(Event::Tick(Timestamp::now())),
            }
        }
    }

    /// What was just sent may be at the node already: its answer is waited for, so that nobody says it twice.
    async fn hear_the_last(&mut self, screen: &mut Screen) {
        let answered = async {
            while screen.is_sending() {
                let Some(event) = self.inbox.recv().await else { return };
                if self.take_in(screen, event).is_err() {
                    return;
                }
            }
        };
        // Ignored because what is not answered by then is listed.
        drop(tokio::time::timeout(LAST_ANSWERS, answered).await);
    }

    /// Gives an event to the screen and does what it asks for.
    fn take_in(&mut self, screen: &mut Screen, event: Event) -> Result<(), End> {
        match &event {
            Event::Link(Link::Up) => self.away = None,
            Event::Link(Link::Down(why)) => {
                self.away.get_or_insert_with(|| (Instant::now(), why.clone()));
            }
            Event::Tick(_) => self.give_up()?,
            _ => {}
        }
        let mut actions = screen.on(event);
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                test_panic(&action);
                match action {
                    Action::Quit => return Err(End::Quit),
                    Action::Redraw => self.redraw = true,
                    _ => {}
                }
                if let Some(event) = self.node.act(action) {
                    more.extend(screen.on(event));
                }
            }
            actions = more;
        }
        Ok(())
    }

    fn give_up(&self) -> Result<(), End> {
        let (Some((since, why)), Some(patience)) = (&self.away, self.patience) else { return Ok(()) };
        if since.elapsed() < patience {
            return Ok(());
        }
        let message = format!("the node went away and did not come back within {}", short(patience));
        let document = ErrorDocument::new(ErrorCode::NoNode, message).detail("because", why);
        let document = advise(document, "start it", "wattle run", "");
        let document = document.detail("wait longer", "--timeout 10m, or 0 for ever");
        Err(End::Failed(document.into()))
    }
}

/// Lets a test see that a panic gives the terminal back. Not in the program that ships.
#[cfg(debug_assertions)]
fn test_panic(action: &Action) {
    if let Action::Send { text, .. } = action {
        let wanted = std::env::var("WATTLE_TEST_PANIC").is_ok_and(|wanted| wanted == *text);
        assert!(!wanted, "a panic that a test asked for");
    }
}

#[cfg(not(debug_assertions))]
const fn test_panic(_action: &Action) {}

fn read_input(input: Input) -> Option<Event> {
    match input {
        Input::Key(key) => Some(Event::Key(key)),
        Input::Paste(text) => Some(Event::Paste(text)),
        Input::Resize(width, height) => Some(Event::Resize(width, height)),
        Input::FocusGained | Input::FocusLost | Input::Mouse(_) => None,
    }
}

/// The signals that end the chat. A terminal that nobody reads may hold up the loop: then the process ends
/// half a second later, with at least the mode of the terminal as it was.
struct Signals {
    term: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        for (kind, number) in [(SignalKind::terminate(), 15), (SignalKind::hangup(), 1)] {
            let mut insist = signal(kind)?;
            tokio::spawn(async move {
                insist.recv().await;
                tokio::time::sleep(END_MAX).await;
                terminal::give_back_mode();
                std::process::exit(128 + number);
            });
        }
        Ok(Self { term: signal(SignalKind::terminate())?, hangup: signal(SignalKind::hangup())? })
    }

    /// The number of the next.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.term.recv() => 15,
            _ = self.hangup.recv() => 1,
        }
    }
}

fn no_terminal(error: &std::io::Error) -> Failure {
    ErrorDocument::new(ErrorCode::Failed, format!("cannot use the terminal: {error}"))
        .detail("without one", "wattle chat send ROOM TEXT, wattle chat tail ROOM -f")
        .into()
}
