//! Line editing on a terminal: lines of any length, and output that does not interleave with the line being edited.
//!
//! The line editing of the kernel silently truncates lines to 4,095 bytes. The terminal is therefore switched to
//! noncanonical mode before the connection is opened, and an [`Editor`] turns keys into lines. All other output to the
//! terminal goes through [`print`], which erases the prompt, writes, and redraws the prompt.
//!
//! The terminal is restored on every orderly exit: [`Terminal`] restores it when dropped, and
//! [`Signals`](crate::platform::Signals) handles the signals that end or stop the program.

mod editor;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};

use editor::{Editor, Event};

/// The state of the screen while the editor is active. Global, because there is only one standard input.
static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// The original settings of the terminal while the editor is active. Separate from [`SCREEN`], which stays locked while
/// a write to a stopped terminal (Ctrl-S) blocks: signal handlers must not wait for it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether the prompt is shown: from the first key, or when the connection is open. Separate from [`SCREEN`] for the
/// same reason as [`BEFORE`].
static IS_PROMPT_SHOWN: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Screen {
    editor: Editor,
    /// The terminal, to draw on.
    out: File,
    /// The last output did not end with a newline, so the prompt is not shown.
    is_mid_line: bool,
    /// The user pressed Ctrl-D.
    is_ended: bool,
}

/// A guard that restores the terminal when dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Starts the editor, if standard input is a terminal that supports it. The prompt appears with [`show_prompt`] or
    /// the first key.
    pub(crate) fn open() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if is_dumb || !io::stdin().is_terminal() {
            return None;
        }
        let out = terminal_to_draw_on()?;
        let before = tcgetattr(io::stdin()).ok()?;
        let mut screen = SCREEN.lock();
        set(&editing(&before)).ok()?;
        *screen = Some(Screen {
            editor: Editor::default(),
            out,
            is_mid_line: false,
            is_ended: false,
        });
        *BEFORE.lock() = Some(before.clone());
        Some(Self { before })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        *BEFORE.lock() = None;
        // The prompt stays on a stopped terminal (Ctrl-S), because erasing it would block.
        if let Some(mut screen) = SCREEN.try_lock()
            && let Some(mut screen) = screen.take()
            && screen.has_room()
        {
            screen.erase();
        }
        // Discard the rest of a paste, which a shell would execute. In the background, the input belongs to the shell.
        if is_in_foreground() {
            let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        }
        let _ = set(&self.before);
    }
}

/// Waits for lines, and returns all available ones; `None` at the end of the input, or if the editor has stopped.
pub(crate) fn read_lines() -> io::Result<Option<Vec<String>>> {
    let mut keys = [0; 4096];
    loop {
        if SCREEN.lock().as_ref().is_none_or(|screen| screen.is_ended) {
            return Ok(None);
        }
        let len = match read_keys(&mut keys)? {
            0 => return Ok(None),
            len => len,
        };
        if let Some(screen) = SCREEN.lock().as_mut() {
            let lines = screen.handle(&keys[..len]);
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
    }
}

/// Reads and discards keys after the end of the input, until the editor stops. The kernel only detects Ctrl-C in input
/// that fits its buffer, so the terminal must be read.
pub(crate) fn discard_keys() {
    let mut keys = [0; 4096];
    while SCREEN.lock().is_some() && matches!(read_keys(&mut keys), Ok(1..)) {}
}

/// Waits for keys, and returns their number; 0 at the end of the input.
fn read_keys(keys: &mut [u8]) -> io::Result<usize> {
    let stdin = io::stdin();
    loop {
        // Wait in `poll`, because `read` would stop a program in the background (SIGTTIN).
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        match rustix::io::read(&stdin, &mut *keys) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
            Ok(len) => return Ok(len),
        }
    }
}

/// Shows the prompt from now on, if the editor is active. Does not block: see [`with_free_screen`].
pub(crate) fn show_prompt() {
    IS_PROMPT_SHOWN.store(true, Ordering::SeqCst);
    with_free_screen(Screen::draw);
}

/// Calls `write` to print above the prompt, if there is one.
pub(crate) fn print<T>(bytes: &[u8], write: impl FnOnce(&[u8]) -> T) -> T {
    let mut screen = SCREEN.lock();
    let Some(screen) = screen.as_mut() else {
        return write(bytes);
    };
    if !screen.is_mid_line {
        screen.erase();
    }
    let written = write(bytes);
    screen.is_mid_line = !bytes.ends_with(b"\n");
    screen.draw();
    written
}

/// Restores the terminal and stops the program, for Ctrl-Z. Does not block: see [`with_free_screen`].
pub(crate) fn stop() {
    with_free_screen(Screen::erase);
    if let Some(before) = &*BEFORE.lock() {
        let _ = set(before);
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// Reactivates the editor after a stop. Does not block: see [`with_free_screen`].
pub(crate) fn resume() {
    if let Some(before) = &*BEFORE.lock() {
        let _ = set(&editing(before));
    }
    with_free_screen(Screen::draw);
}

/// Redraws the prompt after a resize. Does not block: see [`with_free_screen`].
pub(crate) fn redraw() {
    with_free_screen(Screen::draw);
}

/// Calls `change`, unless another thread is writing to the terminal (it redraws the prompt afterwards) or the terminal
/// is stopped (Ctrl-S). The callers run on the thread of the connection, so they must not block on the terminal.
fn with_free_screen(change: impl FnOnce(&mut Screen)) {
    if let Some(mut screen) = SCREEN.try_lock()
        && let Some(screen) = screen.as_mut()
        && screen.has_room()
    {
        change(screen);
    }
}

impl Screen {
    /// Handles keys, and returns the entered lines.
    fn handle(&mut self, keys: &[u8]) -> Vec<String> {
        IS_PROMPT_SHOWN.store(true, Ordering::SeqCst);
        let mut lines = Vec::new();
        for key in keys {
            match self.editor.handle(*key) {
                Some(Event::Line(line)) => {
                    self.write(&Editor::draw_entered(&line));
                    lines.push(line);
                }
                Some(Event::End) => {
                    self.is_ended = true;
                    break;
                }
                None => {}
            }
        }
        self.draw();
        lines
    }

    fn draw(&mut self) {
        if IS_PROMPT_SHOWN.load(Ordering::SeqCst) && !self.is_mid_line && is_in_foreground() {
            let columns = tcgetwinsize(&self.out).map_or(0, |size| usize::from(size.ws_col));
            let row = self.editor.draw(if columns == 0 { 80 } else { columns });
            self.write(&row);
        }
    }

    fn erase(&mut self) {
        if IS_PROMPT_SHOWN.load(Ordering::SeqCst) && is_in_foreground() {
            self.write(Editor::erase_prompt());
        }
    }

    /// Whether a write would not block. It blocks if the terminal is stopped (Ctrl-S).
    fn has_room(&self) -> bool {
        let mut polled = [PollFd::new(&self.out, PollFlags::OUT)];
        let is_polled = poll(&mut polled, Some(&Timespec::default())).is_ok();
        is_polled && polled[0].revents().contains(PollFlags::OUT)
    }

    /// Writes to the terminal. Errors are ignored: a closed terminal is detected when it is read.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
    }
}

/// Settings that deliver each key immediately and without echo. Ctrl-C still sends a signal.
fn editing(before: &Termios) -> Termios {
    let mut termios = before.clone();
    termios.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    termios.special_codes[SpecialCodeIndex::VMIN] = 1;
    termios.special_codes[SpecialCodeIndex::VTIME] = 0;
    termios
}

fn set(termios: &Termios) -> io::Result<()> {
    // From the background, the call would stop the program (SIGTTOU), which may be about to exit.
    match is_in_foreground() {
        true => Ok(tcsetattr(io::stdin(), OptionalActions::Now, termios)?),
        false => Ok(()),
    }
}

/// Whether the program is in the foreground, and not started with `&`.
fn is_in_foreground() -> bool {
    // A terminal that is not the controlling terminal has no foreground process group.
    tcgetpgrp(io::stdin()).map_or(true, |foreground| foreground == rustix::process::getpgrp())
}

/// Opens the terminal to draw on: standard output, standard error, or the controlling terminal.
fn terminal_to_draw_on() -> Option<File> {
    let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().ok().map(File::from);
    if io::stdout().is_terminal() {
        return duplicate(io::stdout().as_fd());
    }
    if io::stderr().is_terminal() {
        return duplicate(io::stderr().as_fd());
    }
    File::options().write(true).open("/dev/tty").ok()
}
