//! Says hello, prints what comes back, and closes.

use sockeye::{CloseCode, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut ws = sockeye::connect("ws://127.0.0.1:9001/").await?;
    ws.send("hello").await?;
    if let Some(message) = ws.recv().await? {
        println!("{message:?}");
    }
    ws.close(CloseCode::NORMAL, "done").await
}
