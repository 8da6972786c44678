//! The backends and the token of `docs/server/README.md`, in Python and Node, with `sockeye serve`.

use std::path::Path;

use sockeye::WebSocket;
use sockeye_tests::{Process, Sockeye, patience, python, tool};
use tokio::process::Command;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/server/README.md")).unwrap()
}

/// The block of code in this language that contains `part`.
fn block(page: &str, language: &str, part: &str) -> String {
    let start = format!("```{language}\n");
    let blocks = page
        .split(&start)
        .skip(1)
        .map(|rest| rest.split_once("```").expect("the block ends").0);
    let block = blocks.into_iter().find(|block| block.contains(part));
    block.expect("the page has such a block").to_owned()
}

/// Connects a client, and subscribes it to a channel.
async fn subscriber(server: &Sockeye, connect: &str, channel: &str) -> WebSocket {
    let url = format!("ws://{}/connection/websocket", server.address());
    let mut ws = sockeye::connect(&url).await.unwrap();
    let commands =
        format!("{{\"id\":1,\"connect\":{connect}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}");
    ws.send(commands).await.unwrap();
    let replies = text(&mut ws).await;
    assert!(replies.contains("\"id\":2,\"subscribe\":{"), "{replies}");
    ws
}

async fn text(ws: &mut WebSocket) -> String {
    let message = tokio::time::timeout(patience(), ws.recv())
        .await
        .expect("no message")
        .unwrap();
    message.expect("closed").as_text().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs Python and Node: run `cargo xtask test`"]
async fn the_backends_of_the_page_publish() {
    let page = page();
    let mut server = Sockeye::serve("127.0.0.1:0", &["--api-key", "dev-key"]).await;
    let mut ws = subscriber(&server, "{}", "room:1").await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, language: &str| {
        let script = folder.path().join(name);
        let source = block(&page, language, "/api/publish");
        assert!(source.contains("http://127.0.0.1:8080/"));
        let source = source.replace("127.0.0.1:8080", server.address());
        std::fs::write(&script, source).unwrap();
        script
    };
    let in_python = python(write("publish.py", "python").to_str().unwrap(), &[]);
    let mut in_node = Command::new(tool("node"));
    in_node.arg(write("publish.mjs", "js"));
    for (command, expect) in [(in_python, "hello from Python"), (in_node, "hello from Node")] {
        let mut backend = Process::start(command);
        let push = text(&mut ws).await;
        // Python writes spaces.
        assert!(
            push.replace(": ", ":").contains(&format!("{{\"text\":\"{expect}\"}}")),
            "{push}"
        );
        backend.exit_ok().await;
    }
    server.process.kill().await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn the_settings_of_the_page_accept_its_token() {
    let page = page();
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("sockeye.toml");
    let data = folder.path().join("data");
    let file = block(&page, "toml", "hmac_secret");
    assert!(file.contains("\"/var/lib/sockeye\""));
    std::fs::write(&settings, file.replace("/var/lib/sockeye", data.to_str().unwrap())).unwrap();
    let mut server = Sockeye::serve("127.0.0.1:0", &["--config", settings.to_str().unwrap()]).await;

    let script = folder.path().join("token.py");
    std::fs::write(
        &script,
        block(&page, "python", "jwt.encode") + "print('token', token)\n",
    )
    .unwrap();
    let mut signer = Process::start(python(script.to_str().unwrap(), &[]));
    let token = signer.line_after("token ").await;
    signer.exit_ok().await;
    let connect = format!("{{\"token\":\"{token}\"}}");
    let mut ws = subscriber(&server, &connect, "chat:1").await;
    ws.send(r#"{"id":3,"publish":{"channel":"chat:1","data":"hi"}}"#)
        .await
        .unwrap();
    let push = text(&mut ws).await;
    assert!(push.contains("\"user\":\"user-42\""), "{push}");
    server.process.kill().await;
}
