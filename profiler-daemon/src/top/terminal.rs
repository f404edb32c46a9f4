//! The terminal: taken for a while, and given back as it was.

use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Position, Rect};

/// Whether the terminal is taken. One for the process, as there is one terminal,
/// and a panic anywhere must give it back.
static TAKEN: AtomicBool = AtomicBool::new(false);
static PANICS: Once = Once::new();

/// The screen. Dropping it gives the terminal back.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Frame>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// As the terminal has them.
    pub(super) fn enter() -> io::Result<Self> {
        PANICS.call_once(|| {
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // First, or the message goes with the alternate screen.
                give_back();
                print(panic);
            }));
        });
        take()?;
        let terminal = Terminal::new(CrosstermBackend::new(Frame::default()));
        terminal.map(|terminal| Self { terminal }).inspect_err(|_| give_back())
    }

    /// Takes the terminal after [`Screen::leave`], or after others wrote to it,
    /// and forgets what was on it.
    ///
    /// # Errors
    ///
    /// As the terminal has them.
    pub(super) fn enter_again(&mut self) -> io::Result<()> {
        take()?;
        // Clears as well. `Terminal::clear` would ask where the cursor is, and
        // the thread that awaits keys would take the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Gives the terminal back.
    pub(super) fn leave(&mut self) {
        give_back();
    }

    /// Draws a frame.
    ///
    /// # Errors
    ///
    /// As the terminal has them.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Buffer, Rect)) -> io::Result<()> {
        // Terminals that know it show the frame at once, the others ignore it.
        execute_into(self.terminal.backend_mut(), true)?;
        self.terminal.draw(|frame| {
            let area = frame.area();
            draw(frame.buffer_mut(), area);
        })?;
        execute_into(self.terminal.backend_mut(), false)?;
        Write::flush(self.terminal.backend_mut())
    }
}

fn execute_into(backend: &mut CrosstermBackend<Frame>, begin: bool) -> io::Result<()> {
    use ratatui::crossterm::QueueableCommand as _;
    if begin {
        backend.queue(BeginSynchronizedUpdate)
    } else {
        backend.queue(EndSynchronizedUpdate)
    }
    .map(drop)
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()
        .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, Hide))
        .inspect_err(|_| give_back())
}

/// Does nothing the second time. A terminal that is gone cannot be mended.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), EndSynchronizedUpdate, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Bytes of one frame, so that it takes one write: ssh sends it in as few
/// packets as can be. What is left when it is dropped stays unwritten, as the
/// terminal was given back by then.
#[derive(Default)]
struct Frame(Vec<u8>);

impl Write for Frame {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            self.0.clear();
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.0).and_then(|()| out.flush());
        self.0.clear();
        written
    }
}
