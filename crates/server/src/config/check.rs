//! Checks a configuration: every field, and the relations between them.

use std::fmt;
use std::time::Duration;

use super::options::{Options, Value};
use super::{Config, Limits, PUSH_FRAME_BYTES, REPLY_FRAME_BYTES, Timeouts};
use crate::auth::TokenVerifier;
use crate::hooks::{Hook, Hooks};

impl Config {
    /// Checks that every field is valid and that no field contradicts another. [`serve`](crate::serve) calls this
    /// first.
    ///
    /// ```
    /// let mut config = sockeye_server::Config::default();
    /// config.timeouts.pong = config.timeouts.ping_interval;
    /// assert_eq!(config.check().unwrap_err().field(), "timeouts.pong");
    /// ```
    ///
    /// # Errors
    /// Names the first field that is not valid or violates a relation stated in the docs of [`Limits`] and
    /// [`Timeouts`]. [`errors`](Self::errors) lists all of them.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self.errors().into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Lists all errors that [`check`](Self::check) finds. Omits a violated relation if one of its fields is already
    /// listed.
    ///
    /// ```
    /// let mut config = sockeye_server::Config::default();
    /// config.limits.connections_max = 0;
    /// config.timeouts.pong = config.timeouts.ping_interval;
    /// let errors = config.errors();
    /// assert_eq!(errors[0].field(), "limits.connections_max");
    /// assert_eq!(errors[1].field(), "timeouts.pong");
    /// ```
    pub fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Errors::default();
        self.check_minima(&mut errors);
        self.check_times(&mut errors);
        self.check_publication_rates(&mut errors);
        self.check_sizes(&mut errors);
        self.check_secrets(&mut errors);
        self.check_tokens(&mut errors);
        let personal = self.personal_channels.as_ref();
        if let Some(namespace) = personal.filter(|name| !name.is_empty() && !self.namespaces.contains_key(*name)) {
            let problem = format!("is {namespace:?}, but must be a namespace that exists, or empty");
            errors.add(ConfigError::new("personal_channels", problem));
        }
        let Timeouts {
            ping_interval,
            pong,
            drain,
            shutdown,
            ..
        } = self.timeouts;
        if drain >= shutdown {
            let problem = format!("is {drain:?}, but must be shorter than timeouts.shutdown, {shutdown:?}");
            errors.add(ConfigError::new("timeouts.drain", problem).caused_by(&["timeouts.shutdown"]));
        }
        self.check_hooks(&mut errors);
        for (table, options) in self.channel_tables() {
            if options.outage_buffer > OUTAGE_BUFFER_MAX {
                let problem = format!(
                    "is {:?}, but must be at most {OUTAGE_BUFFER_MAX:?}",
                    options.outage_buffer
                );
                errors.add(ConfigError::new(format!("{table}.outage_buffer"), problem));
            }
        }
        if pong >= ping_interval {
            let problem = format!("is {pong:?}, but must be shorter than timeouts.ping_interval, {ping_interval:?}");
            errors.add(ConfigError::new("timeouts.pong", problem).caused_by(&["timeouts.ping_interval"]));
        }
        errors.0
    }

    /// Checks that no limit or timeout is zero with which clients could not connect or nothing would work.
    fn check_minima(&self, errors: &mut Errors) {
        // Without `..`, so that every new field is decided on.
        let Limits {
            connections_max,
            connections_per_address_max,
            handshakes_per_second_max,
            connections_per_user_max,
            api_request_size_max,
            // At least as large as a publication: see `check_sizes`.
            message_size_max: _,
            publication_size_max,
            commands_per_second_max,
            channels_per_client_max,
            // Zero is valid: clients send no information about themselves.
            client_info_size_max: _,
            // At least twice as large as a publication: see `check_sizes`.
            queue_bytes_max: _,
            // Larger than the history of a channel, if there are histories: see `check_sizes`.
            reply_size_max: _,
            // Zero is valid: no channel lists its clients.
            presence_clients_max: _,
            history_bytes_per_channel_max,
            history_bytes_max,
        } = self.limits;
        let has_history = self.channel_tables().any(|(_, options)| options.has_history());
        let history = |bytes| if has_history { bytes } else { 1 };
        let hooks = &self.hooks;
        for (field, value) in [
            ("limits.connections_max", connections_max),
            ("limits.connections_per_address_max", connections_per_address_max),
            ("limits.connections_per_user_max", connections_per_user_max),
            ("limits.handshakes_per_second_max", handshakes_per_second_max as usize),
            ("limits.commands_per_second_max", commands_per_second_max as usize),
            ("limits.api_request_size_max", api_request_size_max),
            ("limits.publication_size_max", publication_size_max),
            ("limits.channels_per_client_max", channels_per_client_max),
            (
                "limits.history_bytes_per_channel_max",
                history(history_bytes_per_channel_max),
            ),
            ("limits.history_bytes_max", history(history_bytes_max)),
            ("hooks.concurrency_max", hooks.concurrency_max),
            ("hooks.rpc_per_client_max", hooks.rpc_per_client_max),
            ("hooks.failures_max", hooks.failures_max as usize),
        ] {
            if value == 0 {
                errors.add(ConfigError::new(field, "is 0, but must be at least 1"));
            }
        }
        for (table, tokens) in self.token_tables() {
            if tokens.size_max == 0 {
                let problem = "is 0, but must be at least 1";
                errors.add(ConfigError::new(format!("{table}.size_max"), problem));
            }
        }
    }

    fn check_publication_rates(&self, errors: &mut Errors) {
        for (path, options) in self.channel_tables() {
            if options.publication_rate_max == Some(0) {
                let problem = "is 0, but must be at least 1; allow_publish = \"nobody\" forbids publishing";
                errors.add(ConfigError::new(format!("{path}.publication_rate_max"), problem));
            }
        }
    }

    /// Checks that no timeout expires at once.
    fn check_times(&self, errors: &mut Errors) {
        let Timeouts {
            request_head,
            http_connection,
            connect,
            ping_interval,
            pong,
            position_check,
            write,
            close,
            // Zero is valid: all clients are disconnected at once.
            drain: _,
            // Longer than `drain`: see `errors`.
            shutdown: _,
        } = self.timeouts;
        for (field, time) in [
            ("timeouts.request_head", request_head),
            ("timeouts.http_connection", http_connection),
            ("timeouts.connect", connect),
            ("timeouts.ping_interval", ping_interval),
            ("timeouts.pong", pong),
            ("timeouts.position_check", position_check),
            ("timeouts.write", write),
            ("timeouts.close", close),
            ("hooks.timeout", self.hooks.timeout),
            ("console.session_lifetime", self.console.session_lifetime),
        ] {
            if time.is_zero() {
                errors.add(ConfigError::new(field, "is 0, but must be greater than 0"));
            }
        }
    }

    /// Checks the relations between sizes.
    fn check_sizes(&self, errors: &mut Errors) {
        let Limits {
            message_size_max,
            publication_size_max,
            client_info_size_max,
            queue_bytes_max,
            reply_size_max,
            history_bytes_per_channel_max,
            ..
        } = self.limits;
        let mut too_large = |field, value: usize, limit: String, causes: &[&'static str]| {
            let problem = format!("is {value}, but must be at most {limit}");
            errors.add(ConfigError::new(field, problem).caused_by(causes));
        };
        let publication_limit = message_size_max.saturating_sub(PUSH_FRAME_BYTES);
        if publication_size_max > publication_limit {
            let limit = format!("limits.message_size_max less {PUSH_FRAME_BYTES}, {publication_limit}");
            too_large(
                "limits.publication_size_max",
                publication_size_max,
                limit,
                &["limits.message_size_max"],
            );
        }
        let around = client_info_size_max.saturating_add(PUSH_FRAME_BYTES);
        let publication_limit = (queue_bytes_max / 2).saturating_sub(around);
        if publication_size_max > publication_limit {
            let limit = format!(
                "half of limits.queue_bytes_max less limits.client_info_size_max and {PUSH_FRAME_BYTES}, \
                 {publication_limit}"
            );
            too_large(
                "limits.publication_size_max",
                publication_size_max,
                limit,
                &["limits.client_info_size_max", "limits.queue_bytes_max"],
            );
        }
        if reply_size_max > queue_bytes_max / 2 {
            let limit = format!("half of limits.queue_bytes_max, {}", queue_bytes_max / 2);
            too_large(
                "limits.reply_size_max",
                reply_size_max,
                limit,
                &["limits.queue_bytes_max"],
            );
        }
        let has_history = self.channel_tables().any(|(_, options)| options.has_history());
        let history_bytes_limit = reply_size_max.saturating_sub(REPLY_FRAME_BYTES);
        if has_history && history_bytes_per_channel_max > history_bytes_limit {
            let limit = format!("limits.reply_size_max less {REPLY_FRAME_BYTES}, {history_bytes_limit}");
            let field = "limits.history_bytes_per_channel_max";
            too_large(field, history_bytes_per_channel_max, limit, &["limits.reply_size_max"]);
        }
    }

    /// Checks that no key or password is empty, as after a mistake in a deployment.
    fn check_secrets(&self, errors: &mut Errors) {
        if self.api_keys.iter().any(|key| key.expose().is_empty()) {
            errors.add(ConfigError::new("api_keys", "must not contain an empty key"));
        }
        if (self.console.password.as_ref()).is_some_and(|password| password.expose().is_empty()) {
            errors.add(ConfigError::new("console.password", "must not be empty"));
        }
    }

    fn check_tokens(&self, errors: &mut Errors) {
        for (table, tokens) in self.token_tables() {
            let mut tokens = tokens.clone();
            while let Err(error) = TokenVerifier::new(&tokens) {
                errors.add(ConfigError::new(format!("{table}.{}", error.field()), error.problem()));
                // Unset the invalid option, to find the next error.
                if !unset(&mut tokens, error.field()) {
                    break;
                }
            }
        }
    }

    fn check_hooks(&self, errors: &mut Errors) {
        let mut hooks = self.hooks.clone();
        while let Err((field, problem)) = Hooks::from_options(&hooks) {
            errors.add(ConfigError::new(field, problem));
            let option = field.strip_prefix("hooks.").unwrap_or(field);
            if !unset(&mut hooks, option) {
                break;
            }
        }
        let (timeout, connect) = (self.hooks.timeout, self.timeouts.connect);
        if timeout >= connect && self.hooks.has(Hook::Connect) {
            let problem = format!("is {timeout:?}, but must be shorter than timeouts.connect, {connect:?}");
            errors.add(ConfigError::new("hooks.timeout", problem).caused_by(&["timeouts.connect"]));
        }
        for (path, options) in self.channel_tables() {
            for (is_on, hook, option) in [
                (options.subscribe_hook, Hook::Subscribe, "subscribe_hook"),
                (options.sub_refresh_hook, Hook::SubRefresh, "sub_refresh_hook"),
                (options.publish_hook, Hook::Publish, "publish_hook"),
            ] {
                if is_on && !self.hooks.has(hook) {
                    let problem = format!("needs {}, which is not set", hook.option());
                    errors.add(ConfigError::new(format!("{path}.{option}"), problem).caused_by(&[hook.option()]));
                }
            }
        }
    }
}

/// Resets an option whose default is unset or an empty list. Returns `false` for others.
fn unset(options: &mut dyn Options, name: &str) -> bool {
    let is_set = options.get(name).is_some_and(|value| value != "[]");
    is_set && options.set(name, Value::Text("")).is_ok()
}

/// The errors of a configuration, without those that follow from others.
#[derive(Debug, Default)]
struct Errors(Vec<ConfigError>);

impl Errors {
    fn add(&mut self, error: ConfigError) {
        if !self.0.iter().any(|known| error.concerns(&known.field)) {
            self.0.push(error);
        }
    }
}

/// Maximum of [`NamespaceOptions::outage_buffer`]: a client must get its answer before its SDK gives up.
const OUTAGE_BUFFER_MAX: Duration = Duration::from_secs(5);

/// A problem with a field: an error of [`Config::check`], or one of [`Config::warnings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: String,
    problem: String,
    /// The other fields of a violated relation.
    causes: Vec<&'static str>,
}

impl ConfigError {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        let (field, problem) = (field.into(), problem.into());
        Self {
            field,
            problem,
            causes: Vec::new(),
        }
    }

    pub(super) fn caused_by(mut self, causes: &[&'static str]) -> Self {
        self.causes = causes.to_vec();
        self
    }

    /// The path of the field within [`Config`], such as `limits.reply_size_max`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Whether the error is about this field or a relation with it.
    pub(crate) fn concerns(&self, field: &str) -> bool {
        self.field == field || self.causes.contains(&field)
    }

    /// The other fields of the relation, if any.
    pub(crate) fn causes(&self) -> &[&'static str] {
        &self.causes
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

impl std::error::Error for ConfigError {}
