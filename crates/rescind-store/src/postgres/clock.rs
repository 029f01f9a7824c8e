//! The time of the last use, and the clocks of the database and the nodes.

use rescind_base::model::UnixSeconds;

use super::{
    LeaseConnection, Postgres,
    rows::{Number, get, number, one},
};
use crate::{
    Result,
    values::{LAST_USED, SAVE_USED},
};

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
    pub(crate) async fn last_used(&self) -> Result<UnixSeconds> {
        number(&one(self.fetch(LAST_USED, &[]).await?)?, "used_at")
    }

    pub(crate) async fn used_at(&self, now: UnixSeconds) -> Result<()> {
        self.fetch(SAVE_USED, &[&Number(now)]).await.map(drop)
    }
}

impl LeaseConnection {
    /// Returns the database's time, and by how much the nodes other than `node` are ahead of it.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn clocks(&mut self, node: u64) -> Result<Clocks> {
        let row = self.connection.fetch_one(CLOCKS, &[&Number(node)]).await?;
        Ok(Clocks { now: number(&row, "now")?, others: get(&row, "others")? })
    }

    /// Records by how many seconds this node's clock is ahead of the database's.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub async fn tell_clock(&mut self, node: u64, ahead: i64) -> Result<()> {
        self.write(TELL_CLOCK, &[&Number(node), &ahead]).await
    }
}
