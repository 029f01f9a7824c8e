//! `rescind serve`

use std::{sync::Arc, time::Duration};

use rescind_admin as admin;
use rescind_base::{clock::Clock, random::Random, telemetry::with_causes};
use rescind_node::{
    app::{App, OpenError},
    config::{Config, Environment, Flags},
};
use rescind_store::StoreError;
use tokio::{signal::unix::SignalKind, time::sleep};
use tracing::{error, info, warn};

use super::{Failure, log, output::Output, runtime, signals};
use crate::server::Server;

/// How often a start asks for a database that is not available, and how often it says so.
const PAUSE: Duration = Duration::from_millis(500);
const TELL: Duration = Duration::from_secs(5);

pub(super) fn run(flags: Flags, environment: Environment) -> Result<(), Failure> {
    let config = Config::load(&environment, &flags)?;
    let log = log::start(&config.log, &environment)?;
    let level = log.level();
    runtime()?.block_on(async move {
        // The server has SIGHUP, as soon as there is one.
        signals::ignore(&[SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()])?;
        let signalled = signals::counted(&[SignalKind::terminate(), SignalKind::interrupt()])?;
        let mut stop = signals::at_least(1, signalled.clone());
        let master_key = environment.master_key()?;
        let master_key = master_key.as_deref().map(String::as_str);
        // The embedded store is a file, which does not start later.
        let patience = config.database.url.as_ref().map(|_| config.database.start_timeout.into());
        let open = async || App::open(&config, master_key, Clock::System, Random::System).await;
        // A database that does not answer must not keep a service from being stopped.
        let app = tokio::select! {
            app = when_available(patience.unwrap_or_default(), open) => app?,
            () = &mut stop => {
                info!("stopped before it served");
                return Ok(());
            }
        };
        let link_app = Arc::clone(&app);
        let mut server = Server::bind(app, &config).await?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %server.address()?,
            management = %server.management_address()?,
            data_dir = %config.server.data_dir.display(),
            "serving"
        );
        if Server::opens_dashboard(&config) {
            tokio::spawn(offer_first_link(link_app));
        }
        server.reload_settings(move || match Config::load(&environment, &flags) {
            Ok(new) => {
                level(new.log.level);
                info!(level = ?new.log.level, "the log's level was read again");
                let mut the_same = config.clone();
                the_same.log.level = new.log.level;
                if new != the_same {
                    warn!("other settings have changed than log.level: they need a restart");
                }
            }
            Err(error) => error!(%error, "the settings were not read again: they stay as they are"),
        });
        server.end_delay_by(signals::at_least(2, signalled));
        Ok(server.run(stop).await?)
    })
}

/// Prints the link of the first administrator, if there is none. It is no line of the log.
async fn offer_first_link(app: Arc<App>) {
    while app.cluster.lease.check().is_err() {
        sleep(PAUSE).await;
    }
    match admin::first_link(&app).await {
        Ok(Some(link)) => {
            let url = app.urls.get().map_or("", |urls| urls.management.as_str());
            let text = format!(
                "There is no administrator. The first one enrols here, within an hour:\n  {url}{link}\n"
            );
            let output = Output { json: false, yes: false };
            if output.text(&text).is_err() {
                warn!("the link of the first administrator could not be printed: use `rescind admin create`");
            }
        }
        Ok(None) => {}
        Err(error) => warn!(%error, "it is not known whether there is an administrator"),
    }
}

/// Opens what needs a database that may start later than this process. While it waits, the log says for what.
async fn when_available<T>(
    patience: Duration,
    open: impl AsyncFn() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let began = Clock::System.elapsed();
    let mut told: Option<(String, Duration)> = None;
    loop {
        let opened = open().await;
        let now = Clock::System.elapsed();
        let error = match opened {
            Err(OpenError::Store(error @ StoreError::Unavailable(_))) if now - began < patience => error,
            opened => return opened,
        };
        let reason = with_causes(&error);
        let is_told = |(before, at): &(String, Duration)| *before == reason && now - *at < TELL;
        if !told.as_ref().is_some_and(is_told) {
            warn!(error = reason, "this start waits for the database");
            told = Some((reason, now));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_start_waits_for_a_database_that_comes_but_not_without_end() {
        let attempts = Cell::new(0);
        let after = async |wanted, error: fn() -> StoreError| {
            attempts.set(attempts.get() + 1);
            if attempts.get() < wanted { Err(OpenError::Store(error())) } else { Ok(attempts.replace(0)) }
        };
        let away = || StoreError::Unavailable("connection refused".into());
        let open = async || after(3, away).await;
        assert_eq!(when_available(Duration::MAX, open).await.unwrap(), 3);
        when_available(PAUSE, async || after(usize::MAX, away).await).await.unwrap_err();
        assert_eq!(attempts.replace(0), 2);
        let wrong = || StoreError::Unsuitable("no such database".into());
        when_available(Duration::MAX, async || after(usize::MAX, wrong).await).await.unwrap_err();
        assert_eq!(attempts.get(), 1);
    }
}
