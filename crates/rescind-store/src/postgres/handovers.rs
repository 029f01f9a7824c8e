//! Secrets that are handed to somebody by a link.

use rescind_base::{
    model::{ChangeOrigin, Handover, UnixSeconds, changes::of_handover},
    secret::TicketHash,
};
use tokio_postgres::Row;

use super::{
    Postgres, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    connection::Parameters,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
};
use crate::Result;

macro_rules! handover {
    () => {
        "hash, client_id, api_key, sealed, created_at, ends_at, read_at"
    };
}

const HANDOVER: &str = decisive!(handover!(), "FROM handover WHERE hash = $1");
const LOCKED: &str = concat!(
    "SELECT ",
    handover!(),
    " FROM handover WHERE hash = $1 AND sealed IS NOT NULL AND ends_at > $2 FOR UPDATE"
);
const INSERT: &str = "
    INSERT INTO handover (hash, client_id, api_key, sealed, created_at, ends_at) VALUES ($1, $2, $3, $4, $5, $6)";
const READ: &str = "UPDATE handover SET sealed = NULL, read_at = $2 WHERE hash = $1";
const EMPTY: &str = "UPDATE handover SET sealed = NULL WHERE ends_at <= $1 AND sealed IS NOT NULL";
const FORGET: &str = "DELETE FROM handover WHERE ends_at <= $1";

impl Postgres {
    pub(crate) async fn hand_over(&self, new: Handover, origin: ChangeOrigin) -> Result<()> {
        let mut tx = self.transaction().await?;
        let [record] = tx.prepared([audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        let (hash, [client, created_at, ends_at]) =
            (new.hash.0.as_slice(), [new.client, new.created_at, new.ends_at].map(Number));
        let values: Parameters<'_> = &[&hash, &client, &new.api_key, &new.sealed, &created_at, &ends_at];
        tx.run(INSERT, values).await?;
        tx.commit_and_record(&record, &[of_handover(&new, &origin)]).await
    }

    pub(crate) async fn handover(&self, hash: TicketHash) -> Result<Option<Handover>> {
        Ok(rows::read(&self.fetch(HANDOVER, &[&hash.0.as_slice()]).await?, handover)?.pop())
    }

    pub(crate) async fn read_handover(
        &self,
        hash: TicketHash,
        origin: ChangeOrigin,
    ) -> Result<Option<Handover>> {
        let mut tx = self.transaction().await?;
        let [tell, record] = tx.prepared([RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        let (text, now) = (hash.0.as_slice(), Number(origin.at));
        let found = rows::read(&tx.fetch(LOCKED, &[&text, &now]).await?, handover)?.pop();
        match &found {
            Some(found) => {
                tx.run(READ, &[&text, &now]).await?;
                let after = Handover { read_at: Some(origin.at), ..found.clone() };
                // The change shows whether a database has lost this commit; older programs know its kind.
                let events = [of_handover(&after, &origin)];
                tx.commit_with_change([&tell, &record], ChangedRow::Verifiers, &events).await?;
            }
            None => tx.commit_as_missing().await?,
        }
        Ok(found)
    }

    pub(crate) async fn sweep_handovers(&self, ended_by: UnixSeconds, gone_by: UnixSeconds) -> Result<()> {
        let mut tx = self.transaction().await?;
        tx.batch("BEGIN").await?;
        tx.run(EMPTY, &[&Number(ended_by)]).await?;
        tx.run(FORGET, &[&Number(gone_by)]).await?;
        tx.commit().await
    }
}

fn handover(row: &Row) -> Result<Handover> {
    Ok(Handover {
        hash: TicketHash(rows::hash_bytes(row, "hash")?),
        client: number(row, "client_id")?,
        api_key: get(row, "api_key")?,
        sealed: get(row, "sealed")?,
        created_at: number(row, "created_at")?,
        ends_at: number(row, "ends_at")?,
        read_at: maybe_number(row, "read_at")?,
    })
}
