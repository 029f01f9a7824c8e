//! Checks whether the database still has every change that was answered for.
//!
//! A fail-over to a stand-by that lagged, a point-in-time recovery or an older copy loses committed changes.
//! A node serves from such a database only after a node has repeated the lost changes, or has revoked every
//! token.

use std::sync::Arc;

use rescind_base::secret::Peppers;
use rescind_store::{HistoryStatus, Known, LeaseConnection, Position, Postgres, Store, StoreError};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Cluster, PAUSE, broken::Broken};

/// What a node finds about the history of a database that it connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// The database may be used.
    Stands(HistoryStatus),
    /// The database had lost changes, and this node has just repeated them.
    RepeatedHere,
    /// The database had lost changes that no node remembers: this node has just revoked every token.
    EndedHere,
}

impl History {
    /// Whether the database lacked nothing.
    pub(super) fn is_whole(self) -> bool {
        self == History::Stands(HistoryStatus::Confirmed)
    }

    /// For the log.
    pub(super) fn text(self) -> &'static str {
        match self {
            History::Stands(standing) => standing.text(),
            History::RepeatedHere => "what it had lost was repeated by this node",
            History::EndedHere => "every token was ended by this node",
        }
    }
}

/// Ensures that the database has every change that this process knows of, before the process serves from it.
/// `remembers`: memory has all changes up to this one. `told`: the newest known change whose loss has been
/// logged. Called while nothing else changes memory.
pub(super) async fn ensure(
    cluster: &Cluster,
    postgres: &Postgres,
    connection: &mut LeaseConnection,
    remembers: Option<u64>,
    told: &mut Option<Known>,
) -> Result<History, Broken> {
    let known = postgres.known();
    let position = connection.position(&known).await?;
    match position.standing(&known, remembers.is_some()) {
        // The node that repeated the changes may have remembered fewer than this one.
        Some(HistoryStatus::Repeated) if remembers.is_some() => {}
        Some(standing) => return Ok(History::Stands(standing)),
        None => {}
    }
    if !is_ours(cluster, connection).await? {
        return Err(Broken::Foreign);
    }
    if told.replace(known) != Some(known) {
        tell(cluster, connection, &known, &position, remembers.is_some());
    }
    match remembers {
        Some(whole) => repeat(cluster, postgres, connection, &known, whole).await,
        None => end(cluster, postgres, connection, &known).await,
    }
}

/// Checks for a process that is no node that the database has the newest change known in this data folder.
///
/// # Errors
///
/// Fails if the store is unavailable or lacks that change.
pub async fn confirm(store: &Store) -> Result<(), StoreError> {
    let Some(postgres) = store.postgres() else { return Ok(()) };
    let known = postgres.known();
    let position = postgres.position(&known).await?;
    match position.standing(&known, false) {
        Some(_) => Ok(()),
        None => Err(StoreError::Unsuitable(format!(
            "it is older than what was answered, or another one: it has change {}, and change {} was known here. Start \
             the servers, which do again what they remember; where none does, `rescind db restored` ends every token",
            position.head.seq, known.seq
        ))),
    }
}

/// Logs what was found, for the operator.
fn tell(
    cluster: &Cluster,
    connection: &LeaseConnection,
    known: &Known,
    position: &Position,
    remembers: bool,
) {
    cluster.histories_lost.inc();
    let then = if remembers {
        "what this node remembers is repeated before it serves"
    } else {
        "this node was restarted and remembers nothing: it waits for one that does, and else ends every token"
    };
    let (now, before) = (position.head.seq, known.seq);
    cluster.not_renewed.store(Some(Arc::new(format!(
        "the database has change {now}, and change {before} was known: {then}"
    ))));
    error!(
        server = %connection.place(),
        change = position.head.seq,
        history = %position.head.history,
        known_change = known.seq,
        known_history = %known.history,
        then,
        "the database is older than what was answered, or another one"
    );
}

async fn repeat(
    cluster: &Cluster,
    postgres: &Postgres,
    connection: &LeaseConnection,
    known: &Known,
    whole: u64,
) -> Result<History, Broken> {
    let (new, origin, memory) = (cluster.new_key()?, cluster.origin(), cluster.memory.remembered());
    let repeated = postgres.repeat(connection.place(), known, whole, &memory, new, &origin).await?;
    let Some(repeated) = repeated else { return Ok(History::Stands(HistoryStatus::Repeated)) };
    warn!(%repeated, "what the database had lost was done again");
    Ok(History::RepeatedHere)
}

/// Revokes every token, after one W: a running node, which remembers more, would have connected by then.
async fn end(
    cluster: &Cluster,
    postgres: &Postgres,
    connection: &mut LeaseConnection,
    known: &Known,
) -> Result<History, Broken> {
    let wait = cluster.terms.wait();
    let since = cluster.clock.elapsed();
    while cluster.clock.elapsed().saturating_sub(since) < wait {
        sleep(PAUSE.min(wait)).await;
        if let Some(standing) = connection.position(known).await?.standing(known, false) {
            info!("another node has done again what the database had lost");
            return Ok(History::Stands(standing));
        }
    }
    let (key, origin) = (cluster.new_key()?, cluster.origin());
    let ended = postgres.end_history(connection.place(), known, key, &origin).await?;
    if ended.is_none() {
        return Ok(History::Stands(HistoryStatus::Repeated));
    }
    warn!("every token was ended, for nobody remembers what the database had lost: clients log in again");
    Ok(History::EndedHere)
}

/// Whether the database belongs to this installation.
async fn is_ours(cluster: &Cluster, connection: &mut LeaseConnection) -> Result<bool, Broken> {
    let theirs = Peppers::open(&connection.secrets().await?, &cluster.memory.master).ok().flatten();
    Ok(theirs.is_some_and(|theirs| theirs.installation == cluster.memory.peppers.load().installation))
}
