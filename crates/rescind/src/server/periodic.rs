//! What the process does again and again.

use std::{pin::pin, sync::Arc, time::Duration};

use rescind_admin as admin;
use rescind_base::telemetry::trends;
use rescind_node::app::App;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::endpoint::{Endpoint, TurnedAway};

const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often the service checks for refused connections and requests, and how often it logs them at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Logs how many connections and requests were refused for want of a place: at once, then at most once a minute.
pub(super) async fn tell_turned_away(endpoints: [Arc<Endpoint>; 3]) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = endpoints.each_ref().map(|_| (TurnedAway::default(), Duration::ZERO));
    loop {
        ticks.tick().await;
        for (endpoint, (before, next)) in endpoints.iter().zip(&mut told) {
            let (so_far, now) = (endpoint.turned_away(), endpoint.app.clock.elapsed());
            if so_far == *before || now < *next {
                continue;
            }
            let since = so_far - *before;
            let TurnedAway { connections, requests } = since;
            let most_from = endpoint.most_from(since).map(tracing::field::display);
            let listener = endpoint.listener.name();
            warn!(listener, connections, requests, most_from, "turned away: there were too many");
            (*before, *next) = (so_far, now + TELL_EVERY);
        }
    }
}

/// Calls `write` again and again, and once more after `stop`.
pub(super) async fn write_every(
    period: Duration,
    write: impl AsyncFn() + Send,
    stop: impl Future<Output = ()> + Send,
) {
    let mut stop = pin!(stop);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            _ = ticks.tick() => false,
        };
        // Outside of the `select!`, so that `stop` cannot cancel the write.
        write().await;
        if stopped {
            return;
        }
    }
}

/// Keeps the metrics for charts.
pub(super) async fn note_trends(app: Arc<App>) {
    let mut ticks = interval(trends::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        app.note_trends();
    }
}

/// Sweeps what is over.
pub(super) async fn sweep(app: Arc<App>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(e) = admin::upgrade_key(&app).await {
            warn!(error = %e, "the signing key could not be followed by one with a refresh key");
        }
        if let Err(e) = app.sweep().await {
            warn!(error = %e, "expired sessions could not be swept");
        }
    }
}
