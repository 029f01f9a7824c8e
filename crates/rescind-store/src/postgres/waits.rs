//! What the server's processes wait for, for the log.

use std::{pin::pin, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{answered::last_row, connector::Connector, error};

/// How often a process that waits says for what.
const TELL: Duration = Duration::from_secs(5);
/// The most that the question takes what another connection waits for.
const ASK: Duration = Duration::from_secs(1);

/// Runs what the server's process `process` does for this one. While it takes long, the log says what it waits for.
pub(super) async fn telling<T>(
    connector: &Connector,
    process: i32,
    what: &str,
    done: impl Future<Output = T>,
) -> T {
    let mut done = pin!(done);
    loop {
        tokio::select! {
            done = &mut done => return done,
            () = sleep(TELL) => {}
        }
        let reason = held_by(connector, process).await;
        warn!(reason, "{what} takes long");
    }
}

/// Returns what a server's process of this user waits for.
pub(super) async fn held_by(connector: &Connector, process: i32) -> String {
    let question = format!(
        "SELECT wait_event_type, wait_event, current_setting('synchronous_standby_names')
         FROM pg_stat_activity WHERE pid = {process}"
    );
    let answer = async { connector.connect_within(ASK).await?.simple(&question).await };
    let answers = match timeout(ASK, answer).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => return error::why(&error),
        Err(_) => vec![],
    };
    match last_row(&answers).map(|row| [row.get(0), row.get(1), row.get(2)]) {
        None => "PostgreSQL does not answer".into(),
        Some([_, Some("SyncRep"), names]) => format!(
            "a commit waits for a stand-by, and none of synchronous_standby_names = '{}' confirms it",
            names.unwrap_or_default()
        ),
        Some([Some("Lock"), lock, _]) => {
            format!("another session holds a lock ({})", lock.unwrap_or_default())
        }
        Some([Some(kind), Some(event), _]) if kind != "Client" => {
            format!("PostgreSQL has not finished ({kind}: {event})")
        }
        Some(_) => "PostgreSQL has not finished".into(),
    }
}
