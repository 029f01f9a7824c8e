//! What can be replaced while the service runs: settings at SIGHUP, the certificate at SIGHUP and when its files change.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::error;

use super::{systemd, tls};

/// How often the certificate's files are checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reloads what can be reloaded.
pub(super) struct Reload {
    hangup: Signal,
    pub(super) certificate: Option<tls::Reload>,
    pub(super) settings: Box<dyn FnMut() + Send>,
}

impl Reload {
    /// Catches SIGHUP from now on, which would end the process otherwise.
    pub(super) fn new(certificate: Option<tls::Reload>) -> io::Result<Reload> {
        Ok(Reload { hangup: signal(SignalKind::hangup())?, certificate, settings: Box::new(|| {}) })
    }

    /// Reloads for ever.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = self.hangup.recv() => true,
                _ = ticks.tick(), if self.certificate.is_some() => false,
            };
            let look = move || {
                self.look(asked);
                self
            };
            match spawn_blocking(look).await {
                Ok(looked) => self = looked,
                Err(_) => return error!("nothing is reloaded any more: that panicked"),
            }
        }
    }

    fn look(&mut self, asked: bool) {
        if asked {
            systemd::reloading();
            (self.settings)();
        }
        if let Some(certificate) = &mut self.certificate {
            certificate.look(asked);
        }
        if asked {
            systemd::ready();
        }
    }
}
