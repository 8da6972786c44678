//! The reference of all settings, and the commented default file, generated from the types.

use std::fmt::Write;

use super::{OptionInfo, Options, Settings};
use crate::auth::TokenConfig;
use crate::config::NamespaceOptions;

/// The width of comments in the file.
const WIDTH: usize = 100;

/// A file with all settings. Options without a value are commented out.
pub(super) fn file(settings: &Settings) -> String {
    let mut text = String::from(
        "# Settings of `sockeye serve`. Each option is also an environment variable: SOCKEYE_ and its path in capitals,\n\
         # such as SOCKEYE_LIMITS_CONNECTIONS_MAX.\n",
    );
    for (name, table) in settings.tables() {
        // The comments of the namespaces are those of [channels].
        let is_commented = !name.starts_with("namespaces.");
        if !name.is_empty() {
            let _ = write!(text, "\n[{name}]\n");
        }
        for option in table.options() {
            if is_commented {
                text.push('\n');
                for line in wrap(&plain(option), WIDTH) {
                    let _ = writeln!(text, "# {line}");
                }
            }
            match table.get(option.name) {
                Some(value) => drop(writeln!(text, "{} = {value}", option.name)),
                None => drop(writeln!(text, "# {} = # {}", option.name, option.kind.replace('`', ""))),
            }
        }
    }
    text
}

/// The reference page.
pub(super) fn page() -> String {
    let mut page = String::from(HEAD);
    let (closed, open) = (Settings::closed(), Settings::default());
    let namespace = NamespaceOptions::default();
    let sections: [(&str, &str, &dyn Options, &dyn Options); 7] = [
        ("Settings without a table", "", &closed.program, &open.program),
        (
            "`[tokens]` and `[subscription_tokens]`",
            "TOKENS_",
            &closed.tokens,
            &open.tokens,
        ),
        ("`[console]`", "CONSOLE_", &closed.console, &open.console),
        ("`[limits]`", "LIMITS_", &closed.limits, &open.limits),
        ("`[timeouts]`", "TIMEOUTS_", &closed.timeouts, &open.timeouts),
        ("`[hooks]`", "HOOKS_", &closed.hooks, &open.hooks),
        (
            "`[channels]` and `[namespaces.NAME]`",
            "CHANNELS_",
            &namespace,
            &open.channels,
        ),
    ];
    for (title, prefix, closed, open) in sections {
        let _ = write!(page, "\n## {title}\n\n");
        match prefix {
            "TOKENS_" => page.push_str(TOKENS),
            "CONSOLE_" => page.push_str(CONSOLE),
            "CHANNELS_" => page.push_str(CHANNELS),
            _ => {}
        }
        page.push_str("| option | default | value | meaning |\n|---|---|---|---|\n");
        for option in closed.options() {
            let shown = |value: Option<String>| value.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
            let (by_default, without_file) = (shown(closed.get(option.name)), shown(open.get(option.name)));
            let by_default = match by_default == without_file {
                true => by_default,
                false => format!("{by_default}; without a file {without_file}"),
            };
            let kind = option.kind.replace('|', "\\|");
            let meaning = plain(option).replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | {by_default} | {kind} | {meaning} |", option.name);
        }
    }
    debug_assert_eq!(closed.tokens.options().len(), TokenConfig::default().options().len());
    page
}

const HEAD: &str = "\
# Settings of `sockeye serve`

<!-- Generated from the types by `SOCKEYE_BLESS=1 cargo test -p sockeye-server settings`. -->

Settings come from a TOML file (`--config FILE`), then from environment variables, then from flags; later ones override
earlier ones. Each option is also an environment variable: `SOCKEYE_` and its path in capitals with `_` between the parts, such
as `SOCKEYE_LIMITS_CONNECTIONS_MAX` or `SOCKEYE_NAMESPACES_CHAT_HISTORY_SIZE`. Lists in variables are separated by commas.
Any other variable that starts with `SOCKEYE_` is an error, except `SOCKEYE_CONFIG` and `SOCKEYE_LOG` (the flags `--config` and
`--log-level`) and the variables that Kubernetes and Docker set for a service named `sockeye`, such as `SOCKEYE_SERVICE_HOST`.

Times are numbers with units in descending order, such as `\"1m30s\"`, or a number of seconds without a unit. Sizes are numbers
of bytes, or have a unit: `\"64KiB\"`, `\"1MB\"`.

`sockeye config default` prints a commented file with the settings of a server without a file. `sockeye serve --config FILE
--check` checks the settings, the certificate and the `data` folder, and exits without leaving changes. It reports
every error, with its line if it is in the file, and exits with status 1 if there are any. Otherwise it prints the
warnings that a server logs at start: options that switch authentication off (`insecure_…`), an HMAC secret of less
than 32 bytes, a console password of less than 16 characters, and a `history_size` that
`limits.history_bytes_per_channel_max` cannot hold. Empty keys and passwords are errors (an empty variable is not
set), and so are zeros for limits and timeouts that must not be zero, and options set in the file that need a history
(`recovery`, `positioning`, `force_recovery`, `force_positioning`, `delta`, `cache`) while `history_size` or
`history_ttl` is zero. On SIGHUP, the server rereads the file and logs what changed; variables stay as they were at
the start.

Without a file the server is open, for a first try: anonymous clients may connect, subscribe, publish, and read history and
presence. A file sets the permissions. Nothing else is allowed.
";

const TOKENS: &str = "\
Without `[subscription_tokens]`, subscription tokens are verified with the keys of `[tokens]`.

";

const CONSOLE: &str = "\
The admin console at `/console`, which the page operating.md describes.

";

const CHANNELS: &str = "\
`[channels]` are the options of channels without a namespace, `[namespaces.chat]` those of channels whose names start with
`chat:` or `$chat:`. Commands for channels of other namespaces fail with error 102. Publishing, history and presence of a
private channel (`$`) also need a subscription, and a subscription needs a token.

The values of `allow_…` say which clients may do it. The server is not restricted by them: a connection token, the connect hook
and the HTTP API subscribe a client to any channel.

| value | `allow_subscribe` | `allow_publish`, `allow_history`, `allow_presence` |
|---|---|---|
| `nobody` | no client, not even with a subscription token | no client |
| `token` | clients with a subscription token for the channel | clients whose subscription a token, a hook or the HTTP API granted |
| `subscriber` | the same as `token` | subscribers of the channel |
| `authenticated` | clients with a user | clients with a user, subscribed or not |
| `anyone` | every client, also an anonymous one | every client, subscribed or not |

A subscription token is accepted with every value but `nobody`. A channel named `name#u1,u2` admits exactly these users, with and
without a token, unless the value is `nobody`. With `subscribe_hook`, the backend decides instead of `allow_subscribe`.

On SIGHUP, subscriptions that are not allowed any more end, and the log says how many: with 2000 if the namespace was removed; with
2502 if `allow_subscribe` forbids them, after which SDKs subscribe again and present a token if they have one.

";

/// The documentation of an option as one line, without links.
fn plain(option: &OptionInfo) -> String {
    let docs: Vec<_> = option.docs.iter().map(|line| line.trim()).collect();
    unlink(&docs.join(" "))
}

/// Replaces links to items, `` [`name`](target) `` and `` [`name`] ``, by their names.
fn unlink(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        plain.push_str(before);
        let Some((name, after)) = after.split_once("`]") else {
            plain.push_str("[`");
            rest = after;
            continue;
        };
        let _ = write!(plain, "`{name}`");
        rest = match after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    plain.push_str(rest);
    plain
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
