//! `sockeye serve`: the server of `sockeye-server`, configured by flags.

use sockeye_server::{Config, HostPolicy, LogConfig, Server};
use tokio::net::TcpListener;

use super::{AllowedOrigin, Failure, ServeOptions, announce, bind};
use crate::platform::Signals;

/// Serves until a signal arrives.
pub(crate) fn run(options: &ServeOptions) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = bind(&options.listen, 1)?.remove(0);
    // Reads the log, so that clients are only accepted when it is restored.
    let server = Server::builder().config(config(options)).build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let listener = TcpListener::from_std(listener)?;
        announce(&format!("http://{}/", listener.local_addr()?));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = server.with_shutdown(async { drop(stopped.await) }).serve(listener);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            result = &mut serving => return Ok(result?),
            _ = signals.next() => drop(stop),
        }
        tokio::select! {
            result = &mut serving => Ok(result?),
            signal = signals.next() => Err(Failure::Signal(signal)),
        }
    })
}

fn config(options: &ServeOptions) -> Config {
    let mut config = Config::default();
    config.compression = options.compression.config();
    if let Some(policy) = AllowedOrigin::policy(&options.origins) {
        config.origins = policy;
    }
    if !options.hosts.is_empty() {
        config.hosts = Some(HostPolicy::List(options.hosts.clone()));
    }
    config.log = options.data.as_ref().map(|folder| {
        let mut log = LogConfig::new(folder);
        log.fsync = options.fsync;
        log
    });
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    config.limits.client_info_size_max = size(options.max_client_info);
    config
        .limits
        .set_publication_size_max(size(options.max_publication_size));
    if let Some(bytes) = options.max_message_size {
        config.limits.message_size_max = size(bytes);
    }
    config
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Command, CommandLine};
    use super::*;

    fn config_of(options: &[&str]) -> Config {
        let line = [&["sockeye", "serve"], options].concat();
        match CommandLine::try_parse_from(line).unwrap().command {
            Command::Serve(options) => config(&options),
            other => panic!("not serve: {other:?}"),
        }
    }

    #[test]
    fn without_options_the_limits_are_the_defaults() {
        assert_eq!(config_of(&[]).limits, Config::default().limits);
    }

    #[test]
    fn sizes_can_be_set_alone_and_together() {
        let limits = config_of(&["--max-publication-size", "2MiB"]).limits;
        assert_eq!(limits.publication_size_max, 2 << 20);
        assert!(limits.message_size_max > 2 << 20);
        assert_eq!(config_of(&["--max-message-size=1MiB"]).limits.message_size_max, 1 << 20);
        assert_eq!(
            config_of(&["--max-client-info=64KiB"]).limits.client_info_size_max,
            64 << 10
        );
        for options in [
            &["--max-publication-size=1GB"][..],
            &["--max-client-info=1MiB"],
            &["--max-publication-size=1", "--max-message-size=4KiB"],
        ] {
            assert_eq!(config_of(options).check(), Ok(()), "{options:?}");
        }
        let small = config_of(&["--max-message-size=32KiB"]).check().unwrap_err();
        assert_eq!(small.field(), "limits.publication_size_max");
    }
}
