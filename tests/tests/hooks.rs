//! The backend of `docs/server/hooks.md`, in Python, behind `sockeye serve` with the settings of the page.

use std::net::TcpListener;
use std::path::Path;

use sockeye::{Client, WebSocket};
use sockeye_tests::{Process, Sockeye, patience, python};

/// The text of the first block of code in this language.
fn block(page: &str, language: &str) -> String {
    let start = format!("```{language}\n");
    let (_, rest) = page.split_once(&start).expect("the page has such a block");
    rest.split_once("```").expect("the block ends").0.to_owned()
}

async fn connect(server: &Sockeye, cookie: &str) -> WebSocket {
    let url = format!("ws://{}/connection/websocket", server.address());
    let client = Client::default();
    let mut ws = client.request(&url).header("cookie", cookie).connect().await.unwrap();
    ws.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
    ws
}

/// Returns the next message, without spaces: Python writes some.
async fn text(ws: &mut WebSocket) -> String {
    let message = tokio::time::timeout(patience(), ws.recv())
        .await
        .expect("no message")
        .unwrap();
    message.expect("closed").as_text().unwrap().replace(' ', "")
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn the_backend_of_the_page_decides_about_clients() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/server/hooks.md")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("backend.py");
    // Tells the test that it listens.
    let serve = "ThreadingHTTPServer((\"127.0.0.1\", 3000), Backend).serve_forever()";
    let started = format!(
        "server = ThreadingHTTPServer((\"127.0.0.1\", {port}), Backend)\nprint(\"listening\", flush=True)\nserver.serve_forever()"
    );
    let source = block(&page, "python");
    assert!(source.contains(serve));
    std::fs::write(&script, source.replace(serve, &started)).unwrap();
    let mut backend = Process::start(python(script.to_str().unwrap(), &[]));
    backend.line_after("listening").await;

    let settings = folder.path().join("sockeye.toml");
    // Patient, for busy machines.
    let toml = block(&page, "toml").replace("[hooks]\n", "[hooks]\ntimeout = \"9s\"\n");
    let toml = toml.replace(":3000/", &format!(":{port}/"));
    std::fs::write(&settings, toml).unwrap();
    let mut server = Sockeye::serve("127.0.0.1:0", &["--config", settings.to_str().unwrap()]).await;

    let mut ada = connect(&server, "session=s3cret").await;
    assert!(text(&mut ada).await.contains("\"client\""));
    for (frame, expect) in [
        (
            r#"{"id":2,"subscribe":{"channel":"chat:7"}}"#,
            r#"{"id":2,"error":{"code":103,"message":"permissiondenied"}}"#,
        ),
        (
            r#"{"id":3,"subscribe":{"channel":"chat:42"}}"#,
            r#"{"id":3,"subscribe":{}}"#,
        ),
        (
            r#"{"id":4,"rpc":{"method":"sum","data":[1,2]}}"#,
            r#"{"id":4,"rpc":{"data":{"sum":3}}}"#,
        ),
    ] {
        ada.send(frame).await.unwrap();
        assert_eq!(text(&mut ada).await, expect);
    }
    ada.send(r#"{"id":5,"publish":{"channel":"chat:42","data":{"text":"hi"}}}"#)
        .await
        .unwrap();
    let push = text(&mut ada).await;
    assert!(
        push.contains(r#""data":{"text":"hi","checked":true},"info":{"user":"42","#),
        "{push}"
    );
    assert!(push.contains(r#""conn_info":{"name":"Ada"}"#), "{push}");

    let mut eve = connect(&server, "session=guess").await;
    let error = tokio::time::timeout(patience(), eve.recv())
        .await
        .expect("no close")
        .unwrap_err();
    let close = error.close_info().expect("a close frame");
    assert_eq!(u16::from(close.code()), 4501);
    server.process.kill().await;
    backend.kill().await;
}
