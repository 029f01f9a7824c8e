//! Which server has answered, and the state of a session and its commits.

use tokio_postgres::{Row, SimpleQueryMessage, SimpleQueryRow};

use super::{rows::get, statements::answered_by};
use crate::{Result, StoreError};

const ANSWERED_BY: &str = "answered_by";
const A_STAND_BY: &str = "a stand-by";

/// What each session sets `client_min_messages` to.
pub(super) const MESSAGES: &str = "warning";

/// Reads the session's state.
pub(super) const STANDING: &str = concat!(
    "SELECT ",
    answered_by!(),
    ", CASE WHEN current_setting('synchronous_commit') IN ('on', 'remote_apply')
            THEN current_setting('synchronous_standby_names') ELSE '' END AS waits_for,
       pg_conf_load_time()::text AS loaded_at, current_setting('client_min_messages') AS messages"
);

pub(super) const BALANCED: &str = "what stands between sends reads to a stand-by, which may not know of the last logout: have it \
                        send everything to the primary (Pgpool-II: load_balance_mode = off), or name the servers \
                        themselves in database.url";
pub(super) const SHARED: &str = "a pooler between hands sessions on after each transaction, with what they are set to: \
                                 have it keep them (PgBouncer: pool_mode = session), or name the server itself in \
                                 database.url";
pub(super) const NOBODY: &str =
    "database.require_synchronous: commits wait for no stand-by (synchronous_standby_names is empty)";

/// Returns the rows, if the primary answered in the session of this name.
pub(super) fn found(mut rows: Vec<Row>, session: &str) -> Result<Vec<Row>> {
    let Some(first) = rows.first() else { return Ok(rows) };
    let has = |name: &str| first.columns().iter().any(|column| column.name() == name);
    if has(ANSWERED_BY) {
        match get::<Option<String>>(first, ANSWERED_BY)?.as_deref() {
            Some(name) if name == session => {}
            Some(A_STAND_BY) => return Err(StoreError::Unsuitable(BALANCED.into())),
            _ => return Err(StoreError::Unsuitable(SHARED.into())),
        }
    }
    if has("is_there") && get::<Option<bool>>(first, "is_there")?.is_none() {
        rows.clear();
    }
    Ok(rows)
}

/// The stand-bys that commits wait for, and when the session has loaded that setting.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) waits_for: String,
    loaded_at: String,
}

impl Standing {
    /// Reads the row. A session with another `client_min_messages` may send no warning when the wait for a stand-by is
    /// cancelled, so it is refused like a shared one.
    pub(super) fn of(row: &Row) -> Result<Standing> {
        if get::<String>(row, "messages")? != MESSAGES {
            return Err(StoreError::Unsuitable(SHARED.into()));
        }
        Ok(Standing { waits_for: get(row, "waits_for")?, loaded_at: get(row, "loaded_at")? })
    }
}

/// A commit, with the session's state right before and right after it.
#[derive(Debug)]
#[must_use]
pub(super) struct Committed {
    pub(super) before: Standing,
    pub(super) after: Standing,
}

impl Committed {
    /// Checks that a stand-by has the commit. When the names are emptied, the server releases waiting commits without
    /// a warning. It loads its settings before it answers the next question, so `after` shows the change.
    pub(super) fn is_replicated(&self) -> Result<()> {
        if self.before.waits_for.is_empty() || self.after.waits_for.is_empty() {
            return Err(StoreError::Unavailable(NOBODY.into()));
        }
        // The names may have been empty for a moment.
        if self.before.loaded_at != self.after.loaded_at {
            return Err(StoreError::Unavailable(
                "committed, but not known to be replicated: the server has read its settings anew meanwhile"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Returns the last row of the answer.
pub(super) fn last_row(answers: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    answers.iter().rev().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// Returns the one value of the answer.
pub(super) fn said(answers: &[SimpleQueryMessage]) -> Option<&str> {
    last_row(answers)?.get(0)
}
