//! The time of the last use, and the clocks of the database and the nodes.

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

/// The clocks of the database and of other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clocks {
    /// The database's time.
    pub now: UnixSeconds,
    /// By how many seconds each other node is ahead of the database, as that node has recorded.
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
    /// Returns the database's time, and by how much the nodes other than `node` are ahead of it.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn clocks(&mut self, node: u64) -> Result<Clocks, StoreError> {
        let [clocks] = self.connection.prepared([CLOCKS]).await?;
        let row = self.connection.one(&clocks, &[&Number(node)]).await?;
        Ok(Clocks { now: number(&row, "now")?, others: get(&row, "others")? })
    }

    /// Records by how many seconds this node's clock is ahead of the database's.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn tell_clock(&mut self, node: u64, ahead: i64) -> Result<(), StoreError> {
        self.write(TELL_CLOCK, &[&Number(node), &ahead]).await
    }
}
