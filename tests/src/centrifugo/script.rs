//! The cases: scripts in `tests/centrifugo/*.txt`, which both servers run through.
//!
//! ```text
//! # the name of a case [options]
//! > {"connect":{}} {"subscribe":{"channel":"open:a%"}}
//! 1> {"connect":{"token":{"sub":"ada","exp":"+300"}}}
//! ```
//!
//! | line | meaning |
//! |---|---|
//! | `# name` | begins a case; options in brackets: `json` (only with JSON), `protobuf`, `strict`, `keyless` (other servers) |
//! | `> commands` | client 0 sends the commands in one frame and waits for the replies; `1>` is client 1 |
//! | `! text` | client 0 sends a text frame as it is |
//! | `b hex` | client 0 sends a binary frame as it is |
//! | `< 2` | client 0 waits for two pushes |
//! | `ping` | client 0 waits for a ping, which it does not answer |
//! | `closed` | client 0 waits until the server closes, or has evidently not closed, the connection |
//! | `end` | client 0 waits until the server closes the connection |
//! | `quit` | client 0 closes the connection |
//! | `open sse` | client 0 uses another transport: `sse` or `http_stream`; or a query: `open ?format=protobuf` |
//! | `api publish {…}` | a call of the HTTP API with the key |
//! | `http POST /path header:value {…}` | any HTTP request |
//!
//! In commands, `id` is added where it is missing, an object as `token` is signed as the claims of a JWT, and `$EPOCH`
//! is the last epoch that a server sent. `%` in a channel makes it unique to one run of the case.

/// A case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Name in the list of differences.
    pub(super) name: String,
    pub(super) options: Vec<String>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Open {
        client: usize,
        how: String,
    },
    Commands {
        client: usize,
        text: String,
    },
    Text {
        client: usize,
        text: String,
    },
    Binary {
        client: usize,
        bytes: Vec<u8>,
    },
    Pushes {
        client: usize,
        count: usize,
    },
    Ping {
        client: usize,
    },
    Closed {
        client: usize,
    },
    End {
        client: usize,
    },
    Quit {
        client: usize,
    },
    Http {
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        body: String,
    },
}

impl Case {
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|known| known == option)
    }
}

/// The key of the HTTP API of both servers.
pub(super) const API_KEY: &str = "test-api-key";

/// Parses a file of cases.
///
/// # Panics
/// If a line is not understood.
pub(super) fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("# ") {
            let (name, options) = match title.strip_suffix(']').and_then(|title| title.split_once(" [")) {
                Some((name, options)) => (name, options.split(' ').map(str::to_owned).collect()),
                None => (title, Vec::new()),
            };
            let (name, steps) = (name.to_owned(), Vec::new());
            cases.push(Case { name, options, steps });
            continue;
        }
        if line.starts_with("//") {
            continue;
        }
        let step = step(line).unwrap_or_else(|| panic!("a line of a case is not understood: {line}"));
        cases.last_mut().expect("a case begins with its name").steps.push(step);
    }
    cases
}

fn step(line: &str) -> Option<Step> {
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let client = line[..digits].parse().unwrap_or(0);
    let line = &line[digits..];
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let text = rest.to_owned();
    Some(match word {
        ">" => Step::Commands { client, text },
        "!" => Step::Text { client, text },
        "b" => Step::Binary {
            client,
            bytes: hex(rest)?,
        },
        "<" => Step::Pushes {
            client,
            count: rest.parse().ok()?,
        },
        "ping" => Step::Ping { client },
        "closed" => Step::Closed { client },
        "end" => Step::End { client },
        "quit" => Step::Quit { client },
        "open" => Step::Open { client, how: text },
        "api" => {
            let (method, body) = rest.split_once(' ').unwrap_or((rest, ""));
            Step::Http {
                method: "POST".to_owned(),
                path: format!("/api/{method}"),
                headers: vec![("x-api-key".to_owned(), API_KEY.to_owned())],
                body: body.to_owned(),
            }
        }
        "http" => {
            let (head, body) = match rest.split_once(" body ") {
                Some((head, body)) => (head, body),
                None => (rest, ""),
            };
            let mut words = head.split(' ');
            let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
            let headers = words.map(|header| {
                header
                    .split_once(':')
                    .map(|(name, value)| (name.to_owned(), value.replace("\\u0020", " ")))
            });
            Step::Http {
                method,
                path,
                headers: headers.collect::<Option<_>>()?,
                body: body.to_owned(),
            }
        }
        _ => return None,
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.split(' ').map(|byte| u8::from_str_radix(byte, 16).ok());
    bytes.collect()
}
