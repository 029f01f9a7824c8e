//! Applies the changes of other nodes to memory.

use std::{collections::BTreeSet, fmt::Display, panic::resume_unwind, sync::Arc, time::Duration};

use rescind_base::model::SigningKeyRecord;
use rescind_store::{ChangedRow, Known, LeaseConnection, Place, Postgres, StoreError};
use tokio::{
    runtime::Handle,
    sync::{OwnedRwLockWriteGuard, oneshot},
    task::{JoinError, spawn_blocking},
    time::sleep,
};

use super::{
    Cluster,
    broken::{Broken, in_time},
};
use crate::memory::{Memory, new_epoch};

/// If more clients and sessions than this changed, everything is loaded instead.
const MOST: usize = 256;
/// How many of them are read at once. The time for an answer is limited, and a client may have a long allowlist.
const AT_ONCE: usize = 64;

/// A node's row, and what it acknowledges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) acked: u64,
}

/// Applies the changes after `applied` in their order, and returns the last change that memory has now. A
/// change names the row; its present value is read, which is as new or newer.
pub(super) async fn catch_up(
    cluster: &Arc<Cluster>,
    postgres: &Postgres,
    connection: &mut LeaseConnection,
    row: Row,
    applied: u64,
) -> Result<u64, Broken> {
    let changes = in_time(cluster, connection.changes(applied)).await?;
    let Some(last) = changes.last().copied() else { return Ok(applied) };
    let (mut clients, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    let (mut keys, mut verifiers) = (false, false);
    for change in &changes {
        match change.what {
            ChangedRow::Client(client) => _ = clients.insert(client),
            ChangedRow::Session { session, .. } => _ = sessions.insert(session),
            ChangedRow::Keys => keys = true,
            ChangedRow::Verifiers => verifiers = true,
        }
    }
    let whole = (applied + 1..).zip(&changes).all(|(seq, change)| change.seq == seq);
    if !whole || clients.len() + sessions.len() > MOST {
        let alone = cluster.memory.alone().await;
        return load(cluster, postgres, connection, row, alone).await;
    }
    let (clients, sessions) = (Vec::from_iter(clients), Vec::from_iter(sessions));
    let memory = &cluster.memory;
    // A load that was given up may still be replacing memory, by what is older.
    let _changing = memory.changing().await;
    let stamp = memory.registry.stamp();
    // Before the credentials whose hashes are under a new pepper; what has ended goes after them.
    if keys {
        in_time(cluster, memory.add_peppers(connection.secrets())).await?.map_err(unusable)?;
    }
    // Each answer has a time of its own: many that are slow are no silence.
    let mut renewed_at = cluster.clock.elapsed();
    for some in clients.chunks(AT_ONCE) {
        renew_in_time(cluster, connection, row, &mut renewed_at).await?;
        let clients = in_time(cluster, connection.clients(some)).await?;
        clients.iter().for_each(|client| memory.registry.apply(client));
    }
    for some in sessions.chunks(AT_ONCE) {
        renew_in_time(cluster, connection, row, &mut renewed_at).await?;
        let sessions = in_time(cluster, connection.sessions(some)).await?;
        sessions.iter().for_each(|session| memory.registry.fill(session, stamp));
    }
    if keys {
        in_time(cluster, memory.take_peppers(connection.secrets())).await?.map_err(unusable)?;
        in_time(cluster, take_keys(memory, connection.keys())).await?;
    }
    if verifiers {
        in_time(cluster, memory.take_verifiers(connection.verifiers())).await?;
    }
    postgres.note_known(last.known);
    Ok(last.seq)
}

/// Renews the row, and not the lease, if that is due: the other nodes forget one whose row does not change.
async fn renew_in_time(
    cluster: &Cluster,
    connection: &mut LeaseConnection,
    row: Row,
    renewed_at: &mut Duration,
) -> Result<(), Broken> {
    if cluster.clock.elapsed().saturating_sub(*renewed_at) >= cluster.terms.renewal() {
        renew(cluster, connection, row).await?;
        *renewed_at = cluster.clock.elapsed();
    }
    Ok(())
}

async fn renew(cluster: &Cluster, connection: &mut LeaseConnection, row: Row) -> Result<(), Broken> {
    in_time(cluster, connection.renew(row.id, row.acked)).await?.ok_or(Broken::Fenced)?;
    Ok(())
}

/// Replaces memory by the store's content, which may take longer than a lease. Meanwhile the row is renewed, so
/// that the other nodes do not forget this one, but not the lease, and nothing more is acknowledged. Returns the last
/// change that memory has now.
pub(super) async fn load(
    cluster: &Arc<Cluster>,
    postgres: &Postgres,
    connection: &mut LeaseConnection,
    row: Row,
    alone: OwnedRwLockWriteGuard<()>,
) -> Result<u64, Broken> {
    let replaced = replace_memory(Arc::clone(cluster), connection.place().clone(), alone);
    // It ends when this function has ended.
    let (_here, given_up) = oneshot::channel::<()>();
    let runtime = Handle::current();
    // On a thread of its own: what many rows need would occupy one of the runtime's, and nobody would look at the
    // timers.
    let mut loading = spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                loaded = replaced => loaded,
                _ = given_up => Err(StoreError::Unavailable("the load was given up".into())),
            }
        })
    });
    let loaded = loop {
        tokio::select! {
            loaded = &mut loading => break loaded,
            () = sleep(cluster.terms.renewal()) => renew(cluster, connection, row).await?,
        }
    };
    let head = match loaded.map_err(JoinError::try_into_panic) {
        Ok(loaded) => loaded?,
        // Memory may be half replaced, and the task that ends with this ends the service.
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(error)) => return Err(StoreError::Unavailable(error.into()).into()),
    };
    postgres.set_known(head);
    Ok(head.seq)
}

/// The guard, of [`Memory::alone`], is held until this ends, also if nobody waits for it any more.
async fn replace_memory(
    cluster: Arc<Cluster>,
    place: Place,
    _alone: OwnedRwLockWriteGuard<()>,
) -> Result<Known, StoreError> {
    let (store, memory) = (&cluster.store, &cluster.memory);
    // No time limit: the lease is not extended before the end.
    let loaded = store.load().await?;
    if loaded.place != Some(place) {
        return Err(StoreError::Unavailable("another server has taken over meanwhile".into()));
    }
    let secrets = loaded.secrets.clone();
    memory.add_peppers(async { Ok(secrets) }).await?.map_err(unusable)?;
    memory.registry.replace(&loaded.clients, loaded.ended, new_epoch(&cluster.random));
    memory.take_peppers(async { Ok(loaded.secrets) }).await?.map_err(unusable)?;
    take_keys(memory, async { Ok(loaded.keys) }).await?;
    memory.take_verifiers(async { Ok(loaded.verifiers) }).await?;
    Ok(loaded.head)
}

/// Applies the database's keys. A node that cannot use them does not serve.
async fn take_keys(
    memory: &Memory,
    keys: impl Future<Output = Result<Vec<SigningKeyRecord>, StoreError>>,
) -> Result<(), StoreError> {
    let taken_over = memory.take_keys(keys).await?;
    taken_over.map(drop).map_err(unusable)
}

fn unusable(error: impl Display) -> StoreError {
    StoreError::Unreadable(error.to_string())
}
