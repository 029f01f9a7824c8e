//! Applies the changes of other nodes to memory.

use std::{collections::BTreeSet, fmt::Display};

use rescind_base::model::SigningKeyRecord;
use rescind_store::{ChangedRow, LeaseConnection, Postgres, StoreError};

use super::{
    Cluster,
    broken::{Broken, in_time},
};
use crate::memory::{Memory, new_epoch};

/// If more clients and sessions than this changed, everything is loaded instead.
const ONE_BY_ONE: usize = 256;

/// Applies the changes after `applied` in their order, and returns the last change that memory has now. A
/// change names the row; its present value is read, which is as new or newer.
pub(super) async fn catch_up(
    cluster: &Cluster,
    postgres: &Postgres,
    connection: &mut LeaseConnection,
    applied: u64,
) -> Result<u64, Broken> {
    let changes = in_time(cluster, connection.changes(applied)).await?;
    let Some(last) = changes.last().copied() else { return Ok(applied) };
    let (mut clients, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    let (mut keys, mut verifiers) = (false, false);
    for change in &changes {
        match change.what {
            ChangedRow::Client(client) => _ = clients.insert(client),
            ChangedRow::Session { client, session } => _ = sessions.insert((client, session)),
            ChangedRow::Keys => keys = true,
            ChangedRow::Verifiers => verifiers = true,
        }
    }
    let whole = (applied + 1..).zip(&changes).all(|(seq, change)| change.seq == seq);
    if !whole || clients.len() + sessions.len() > ONE_BY_ONE {
        let _alone = cluster.memory.alone().await;
        return load(cluster, postgres, connection).await;
    }
    let stamp = cluster.memory.registry.stamp();
    in_time(cluster, async {
        // Before the credentials whose hashes are under a new pepper; what has ended goes after them.
        if keys {
            cluster.memory.add_peppers(connection.secrets()).await?.map_err(unusable)?;
        }
        for client in clients {
            if let Some(client) = connection.find(client, 0).await?.client {
                cluster.memory.registry.apply(&client);
            }
        }
        for (client, session) in sessions {
            if let Some(session) = connection.find(client, session).await?.session {
                cluster.memory.registry.fill(&session, stamp);
            }
        }
        if keys {
            cluster.memory.take_peppers(connection.secrets()).await?.map_err(unusable)?;
            take_keys(&cluster.memory, connection.keys()).await?;
        }
        if verifiers {
            cluster.memory.take_verifiers(connection.verifiers()).await?;
        }
        Ok(())
    })
    .await?;
    postgres.note_known(last.known);
    Ok(last.seq)
}

/// Replaces memory by the store's content; the caller holds [`Memory::alone`]. Returns the last change that
/// memory has now.
pub(super) async fn load(
    cluster: &Cluster,
    postgres: &Postgres,
    connection: &mut LeaseConnection,
) -> Result<u64, Broken> {
    // No time limit: this node has no lease that could end.
    let loaded = cluster.store.load().await?;
    if loaded.place.as_ref() != Some(connection.place()) {
        return Err(StoreError::Unavailable("another server has taken over meanwhile".into()).into());
    }
    let secrets = loaded.secrets.clone();
    cluster.memory.add_peppers(async { Ok(secrets) }).await?.map_err(unusable)?;
    cluster.memory.registry.replace(&loaded.clients, loaded.ended, new_epoch(&cluster.random));
    cluster.memory.take_peppers(async { Ok(loaded.secrets) }).await?.map_err(unusable)?;
    take_keys(&cluster.memory, async { Ok(loaded.keys) }).await?;
    cluster.memory.take_verifiers(async { Ok(loaded.verifiers) }).await?;
    postgres.set_known(loaded.head);
    Ok(loaded.head.seq)
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
