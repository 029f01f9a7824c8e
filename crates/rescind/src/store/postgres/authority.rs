//! Whose word is taken: the primary's, in a session that is this process's own, and of a commit that a
//! stand-by has where that is required.
//!
//! What stands between may do harm without a word. A load balancer sends what only reads to a stand-by,
//! which may be old. A pooler that hands a server on after each transaction loses what a session is set to,
//! and with it the warning of a commit that was not replicated. So whatever is decided by says who has
//! answered, and every commit is asked about in the same way there and back.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::future::try_join_all;
use tokio::try_join;
use tokio_postgres::{Row, SimpleQueryMessage};
use tracing::{info, warn};

use super::{
    connection::{Connection, Connector},
    fault,
    rows::get,
};
use crate::store::StoreError;

/// The column that says who has answered. Load balancers send what calls a volatile function, such as
/// `pg_is_in_recovery()`, to the primary; a stand-by that is asked all the same says what it is.
macro_rules! answered_by {
    () => {
        "CASE WHEN pg_is_in_recovery() THEN 'a stand-by' ELSE current_setting('rescind.session', true) END AS answered_by"
    };
}

/// Reads these columns to decide something. Who has answered is told where nothing is found, too:
/// there is always a row, in which `is_there` is null then.
macro_rules! decisive {
    ($columns:expr, $from:expr) => {
        concat!(
            "SELECT answered_by, found.* FROM (SELECT ",
            $crate::store::postgres::authority::answered_by!(),
            ") AS asked LEFT JOIN (SELECT true AS is_there, ",
            $columns,
            " ",
            $from,
            ") AS found ON true"
        )
    };
    ($columns:expr, $from:expr, $order:expr) => {
        concat!($crate::store::postgres::authority::decisive!($columns, $from), " ORDER BY ", $order)
    };
}

pub(super) use {answered_by, decisive};

const ANSWERED_BY: &str = "answered_by";
const A_STAND_BY: &str = "a stand-by";

/// Gives the session a name that no other has.
const NAME: &str = "SELECT set_config('rescind.session', gen_random_uuid()::text, false)";

/// How the session stands.
pub(super) const STANDING: &str = concat!(
    "SELECT ",
    answered_by!(),
    ", CASE WHEN current_setting('synchronous_commit') IN ('on', 'remote_apply')
            THEN current_setting('synchronous_standby_names') ELSE '' END AS waits_for,
       pg_conf_load_time()::text AS loaded_at"
);

// Unlike the above, a load balancer sends this to a stand-by.
const IS_STAND_BY: &str = "SELECT current_setting('in_hot_standby')";
const IS_READ_ONLY: &str =
    "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean";
/// How often a load balancer is asked that chooses anew for each statement.
const LOOKS: usize = 8;

const BALANCED: &str = "what stands between sends reads to a stand-by, which may not know of the last logout: have it \
                        send everything to the primary (Pgpool-II: load_balance_mode = off), or name the servers \
                        themselves in database.url";
pub(super) const SHARED: &str = "a pooler between hands sessions on after each transaction, with what they are set to: \
                                 have it keep them (PgBouncer: pool_mode = session), or name the server itself in \
                                 database.url";
const NOBODY: &str =
    "database.require_synchronous: commits wait for no stand-by (synchronous_standby_names is empty)";

/// Names the session, and looks whether the name is there in the next statement.
pub(super) async fn begin(session: &mut Connection) -> Result<(), StoreError> {
    let named = session.simple(NAME).await?;
    // What a session has been reset to is an empty name.
    let name = said(&named).filter(|name| !name.is_empty());
    session.set_name(name.ok_or_else(|| StoreError::Unsuitable(SHARED.into()))?);
    session.prepared([STANDING]).await?;
    session.standing().await?;
    Ok(())
}

/// What was found, if the primary has answered, in the session of this name.
pub(super) fn found(mut rows: Vec<Row>, session: &str) -> Result<Vec<Row>, StoreError> {
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

/// Whom commits wait for, and when the session has heard so.
#[derive(Debug)]
pub(super) struct Standing {
    waits_for: String,
    loaded_at: String,
}

impl Standing {
    pub(super) fn of(row: &Row) -> Result<Standing, StoreError> {
        Ok(Standing { waits_for: get(row, "waits_for")?, loaded_at: get(row, "loaded_at")? })
    }
}

/// A commit, and what was so right before and right after it.
#[derive(Debug)]
#[must_use]
pub(super) struct Committed {
    pub(super) before: Standing,
    pub(super) after: Standing,
}

impl Committed {
    /// Whether a stand-by has it. A commit that waits is released without a warning when nobody is to be
    /// waited for any more; the server reads its settings before it answers the next question.
    pub(super) fn is_replicated(&self) -> Result<(), StoreError> {
        if self.before.waits_for.is_empty() || self.after.waits_for.is_empty() {
            return Err(StoreError::Unavailable(NOBODY.into()));
        }
        // They may have been empty for a moment.
        if self.before.loaded_at != self.after.loaded_at {
            return Err(StoreError::Unavailable(
                "committed, but not known to be replicated: the server has read its settings anew meanwhile"
                    .into(),
            ));
        }
        Ok(())
    }
}

impl Connection {
    /// Commits what was begun, and looks whether that was in this session, as it was set. Everything is sent
    /// when first polled. `warnings` were counted before.
    pub(super) async fn commit_and_look(&self, warnings: u64) -> Result<Committed, StoreError> {
        let (before, (), after) = try_join!(biased; self.standing(), self.batch("COMMIT"), self.standing())?;
        self.vouch(warnings)?;
        Ok(Committed { before, after })
    }

    /// Whether that is as durable as it has to be.
    pub(super) fn accept(&self, committed: &Committed) -> Result<(), StoreError> {
        if self.requires_stand_by() { committed.is_replicated() } else { Ok(()) }
    }

    /// Commits what was begun, as durably as it has to be.
    pub(super) async fn commit(&self, warnings: u64) -> Result<(), StoreError> {
        let committed = self.commit_and_look(warnings).await?;
        self.accept(&committed)
    }
}

/// Whom commits wait for, as the lease's renewals find it.
#[derive(Debug, Default)]
pub(super) struct Replication {
    waits_for: ArcSwapOption<String>,
}

impl Replication {
    pub(super) fn waits_for(&self) -> Option<Arc<String>> {
        self.waits_for.load_full()
    }

    pub(super) fn heard(&self, committed: &Committed) {
        let now = &committed.after.waits_for;
        let before = self.waits_for.swap(Some(Arc::new(now.clone())));
        match before.map(|before| before.is_empty()) {
            Some(false) if now.is_empty() => warn!(
                "synchronous_standby_names is empty: commits wait for no stand-by any more, and a fail-over may \
                 undo what is answered from now on"
            ),
            Some(true) if !now.is_empty() => info!(standbys = now, "commits wait for a stand-by again"),
            _ => {}
        }
    }
}

/// Whether nothing between hands sessions on or asks stand-bys, and commits are waited for if they are to
/// be. To be asked once, at the start: whatever comes later is noticed where it does harm.
pub(super) async fn look(connector: &Connector) -> Result<(), StoreError> {
    match look_at_two(connector).await {
        Err(error) if fault::is_read_only(&error) && is_balanced(connector).await => {
            Err(StoreError::Unsuitable(BALANCED.into()))
        }
        looked => looked,
    }
}

async fn look_at_two(connector: &Connector) -> Result<(), StoreError> {
    let (first, second) = (connector.connect().await?, connector.connect().await?);
    // What pools by transactions gives the second the server that the first has had.
    second.batch("BEGIN").await?;
    let standing = first.standing().await?;
    second.standing().await?;
    second.batch("COMMIT").await?;
    let looks = try_join_all((0..LOOKS).map(|_| first.simple(IS_STAND_BY))).await?;
    if looks.iter().any(|answers| said(answers) == Some("on")) {
        return Err(StoreError::Unsuitable(BALANCED.into()));
    }
    if connector.requires_stand_by() && standing.waits_for.is_empty() {
        return Err(StoreError::Unsuitable(format!("{NOBODY}: set it, and synchronous_commit to on")));
    }
    first.done();
    second.done();
    Ok(())
}

/// Whether a server that says it is read-only is one that can be written.
async fn is_balanced(connector: &Connector) -> bool {
    connector.ask_any(IS_READ_ONLY).await.is_some_and(|answers| said(&answers) == Some("f"))
}

/// The one value that was asked for.
fn said(answers: &[SimpleQueryMessage]) -> Option<&str> {
    answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })
}
