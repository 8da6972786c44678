//! Settings of the program `sockeye serve`: a TOML file, environment variables, and flags.
//!
//! [`Settings::default`] are the settings without a file: everything is open, for a first try. A file starts from closed
//! settings ([`Settings::closed`]): what it does not allow is not allowed. Environment variables override the file, and
//! flags override both. Unknown keys are errors that name the line and the nearest known key.
//!
//! ```
//! use sockeye_server::settings::Settings;
//!
//! let error = Settings::parse("[limits]\nconections_max = 5").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "line 2: unknown key limits.conections_max; did you mean limits.connections_max?"
//! );
//! ```

mod change;
mod environment;
mod file;
mod program;
mod reference;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sockeye::HostPolicy;
use sockeye::handshake::Authority;
use sockeye::{DeflateConfig, Origin, OriginPolicy, Takeover};

use crate::auth::TokenConfig;
use crate::config::options::{OptionInfo, Options, Value};
use crate::config::{
    Config, ConfigError, ConsoleOptions, Limits, NamespaceOptions, Namespaces, Timeouts, default_namespaces,
    demo_namespaces,
};
use crate::engine::{JournalConfig, JournalRepair};
use crate::hooks::HookOptions;

pub use crate::config::options::parse_duration;
pub use program::{CompressionMode, LogFormat, ProgramOptions};

/// All settings of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Settings without a table.
    pub program: ProgramOptions,
    /// `[tokens]`: keys of connection tokens.
    pub tokens: TokenConfig,
    /// `[subscription_tokens]`: keys of subscription tokens, if they differ.
    pub subscription_tokens: Option<TokenConfig>,
    /// `[console]`: the admin console.
    pub console: ConsoleOptions,
    /// `[limits]`
    pub limits: Limits,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[hooks]`
    pub hooks: HookOptions,
    /// `[channels]`: options of channels without a namespace.
    pub channels: NamespaceOptions,
    /// `[namespaces.NAME]`: options of the channels of each namespace.
    pub namespaces: Namespaces,
    /// The lines of the file that set the options, by path.
    lines: BTreeMap<String, usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            program: ProgramOptions {
                anonymous: true,
                demos: true,
                ..ProgramOptions::default()
            },
            channels: NamespaceOptions::open(),
            namespaces: default_namespaces(),
            ..Self::closed()
        }
    }
}

impl Settings {
    /// The settings of an empty file: no anonymous clients, and no namespaces.
    pub fn closed() -> Self {
        Self {
            program: ProgramOptions::default(),
            tokens: TokenConfig::default(),
            subscription_tokens: None,
            console: ConsoleOptions::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            hooks: HookOptions::default(),
            channels: NamespaceOptions::default(),
            namespaces: Namespaces::new(),
            lines: BTreeMap::new(),
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// Names the line of the first error. [`read`](Self::read) lists all of them.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let (settings, errors) = Self::read(text);
        first(errors).map(|()| settings)
    }

    /// Reads what is valid in a configuration file, and lists all errors, for [`check`](Self::check).
    ///
    /// ```
    /// use sockeye_server::settings::Settings;
    ///
    /// let (settings, errors) = Settings::read("anonymous = 'maybe'\n[timeouts]\npong = '30s'\nping = '20s'");
    /// let errors = settings.check(errors).unwrap_err();
    /// let lines: Vec<_> = errors.iter().filter_map(|error| error.line()).collect();
    /// assert_eq!(lines, [1, 3, 4]);
    /// ```
    pub fn read(text: &str) -> (Self, Vec<SettingsError>) {
        file::read(text)
    }

    /// Applies environment variables: `SOCKEYE_` and the path of an option in capitals, with `_` between its parts,
    /// such as `SOCKEYE_LIMITS_CONNECTIONS_MAX` or `SOCKEYE_NAMESPACES_CHAT_HISTORY_SIZE`. Variables without the prefix
    /// are ignored, and so are those that Kubernetes and Docker set for a service with this name, such as
    /// `SOCKEYE_SERVICE_HOST`.
    ///
    /// # Errors
    /// Fails if a value is not valid, or if no option has the name of a variable.
    pub fn apply_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), SettingsError> {
        first(self.read_environment(variables))
    }

    /// Applies environment variables as [`apply_environment`](Self::apply_environment) does, and lists all errors.
    pub fn read_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Vec<SettingsError> {
        environment::apply(self, variables)
    }

    /// Sets one option, such as `limits.connections_max`, as a flag does.
    ///
    /// # Errors
    /// Fails if there is no such option or the value is not valid.
    pub fn set(&mut self, path: &str, value: &str) -> Result<(), SettingsError> {
        self.set_value(path, Value::Text(value), None)
    }

    /// Forgets the line of the file that set an option, such as `limits.connections_max`, because a flag has overridden
    /// its field: an error in it does not name the line any more.
    pub fn overridden(&mut self, path: &str) {
        self.lines.remove(path);
    }

    /// Returns the configuration of the library.
    ///
    /// # Errors
    /// Fails if a value is not valid or contradicts another one. [`check`](Self::check) lists all errors.
    pub fn config(&self) -> Result<Config, SettingsError> {
        let (config, errors) = self.build();
        first(errors).map(|()| config)
    }

    /// Returns the configuration of the library. `known` are the errors of [`read`](Self::read) and
    /// [`read_environment`](Self::read_environment).
    ///
    /// # Errors
    /// Lists the known errors and all others, in the order of the lines of the file, without those that follow from
    /// known ones.
    pub fn check(&self, known: Vec<SettingsError>) -> Result<Config, Vec<SettingsError>> {
        let (config, found) = self.build();
        let mut errors = known;
        // Most of what follows a syntax error was not read.
        if !errors.iter().any(|error| error.is_syntax) {
            // A key that is set as well was not meant by another one.
            let is_meant = |path: &&String| !self.lines.contains_key(*path);
            let follows = |error: &SettingsError| {
                let mut known = errors.iter().flat_map(|known| known.paths.iter().filter(is_meant));
                known.any(|path| error.paths.contains(path))
            };
            let others: Vec<_> = found.into_iter().filter(|error| !follows(error)).collect();
            errors.extend(others);
        }
        if errors.is_empty() {
            return Ok(config);
        }
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        Err(errors)
    }

    /// The log on disk; `None` without the setting `data`.
    pub fn journal(&self) -> Option<JournalConfig> {
        let mut journal = JournalConfig::new(self.program.data.as_ref()?);
        journal.fsync = self.program.fsync;
        if self.program.repair_journal {
            journal.repair = JournalRepair::KeepValid;
        }
        Some(journal)
    }

    /// Builds the configuration, and collects its errors.
    fn build(&self) -> (Config, Vec<SettingsError>) {
        let mut errors = Vec::new();
        let program = &self.program;
        let mut config = Config::default();
        config.name.clone_from(&program.name);
        match self.origins() {
            Ok(origins) => config.origins = origins.unwrap_or_default(),
            Err(error) => errors.push(error),
        }
        match self.hosts() {
            Ok(hosts) => config.hosts = hosts,
            Err(error) => errors.push(error),
        }
        config.compression = match program.compression {
            CompressionMode::Off => None,
            CompressionMode::NoTakeover => Some(deflate(Takeover::Reset)),
            CompressionMode::Takeover => Some(deflate(Takeover::Keep)),
        };
        config.anonymous = program.anonymous;
        config.demos = program.demos;
        config.personal_channels.clone_from(&program.personal_channels);
        config.api_keys.clone_from(&program.api_keys);
        config.insecure_api = program.insecure_api;
        config.insecure_clients = program.insecure_clients;
        config.journal = self.journal();
        if let Some(url) = &program.engine {
            match url.expose().parse() {
                Ok(url) => config.engine = Some(url),
                Err(error) => errors.push(self.error("engine", error)),
            }
            if program.data.is_some() {
                errors.push(self.error(
                    "data",
                    "is the log of the embedded engine, and must not be set together with engine",
                ));
            }
        }
        config.tokens = self.tokens.clone();
        config.subscription_tokens.clone_from(&self.subscription_tokens);
        config.console = self.console.clone();
        config.limits = self.limits.clone();
        config.timeouts = self.timeouts.clone();
        config.hooks = self.hooks.clone();
        // A fifth of the time is for the closing handshakes.
        config.timeouts.shutdown = program.drain.max(Duration::from_secs(1));
        config.timeouts.drain = program.drain * 4 / 5;
        config.channels = Some(self.channels.clone());
        config.namespaces.clone_from(&self.namespaces);
        if program.demos {
            for (name, options) in demo_namespaces() {
                config.namespaces.entry(name).or_insert(options);
            }
        }
        if program.tls_cert.is_some() != program.tls_key.is_some() {
            let path = if program.tls_cert.is_some() {
                "tls_cert"
            } else {
                "tls_key"
            };
            errors.push(self.error(path, "needs both tls_cert and tls_key"));
        }
        self.check_needs_of_history(&mut errors);
        errors.extend(config.errors().iter().map(|error| self.config_error(error)));
        (config, errors)
    }

    /// Checks that the file enables no option that needs a history where there is none. Defaults do not count: some of
    /// these options are on by default and have no effect without a history.
    fn check_needs_of_history(&self, errors: &mut Vec<SettingsError>) {
        let named = self.namespaces.iter();
        let named = named.map(|(name, options)| (format!("namespaces.{name}"), options));
        for (table, options) in [("channels".to_owned(), &self.channels)].into_iter().chain(named) {
            if options.has_history() {
                continue;
            }
            let zero = match options.history_size {
                0 => "history_size",
                _ => "history_ttl",
            };
            for (option, is_on) in [
                ("recovery", options.recovery),
                ("positioning", options.positioning),
                ("force_recovery", options.force_recovery),
                ("force_positioning", options.force_positioning),
                ("delta", options.delta),
                ("cache", options.cache),
            ] {
                let path = format!("{table}.{option}");
                if is_on && self.lines.contains_key(&path) {
                    let mut error = self.error(&path, format_args!("needs a history, but {table}.{zero} is 0"));
                    error.paths.push(format!("{table}.{zero}"));
                    errors.push(error);
                }
            }
        }
    }

    /// Lists what is valid although it is probably a mistake, with the line of each: see [`Config::warnings`].
    pub fn warnings(&self, config: &Config) -> Vec<SettingsError> {
        let warnings = config.warnings();
        warnings.iter().map(|warning| self.config_error(warning)).collect()
    }

    fn config_error(&self, error: &ConfigError) -> SettingsError {
        let line = |path: &str| self.lines.get(path).copied();
        let paths = [error.field()].into_iter().chain(error.causes().iter().copied());
        SettingsError {
            line: line(error.field()).or_else(|| error.causes().iter().find_map(|cause| line(cause))),
            message: error.to_string(),
            paths: paths.map(str::to_owned).collect(),
            is_syntax: false,
        }
    }

    /// A commented file with these settings. Without secrets: those are left to the reader.
    pub fn to_toml(&self) -> String {
        reference::file(self)
    }

    /// The reference of all settings, in Markdown.
    pub fn reference() -> String {
        reference::page()
    }

    /// Lists what differs in `new`, one line for each option. Secrets are not shown.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        change::list(self, new)
    }

    fn origins(&self) -> Result<Option<OriginPolicy>, SettingsError> {
        let allowed = &self.program.allow_origins;
        if allowed.iter().any(|origin| origin == "*") {
            return Ok(Some(OriginPolicy::Any));
        }
        let origins = allowed.iter().map(|text| {
            Origin::parse(text).map_err(|error| self.error("allow_origins", format_args!("has {text:?}: {error}")))
        });
        let origins: Vec<_> = origins.collect::<Result<_, _>>()?;
        Ok((!origins.is_empty()).then_some(OriginPolicy::List(origins)))
    }

    fn hosts(&self) -> Result<Option<HostPolicy>, SettingsError> {
        let hosts = self.program.allow_hosts.iter().map(|text| {
            Authority::parse(text).map_err(|error| self.error("allow_hosts", format_args!("has {text:?}: {error}")))
        });
        let hosts: Vec<_> = hosts.collect::<Result<_, _>>()?;
        Ok((!hosts.is_empty()).then_some(HostPolicy::List(hosts)))
    }

    /// An error in the option at a path, with its line if the file sets it.
    pub fn error(&self, path: &str, problem: impl fmt::Display) -> SettingsError {
        SettingsError {
            line: self.lines.get(path).copied(),
            message: format!("{path} {problem}"),
            paths: vec![path.to_owned()],
            is_syntax: false,
        }
    }

    fn set_value(&mut self, path: &str, value: Value<'_>, line: Option<usize>) -> Result<(), SettingsError> {
        let fail = |message, path: Option<&str>| Err(SettingsError::new(line, message, path));
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        let Some(table) = self.table_mut(table) else {
            let (message, meant) = unknown(path, &[]);
            return fail(message, meant);
        };
        let options = table.options();
        if !options.iter().any(|option| option.name == name) {
            if matches!(path, "timeouts.drain" | "timeouts.shutdown") {
                let message = format!("{path} must not be set: it is derived from drain, which is not in a table");
                return fail(message, Some(path));
            }
            let prefix = &path[..path.len() - name.len()];
            let known: Vec<_> = options
                .iter()
                .map(|option| format!("{prefix}{}", option.name))
                .collect();
            let (message, meant) = unknown(path, &known);
            return fail(message, meant);
        }
        if let Err(kind) = table.set(name, value) {
            return fail(format!("{path} must be {}", kind.replace('`', "")), Some(path));
        }
        match line {
            Some(line) => self.lines.insert(path.to_owned(), line),
            // A variable or a flag overrides the file.
            None => self.lines.remove(path),
        };
        Ok(())
    }

    /// The options of a table. Creates the namespace and the subscription tokens if they do not exist.
    fn table_mut(&mut self, name: &str) -> Option<&mut dyn Options> {
        Some(match name {
            "" => &mut self.program,
            "tokens" => &mut self.tokens,
            "subscription_tokens" => self.subscription_tokens.get_or_insert_default(),
            "console" => &mut self.console,
            "limits" => &mut self.limits,
            "timeouts" => &mut self.timeouts,
            "hooks" => &mut self.hooks,
            "channels" => &mut self.channels,
            _ => {
                let namespace = name.strip_prefix("namespaces.").filter(|name| is_namespace(name))?;
                self.namespaces.entry(namespace.to_owned()).or_default()
            }
        })
    }

    /// All tables that exist, in the order of the file.
    fn tables(&self) -> Vec<(String, &dyn Options)> {
        let mut tables: Vec<(String, &dyn Options)> =
            vec![(String::new(), &self.program), ("tokens".to_owned(), &self.tokens)];
        if let Some(tokens) = &self.subscription_tokens {
            tables.push(("subscription_tokens".to_owned(), tokens));
        }
        tables.push(("console".to_owned(), &self.console));
        tables.push(("limits".to_owned(), &self.limits));
        tables.push(("timeouts".to_owned(), &self.timeouts));
        tables.push(("hooks".to_owned(), &self.hooks));
        tables.push(("channels".to_owned(), &self.channels));
        for (name, namespace) in &self.namespaces {
            tables.push((format!("namespaces.{name}"), namespace));
        }
        tables
    }
}

/// The tables beside the namespaces.
const TABLES: [&str; 8] = [
    "hooks",
    "tokens",
    "subscription_tokens",
    "console",
    "limits",
    "timeouts",
    "channels",
    "namespaces",
];

/// Whether a name can be that of a namespace.
fn is_namespace(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&name.len()) && name.chars().all(is_allowed)
}

fn deflate(takeover: Takeover) -> DeflateConfig {
    let mut config = DeflateConfig::default();
    (config.takeover, config.peer_takeover) = (takeover, takeover);
    config
}

/// The message for an unknown key, and the known key that was probably meant.
fn unknown<'a>(path: &str, known: &'a [String]) -> (String, Option<&'a str>) {
    let nearest = nearest(path, known.iter().map(String::as_str));
    let message = match nearest {
        Some(nearest) => format!("unknown key {path}; did you mean {nearest}?"),
        None => format!("unknown key {path}"),
    };
    (message, nearest)
}

fn first(errors: Vec<SettingsError>) -> Result<(), SettingsError> {
    match errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The known name that differs least, if it is similar.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = known.map(|known| (distance(name, known), known)).min()?;
    let last_part = name.rsplit('.').next().unwrap_or(name);
    (distance <= (last_part.len() / 3).max(2)).then_some(nearest)
}

/// The number of insertions, deletions, substitutions and swaps of neighbours that turn one name into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                let two_before: &Vec<usize> = &before_last;
                best = best.min(two_before[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// An error in the settings, as one line. Names the line of the file if the error is there. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    line: Option<usize>,
    message: String,
    /// The options that the error is about. For an unknown key, the option that was probably meant.
    paths: Vec<String>,
    /// Whether the file is not valid TOML.
    is_syntax: bool,
}

impl SettingsError {
    fn new(line: Option<usize>, message: String, path: Option<&str>) -> Self {
        Self {
            line,
            message,
            paths: path.map(str::to_owned).into_iter().collect(),
            is_syntax: false,
        }
    }

    /// The line of the file, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for SettingsError {}

#[cfg(test)]
mod tests;
