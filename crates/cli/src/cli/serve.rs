//! `sockeye serve`: the server of `sockeye-server`, configured by a file, environment variables and flags.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use sockeye_server::settings::{LogFormat, Settings, SettingsError};
use sockeye_server::{JournalCheck, JournalConfig, Server};
use tokio::net::TcpListener;

use super::options::Compression;
use super::tls::server_config;
use super::values::parse_listen;
use super::{ConfigCommand, Failure, ServeOptions, announce, bind};
use crate::escape::escape;
use crate::platform::{Reloads, Signals};

/// Serves until a signal arrives.
pub(crate) fn run(options: &ServeOptions) -> Result<(), Failure> {
    let (mut settings, errors) = load(options)?;
    if options.check {
        return check(options, &settings, errors);
    }
    let config = settings.check(errors).map_err(|errors| failures(options, &errors))?;
    for warning in settings.warnings(&config) {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = bind(&settings.program.listen, 1)?.remove(0);
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut reloads = Reloads::new()?;
        let listener = TcpListener::from_std(listener)?;
        let mut builder = Server::builder().config(config);
        let tls = tls_config(options, &settings)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        if let Some(tls) = tls {
            builder = builder.tls_config(tls);
        }
        let server = builder.build().map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => invalid(options, error.to_string()),
            // The log cannot be used.
            _ => error.into(),
        })?;
        let handle = server.handle();
        let address = listener.local_addr()?;
        if let Some(warning) = open_to_all(options, &settings, address) {
            tracing::warn!("{warning}");
        }
        announce(&format!("{scheme}://{address}/"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = server.with_shutdown(async { drop(stopped.await) }).serve(listener);
        let mut serving = std::pin::pin!(serving);
        loop {
            tokio::select! {
                result = &mut serving => return Ok(result?),
                _ = signals.next() => break,
                () = reloads.next() => reload(options, &mut settings, &handle, scheme == "https"),
            }
        }
        drop(stop);
        tokio::select! {
            result = &mut serving => Ok(result?),
            signal = signals.next() => Err(Failure::Signal(signal)),
        }
    })
}

/// Reports every error in the settings, the certificate and the data folder; without errors, prints warnings.
fn check(options: &ServeOptions, settings: &Settings, known: Vec<SettingsError>) -> Result<(), Failure> {
    let checked = settings.check(known);
    let mut problems = match &checked {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(|error| problem(options, error)).collect(),
    };
    // Check the files even if other settings are invalid.
    if let Err(failure) = tls_config(options, settings) {
        problems.extend(failure.message());
    }
    let journal = settings.journal();
    let found = journal.as_ref().map(JournalConfig::check);
    if let Some(Err(error)) = &found {
        problems.push(problem(options, &settings.error("data", error)));
    }
    let config = match checked {
        Ok(config) if problems.is_empty() => config,
        _ => return Err(Failure::Settings { problems }),
    };
    let source = source(options);
    let mut report = String::new();
    for warning in settings.warnings(&config) {
        let _ = writeln!(report, "{source}: warning: {warning}");
    }
    if let Ok(address) = settings.program.listen.parse()
        && let Some(warning) = open_to_all(options, settings, address)
    {
        let _ = writeln!(report, "{source}: warning: {warning}");
    }
    if let (Some(journal), Some(Ok(found))) = (&journal, found) {
        let folder = journal.folder.display();
        let _ = match found {
            JournalCheck::Empty => writeln!(report, "{folder}: no log yet"),
            JournalCheck::InUse => writeln!(report, "{folder}: a running server uses this folder"),
            JournalCheck::Usable { records } => writeln!(report, "{folder}: a log of {records} records, no errors"),
            _ => writeln!(report, "{folder}: no errors"),
        };
    }
    let _ = writeln!(report, "{source}: no errors");
    print(&report)
}

/// The warning about a server without a file that others can reach, as in a container.
fn open_to_all(options: &ServeOptions, settings: &Settings, address: SocketAddr) -> Option<String> {
    let is_open = options.config.is_none() && settings.program.anonymous;
    (is_open && !address.ip().is_loopback()).then(|| {
        format!(
            "without a file everything is open to everyone who can reach {address}; a file (--config) sets permissions"
        )
    })
}

/// Executes `sockeye config`.
pub(crate) fn print_config(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Default => print(&Settings::default().to_toml()),
    }
}

/// The format of log lines. Errors in the settings are reported later.
pub(crate) fn log_format(options: &ServeOptions) -> LogFormat {
    load(options).map_or(LogFormat::Text, |(settings, _)| settings.program.log_format)
}

/// Settings that a running server does not apply. A `.` at the end stands for all settings of a table.
const RESTART: [&str; 15] = [
    "allow_hosts",
    "allow_origins",
    "compression",
    "data",
    "demos",
    "drain",
    "engine",
    "fsync",
    "limits.connections_max",
    "limits.history_bytes_max",
    "limits.message_size_max",
    "listen",
    "log_format",
    "repair_journal",
    "timeouts.",
];

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Now,
    /// For clients that connect from now on.
    NewClients,
    Restart,
}

/// Returns when a change of [`Settings::changes`] takes effect. A listener cannot change between TLS and plain TCP.
fn effect(change: &str, changes_scheme: bool) -> Effect {
    let path = change.split_once(": ").map_or("", |(path, _)| path);
    let is_of = |setting: &&str| path == *setting || setting.ends_with('.') && path.starts_with(*setting);
    match path {
        "tls_cert" | "tls_key" if changes_scheme => Effect::Restart,
        _ if RESTART.iter().any(is_of) => Effect::Restart,
        "limits.queue_bytes_max" | "limits.connections_per_user_max" => Effect::NewClients,
        _ => Effect::Now,
    }
}

/// Reads the settings again and applies them. If they are not valid, the old ones stay. `is_tls` is whether the server
/// was started with TLS.
fn reload(options: &ServeOptions, settings: &mut Settings, handle: &sockeye_server::ServerHandle, is_tls: bool) {
    let reloaded = load(options).and_then(|(new, errors)| {
        let config = new.check(errors).map_err(|errors| failures(options, &errors))?;
        let warnings = new.warnings(&config);
        let tls = tls_config(options, &new)?;
        handle
            .reload(config)
            .map_err(|error| invalid(options, error.to_string()))?;
        let changes_scheme = tls.is_some() != is_tls;
        if let Some(tls) = tls.filter(|_| is_tls) {
            handle.set_tls_config(tls);
        }
        Ok((new, warnings, changes_scheme))
    });
    match reloaded {
        Err(error) => {
            for reason in error.message().unwrap_or_default().lines() {
                tracing::error!("the settings stay as they were: {reason}");
            }
        }
        Ok((new, warnings, changes_scheme)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            let changes = settings.changes(&new);
            let has_read_certificate = is_tls && !changes_scheme;
            if has_read_certificate {
                tracing::info!("reloaded: read the certificate again");
            }
            for change in &changes {
                match effect(change, changes_scheme) {
                    Effect::Now => tracing::info!("reloaded: {change}"),
                    Effect::NewClients => tracing::info!("reloaded for new clients: {change}"),
                    Effect::Restart => tracing::warn!("takes effect after a restart: {change}"),
                }
            }
            if changes.is_empty() && !has_read_certificate {
                tracing::info!("reloaded: nothing changed");
            }
            *settings = new;
        }
    }
}

/// Reads the certificate and its key. An error names the line of the file, if the file sets the path.
fn tls_config(options: &ServeOptions, settings: &Settings) -> Result<Option<Arc<rustls::ServerConfig>>, Failure> {
    let (Some(cert), Some(key)) = (&settings.program.tls_cert, &settings.program.tls_key) else {
        return Ok(None);
    };
    server_config(cert, key).map(Some).map_err(|failure| match failure {
        Failure::TlsFile { path, reason } => {
            let option = if path == *cert { "tls_cert" } else { "tls_key" };
            let error = settings.error(option, format_args!("{}: {reason}", path.display()));
            match error.line() {
                Some(_) => invalid(options, error.to_string()),
                None => Failure::TlsFile { path, reason },
            }
        }
        other => other,
    })
}

/// Reads the file, the environment and the flags. Returns what is valid, and all errors.
///
/// # Errors
/// Fails if the file cannot be read.
fn load(options: &ServeOptions) -> Result<(Settings, Vec<SettingsError>), Failure> {
    let (mut settings, mut errors) = match &options.config {
        None => (Settings::default(), Vec::new()),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| invalid(options, error.to_string()))?;
            Settings::read(&text)
        }
    };
    errors.extend(settings.read_environment(variables(std::env::vars_os())?));
    errors.extend(apply_flags(&mut settings, options));
    match parse_listen(&settings.program.listen) {
        Ok(listen) => settings.program.listen = listen,
        Err(advice) => {
            let problem = format!("is {:?}: {advice}", settings.program.listen);
            errors.push(settings.error("listen", problem));
        }
    }
    Ok((settings, errors))
}

/// The variables that are text. Fails if one for this program is not.
fn variables(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for (name, value) in all {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) if !name.starts_with("SOCKEYE_") => {}
            (Err(name), _) if !name.as_encoded_bytes().starts_with(b"SOCKEYE_") => {}
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                let problem = format!("the variable {} is not valid UTF-8", escape(&name));
                return Err(Failure::Settings {
                    problems: vec![problem],
                });
            }
        }
    }
    Ok(variables)
}

/// Returns the errors of the flags.
fn apply_flags(settings: &mut Settings, options: &ServeOptions) -> Vec<SettingsError> {
    let mut errors = Vec::new();
    for (path, value) in [
        ("listen", &options.listen),
        ("fsync", &options.fsync),
        ("engine", &options.engine),
        ("tokens.hmac_secret", &options.token_hmac_secret),
        ("console.password", &options.console_password),
        ("log_format", &options.log_format),
    ] {
        if let Some(value) = value {
            errors.extend(settings.set(path, value).err());
        }
    }
    let program = &mut settings.program;
    let mut overridden = Vec::new();
    for (name, setting, path) in [
        ("data", &mut program.data, &options.data),
        ("tls_cert", &mut program.tls_cert, &options.tls_cert),
        ("tls_key", &mut program.tls_key, &options.tls_key),
    ] {
        if let Some(path) = path {
            *setting = Some(path.clone());
            overridden.push(name);
        }
    }
    if !options.api_keys.is_empty() {
        program.api_keys = options.api_keys.iter().map(|key| key.as_str().into()).collect();
        overridden.push("api_keys");
    }
    for (name, setting, values) in [
        ("allow_origins", &mut program.allow_origins, &options.origins),
        ("allow_hosts", &mut program.allow_hosts, &options.hosts),
    ] {
        if !values.is_empty() {
            setting.clone_from(values);
            overridden.push(name);
        }
    }
    if let Some(drain) = options.drain {
        program.drain = drain;
        overridden.push("drain");
    }
    if let Some(compression) = options.compression {
        let mode = match compression {
            Compression::Off => "off",
            Compression::NoTakeover => "no-takeover",
            Compression::Takeover => "takeover",
        };
        errors.extend(settings.set("compression", mode).err());
    }
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    if let Some(bytes) = options.max_client_info {
        settings.limits.client_info_size_max = size(bytes);
        let publication_size_max = settings.limits.publication_size_max;
        settings.limits.set_publication_size_max(publication_size_max);
        overridden.push("limits.client_info_size_max");
    }
    if let Some(bytes) = options.max_publication_size {
        settings.limits.set_publication_size_max(size(bytes));
        overridden.push("limits.publication_size_max");
    }
    if let Some(bytes) = options.max_message_size {
        settings.limits.message_size_max = size(bytes);
        overridden.push("limits.message_size_max");
    }
    for name in overridden {
        settings.overridden(name);
    }
    errors
}

fn source(options: &ServeOptions) -> String {
    let path = options.config.as_ref().map(|path| path.display().to_string());
    path.unwrap_or_else(|| "settings".to_owned())
}

/// The failure for errors of the settings.
fn failures(options: &ServeOptions, errors: &[SettingsError]) -> Failure {
    Failure::Settings {
        problems: errors.iter().map(|error| problem(options, error)).collect(),
    }
}

/// Formats a settings error, prefixed with the file name if it is in the file.
fn problem(options: &ServeOptions, error: &SettingsError) -> String {
    match (error.line(), &options.config) {
        (Some(_), Some(path)) => format!("{}: {error}", path.display()),
        // In a flag or a variable.
        _ => error.to_string(),
    }
}

/// The failure for an error of the file that has no line.
fn invalid(options: &ServeOptions, reason: String) -> Failure {
    let problem = match &options.config {
        Some(path) => format!("{}: {reason}", path.display()),
        None => reason,
    };
    Failure::Settings {
        problems: vec![problem],
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(Failure::Output)
}

#[cfg(test)]
mod tests {
    use super::super::{Command, CommandLine};
    use super::*;
    use clap::Parser;
    use sockeye_server::Config;

    fn options(options: &[&str]) -> ServeOptions {
        let line = [&["sockeye", "serve"], options].concat();
        match CommandLine::try_parse_from(line).unwrap().command {
            Command::Serve(options) => *options,
            other => panic!("not serve: {other:?}"),
        }
    }

    fn config_of(flags: &[&str]) -> Result<Config, String> {
        let mut settings = Settings::default();
        let errors = apply_flags(&mut settings, &options(flags));
        settings.check(errors).map_err(|errors| errors[0].to_string())
    }

    #[test]
    fn without_options_the_limits_are_the_defaults() {
        assert_eq!(config_of(&[]).unwrap().limits, Config::default().limits);
    }

    #[test]
    fn sizes_can_be_set_alone_and_together() {
        let config = config_of(&["--max-publication-size", "2MiB"]).unwrap();
        // No namespace has a smaller limit of its own.
        let mut namespaces = config.namespaces.values().chain(&config.channels);
        assert!(namespaces.all(|options| options.publication_size_max.is_none()));
        let limits = config.limits;
        assert_eq!(limits.publication_size_max, 2 << 20);
        assert!(limits.message_size_max > 2 << 20);
        let limits = config_of(&["--max-message-size=1MiB"]).unwrap().limits;
        assert_eq!(limits.message_size_max, 1 << 20);
        let limits = config_of(&["--max-client-info=64KiB"]).unwrap().limits;
        assert_eq!(limits.client_info_size_max, 64 << 10);
        for options in [
            &["--max-publication-size=1GB"][..],
            &["--max-client-info=1MiB"],
            &["--max-publication-size=1", "--max-message-size=4KiB"],
        ] {
            assert!(config_of(options).is_ok(), "{options:?}");
        }
        let small = config_of(&["--max-message-size=32KiB"]).unwrap_err();
        assert!(small.contains("limits.publication_size_max"), "{small}");
    }

    #[test]
    fn an_error_in_a_flag_does_not_name_the_line_of_the_file_that_it_overrides() {
        let file = "allow_origins = ['https://a.example']\nallow_hosts = ['a.example']\n\
                    [limits]\nmessage_size_max = '1MiB'";
        for (option, expect) in [
            ("--allow-origin=nonsense", "allow_origins has"),
            ("--allow-host=a b", "allow_hosts has"),
            ("--max-message-size=1", "limits.publication_size_max is"),
        ] {
            let mut settings = Settings::parse(file).unwrap();
            assert_eq!(apply_flags(&mut settings, &options(&[option])), []);
            let error = settings.config().unwrap_err();
            assert!(
                error.line().is_none() && error.to_string().starts_with(expect),
                "{option}: {error}"
            );
        }
        let mut settings = Settings::parse("engine = 'redis://127.0.0.1'\ndata = '/here'").unwrap();
        assert_eq!(apply_flags(&mut settings, &options(&["--data=/elsewhere"])), []);
        let error = settings.config().unwrap_err();
        assert!(error.line().is_none(), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_text_is_an_error_only_for_this_program() {
        use std::os::unix::ffi::OsStringExt;
        let text = |text: &[u8]| OsString::from_vec(text.to_vec());
        let read = |name: &[u8], value: &[u8]| {
            let all = [(text(b"PATH"), text(b"/bin")), (text(name), text(value))];
            variables(all.into_iter()).map_err(|failure| failure.message().unwrap_or_default().to_string())
        };
        assert_eq!(read(b"OTHER", b"\xff").unwrap().len(), 1);
        assert_eq!(read(b"\xff", b"1").unwrap().len(), 1);
        assert_eq!(read(b"SOCKEYE_DATA", b"/srv").unwrap().len(), 2);
        assert_eq!(
            read(b"SOCKEYE_DATA", b"/srv/\xff").unwrap_err(),
            "the variable SOCKEYE_DATA is not valid UTF-8"
        );
        assert!(read(b"SOCKEYE_\xff", b"1").is_err());
    }

    #[test]
    fn a_server_without_a_file_warns_if_others_can_reach_it() {
        let warns = |flags: &[&str], anonymous: &str, address: &str| {
            let mut settings = Settings::default();
            settings.set("anonymous", anonymous).unwrap();
            open_to_all(&options(flags), &settings, address.parse().unwrap()).is_some()
        };
        assert!(warns(&[], "true", "0.0.0.0:8080") && warns(&[], "true", "[2001:db8::1]:80"));
        assert!(!warns(&[], "true", "127.0.0.1:8080") && !warns(&[], "true", "[::1]:8080"));
        assert!(!warns(&[], "false", "0.0.0.0:8080"));
        assert!(!warns(&["--config=sockeye.toml"], "true", "0.0.0.0:8080"));
    }

    #[test]
    fn the_log_of_a_reload_says_when_a_change_takes_effect() {
        let effect_of = |from: &str, to: &str, changes_scheme| {
            let changes = Settings::parse(from).unwrap().changes(&Settings::parse(to).unwrap());
            assert_eq!(changes.len(), 1, "{changes:?}");
            effect(&changes[0], changes_scheme)
        };
        for (from, to, expect) in [
            ("engine = 'redis://a'", "engine = 'redis://b'", Effect::Restart),
            ("", "repair_journal = true", Effect::Restart),
            ("", "[timeouts]\npong = '7s'", Effect::Restart),
            ("", "[limits]\nqueue_bytes_max = '2MiB'", Effect::NewClients),
            ("", "[limits]\nchannels_per_client_max = 5", Effect::Now),
            ("", "[namespaces.drain]", Effect::Now),
            ("api_keys = ['a']", "api_keys = ['b']", Effect::Now),
        ] {
            assert_eq!(effect_of(from, to, false), expect, "{from:?} -> {to:?}");
        }
        for (from, to) in [("", "tls_cert = 'a'"), ("tls_cert = 'a'", "")] {
            assert_eq!(effect_of(from, to, true), Effect::Restart);
        }
        assert_eq!(effect_of("tls_cert = 'a'", "tls_cert = 'b'", false), Effect::Now);
    }

    #[test]
    fn the_documentation_lists_what_needs_a_restart() {
        let page = include_str!("../../../../docs/server/operating.md");
        let (_, section) = page.split_once("\n## Changing settings").unwrap();
        let (_, list) = section.split_once("These take effect after a restart: ").unwrap();
        let (list, _) = list.split_once(";").unwrap();
        let documented: Vec<_> = list.split('`').skip(1).step_by(2).collect();
        assert_eq!(documented, RESTART.map(|setting| setting.trim_end_matches('.')));
    }

    #[test]
    fn flags_become_settings() {
        let config = config_of(&[
            "--api-key=a",
            "--api-key=b",
            "--token-hmac-secret=s",
            "--drain=5s",
            "--compression=off",
            "--allow-origin=*",
            "--console-password=open sesame",
        ])
        .unwrap();
        assert_eq!(config.api_keys, ["a".into(), "b".into()]);
        assert_eq!(config.tokens.hmac_secret, Some("s".into()));
        assert_eq!(config.console.password, Some("open sesame".into()));
        assert_eq!(config.timeouts.shutdown.as_secs(), 5);
        assert!(config.compression.is_none());
        assert!(
            config_of(&["--allow-origin=nonsense"])
                .unwrap_err()
                .contains("allow_origins")
        );
    }
}
