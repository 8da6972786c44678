//! Publishes over the HTTP API, as a backend in a process of its own does.
//!
//! ```sh
//! sockeye serve --api-key dev-key
//! cargo run -p sockeye-server --example publish
//! ```

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Publisher {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Publisher {
    async fn publish(&self, channel: &str, data: Value) -> Result<Value, Error> {
        let request = Request::post(&self.url)
            .header("X-API-Key", "dev-key")
            .header("Content-Type", "application/json")
            .body(json!({"channel": channel, "data": data}).to_string().into())?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let body = response.into_body().collect().await?;
            Ok::<_, Error>(body.to_bytes())
        };
        let body = tokio::time::timeout(Duration::from_secs(5), exchange).await??;
        let mut reply: Value = serde_json::from_slice(&body)?;
        match reply.get("error") {
            Some(error) => Err(error.to_string().into()),
            None => Ok(reply["result"].take()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = std::env::args().nth(1);
    let server = server.unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let publisher = Publisher {
        client: Client::builder(TokioExecutor::new()).build_http(),
        url: format!("{server}/api/publish"),
    };
    let position = publisher.publish("room:1", json!({"text": "hello from Rust"})).await?;
    println!("{position}");
    Ok(())
}
