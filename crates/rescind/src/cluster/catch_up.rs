//! What others changed, taken over into memory.

use std::collections::BTreeSet;

use super::{
    Cluster,
    broken::{Broken, in_time},
};
use crate::{
    memory::{Memory, new_epoch},
    model::SigningKeyRecord,
    store::{ChangedRow, LeaseConnection, Postgres, StoreError},
};

/// More changed clients than that are loaded with all the others at once.
const ONE_BY_ONE: usize = 256;

/// Applies the changes after this one, in their order, and returns the last that memory has now. Each says what
/// changed; how it is now is looked up, and is as new or newer.
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
    let asked = cluster.memory.registry.asking();
    in_time(cluster, async {
        for client in clients {
            if let Some(client) = connection.find(client, 0).await?.client {
                cluster.memory.registry.apply(&client);
            }
        }
        for (client, session) in sessions {
            if let Some(session) = connection.find(client, session).await?.session {
                cluster.memory.registry.learn(&session, asked);
            }
        }
        if keys {
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

/// Takes over everything, in place of what was known, while nothing else changes memory. Returns the last change that
/// memory has now.
pub(super) async fn load(
    cluster: &Cluster,
    postgres: &Postgres,
    connection: &mut LeaseConnection,
) -> Result<u64, Broken> {
    // However long it takes: there is no lease to lose.
    let loaded = cluster.store.load().await?;
    if loaded.place.as_ref() != Some(connection.place()) {
        return Err(StoreError::Unavailable("another server has taken over meanwhile".into()).into());
    }
    cluster.memory.registry.replace(&loaded.clients, loaded.ended, new_epoch(&cluster.random));
    take_keys(&cluster.memory, async { Ok(loaded.keys) }).await?;
    cluster.memory.take_verifiers(async { Ok(loaded.verifiers) }).await?;
    postgres.set_known(loaded.head);
    Ok(loaded.head.seq)
}

/// Goes over to the keys of the database. A node does not serve while it cannot use those.
async fn take_keys(
    memory: &Memory,
    keys: impl Future<Output = Result<Vec<SigningKeyRecord>, StoreError>>,
) -> Result<(), StoreError> {
    let taken_over = memory.take_keys(keys).await?;
    taken_over.map(drop).map_err(|e| StoreError::Unreadable(e.to_string()))
}
