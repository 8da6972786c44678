//! A WebSocket of the browser with its event handlers.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use js_sys::{Array, ArrayBuffer, JsString, Reflect, Uint8Array};
use sockeye_proto::{CloseCode, CloseFrame};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{BinaryType, CloseEvent, MessageEvent};

use crate::browser::close::close_frame;
use crate::browser::settings::{Limits, Timeouts};
use crate::browser::state::State;
use crate::browser::timer::Timeout;
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::message::outbound::Outbound;

/// A WebSocket of the browser. It is shared by the halves of a split connection; [`Owner`] closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: web_sys::WebSocket,
    state: Rc<State>,
    limits: Limits,
    timeouts: Timeouts,
    /// Read once, after the opening handshake.
    subprotocol: OnceCell<Option<Box<str>>>,
    /// The number of bytes that were given to the browser. `f64`, because numbers of JavaScript are.
    given: Cell<f64>,
    handlers: RefCell<Option<Handlers>>,
    close_timeout: RefCell<Option<Rc<CloseTimeout>>>,
}

/// The functions that the browser calls. They must not be dropped before they are removed from the socket.
#[derive(Debug)]
struct Handlers {
    _open: Closure<dyn Fn()>,
    _message: Closure<dyn Fn(MessageEvent)>,
    _close: Closure<dyn Fn(CloseEvent)>,
}

/// The handle whose drop closes the connection and removes its event handlers.
#[derive(Debug)]
pub(crate) struct Owner(Rc<Connection>);

impl Owner {
    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

impl Connection {
    /// Creates a WebSocket, which begins to connect at once.
    pub(crate) fn open(
        url: &str,
        subprotocols: &[String],
        limits: &Limits,
        timeouts: &Timeouts,
    ) -> Result<Owner, Error> {
        let names: Array = subprotocols.iter().map(|name| JsString::from(name.as_str())).collect();
        let socket = web_sys::WebSocket::new_with_str_sequence(url, &names)
            .map_err(|exception| Error::invalid_url(message_of(&exception)))?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let state = Rc::new(State::new(limits.message_size_max, limits.read_ahead_max));
        let handlers = Handlers::add(&socket, &state);
        Ok(Owner(Rc::new(Self {
            socket,
            state,
            limits: limits.clone(),
            timeouts: timeouts.clone(),
            subprotocol: OnceCell::new(),
            given: Cell::new(0.0),
            handlers: RefCell::new(Some(handlers)),
            close_timeout: RefCell::default(),
        })))
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The subprotocol that the server chose, after the opening handshake.
    pub(crate) fn subprotocol(&self) -> Option<&str> {
        let read = || Some(self.socket.protocol().into_boxed_str()).filter(|name| !name.is_empty());
        self.subprotocol.get_or_init(read).as_deref()
    }

    /// Host and port of the URL, without a port that is the default.
    pub(crate) fn host(&self) -> String {
        let url = web_sys::Url::new(&self.socket.url());
        url.map_or_else(|_| "the server".to_owned(), |url| url.host())
    }

    /// The number of bytes that the browser has not sent yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.socket.buffered_amount() as usize
    }

    /// The number of bytes that the browser has sent.
    pub(crate) fn sent_bytes(&self) -> f64 {
        self.given.get() - f64::from(self.socket.buffered_amount())
    }

    /// Whether a message of `len` bytes may be given to the browser now.
    pub(crate) fn has_room_for(&self, len: usize) -> bool {
        let queued = self.queued_bytes();
        queued == 0 || queued.saturating_add(len) <= self.limits.write_buffer_max
    }

    /// Whether the browser would send a message. Once the peer has closed, the browser discards messages until it
    /// reports the end.
    pub(crate) fn takes_messages(&self) -> bool {
        self.socket.ready_state() == web_sys::WebSocket::OPEN
    }

    /// Gives a message to the browser, which sends it or, if the connection has ended meanwhile, discards it.
    pub(crate) fn give(&self, message: &Outbound) -> Result<(), Error> {
        if let Some(error) = self.state.send_error() {
            return Err(error);
        }
        let message = message.to_message();
        match &message {
            Message::Text(text) => self.socket.send_with_str(text),
            // Scripts may not send memory that threads share.
            Message::Binary(payload) if cfg!(target_feature = "atomics") => {
                let copy = Uint8Array::from(&payload[..]);
                self.socket.send_with_array_buffer(&copy.buffer())
            }
            Message::Binary(payload) => self.socket.send_with_u8_array(payload),
        }
        .map_err(|exception| Error::other(message_of(&exception)))?;
        self.given.set(self.given.get() + message.len() as f64);
        Ok(())
    }

    /// Begins the closing handshake, and limits its time.
    pub(crate) fn start_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let (frame, result) = close_frame(code, reason);
        if self.state.start_close(&frame) {
            close(&self.socket, &frame);
            let sent_min = f64::from(self.limits.write_rate_min) * self.timeouts.close.as_secs_f64();
            let timeout = CloseTimeout {
                socket: self.socket.clone(),
                state: self.state.clone(),
                limit: self.timeouts.close,
                sent_min,
                timer: RefCell::default(),
            };
            let timeout = Rc::new(timeout);
            CloseTimeout::start(&timeout);
            *self.close_timeout.borrow_mut() = Some(timeout);
        }
        result
    }

    /// The browser sends too slowly.
    pub(crate) fn stall(&self) -> Error {
        self.state.fail(Error::new(Kind::Stalled));
        close(&self.socket, &without_code());
        self.state.send_error().unwrap_or_else(|| Error::new(Kind::Stalled))
    }

    /// Removes the event handlers, and closes the connection unless it is closing. What was queued is still sent.
    fn shut_down(&self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        drop(self.handlers.take());
        drop(self.close_timeout.take());
        if self.state.end().is_none() && self.state.start_close(&without_code()) {
            close(&self.socket, &without_code());
        }
        self.state.fail(Error::new(Kind::Aborted));
    }
}

impl Handlers {
    fn add(socket: &web_sys::WebSocket, state: &Rc<State>) -> Self {
        let open = Closure::<dyn Fn()>::new({
            let state = state.clone();
            move || state.handle_open()
        });
        let message = Closure::<dyn Fn(MessageEvent)>::new({
            let (state, socket) = (state.clone(), socket.clone());
            move |event: MessageEvent| {
                if let Some(frame) = handle_message(&state, event.data()) {
                    close(&socket, &frame);
                }
            }
        });
        let closed = Closure::<dyn Fn(CloseEvent)>::new({
            let state = state.clone();
            move |event: CloseEvent| state.handle_close(event.code(), event.reason())
        });
        socket.set_onopen(Some(open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(closed.as_ref().unchecked_ref()));
        Self {
            _open: open,
            _message: message,
            _close: closed,
        }
    }
}

/// Passes on a message. A text is a string, other messages are an `ArrayBuffer`.
fn handle_message(state: &State, data: JsValue) -> Option<CloseFrame> {
    match data.dyn_into::<JsString>() {
        // Each UTF-16 unit of a text is at least one byte of UTF-8.
        Ok(text) => state.handle_message(u64::from(text.length()), || Message::text(String::from(text))),
        Err(data) => {
            let bytes = Uint8Array::new(data.unchecked_ref::<ArrayBuffer>());
            state.handle_message(u64::from(bytes.length()), || Message::binary(bytes.to_vec()))
        }
    }
}

/// Closes a connection, or stops opening it.
fn close(socket: &web_sys::WebSocket, frame: &CloseFrame) {
    let closed = match frame.code {
        CloseCode::NO_STATUS => socket.close(),
        CloseCode(code) => socket.close_with_code_and_reason(code, &frame.reason),
    };
    debug_assert!(closed.is_ok(), "the browser does not accept {frame}");
}

fn without_code() -> CloseFrame {
    close_frame(CloseCode::NO_STATUS, "").0
}

/// The message of an exception.
fn message_of(exception: &JsValue) -> String {
    let message = Reflect::get(exception, &"message".into()).ok();
    let message = message.and_then(|message| message.as_string());
    message.unwrap_or_else(|| format!("{exception:?}"))
}

/// Ends the connection if the peer does not answer the close frame.
#[derive(Debug)]
struct CloseTimeout {
    socket: web_sys::WebSocket,
    state: Rc<State>,
    limit: Duration,
    /// The number of bytes that the browser must send within `limit` while it has as many.
    sent_min: f64,
    timer: RefCell<Option<Timeout>>,
}

impl CloseTimeout {
    /// Starts the timer. It starts again if the browser has sent enough meanwhile: the close frame follows what was
    /// queued before.
    fn start(this: &Rc<Self>) {
        let queued = f64::from(this.socket.buffered_amount());
        let weak = Rc::downgrade(this);
        let timer = Timeout::new(this.limit, move || {
            let Some(this) = weak.upgrade() else { return };
            let sent = queued - f64::from(this.socket.buffered_amount());
            if sent > 0.0 && sent >= this.sent_min.min(queued) {
                Self::start(&this);
            } else {
                this.state.handle_close_timeout();
            }
        });
        let fired = this.timer.replace(Some(timer));
        drop(fired);
    }
}
