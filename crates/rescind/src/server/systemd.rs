//! What systemd is told, if it has started this process (`Type=notify`).

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// [`ready`] follows.
pub(super) fn reloading() {
    // systemd tells this reload from an earlier one by the time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "systemd cannot be told of the reload"),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells systemd for ever that the runtime's tasks run, if it asks for that (`WatchdogSec=`).
pub(super) async fn keep_watchdog_quiet() {
    let Some(patience) = watchdog_enabled() else { return };
    let mut ticks = interval(patience / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        warn!(%error, "systemd cannot be told");
    }
}
