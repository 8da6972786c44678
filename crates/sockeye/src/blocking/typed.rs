//! Values instead of messages: see [`Typed`].

use super::{Receiver, Sender, WebSocket};
#[cfg(feature = "json")]
use crate::typed::Json;
use crate::typed::{Decode, Encode, Typed, TypedError};

impl WebSocket {
    /// Sends and receives values with a codec.
    ///
    /// ```no_run
    /// # #[cfg(feature = "json")] {
    /// use sockeye::{Json, TypedError, blocking};
    ///
    /// fn subscribe(ws: blocking::WebSocket) -> Result<(), TypedError> {
    ///     let mut ws = ws.typed(Json);
    ///     ws.send(&["AAPL", "MSFT"])?;
    ///     while let Some((symbol, price)) = ws.recv::<(String, f64)>()? {
    ///         println!("{symbol}: {price}");
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// ```
    pub fn typed<C>(self, codec: C) -> Typed<Self, C> {
        Typed::new(self, codec)
    }

    /// Sends and receives values as JSON text messages: see [`Json`].
    #[cfg(feature = "json")]
    pub fn json(self) -> Typed<Self, Json> {
        self.typed(Json)
    }
}

impl<C> Typed<WebSocket, C> {
    /// Receives the next value. Returns `None` after a normal [end](crate::WebSocket#the-end).
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv`], and [`TypedError::Decode`] for a message that is not a valid value: the next call
    /// returns the following message.
    pub fn recv<T>(&mut self) -> Result<Option<T>, TypedError>
    where
        C: Decode<T>,
    {
        let message = self.get_mut().recv()?;
        self.decode(message)
    }

    /// Sends a value, and waits until it has been passed to the kernel.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::send`], and [`TypedError::Encode`].
    pub fn send<T: ?Sized>(&mut self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.get_mut().send(message)?)
    }

    /// Queues a value: see [`WebSocket::feed`].
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn feed<T: ?Sized>(&mut self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.get_mut().feed(message)?)
    }

    /// Splits the connection: see [`WebSocket::split`].
    pub fn split(self) -> (Typed<Sender, C>, Typed<Receiver, C>)
    where
        C: Clone,
    {
        let (ws, codec) = self.into_parts();
        let (sender, receiver) = ws.split();
        (Typed::new(sender, codec.clone()), Typed::new(receiver, codec))
    }
}

impl<C> Typed<Sender, C> {
    /// Sends a value, and waits until it has been passed to the kernel.
    ///
    /// # Errors
    ///
    /// Those of [`Sender::send`], and [`TypedError::Encode`].
    pub fn send<T: ?Sized>(&self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.get_ref().send(message)?)
    }

    /// Queues a value: see [`Sender::feed`]. [`get_ref`](Self::get_ref) gives the sender, for example to flush or
    /// close.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn feed<T: ?Sized>(&self, value: &T) -> Result<(), TypedError>
    where
        C: Encode<T>,
    {
        let message = self.encode(value)?;
        Ok(self.get_ref().feed(message)?)
    }
}

impl<C> Typed<Receiver, C> {
    /// Receives the next value. Returns `None` after a normal [end](crate::WebSocket#the-end).
    ///
    /// # Errors
    ///
    /// Those of [`Receiver::recv`], and [`TypedError::Decode`] for a message that is not a valid value.
    pub fn recv<T>(&mut self) -> Result<Option<T>, TypedError>
    where
        C: Decode<T>,
    {
        let message = self.get_mut().recv()?;
        self.decode(message)
    }
}
