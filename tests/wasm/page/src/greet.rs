use sockeye::{Client, CloseCode, Error};

/// Greets a server and returns its answer. The same code for a browser and for other targets.
pub async fn greet(url: &str) -> Result<String, Error> {
    let client = Client::new();
    let mut ws = client.request(url).subprotocols(["chat"]).connect().await?;
    ws.send("hello").await?;
    let answer = match ws.recv().await? {
        Some(message) => message.as_text().unwrap_or("(binary)").to_owned(),
        None => "(closed)".to_owned(),
    };
    ws.close(CloseCode::NORMAL, "done").await?;
    Ok(answer)
}
