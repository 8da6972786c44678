//! The `ClientWebSocket` of .NET, on Mono, as a client of `sockeye echo`. Its API has no pings.

use sockeye_tests::{Sockeye, client_cases, dotnet_client, run_client, server};

#[tokio::test]
#[ignore = "needs Mono: run `cargo xtask test`"]
async fn dotnet_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = dotnet_client(&[&server.url]);
    run_client(client, server, &client_cases(&["fragmented text", "fragmented binary"])).await;
}

#[tokio::test]
#[ignore = "needs Mono: run `cargo xtask test`"]
async fn server_receives_close_of_dotnet_client() {
    server::receives_close(|url| dotnet_client(&[url])).await;
}
