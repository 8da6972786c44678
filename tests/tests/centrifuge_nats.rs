//! The official JavaScript SDK `centrifuge` with two nodes of `sockeye serve` on NATS, where the offsets of a channel
//! have gaps.

use std::{collections::BTreeSet, fs, time::Duration};

use sockeye_tests::{Process, Sockeye, free_address, node, patience, run_cases, tool};
use tokio::{
    net::TcpStream,
    process::Command,
    time::{interval, timeout},
};

const CASES: [&str; 6] = [
    "offsets with gaps",
    "recovery on the same node",
    "recovery on the other node",
    "recovery without a missed publication",
    "history in pages",
    "no recovery over what the history has lost",
];

const HISTORY_SIZE: u32 = 30;

#[tokio::test]
#[ignore = "needs Node and NATS: run `cargo xtask test`"]
async fn centrifuge_clients_recover_over_offsets_with_gaps() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let address = free_address();
    let _nats = start_nats(&address, folder.path()).await;
    let config = folder.path().join("sockeye.toml");
    let text = format!(
        "anonymous = true\n[channels]\nhistory_size = {HISTORY_SIZE}\nhistory_ttl = \"10m\"\n\
         allow_subscribe = \"anyone\"\nallow_publish = \"anyone\"\nallow_history = \"anyone\"\n"
    );
    fs::write(&config, text).expect("the folder is writable");
    let engine = format!("nats://{address}");
    let options = ["--engine", &engine, "--config", &config.to_string_lossy()];
    let one = Sockeye::serve("127.0.0.1:0", &options).await;
    let two = Sockeye::serve("127.0.0.1:0", &options).await;
    let size = HISTORY_SIZE.to_string();
    let client = node("centrifuge_nats.mjs", &[one.address(), two.address(), &size]);
    let expected: BTreeSet<_> = CASES.iter().map(|&case| case.to_owned()).collect();
    run_cases(client, one, &expected).await;
}

/// Starts nats-server with JetStream, and waits until it accepts connections.
async fn start_nats(address: &str, folder: &std::path::Path) -> Process {
    let (host, port) = address.split_once(':').expect("an address has a port");
    let mut command = Command::new(tool("nats_server"));
    command.args(["-a", host, "-p", port, "-js", "-sd"]).arg(folder);
    let process = Process::start(command);
    let listening = async {
        let mut attempts = interval(Duration::from_millis(20));
        while TcpStream::connect(address).await.is_err() {
            attempts.tick().await;
        }
    };
    if timeout(patience(), listening).await.is_err() {
        process.fail("does not listen");
    }
    process
}
