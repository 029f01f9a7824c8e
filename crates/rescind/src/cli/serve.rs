//! `rescind serve`

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::{Failure, log, runtime};
use crate::{
    app::App,
    clock::Clock,
    config::{Config, Environment},
    random::Random,
    server::Server,
};

pub(super) fn run(config: &Config, environment: &Environment) -> Result<(), Failure> {
    let _traces = log::start(&config.log, environment);
    runtime()?.block_on(async {
        let stop = stop_signal()?;
        let master_key = environment.master_key()?;
        let master_key = master_key.as_deref().map(String::as_str);
        let app = App::open(config, master_key, Clock::System, Random::System).await?;
        let server = Server::bind(app, config).await?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %server.address()?,
            management = %server.management_address()?,
            data_dir = %config.server.data_dir.display(),
            "serving"
        );
        Ok(server.run(stop).await?)
    })
}

/// Waits for SIGTERM or SIGINT. Both are caught as soon as this function returns.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
