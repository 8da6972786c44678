//! Runs Autobahn|Testsuite against `sockeye echo` and against the program `autobahn_client`, over TCP and over TLS.
//!
//! `cargo xtask autobahn` installs the suite and runs these tests. `SOCKEYE_AUTOBAHN_CASES` selects cases
//! (`1.*,9.1.*`). The suite's reports and a `summary.json` are written to `target/autobahn/<role>-<transport>`.

use std::{env, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use sockeye_tests::{
    Certificate, Process, Sockeye,
    autobahn::{AGENT, DEFAULT_CASES, Outcome, announced_cases},
    patience, peers,
};
use tokio::process::Command;

#[tokio::test]
#[ignore = "needs Autobahn|Testsuite: run `cargo xtask autobahn`"]
async fn autobahn_server_cases_are_ok() {
    test_server(TransportAction::Tcp).await;
}

#[tokio::test]
#[ignore = "needs Autobahn|Testsuite: run `cargo xtask autobahn`"]
async fn autobahn_server_cases_are_ok_over_tls() {
    test_server(TransportAction::Tls).await;
}

#[tokio::test]
#[ignore = "needs Autobahn|Testsuite: run `cargo xtask autobahn`"]
async fn autobahn_client_cases_are_ok() {
    test_client(TransportAction::Tcp).await;
}

#[tokio::test]
#[ignore = "needs Autobahn|Testsuite: run `cargo xtask autobahn`"]
async fn autobahn_client_cases_are_ok_over_tls() {
    test_client(TransportAction::Tls).await;
}

async fn test_server(transport: TransportAction) {
    let certificate = Certificate::generate();
    let [cert, key] = [certificate.cert_path(), certificate.key_path()].map(|path| path.display().to_string());
    let usual = ["echo", "--listen=127.0.0.1:0", "--compression=takeover"];
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let server = match transport {
        TransportAction::Tcp => Sockeye::start(&usual).await,
        TransportAction::Tls => Sockeye::start(&[&usual[..], &tls].concat()).await,
    };
    assert!(server.url.starts_with(transport.scheme()), "{}", server.url);

    let run = Run::prepare("server", transport);
    let spec = json!({ "servers": [{ "agent": AGENT, "url": server.url }] });
    let mut suite = run.start("fuzzingclient", spec);
    let cases = run.announced(&mut suite).await;
    suite.exit_within(run.deadline()).await;
    run.assert_ok(&cases);
}

async fn test_client(transport: TransportAction) {
    let certificate = Certificate::generate();
    let run = Run::prepare("client", transport);
    let spec = match transport {
        TransportAction::Tcp => json!({ "url": "ws://127.0.0.1:9001" }),
        TransportAction::Tls => json!({
            "url": "wss://127.0.0.1:9001", "key": certificate.key_path(), "cert": certificate.cert_path(),
        }),
    };
    let mut suite = run.start("fuzzingserver", spec);
    let cases = run.announced(&mut suite).await;
    let url = suite.line_after("listening on ").await;
    assert!(url.starts_with(transport.scheme()), "{url}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_autobahn_client"));
    command.arg(url);
    if let TransportAction::Tls = transport {
        command.arg(certificate.cert_path());
    }
    let mut client = Process::start(command);
    client.exit_within(run.deadline()).await;
    suite.kill().await;
    run.assert_ok(&cases);
}

#[derive(Clone, Copy)]
enum TransportAction {
    Tcp,
    Tls,
}

impl TransportAction {
    fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "ws://",
            Self::Tls => "wss://",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// One run of the suite for one role.
struct Run {
    folder: PathBuf,
    cases: String,
}

impl Run {
    /// Creates an empty folder for the reports.
    fn prepare(role: &str, transport: TransportAction) -> Self {
        let name = format!("{role}-{}", transport.name());
        let folder = peers().join("../autobahn").join(name);
        // Missing in the first run.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let folder = folder.canonicalize().expect("the folder was just made");
        Self {
            folder,
            cases: env::var("SOCKEYE_AUTOBAHN_CASES").unwrap_or_else(|_| DEFAULT_CASES.to_owned()),
        }
    }

    /// Deadline of the whole run: twenty ordinary waits, or a hundred for sections 12 and 13, which send some 200,000
    /// messages.
    fn deadline(&self) -> Duration {
        let is_long = self
            .patterns()
            .iter()
            .any(|pattern| pattern.starts_with("12") || pattern.starts_with("13"));
        patience() * if is_long { 100 } else { 20 }
    }

    fn patterns(&self) -> Vec<&str> {
        self.cases.split(',').map(str::trim).collect()
    }

    /// Starts the suite with `spec`, completed by the settings that both modes share.
    fn start(&self, mode: &str, mut spec: Value) -> Process {
        spec["outdir"] = json!(self.folder);
        spec["cases"] = json!(self.patterns());
        spec["exclude-cases"] = json!([]);
        spec["exclude-agent-cases"] = json!({});
        let path = self.folder.join("spec.json");
        std::fs::write(&path, spec.to_string()).expect("the folder was just made");
        let mut command = Command::new(peers().join("autobahn/wstest"));
        // -u 0: no web server, which would publish the working folder.
        command.args(["-m", mode, "-u", "0", "-s"]).arg(path);
        Process::start(command)
    }

    async fn announced(&self, suite: &mut Process) -> Vec<String> {
        announced_cases(&suite.line_after("Cases = ").await, &self.patterns())
    }

    /// Writes the summary, then asserts that no case failed.
    fn assert_ok(&self, cases: &[String]) {
        let outcome = Outcome::read(&self.folder, cases);
        let summary = outcome.to_json().to_string();
        std::fs::write(self.folder.join("summary.json"), summary).expect("the folder was just made");
        let failed = &outcome.failed;
        assert!(
            failed.is_empty(),
            "{} of {} cases failed:\n{}",
            failed.len(),
            cases.len(),
            failed.join("\n")
        );
    }
}
