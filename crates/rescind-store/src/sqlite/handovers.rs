//! Secrets that are handed to somebody by a link.

use rescind_base::{
    model::{ChangeOrigin, Handover, UnixSeconds, changes::of_handover},
    secret::TicketHash,
};
use rusqlite::{Connection, Row};

use super::{Sqlite, audit};
use crate::Result;

impl Sqlite {
    pub(crate) async fn hand_over(&self, new: Handover, origin: ChangeOrigin) -> Result<()> {
        let job = move |db: &Connection| {
            db.execute(
                "INSERT INTO handover (hash, client_id, api_key, sealed, created_at, ends_at) VALUES (?, ?, ?, ?, ?, ?)",
                (new.hash.0, new.client, &new.api_key, &new.sealed, new.created_at, new.ends_at),
            )?;
            audit::insert(db, &[of_handover(&new, &origin)])
        };
        self.writer.write(job).await
    }

    pub(crate) async fn handover(&self, hash: TicketHash) -> Result<Option<Handover>> {
        self.readers.read(move |db| find(db, hash)).await
    }

    pub(crate) async fn read_handover(
        &self,
        hash: TicketHash,
        origin: ChangeOrigin,
    ) -> Result<Option<Handover>> {
        let job = move |db: &Connection| {
            let found = find(db, hash)?.filter(|found| found.sealed.is_some() && origin.at < found.ends_at);
            if let Some(found) = &found {
                let read = "UPDATE handover SET sealed = NULL, read_at = ? WHERE hash = ?";
                db.execute(read, (origin.at, hash.0))?;
                let after = Handover { read_at: Some(origin.at), ..found.clone() };
                audit::insert(db, &[of_handover(&after, &origin)])?;
            }
            Ok(found)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn sweep_handovers(&self, ended_by: UnixSeconds, gone_by: UnixSeconds) -> Result<()> {
        let sweep = move |db: &Connection| {
            db.execute(
                "UPDATE handover SET sealed = NULL WHERE ends_at <= ? AND sealed IS NOT NULL",
                [ended_by],
            )?;
            db.execute("DELETE FROM handover WHERE ends_at <= ?", [gone_by])?;
            Ok(())
        };
        self.writer.write(sweep).await
    }
}

fn find(db: &Connection, hash: TicketHash) -> Result<Option<Handover>> {
    let mut query = db.prepare_cached("SELECT * FROM handover WHERE hash = ?")?;
    query.query_and_then([hash.0], handover)?.next().transpose()
}

fn handover(row: &Row<'_>) -> Result<Handover> {
    Ok(Handover {
        hash: TicketHash(row.get("hash")?),
        client: row.get("client_id")?,
        api_key: row.get("api_key")?,
        sealed: row.get("sealed")?,
        created_at: row.get("created_at")?,
        ends_at: row.get("ends_at")?,
        read_at: row.get("read_at")?,
    })
}
