//! Autobahn|Testsuite against `sockeye echo`, and against the program `autobahn_client`.
//!
//! `cargo xtask autobahn` installs the suite and runs this. `SOCKEYE_AUTOBAHN_CASES` narrows the cases (`1.*,9.1.*`). The suite's
//! own reports and a summary for programs, `summary.json`, land in `target/autobahn/<role>`.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use sockeye_tests::{
    Process, Sockeye,
    autobahn::{AGENT, DEFAULT_CASES, Outcome, announced_cases},
    patience, peers,
};
use tokio::process::Command;

#[tokio::test]
#[ignore = "needs Autobahn|Testsuite: run `cargo xtask autobahn`"]
async fn autobahn_server_cases_are_ok() {
    let server = Sockeye::start(&[
        "echo",
        "--listen",
        "127.0.0.1:0",
        "--max-message-size",
        "64MiB",
        "--compression=takeover",
    ])
    .await;
    let run = Run::prepare("server");
    let spec = json!({
        "outdir": run.folder, "servers": [{ "agent": AGENT, "url": server.url }],
        "cases": run.patterns(), "exclude-cases": [], "exclude-agent-cases": {},
    });
    let mut suite = run.start("fuzzingclient", &spec);
    let cases = run.announced(&mut suite).await;
    suite.exit_within(run.deadline()).await;
    run.assert_ok(&cases);
}

#[tokio::test]
#[ignore = "needs Autobahn|Testsuite: run `cargo xtask autobahn`"]
async fn autobahn_client_cases_are_ok() {
    let run = Run::prepare("client");
    let spec = json!({
        "outdir": run.folder, "url": "ws://127.0.0.1:9001",
        "cases": run.patterns(), "exclude-cases": [], "exclude-agent-cases": {},
    });
    let mut suite = run.start("fuzzingserver", &spec);
    let cases = run.announced(&mut suite).await;
    let url = suite.line_after("listening on ").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_autobahn_client"));
    command.arg(url);
    let mut client = Process::start(command);
    client.exit_within(run.deadline()).await;
    suite.kill().await;
    run.assert_ok(&cases);
}

/// One run of the suite, for one of our roles.
struct Run {
    role: &'static str,
    folder: PathBuf,
    cases: String,
}

impl Run {
    /// Makes an empty folder for the reports.
    fn prepare(role: &'static str) -> Self {
        let folder = peers().join("../autobahn").join(role);
        // It does not exist the first time.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let folder = folder.canonicalize().expect("the folder was just made");
        Self {
            role,
            folder,
            cases: env::var("SOCKEYE_AUTOBAHN_CASES").unwrap_or_else(|_| DEFAULT_CASES.to_owned()),
        }
    }

    /// All cases together get the time of twenty ordinary waits; sections 12 and 13, which send some 300,000 messages,
    /// that of a hundred.
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

    fn start(&self, mode: &str, spec: &serde_json::Value) -> Process {
        let path = self.folder.join("spec.json");
        std::fs::write(&path, spec.to_string()).expect("the folder was just made");
        let mut command = Command::new(peers().join("autobahn/wstest"));
        // -u 0: no web server, which would show the working folder to all.
        command.args(["-m", mode, "-u", "0", "-s"]).arg(path);
        Process::start(command)
    }

    async fn announced(&self, suite: &mut Process) -> Vec<String> {
        announced_cases(&suite.line_after("Cases = ").await, &self.patterns())
    }

    /// Writes the summary, then judges.
    fn assert_ok(&self, cases: &[String]) {
        let outcome = Outcome::read(&self.folder.join("index.json"), cases);
        let summary = outcome.to_json(self.role).to_string();
        std::fs::write(Path::new(&self.folder).join("summary.json"), summary).expect("the folder was just made");
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
