//! Headless Chromium: its WebSocket against `sockeye echo`, two people in each page of `sockeye serve`, and an operator
//! in its console.

use sockeye_tests::{
    CHAT_CASES, CONSOLE_CASES, Certificate, GAME_CASES, MARKET_CASES, Sockeye, artifacts, client_cases, node,
    run_client, run_page, server,
};

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn chromium_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = node("chromium_client.mjs", &[&server.url]);
    run_client(client, server, &client_cases(&["close without a code"])).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn chromium_talks_to_echo_over_tls() {
    let certificate = Certificate::generate();
    let server = Sockeye::echo_tls(&certificate).await;
    let client = node("chromium_client.mjs", &[&server.url]);
    run_client(client, server, &client_cases(&["close without a code"])).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn server_receives_close_of_chromium() {
    server::receives_close(|url| node("chromium_client.mjs", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn two_people_talk_in_the_page() {
    visit("chat.mjs", CHAT_CASES).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn two_people_watch_the_market() {
    visit("market.mjs", MARKET_CASES).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn two_people_play_the_game() {
    visit("game.mjs", GAME_CASES).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn an_operator_uses_the_console() {
    let server = Sockeye::serve("127.0.0.1:0", &["--console-password", "correct horse"]).await;
    let folder = artifacts();
    let operator = node("console.mjs", &[&server.url, &folder.to_string_lossy()]);
    run_page(operator, server, CONSOLE_CASES).await;
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn server_compresses_with_chromium_client() {
    server::compresses(|url| node("chromium_client.mjs", &[url])).await;
}

async fn visit(script: &str, cases: &[&str]) {
    // The pages show this key in the command that publishes.
    let server = Sockeye::serve("127.0.0.1:0", &["--api-key", "KEY"]).await;
    let folder = artifacts();
    run_page(node(script, &[&server.url, &folder.to_string_lossy()]), server, cases).await;
}
