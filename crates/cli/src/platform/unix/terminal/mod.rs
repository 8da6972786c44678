//! Typing on a terminal: lines of any length, and output that does not land in the middle of them.
//!
//! The kernel's own line editing cuts a line at 4,095 bytes, without a word. So from before the connection is opened until
//! the end, the kernel hands on each key, and an [`Editor`] makes lines of them. Whatever else is to appear on the terminal
//! goes through [`print`], which takes the prompt away, writes, and draws the prompt again.
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

/// The prompt that is on the terminal, if there is one. There is only one standard input.
static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// The settings of the terminal from before it was taken over; `None` if it is not. Apart from [`SCREEN`], which is locked
/// while a thread writes to the terminal: a terminal that is stopped (Ctrl-S) blocks that write for any length of time, and
/// signals are handled meanwhile.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether the prompt is drawn: from the first key, or from when the connection is open. Apart from [`SCREEN`] for the same
/// reason as [`BEFORE`].
static IS_PROMPT_SHOWN: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Screen {
    editor: Editor,
    /// The terminal, to draw on.
    out: File,
    /// What was printed last did not end its line, so the prompt is not there.
    is_mid_line: bool,
    /// The end was asked for.
    is_ended: bool,
}

/// A terminal that lines are edited on; works as before when dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal over, if standard input is one that can be drawn on. There is no prompt before [`show_prompt`] or
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
        // On a terminal that is stopped (Ctrl-S) the prompt stays.
        if let Some(mut screen) = SCREEN.try_lock()
            && let Some(mut screen) = screen.take()
            && screen.has_room()
        {
            screen.erase();
        }
        // The rest of a paste was meant for the server: a shell would run it. In the background, input is the shell's.
        if is_in_foreground() {
            let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        }
        let _ = set(&self.before);
    }
}

/// Reads lines from the terminal that is taken over, all that are there; `None` at the end, and when it is taken over no
/// more.
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

/// Reads the terminal after the end was asked for, until it is taken over no more. The system finds Ctrl-C only in what it
/// has room for, so a terminal that nobody reads does not pass it on.
pub(crate) fn discard_keys() {
    let mut keys = [0; 4096];
    while SCREEN.lock().is_some() && matches!(read_keys(&mut keys), Ok(1..)) {}
}

/// Waits for keys; 0 at the end.
fn read_keys(keys: &mut [u8]) -> io::Result<usize> {
    let stdin = io::stdin();
    loop {
        // While it waits here and not in `read`, a program in the background is not stopped for want of input.
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

/// Draws the prompt from now on, if the terminal is taken over. Does not block: see [`with_free_screen`].
pub(crate) fn show_prompt() {
    IS_PROMPT_SHOWN.store(true, Ordering::SeqCst);
    with_free_screen(Screen::draw);
}

/// Writes to the terminal so that the prompt is below what is written. Without a prompt it only writes.
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

/// Stops the program, as Ctrl-Z asks for, with the terminal as it was. Does not block: see [`with_free_screen`].
pub(crate) fn stop() {
    with_free_screen(Screen::erase);
    if let Some(before) = &*BEFORE.lock() {
        let _ = set(before);
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// Takes the terminal over again after a stop. Does not block: see [`with_free_screen`].
pub(crate) fn resume() {
    if let Some(before) = &*BEFORE.lock() {
        let _ = set(&editing(before));
    }
    with_free_screen(Screen::draw);
}

/// Draws the prompt for a terminal of another size. Does not block: see [`with_free_screen`].
pub(crate) fn redraw() {
    with_free_screen(Screen::draw);
}

/// Changes what is drawn, unless a thread is writing to the terminal or the terminal takes nothing (Ctrl-S). A thread that
/// writes draws the prompt afterwards. The callers handle signals on the thread that runs the connection, so they must not
/// wait for the terminal.
fn with_free_screen(change: impl FnOnce(&mut Screen)) {
    if let Some(mut screen) = SCREEN.try_lock()
        && let Some(screen) = screen.as_mut()
        && screen.has_room()
    {
        change(screen);
    }
}

impl Screen {
    /// Takes keys; gives the lines that they entered.
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

    /// Whether the terminal takes a prompt without blocking. One that is stopped (Ctrl-S) takes nothing.
    fn has_room(&self) -> bool {
        let mut polled = [PollFd::new(&self.out, PollFlags::OUT)];
        let is_polled = poll(&mut polled, Some(&Timespec::default())).is_ok();
        is_polled && polled[0].revents().contains(PollFlags::OUT)
    }

    /// What cannot be drawn is not drawn: whether the terminal is gone is found where it is read.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
    }
}

/// Hands on each key at once, and draws none. Signals, such as that of Ctrl-C, stay.
fn editing(before: &Termios) -> Termios {
    let mut termios = before.clone();
    termios.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    termios.special_codes[SpecialCodeIndex::VMIN] = 1;
    termios.special_codes[SpecialCodeIndex::VTIME] = 0;
    termios
}

fn set(termios: &Termios) -> io::Result<()> {
    // From the background it would stop the program, which may be about to end.
    match is_in_foreground() {
        true => Ok(tcsetattr(io::stdin(), OptionalActions::Now, termios)?),
        false => Ok(()),
    }
}

/// Whether the terminal is this program's, and not that of a shell which it was started from with `&`.
fn is_in_foreground() -> bool {
    // A terminal that does not control this process has no foreground of its.
    tcgetpgrp(io::stdin()).map_or(true, |foreground| foreground == rustix::process::getpgrp())
}

/// Standard output if it is a terminal, else standard error, else the terminal of this process.
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
