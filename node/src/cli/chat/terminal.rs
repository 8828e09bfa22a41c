//! The terminal while the chat owns it, and as it was before on every way out.
//!
//! Raw mode, the other screen and bracketed paste are switched on by `Owned::take` and off by its drop: at the
//! end, on an error, on a signal, on a panic of the drawing thread. A panic of any thread restores it before
//! the panic is reported, so that the report can be read; nothing is drawn after that.

use std::io::{self, Stdout, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crossterm::cursor::Show;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::draw::draw;
use super::screen::Screen;

/// Whether the terminal is ours now. One in a process, as the terminal is.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Held while something is drawn: what is half drawn must not go on after the terminal was given back.
static DRAWING: Mutex<()> = Mutex::new(());

/// How often, and with what pause, whoever gives the terminal back waits for the drawing to end. It does not
/// end when it is the drawing itself that panics, or when nobody reads the terminal.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(5);

fn drawing() -> Option<MutexGuard<'static, ()>> {
    for _ in 0..ATTEMPTS {
        match DRAWING.try_lock() {
            Ok(drawing) => return Some(drawing),
            Err(TryLockError::Poisoned(drawing)) => return Some(drawing.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
    None
}

/// The terminal in raw mode.
pub(super) struct Owned {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Owned {
    /// Takes the terminal over.
    pub(super) fn take() -> io::Result<Self> {
        restore_before_a_panic_is_reported();
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        // From here on a failure gives back what was taken, by the drop of this guard.
        let guard = Guard;
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        std::mem::forget(guard);
        Ok(Self { terminal })
    }

    /// The columns and rows of the window.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Forgets what is drawn, so that all of it is drawn anew.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Shows the screen. After a panic elsewhere the terminal is no longer ours, and nothing is drawn.
    pub(super) fn draw(&mut self, screen: &Screen) -> io::Result<()> {
        let drawing = drawing();
        if drawing.is_some() && TAKEN.load(Ordering::SeqCst) {
            self.terminal.draw(|frame| draw(screen, frame))?;
        }
        drop(drawing);
        Ok(())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        restore();
    }
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was. Does nothing the second time.
pub(super) fn restore() {
    let drawing = drawing();
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // Raw mode first: it needs no terminal that reads. What cannot be written to a terminal that is gone is
    // ignored because nobody sees it.
    drop(disable_raw_mode());
    let mut stdout = io::stdout();
    drop(queue!(stdout, DisableBracketedPaste, LeaveAlternateScreen, Show).and_then(|()| stdout.flush()));
    drop(drawing);
}

/// Gives back the mode of the terminal alone, which waits for nothing and nobody.
pub(super) fn give_back_mode() {
    // Ignored because the process ends here, whatever the terminal says.
    drop(disable_raw_mode());
}

fn restore_before_a_panic_is_reported() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        report(panic);
    }));
}
