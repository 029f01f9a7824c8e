//! Management tokens and idempotency keys.

use rescind_base::{
    model::{
        ChangeOrigin, Creation, CreationKey, EventKind, ManagementToken, UnixSeconds,
        changes::of_management_token,
    },
    secret::SecretHash,
};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{Sqlite, audit};
use crate::{
    Result,
    values::{CREATION_KEPT, clients_text, parsed, read_clients},
};

impl Sqlite {
    pub(crate) async fn management_tokens(&self) -> Result<Vec<ManagementToken>> {
        let read = |db: &Connection| {
            let mut query = db.prepare_cached("SELECT * FROM management_token ORDER BY id")?;
            query.query_and_then([], token)?.collect()
        };
        self.readers.read(read).await
    }

    pub(crate) async fn create_management_token(
        &self,
        new: ManagementToken,
        origin: ChangeOrigin,
    ) -> Result<ManagementToken> {
        let job = move |db: &Connection| {
            db.execute(
                "INSERT INTO management_token (name, role, clients, token_hash, pepper, created_at, expires_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    &new.name,
                    new.role.name(),
                    clients_text(new.clients.as_ref()),
                    new.token_hash.bytes,
                    new.token_hash.pepper,
                    new.created_at,
                    new.expires_at,
                ),
            )?;
            let token = ManagementToken { id: db.last_insert_rowid().unsigned_abs(), ..new };
            let event = of_management_token(&token, EventKind::ManagementTokenCreated, &origin);
            audit::insert(db, &[event])?;
            Ok(token)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn delete_management_token(
        &self,
        id: u64,
        origin: ChangeOrigin,
    ) -> Result<Option<ManagementToken>> {
        let job = move |db: &Connection| {
            let mut delete = db.prepare_cached("DELETE FROM management_token WHERE id = ? RETURNING *")?;
            let deleted = delete.query_and_then([id], token)?.next().transpose()?;
            if let Some(token) = &deleted {
                let event = of_management_token(token, EventKind::ManagementTokenRevoked, &origin);
                audit::insert(db, &[event])?;
            }
            Ok(deleted)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn management_token(&self, hash: SecretHash) -> Result<Option<ManagementToken>> {
        let read = move |db: &Connection| {
            let mut query = db.prepare_cached("SELECT * FROM management_token WHERE token_hash = ?")?;
            query.query_and_then([hash.bytes], token)?.next().transpose()
        };
        self.readers.read(read).await
    }

    pub(crate) async fn management_token_used(
        &self,
        id: u64,
        hash: SecretHash,
        now: UnixSeconds,
    ) -> Result<()> {
        let note = move |db: &Connection| {
            db.execute(
                "UPDATE management_token SET last_used_at = ?, token_hash = ?, pepper = ? WHERE id = ?",
                (now, hash.bytes, hash.pepper, id),
            )?;
            Ok(())
        };
        self.writer.write(note).await
    }

    pub(crate) async fn reserve_creation(
        &self,
        CreationKey { token, key }: CreationKey,
        request: [u8; 32],
        now: UnixSeconds,
    ) -> Result<Option<Creation>> {
        let job = move |db: &Connection| {
            db.execute("DELETE FROM creation WHERE at <= ?", [now.saturating_sub(CREATION_KEPT)])?;
            let inserted = db.execute(
                "INSERT INTO creation (token, key, request, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (token, &key, request, now),
            )?;
            if inserted > 0 {
                return Ok(None);
            }
            let known = db.query_row(
                "SELECT request, created FROM creation WHERE token = ? AND key = ?",
                (token, &key),
                |row| Ok(Creation { request: row.get(0)?, created: row.get(1)? }),
            );
            Ok(known.optional()?)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn settle_creation(
        &self,
        CreationKey { token, key }: CreationKey,
        created: Option<String>,
    ) -> Result<()> {
        let job = move |db: &Connection| {
            match created {
                Some(created) => db.execute(
                    "UPDATE creation SET created = ? WHERE token = ? AND key = ?",
                    (created, token, key),
                )?,
                None => db.execute("DELETE FROM creation WHERE token = ? AND key = ?", (token, key))?,
            };
            Ok(())
        };
        self.writer.write(job).await
    }
}

/// Revokes every token.
pub(super) fn delete_all(db: &Connection, origin: &ChangeOrigin) -> Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM management_token RETURNING *")?;
    let deleted = delete.query_and_then([], token)?.collect::<Result<Vec<_>>>()?;
    let events = deleted.iter().map(|t| of_management_token(t, EventKind::ManagementTokenRevoked, origin));
    audit::insert(db, &events.collect::<Vec<_>>())
}

fn token(row: &Row<'_>) -> Result<ManagementToken> {
    Ok(ManagementToken {
        id: row.get("id")?,
        name: row.get("name")?,
        role: parsed(&row.get::<_, String>("role")?)?,
        clients: read_clients(row.get::<_, Option<String>>("clients")?.as_deref())?,
        token_hash: SecretHash { bytes: row.get("token_hash")?, pepper: row.get("pepper")? },
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        last_used_at: row.get("last_used_at")?,
    })
}

#[cfg(test)]
mod tests {
    use rescind_base::{
        model::{Actor, ChangeOrigin, ManagementToken, Role},
        random::Random,
        secret::SecretHash,
    };

    use crate::{Store, sqlite::connect};

    #[tokio::test]
    async fn a_management_token_is_good_though_its_use_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rescind.db");
        let store = Store::open_file(&path, &Random::seeded(1)).unwrap();
        let token = ManagementToken {
            id: 0,
            name: "t".into(),
            role: Role::Viewer,
            clients: None,
            token_hash: SecretHash { bytes: [1; 32], pepper: 1 },
            created_at: 1000,
            expires_at: None,
            last_used_at: None,
        };
        let origin = ChangeOrigin::new(1000, Actor::Operator, "n");
        let token = store.create_management_token(token, origin).await.unwrap();
        let refuse =
            "CREATE TRIGGER full BEFORE UPDATE ON management_token BEGIN SELECT RAISE(FAIL, 'full'); END";
        connect(&path).unwrap().execute_batch(refuse).unwrap();
        assert_eq!(
            store.use_management_token(SecretHash { bytes: [1; 32], pepper: 1 }.into(), 2000).await.unwrap(),
            Some(token)
        );
    }
}
