//! A small HTTP client: one request per connection, with the response as a whole or as a stream.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::patience;

/// A response whose body is still to be read.
#[derive(Debug)]
pub(super) struct Streaming {
    pub(super) response: Response<Incoming>,
    /// Bytes that were received and not taken.
    buffer: Vec<u8>,
}

/// Sends a request and waits for the head of the response.
///
/// # Panics
/// If there is no response in time.
pub(super) async fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: Vec<u8>,
) -> Streaming {
    let exchange = async {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("no I/O happens here");
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", address);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .expect("the request is valid");
        sender.send_request(request).await
    };
    match timeout(patience(), exchange).await {
        Ok(Ok(response)) => Streaming {
            response,
            buffer: Vec::new(),
        },
        Ok(Err(error)) => panic!("{method} {path} from {address}: {error}"),
        Err(_) => panic!("{method} {path} from {address}: no response in time"),
    }
}

impl Streaming {
    /// The whole body.
    pub(super) async fn text(self) -> String {
        let body = self.response.into_body().collect().await;
        String::from_utf8_lossy(&body.map(|body| body.to_bytes()).unwrap_or_default()).into_owned()
    }

    /// Receives until `take` finds a whole part at the front of what was received; `None` at the end of the body.
    pub(super) async fn part<T>(&mut self, take: impl Fn(&mut &[u8]) -> Option<T>) -> Option<T> {
        loop {
            let mut rest = &*self.buffer;
            if let Some(part) = take(&mut rest) {
                let taken = self.buffer.len() - rest.len();
                self.buffer.drain(..taken);
                return Some(part);
            }
            let frame = self.response.body_mut().frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
