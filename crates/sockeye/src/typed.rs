//! Values instead of messages: a codec over a connection or its halves.

use std::error::Error as StdError;
use std::fmt;

use crate::error::Error;
use crate::message::Message;
use crate::websocket::WebSocket;
use crate::websocket::split::{Receiver, Sender};

/// An error of a codec.
#[cfg(feature = "json")]
type CodecError = Box<dyn StdError + Send + Sync>;

/// Encodes values of a type into messages, for [`Typed`].
pub trait Encode<T: ?Sized> {
    /// Encodes a value. Return a message that owns its buffer (from a `String`, `Vec<u8>` or `Bytes`): it is then sent
    /// without another copy of the payload, except for masking and compression.
    ///
    /// # Errors
    ///
    /// The value cannot be encoded. Nothing is sent.
    fn encode(&self, value: &T) -> Result<Message, Box<dyn StdError + Send + Sync>>;
}

/// Decodes messages into values of a type, for [`Typed`].
pub trait Decode<T> {
    /// Decodes a message.
    ///
    /// # Errors
    ///
    /// The message is not a valid value. The connection stays open.
    fn decode(&self, message: &Message) -> Result<T, Box<dyn StdError + Send + Sync>>;
}

/// A connection (or one half of it) whose messages are values: see [`WebSocket::json`] and [`WebSocket::typed`].
///
/// The types are those of each call, so that both directions may differ:
///
/// ```
/// # #[cfg(feature = "json")] {
/// use sockeye::{TypedError, WebSocket};
///
/// #[derive(serde::Deserialize)]
/// struct Order { symbol: String, quantity: u32 }
///
/// #[derive(serde::Serialize)]
/// struct Confirmation<'a> { symbol: &'a str }
///
/// async fn serve(ws: WebSocket) -> Result<(), TypedError> {
///     let mut ws = ws.json();
///     while let Some(order) = ws.recv::<Order>().await? {
///         ws.send(&Confirmation { symbol: &order.symbol }).await?;
///     }
///     Ok(())
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Typed<W, C> {
    inner: W,
    codec: C,
}

/// Error of a [`Typed`] connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum TypedError {
    /// The connection has failed or is closed.
    Connection(Error),
    /// A message is not a valid value. The connection stays open.
    Decode {
        /// The message.
        message: Message,
        /// The error of the codec.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A value cannot be encoded. Nothing was sent.
    Encode(Box<dyn StdError + Send + Sync>),
}

impl WebSocket {
    /// Sends and receives values with a codec.
    pub fn typed<C>(self, codec: C) -> Typed<Self, C> {
        Typed::new(self, codec)
    }

    /// Sends and receives values as JSON text messages: see [`Json`].
    #[cfg(feature = "json")]
    pub fn json(self) -> Typed<Self, Json> {
        self.typed(Json)
    }
}

impl<W, C> Typed<W, C> {
    pub(crate) fn new(inner: W, codec: C) -> Self {
        Self { inner, codec }
    }

    /// The connection.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The connection, for example to ping or close it.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Returns the connection.
    pub fn into_inner(self) -> W {
        self.inner
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn into_parts(self) -> (W, C) {
        (self.inner, self.codec)
    }

    pub(crate) fn decode<T>(&self, message: Option<Message>) -> Result<Option<T>, TypedError>
    where
        C: Decode<T>,
    {
        let Some(message) = message else { return Ok(None) };
        match self.codec.decode(&message) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(TypedError::Decode { message, source }),
        }
    }

    pub(crate) fn encode<T: ?Sized>(&self, value: &T) -> Result<Message, TypedError>
    where
        C: Encode<T>,
    {
        self.codec.encode(value).map_err(TypedError::Encode)
    }
}

impl<C> Typed<WebSocket, C> {
    /// Receives the next value. Returns `None` after a normal [end](WebSocket#the-end).
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv`], and [`TypedError::Decode`] for a message that is not a valid value: the next call
    /// returns the message behind it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn recv<T>(&mut self) -> Result<Option<T>, TypedError>
    where
        C: Decode<T>,
    {
        let message = self.inner.recv().await?;
        self.decode(message)
    }

    /// Sends a value, and waits until it has been written to the transport.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::send`], and [`TypedError::Encode`].
    ///
    /// # Cancel safety
    ///
    /// That of [`WebSocket::send`]: a message that is not queued yet is not sent.
    pub async fn send<T: ?Sized>(&mut self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.inner.send(message).await?)
    }

    /// Queues a value: see [`WebSocket::feed`].
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// That of [`WebSocket::feed`]: a message that is not queued yet is not sent.
    pub async fn feed<T: ?Sized>(&mut self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.inner.feed(message).await?)
    }

    /// Splits the connection: see [`WebSocket::split`].
    pub fn split(self) -> (Typed<Sender, C>, Typed<Receiver, C>)
    where
        C: Clone,
    {
        let (sender, receiver) = self.inner.split();
        (Typed::new(sender, self.codec.clone()), Typed::new(receiver, self.codec))
    }
}

impl<C> Typed<Sender, C> {
    /// Sends a value, and waits until it has been written to the transport.
    ///
    /// # Errors
    ///
    /// Those of [`Sender::send`], and [`TypedError::Encode`].
    ///
    /// # Cancel safety
    ///
    /// That of [`Sender::send`]: a message that is not queued yet is not sent.
    pub async fn send<T: ?Sized>(&self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.inner.send(message).await?)
    }

    /// Queues a value: see [`Sender::feed`]. [`get_ref`](Self::get_ref) gives the sender, for example to flush or
    /// close.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// That of [`Sender::feed`]: a message that is not queued yet is not sent.
    pub async fn feed<T: ?Sized>(&self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.inner.feed(message).await?)
    }
}

impl<C> Typed<Receiver, C> {
    /// Receives the next value. Returns `None` after a normal [end](WebSocket#the-end).
    ///
    /// # Errors
    ///
    /// Those of [`Receiver::recv`], and [`TypedError::Decode`] for a message that is not a valid value.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn recv<T>(&mut self) -> Result<Option<T>, TypedError>
    where
        C: Decode<T>,
    {
        let message = self.inner.recv().await?;
        self.decode(message)
    }
}

/// JSON with serde: values are sent as text messages. Text and binary messages are decoded.
///
/// To share the work of encoding between many connections, encode once with [`Encode::encode`] and make a
/// [`PreparedMessage`](crate::PreparedMessage) of the message.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<T: serde::Serialize + ?Sized> Encode<T> for Json {
    fn encode(&self, value: &T) -> Result<Message, CodecError> {
        Ok(Message::text(serde_json::to_string(value)?))
    }
}

#[cfg(feature = "json")]
impl<T: serde::de::DeserializeOwned> Decode<T> for Json {
    fn decode(&self, message: &Message) -> Result<T, CodecError> {
        match message.as_text() {
            Some(text) => Ok(serde_json::from_str(text)?),
            None => Ok(serde_json::from_slice(message.as_bytes())?),
        }
    }
}

impl TypedError {
    /// The message that could not be decoded.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Decode { message, .. } => Some(message),
            _ => None,
        }
    }

    /// The error of the connection, if it has failed or is closed.
    pub fn connection(&self) -> Option<&Error> {
        match self {
            Self::Connection(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for TypedError {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

/// One line that includes the cause, and not the message, which may be long or secret.
impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => fmt::Display::fmt(error, f),
            Self::Decode { message, source } => {
                let kind = if message.is_text() { "text" } else { "binary" };
                write!(f, "cannot decode a {kind} message of {} bytes: {source}", message.len())
            }
            Self::Encode(source) => write!(f, "cannot encode a message: {source}"),
        }
    }
}

impl StdError for TypedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The cause's own text is already in this error's text.
        match self {
            Self::Connection(error) => error.source(),
            Self::Decode { source, .. } | Self::Encode(source) => source.source(),
        }
    }
}
