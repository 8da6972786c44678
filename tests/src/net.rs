//! Network helpers.

use std::net::TcpListener as StdListener;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::patience;

/// An address on 127.0.0.1 with a port that is currently free, for programs that cannot pick one themselves.
///
/// # Panics
/// If there is none.
pub fn free_address() -> String {
    let listener = StdListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("the listener is bound").to_string()
}

/// The whole response, head and body, to a plain HTTP request.
///
/// # Panics
/// If the server does not answer and close in time.
pub async fn http_get(address: &str, path: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&response).into_owned())
    };
    match timeout(patience(), exchange).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => panic!("GET {path} from {address}: {error}"),
        Err(_) => panic!("GET {path} from {address}: no whole answer in time"),
    }
}
