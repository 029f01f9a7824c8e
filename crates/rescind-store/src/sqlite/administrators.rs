//! Administrators and their sign-ins.

use rescind_base::{
    model::{
        Administrator, ChangeOrigin, Enrolment, Proofs, SignIn, UnixSeconds, changes::of_administrators,
    },
    secret::TicketHash,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Sqlite, audit};
use crate::{Result, values::parsed};

impl Sqlite {
    pub(crate) async fn administrators(&self) -> Result<Vec<Administrator>> {
        self.readers.read(all).await
    }

    pub(crate) async fn change_administrators<T: Send + 'static, E: Send + 'static>(
        &self,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Vec<Administrator>) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<(T, Vec<Administrator>), E>> {
        let job = move |db: &Connection| {
            let before = all(db)?;
            let mut wanted = before.clone();
            let outcome = match rule(&mut wanted) {
                Ok(outcome) => outcome,
                Err(refused) => return Ok(Err(refused)),
            };
            for gone in before.iter().filter(|was| wanted.iter().all(|kept| kept.id != was.id)) {
                db.execute("DELETE FROM administrator WHERE id = ?", [gone.id])?;
                db.execute("DELETE FROM sign_in WHERE administrator = ?", [gone.id])?;
            }
            for changed in wanted.iter().filter(|now| !before.contains(now)) {
                save(db, changed)?;
            }
            let after = all(db)?;
            audit::insert(db, &of_administrators(&before, &after, &origin))?;
            Ok(Ok((outcome, after)))
        };
        self.writer.write(job).await
    }

    pub(crate) async fn begin_sign_in(&self, new: SignIn) -> Result<()> {
        let job = move |db: &Connection| {
            db.execute(
                "INSERT INTO sign_in (hash, administrator, generation, began_at, used_at) VALUES (?, ?, ?, ?, ?)",
                (new.hash.0, new.administrator, new.generation, new.began_at, new.used_at),
            )?;
            Ok(())
        };
        self.writer.write(job).await
    }

    pub(crate) async fn sign_in(&self, hash: TicketHash) -> Result<Option<(SignIn, Administrator)>> {
        let read = move |db: &Connection| {
            let mut query = db.prepare_cached("SELECT * FROM sign_in WHERE hash = ?")?;
            let found = query.query_row([hash.0], |row| {
                Ok(SignIn {
                    hash,
                    administrator: row.get("administrator")?,
                    generation: row.get("generation")?,
                    began_at: row.get("began_at")?,
                    used_at: row.get("used_at")?,
                })
            });
            let Some(sign_in) = found.optional()? else { return Ok(None) };
            let mut query = db.prepare_cached("SELECT * FROM administrator WHERE id = ?")?;
            let of = query.query_and_then([sign_in.administrator], administrator)?.next().transpose()?;
            Ok(of.map(|of| (sign_in, of)))
        };
        self.readers.read(read).await
    }

    pub(crate) async fn sign_in_used(&self, hash: TicketHash, now: UnixSeconds) -> Result<()> {
        let note = move |db: &Connection| {
            db.execute("UPDATE sign_in SET used_at = ? WHERE hash = ?", (now, hash.0))?;
            Ok(())
        };
        self.writer.write(note).await
    }

    pub(crate) async fn end_sign_in(&self, hash: TicketHash) -> Result<()> {
        let delete = move |db: &Connection| {
            db.execute("DELETE FROM sign_in WHERE hash = ?", [hash.0])?;
            Ok(())
        };
        self.writer.write(delete).await
    }

    pub(crate) async fn sweep_sign_ins(&self, began_by: UnixSeconds, used_by: UnixSeconds) -> Result<()> {
        let sweep = move |db: &Connection| {
            db.execute("DELETE FROM sign_in WHERE began_at <= ? OR used_at <= ?", (began_by, used_by))?;
            Ok(())
        };
        self.writer.write(sweep).await
    }
}

/// Removes every administrator.
pub(super) fn delete_all(db: &Connection, origin: &ChangeOrigin) -> Result<()> {
    let before = all(db)?;
    db.execute_batch("DELETE FROM administrator; DELETE FROM sign_in; DELETE FROM handover")?;
    audit::insert(db, &of_administrators(&before, &[], origin))
}

fn all(db: &Connection) -> Result<Vec<Administrator>> {
    let mut query = db.prepare_cached("SELECT * FROM administrator ORDER BY id")?;
    query.query_and_then([], administrator)?.collect()
}

fn save(db: &Connection, administrator: &Administrator) -> Result<()> {
    let Administrator { id, name, role, generation, proofs, totp_used, enrolment, created_at, signed_in_at } =
        administrator;
    db.execute(
        "INSERT INTO administrator (id, name, role, generation, password, totp, totp_used, enrolment_hash,
                                    enrolment_until, created_at, signed_in_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, role = excluded.role, generation = excluded.generation,
             password = excluded.password, totp = excluded.totp, totp_used = excluded.totp_used,
             enrolment_hash = excluded.enrolment_hash, enrolment_until = excluded.enrolment_until,
             signed_in_at = excluded.signed_in_at",
        params![
            (*id > 0).then_some(id),
            name,
            role.name(),
            generation,
            proofs.as_ref().map(|proofs| &proofs.password),
            proofs.as_ref().map(|proofs| &proofs.totp),
            totp_used,
            enrolment.map(|enrolment| enrolment.hash.0),
            enrolment.map(|enrolment| enrolment.until),
            created_at,
            signed_in_at,
        ],
    )?;
    Ok(())
}

fn administrator(row: &Row<'_>) -> Result<Administrator> {
    let proofs = (row.get("password")?, row.get("totp")?);
    let enrolment = (row.get::<_, Option<[u8; 32]>>("enrolment_hash")?, row.get("enrolment_until")?);
    Ok(Administrator {
        id: row.get("id")?,
        name: row.get("name")?,
        role: parsed(&row.get::<_, String>("role")?)?,
        generation: row.get("generation")?,
        proofs: match proofs {
            (Some(password), Some(totp)) => Some(Proofs { password, totp }),
            _ => None,
        },
        totp_used: row.get("totp_used")?,
        enrolment: match enrolment {
            (Some(hash), Some(until)) => Some(Enrolment { hash: TicketHash(hash), until }),
            _ => None,
        },
        created_at: row.get("created_at")?,
        signed_in_at: row.get("signed_in_at")?,
    })
}
