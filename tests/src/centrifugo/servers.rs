//! Both servers with equivalent configurations.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::script::API_KEY;
use super::token::SECRET;
use crate::{Process, Sockeye, free_address, patience, tool};

/// Which configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    /// Clients may connect without a token.
    Open,
    /// Clients need a token, have two seconds to connect, and are pinged every two seconds. Users have a personal
    /// channel.
    Strict,
    /// There is no key for tokens.
    Keyless,
}

/// A running pair.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) sockeye: Sockeye,
    pub(super) centrifugo: Process,
    pub(super) centrifugo_address: String,
    _folder: TempDir,
}

impl Servers {
    pub(super) async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (ours, theirs) = (
            folder.path().join("sockeye.toml"),
            folder.path().join("centrifugo.json"),
        );
        let address = free_address();
        std::fs::write(&ours, sockeye_config(setup)).expect("the folder is writable");
        std::fs::write(&theirs, centrifugo_config(setup, &address).to_string()).expect("the folder is writable");

        let sockeye = Sockeye::serve("127.0.0.1:0", &["--config", &ours.to_string_lossy()]).await;
        let mut command = Command::new(tool("centrifugo"));
        command.arg("--config").arg(&theirs);
        let centrifugo = Process::start(command);
        wait_until_listening(&centrifugo, &address).await;
        Self {
            sockeye,
            centrifugo,
            centrifugo_address: address,
            _folder: folder,
        }
    }
}

/// Centrifugo does not tell when it accepts connections.
async fn wait_until_listening(centrifugo: &Process, address: &str) {
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            ticks.tick().await;
        }
    };
    if timeout(patience(), listening).await.is_err() {
        centrifugo.fail("does not listen");
    }
}

/// One namespace, with the words of both configurations.
struct Namespace {
    /// Empty for channels without a namespace.
    name: &'static str,
    history: bool,
    presence: bool,
    /// Who may subscribe; then publish and read history and presence.
    allow: [Who; 2],
    cache: bool,
    force: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    Nobody,
    Anyone,
    Authenticated,
    Subscriber,
}

const HISTORY_SIZE: usize = 5;

const NAMESPACES: [Namespace; 8] = [
    Namespace::new("", true, true, [Who::Anyone, Who::Anyone]),
    Namespace::new("open", true, true, [Who::Anyone, Who::Anyone]),
    Namespace::new("closed", true, true, [Who::Nobody, Who::Nobody]),
    Namespace::new("member", true, true, [Who::Anyone, Who::Subscriber]),
    Namespace::new("users", true, true, [Who::Authenticated, Who::Authenticated]),
    Namespace::new("bare", false, false, [Who::Anyone, Who::Anyone]),
    Namespace {
        cache: true,
        ..Namespace::new("cache", true, true, [Who::Anyone, Who::Anyone])
    },
    Namespace {
        force: true,
        ..Namespace::new("force", true, true, [Who::Anyone, Who::Anyone])
    },
];

impl Namespace {
    const fn new(name: &'static str, history: bool, presence: bool, allow: [Who; 2]) -> Self {
        Self {
            name,
            history,
            presence,
            allow,
            cache: false,
            force: false,
        }
    }

    fn toml(&self) -> String {
        let table = if self.name.is_empty() {
            "channels".to_owned()
        } else {
            format!("namespaces.{}", self.name)
        };
        let [subscribe, others] = self.allow.map(|who| match who {
            Who::Nobody => "nobody",
            Who::Anyone => "anyone",
            Who::Authenticated => "authenticated",
            Who::Subscriber => "subscriber",
        });
        // A token allows to subscribe in both servers, and nobody else may.
        let subscribe = if subscribe == "nobody" { "token" } else { subscribe };
        let size = if self.history { HISTORY_SIZE } else { 0 };
        let (presence, cache, force) = (self.presence, self.cache, self.force);
        format!(
            "[{table}]\nhistory_size = {size}\nhistory_ttl = \"5m\"\npresence = {presence}\njoin_leave = {presence}\n\
             delta = {}\ncache = {cache}\nforce_recovery = {force}\nforce_push_join_leave = {force}\n\
             allow_subscribe = \"{subscribe}\"\nallow_publish = \"{others}\"\nallow_history = \"{others}\"\n\
             allow_presence = \"{others}\"\n",
            self.history,
        )
    }

    fn json(&self) -> Value {
        let mut options = json!({
            "presence": self.presence,
            "join_leave": self.presence,
            "force_push_join_leave": self.force,
            "force_recovery": self.force,
            "allow_user_limited_channels": true,
            "allow_tags_filter": true,
        });
        if self.history {
            let more = json!({
                "history_size": HISTORY_SIZE,
                "history_ttl": "300s",
                "allow_positioning": true,
                "allow_recovery": true,
                "allowed_delta_types": ["fossil"],
                "delta_publish": true,
            });
            extend(&mut options, more);
        }
        if self.cache {
            extend(&mut options, json!({"force_recovery_mode": "cache"}));
        }
        let [subscribe, others] = self.allow;
        for (what, who) in [
            ("subscribe", subscribe),
            ("publish", others),
            ("history", others),
            ("presence", others),
        ] {
            if matches!(who, Who::Anyone | Who::Authenticated) {
                options[format!("allow_{what}_for_client")] = true.into();
            }
            // Our `subscriber` includes anonymous ones.
            if matches!(who, Who::Anyone | Who::Subscriber) {
                options[format!("allow_{what}_for_anonymous")] = true.into();
            }
            if who == Who::Subscriber {
                options[format!("allow_{what}_for_subscriber")] = true.into();
            }
        }
        if !self.name.is_empty() {
            options["name"] = self.name.into();
        }
        options
    }
}

fn extend(options: &mut Value, more: Value) {
    if let (Some(options), Value::Object(more)) = (options.as_object_mut(), more) {
        options.extend(more);
    }
}

fn sockeye_config(setup: Setup) -> String {
    let mut config = format!("api_keys = [\"{API_KEY}\"]\nanonymous = {}\n", setup != Setup::Strict);
    if setup == Setup::Strict {
        config += "personal_channels = \"\"\n";
    }
    if setup != Setup::Keyless {
        config += &format!("[tokens]\nhmac_secret = \"{SECRET}\"\n");
    }
    if setup == Setup::Strict {
        config += "[timeouts]\nping_interval = \"2s\"\npong = \"1500ms\"\nconnect = \"2s\"\n";
    }
    NAMESPACES
        .iter()
        .fold(config, |config, namespace| config + &namespace.toml())
}

fn centrifugo_config(setup: Setup, address: &str) -> Value {
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let mut namespaces: Vec<_> = NAMESPACES.iter().map(Namespace::json).collect();
    let without = namespaces.remove(0);
    let mut client = json!({
        "allowed_origins": ["*"],
        "allow_anonymous_connect_without_token": setup != Setup::Strict,
    });
    if setup != Setup::Keyless {
        client["token"] = json!({"hmac_secret_key": SECRET});
    }
    if setup == Setup::Strict {
        extend(
            &mut client,
            json!({
                "ping_interval": "2s",
                "pong_timeout": "1500ms",
                "stale_close_delay": "2s",
                "subscribe_to_user_personal_channel": {"enabled": true},
            }),
        );
    }
    json!({
        "http_server": {"address": host, "port": port.parse::<u16>().expect("a port")},
        "log": {"level": "info"},
        "node": {"name": "sockeye"},
        "client": client,
        "http_api": {"key": API_KEY},
        "sse": {"enabled": true},
        "http_stream": {"enabled": true},
        "health": {"enabled": true},
        "channel": {"without_namespace": without, "namespaces": namespaces},
        "usage_stats": {"disabled": true},
    })
}
