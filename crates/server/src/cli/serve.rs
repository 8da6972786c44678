//! `sockeye serve`: the library's server.

use sockeye_server::{Config, HostPolicy};
use tokio::net::TcpListener;

use super::{AllowedOrigin, Failure, ServeOptions, Signals, announce, bind};

/// Serves until a signal.
pub(crate) fn run(options: &ServeOptions) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = bind(&options.listen, 1)?.remove(0);
    let config = config(options);
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let listener = TcpListener::from_std(listener)?;
        announce(&format!("http://{}/", listener.local_addr()?));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = sockeye_server::serve(listener, config, async { drop(stopped.await) });
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
    config
}
