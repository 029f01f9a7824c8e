//! How credentials are used, by hours; their last verifications; and which expiries were told of.

use rescind_base::model::{
    ChangeOrigin, ClientId, Counted, CredentialId, Expiring, Hours, Last, Tally, UnixSeconds,
};
use rusqlite::{Connection, params};

use super::{Sqlite, audit};
use crate::{
    Result,
    values::{USAGE_SWEPT, address_text, read_address},
};

impl Sqlite {
    pub(crate) async fn add_usage(&self, counted: Vec<Counted>) -> Result<()> {
        let job = move |db: &Connection| {
            let mut add = db.prepare_cached(
                "INSERT INTO usage (hour, client_id, credential_id, logins, refreshes, verifications, denials)
                 VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (hour, client_id, credential_id) DO UPDATE
                 SET logins = logins + excluded.logins, refreshes = refreshes + excluded.refreshes,
                     verifications = verifications + excluded.verifications, denials = denials + excluded.denials",
            )?;
            let mut verified = db.prepare_cached(
                "INSERT INTO last_verification (credential_id, at, address) VALUES (?, ?, ?)
                 ON CONFLICT (credential_id) DO UPDATE
                 SET at = excluded.at, address = excluded.address WHERE at <= excluded.at",
            )?;
            for Counted { client, credential, hour, tally } in &counted {
                let Tally { logins, refreshes, verifications, denials, last } = tally;
                add.execute(params![hour, client, credential, logins, refreshes, verifications, denials])?;
                if let Some(Last { at, from }) = last.filter(|_| *credential != 0) {
                    verified.execute(params![credential, at, address_text(from)])?;
                }
            }
            Ok(())
        };
        self.writer.write(job).await
    }

    pub(crate) async fn usage_of(
        &self,
        client: ClientId,
        credential: Option<CredentialId>,
        hours: Hours,
    ) -> Result<Vec<(u64, Tally)>> {
        let read = move |db: &Connection| {
            // Each hour is looked up: between a client's rows are those of all others.
            let mut query = db.prepare_cached(
                "WITH RECURSIVE wanted (hour) AS (
                     SELECT ?1 UNION ALL SELECT hour + 1 FROM wanted WHERE hour + 1 < ?2)
                 SELECT usage.hour, sum(logins), sum(refreshes), sum(verifications), sum(denials)
                 FROM wanted CROSS JOIN usage ON usage.hour = wanted.hour AND client_id = ?3
                 WHERE (?4 IS NULL OR credential_id = ?4) AND ?1 < ?2
                 GROUP BY usage.hour ORDER BY usage.hour",
            )?;
            let counted = query.query_map((hours.since, hours.until, client, credential), |row| {
                let tally = Tally {
                    logins: row.get(1)?,
                    refreshes: row.get(2)?,
                    verifications: row.get(3)?,
                    denials: row.get(4)?,
                    last: None,
                };
                Ok((row.get(0)?, tally))
            })?;
            Ok(counted.collect::<Result<_, _>>()?)
        };
        self.readers.read_long(read).await
    }

    pub(crate) async fn last_verifications(&self, client: ClientId) -> Result<Vec<(CredentialId, Last)>> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT credential_id, at, address FROM last_verification
                 WHERE credential_id IN (SELECT id FROM credential WHERE client_id = ?)",
            )?;
            let last = query.query_and_then([client], |row| {
                let from = read_address(&row.get::<_, String>(2)?)?;
                Ok((row.get(0)?, Last { at: row.get(1)?, from }))
            })?;
            last.collect()
        })
        .await
    }

    pub(crate) async fn sweep_usage(&self, before: u64) -> Result<bool> {
        let job = move |db: &Connection| {
            let mut old = db.prepare_cached(
                "DELETE FROM usage WHERE (hour, client_id, credential_id) IN (
                     SELECT hour, client_id, credential_id FROM usage WHERE hour < ? LIMIT ?)",
            )?;
            let mut gone = db.prepare_cached(
                "DELETE FROM last_verification WHERE credential_id IN (
                     SELECT credential_id FROM last_verification
                     WHERE NOT EXISTS (SELECT 1 FROM credential WHERE id = credential_id) LIMIT ?)",
            )?;
            let old = old.execute((before, USAGE_SWEPT))? as u64;
            Ok(old.max(gone.execute([USAGE_SWEPT])? as u64) < USAGE_SWEPT)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn note_expiries(
        &self,
        expiring: Vec<Expiring>,
        over: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<Expiring>> {
        let job = move |db: &Connection| {
            db.execute("DELETE FROM expiry_notice WHERE expires_at < ?", [over])?;
            let mut note = db.prepare_cached(
                "INSERT INTO expiry_notice (subject, id, expires_at, days) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )?;
            let mut new = Vec::new();
            for expiring in &expiring {
                let Expiring { subject, expires_at, days } = expiring;
                if note.execute((subject.name(), subject.id(), expires_at, days))? > 0 {
                    new.push(expiring.clone());
                }
            }
            let events: Vec<_> = new.iter().map(|expiring| expiring.event(&origin)).collect();
            audit::insert(db, &events)?;
            Ok(new)
        };
        self.writer.write(job).await
    }
}
