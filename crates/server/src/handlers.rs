//! Handlers of the embedding program for calls (`rpc`) and messages (`send`) of clients.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::codes::ErrorCode;
use crate::handle::Member;

/// A call (`rpc`) of a client, for [`ServerBuilder::on_rpc`](crate::ServerBuilder::on_rpc).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcCall {
    /// The client.
    pub caller: Member,
    /// The method; clients may leave it empty.
    pub method: String,
    /// The data: JSON of a JSON client, any bytes of a Protobuf client. Empty if there is none.
    pub data: Vec<u8>,
}

/// A message (`send`) of a client, for [`ServerBuilder::on_message`](crate::ServerBuilder::on_message).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientMessage {
    /// The client.
    pub sender: Member,
    /// The data: JSON of a JSON client, any bytes of a Protobuf client. Empty if there is none.
    pub data: Vec<u8>,
}

/// The error reply to a call.
///
/// ```
/// use sockeye_server::RpcError;
/// use sockeye_server::codes::ErrorCode;
///
/// let error = RpcError::new(1404, "no such order");
/// assert!(!error.temporary);
/// assert_eq!(RpcError::from(ErrorCode::MethodNotFound).code, 104);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcError {
    /// The code. Those below 1000 are for the protocol: see [`ErrorCode`].
    pub code: u32,
    /// The text for the client.
    pub message: String,
    /// Whether a retry of the call may succeed.
    pub temporary: bool,
}

impl RpcError {
    /// Creates an error that a retry does not resolve.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            temporary: false,
        }
    }

    /// Marks the error as one that a retry may resolve.
    pub fn temporary(mut self) -> Self {
        self.temporary = true;
        self
    }
}

impl From<ErrorCode> for RpcError {
    fn from(code: ErrorCode) -> Self {
        Self {
            code: code.code(),
            message: code.message().to_owned(),
            temporary: code.is_temporary(),
        }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

type RpcFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, RpcError>> + Send>>;
type MessageFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(crate) type RpcHandler = Arc<dyn Fn(RpcCall) -> RpcFuture + Send + Sync>;
pub(crate) type MessageHandler = Arc<dyn Fn(ClientMessage) -> MessageFuture + Send + Sync>;

/// The handlers of the embedding program.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) rpc: Option<RpcHandler>,
    pub(crate) message: Option<MessageHandler>,
}

impl Handlers {
    pub(crate) fn set_rpc<F, R>(&mut self, handler: F)
    where
        F: Fn(RpcCall) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
    {
        self.rpc = Some(Arc::new(move |call| Box::pin(handler(call))));
    }

    pub(crate) fn set_message<F, R>(&mut self, handler: F)
    where
        F: Fn(ClientMessage) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.message = Some(Arc::new(move |message| Box::pin(handler(message))));
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("rpc", &self.rpc.is_some())
            .field("message", &self.message.is_some())
            .finish()
    }
}
