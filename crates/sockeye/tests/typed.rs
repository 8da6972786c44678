//! Values instead of messages.
#![cfg(feature = "json")]

mod common;

use common::pair;
use serde::{Deserialize, Serialize};
use sockeye::{Client, CloseCode, Decode, Encode, Message, Server, TypedError};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tick {
    symbol: String,
    price: f64,
}

fn tick(price: f64) -> Tick {
    let symbol = "SOCK".to_owned();
    Tick { symbol, price }
}

#[tokio::test(start_paused = true)]
async fn values_cross_as_json_text() {
    let (client, mut server) = pair(&Client::default(), &Server::default()).await;
    let mut client = client.json();
    client.send(&tick(1.5)).await.unwrap();
    assert_eq!(
        server.recv().await.unwrap().unwrap().as_text(),
        Some(r#"{"symbol":"SOCK","price":1.5}"#)
    );
    client.feed("a string").await.unwrap();
    client.feed(&[1, 2][..]).await.unwrap();
    client.get_mut().flush().await.unwrap();
    let (sender, mut receiver) = server.json().split();
    assert_eq!(receiver.recv::<String>().await.unwrap().unwrap(), "a string");
    assert_eq!(receiver.recv::<Vec<u8>>().await.unwrap().unwrap(), [1, 2]);
    sender.send(&tick(2.0)).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some(tick(2.0)));
    // Binary messages are decoded too.
    sender.get_ref().send(br#"{"symbol":"SOCK","price":3}"#).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some(tick(3.0)));
    sender.get_ref().close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(client.recv::<Tick>().await.unwrap(), None);
    assert!(
        client
            .send(&tick(4.0))
            .await
            .unwrap_err()
            .connection()
            .unwrap()
            .is_normal_close()
    );
}

#[tokio::test(start_paused = true)]
async fn invalid_message_is_kept_and_the_next_is_received() {
    let (client, mut server) = pair(&Client::default(), &Server::default()).await;
    let mut client = client.json();
    server.feed("not json").await.unwrap();
    server.send(r#"{"symbol":"SOCK","price":1}"#).await.unwrap();
    let error = client.recv::<Tick>().await.unwrap_err();
    assert_eq!(error.message().unwrap().as_text(), Some("not json"));
    let text = error.to_string();
    assert!(
        text.starts_with("cannot decode a text message of 8 bytes: expected ident"),
        "{text}"
    );
    assert_eq!(client.recv().await.unwrap(), Some(tick(1.0)));
    // A key that is not a string.
    let unencodable = std::collections::HashMap::from([((1, 2), 3)]);
    let error = client.send(&unencodable).await.unwrap_err();
    assert!(matches!(error, TypedError::Encode(_)), "{error}");
    assert!(client.get_ref().is_open());
}

/// Big-endian numbers.
#[derive(Clone)]
struct Numbers;

impl Encode<u32> for Numbers {
    fn encode(&self, value: &u32) -> Result<Message, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Message::from(&value.to_be_bytes()))
    }
}

impl Decode<u32> for Numbers {
    fn decode(&self, message: &Message) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        Ok(u32::from_be_bytes(message.as_bytes().try_into()?))
    }
}

#[tokio::test(start_paused = true)]
async fn other_codecs_implement_two_traits() {
    let (client, server) = pair(&Client::default(), &Server::default()).await;
    let (mut client, mut server) = (client.typed(Numbers), server.typed(Numbers));
    client.send(&7).await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some(7));
    client.get_mut().send("five!").await.unwrap();
    assert_eq!(server.recv().await.unwrap_err().message().unwrap().len(), 5);
    assert_eq!(server.into_inner().stats().received.messages, 2);
}
