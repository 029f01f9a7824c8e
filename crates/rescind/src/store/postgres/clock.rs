//! When the store was used last, and what time the database and the nodes have.

use super::{
    LeaseConnection, Postgres,
    rows::{Number, get, number},
};
use crate::{model::UnixSeconds, store::StoreError};

const LAST_USED: &str = "
    SELECT coalesce(
        (SELECT used_at FROM clock),
        (SELECT max(at) FROM (
            SELECT max(at) AS at FROM audit
            UNION ALL SELECT max(created_at) FROM client
            UNION ALL SELECT max(created_at) FROM signing_key
            UNION ALL SELECT issued_at FROM session WHERE id = (SELECT max(id) FROM session)) AS newest),
        0) AS used_at";
const SAVE: &str = "
    INSERT INTO clock (id, used_at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at";
const TELL_CLOCK: &str = "UPDATE node SET clock_ahead = $2 WHERE id = $1 AND clock_ahead IS DISTINCT FROM $2";
const CLOCKS: &str = "
    SELECT floor(extract(epoch FROM clock_timestamp()))::bigint AS now,
           ARRAY(SELECT clock_ahead FROM node WHERE id <> $1 AND clock_ahead IS NOT NULL) AS others";

/// What time it is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clocks {
    /// By the database.
    pub now: UnixSeconds,
    /// By how much the other nodes are ahead of it, each by its own word.
    pub others: Vec<i64>,
}

impl Postgres {
    pub(in crate::store) async fn last_used(&self) -> Result<UnixSeconds, StoreError> {
        let mut tx = self.transaction().await?;
        let [last_used] = tx.prepared([LAST_USED]).await?;
        let last_used = tx.one(&last_used, &[]).await?;
        tx.done();
        number(&last_used, "used_at")
    }

    pub(in crate::store) async fn used_at(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let mut tx = self.transaction().await?;
        let [save] = tx.prepared([SAVE]).await?;
        tx.execute(&save, &[&Number(now)]).await?;
        tx.done();
        Ok(())
    }
}

impl LeaseConnection {
    /// What time it is by the database and by the other nodes.
    pub async fn clocks(&mut self, node: u64) -> Result<Clocks, StoreError> {
        let [clocks] = self.connection.prepared([CLOCKS]).await?;
        let row = self.connection.one(&clocks, &[&Number(node)]).await?;
        Ok(Clocks { now: number(&row, "now")?, others: get(&row, "others")? })
    }

    /// Tells the other nodes by how much this one's clock is ahead of the database's.
    pub async fn tell_clock(&mut self, node: u64, ahead: i64) -> Result<(), StoreError> {
        self.write(TELL_CLOCK, &[&Number(node), &ahead]).await
    }
}
