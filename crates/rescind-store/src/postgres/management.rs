//! Management tokens and idempotency keys.

use rescind_base::{
    model::{
        ChangeOrigin, Creation, CreationKey, EventKind, ManagementToken, UnixSeconds,
        changes::of_management_token,
    },
    secret::SecretHash,
};
use tokio_postgres::Row;

use super::{
    Postgres, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    connection::Parameters,
    rows::{self, Number, get, hash_values, maybe_number, number},
    statements::decisive,
};
use crate::{
    Result,
    values::{CREATION_KEPT, clients_text, parsed, read_clients},
};

macro_rules! token {
    () => {
        "id, name, role, clients, token_hash, pepper, created_at, expires_at, last_used_at"
    };
}

const TOKENS: &str = decisive!(token!(), "FROM management_token", "id");
const TOKEN: &str = decisive!(token!(), "FROM management_token WHERE token_hash = $1");
pub(super) const DELETE_ALL: &str = concat!("DELETE FROM management_token RETURNING ", token!());
const INSERT: &str = "
    INSERT INTO management_token (name, role, clients, token_hash, pepper, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
const DELETE: &str = concat!("DELETE FROM management_token WHERE id = $1 RETURNING ", token!());
const USED: &str =
    "UPDATE management_token SET last_used_at = $2, token_hash = $3, pepper = $4 WHERE id = $1";
const FORGET: &str = "DELETE FROM creation WHERE at <= $1";
const RESERVE: &str =
    "INSERT INTO creation (token, key, request, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const KNOWN: &str = "SELECT request, created FROM creation WHERE token = $1 AND key = $2";
const SETTLE: &str = "UPDATE creation SET created = $3 WHERE token = $1 AND key = $2";
const RELEASE: &str = "DELETE FROM creation WHERE token = $1 AND key = $2";

impl Postgres {
    pub(crate) async fn management_tokens(&self) -> Result<Vec<ManagementToken>> {
        rows::read(&self.fetch(TOKENS, &[]).await?, token)
    }

    pub(crate) async fn create_management_token(
        &self,
        new: ManagementToken,
        origin: ChangeOrigin,
    ) -> Result<ManagementToken> {
        let mut tx = self.transaction().await?;
        let [record] = tx.prepared([audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        let (clients, (hash, pepper)) = (clients_text(new.clients.as_ref()), hash_values(&new.token_hash));
        let (created_at, expires_at) = (Number(new.created_at), new.expires_at.map(Number));
        let values: Parameters<'_> =
            &[&new.name, &new.role.name(), &clients, &hash, &pepper, &created_at, &expires_at];
        let row = tx.fetch_one(INSERT, values).await?;
        let token = ManagementToken { id: number(&row, "id")?, ..new };
        let event = of_management_token(&token, EventKind::ManagementTokenCreated, &origin);
        tx.commit_and_record(&record, &[event]).await?;
        Ok(token)
    }

    pub(crate) async fn delete_management_token(
        &self,
        id: u64,
        origin: ChangeOrigin,
    ) -> Result<Option<ManagementToken>> {
        let mut tx = self.transaction().await?;
        let [tell, record] = tx.prepared([RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        let deleted = rows::read(&tx.fetch(DELETE, &[&Number(id)]).await?, token)?.pop();
        let event = deleted
            .as_ref()
            .map(|token| of_management_token(token, EventKind::ManagementTokenRevoked, &origin));
        match event {
            // No node has these tokens in memory. The change shows whether a database has lost this commit; older
            // programs know its kind.
            Some(event) => tx.commit_with_change([&tell, &record], ChangedRow::Verifiers, &[event]).await?,
            None => tx.commit_as_missing().await?,
        }
        Ok(deleted)
    }

    pub(crate) async fn management_token(&self, hash: SecretHash) -> Result<Option<ManagementToken>> {
        Ok(rows::read(&self.fetch(TOKEN, &[&hash.bytes.as_slice()]).await?, token)?.pop())
    }

    pub(crate) async fn management_token_used(
        &self,
        id: u64,
        hash: SecretHash,
        now: UnixSeconds,
    ) -> Result<()> {
        let (hash, pepper) = hash_values(&hash);
        self.fetch(USED, &[&Number(id), &Number(now), &hash, &pepper]).await.map(drop)
    }

    pub(crate) async fn reserve_creation(
        &self,
        CreationKey { token, key }: CreationKey,
        request: [u8; 32],
        now: UnixSeconds,
    ) -> Result<Option<Creation>> {
        let mut tx = self.transaction().await?;
        tx.batch("BEGIN").await?;
        tx.run(FORGET, &[&Number(now.saturating_sub(CREATION_KEPT))]).await?;
        let (token, request) = (Number(token), request.as_slice());
        let inserted = tx.run(RESERVE, &[&token, &key, &request, &Number(now)]).await?;
        let known = if inserted > 0 { vec![] } else { tx.fetch(KNOWN, &[&token, &key]).await? };
        tx.commit().await?;
        Ok(rows::read(&known, creation)?.pop())
    }

    pub(crate) async fn settle_creation(
        &self,
        CreationKey { token, key }: CreationKey,
        created: Option<String>,
    ) -> Result<()> {
        match created {
            Some(created) => self.write(SETTLE, &[&Number(token), &key, &created]).await,
            None => self.write(RELEASE, &[&Number(token), &key]).await,
        }
    }
}

pub(super) fn token(row: &Row) -> Result<ManagementToken> {
    Ok(ManagementToken {
        id: number(row, "id")?,
        name: get(row, "name")?,
        role: parsed(&get::<String>(row, "role")?)?,
        clients: read_clients(get::<Option<String>>(row, "clients")?.as_deref())?,
        token_hash: rows::secret_hash(row, "token_hash")?,
        created_at: number(row, "created_at")?,
        expires_at: maybe_number(row, "expires_at")?,
        last_used_at: maybe_number(row, "last_used_at")?,
    })
}

fn creation(row: &Row) -> Result<Creation> {
    Ok(Creation { request: rows::hash_bytes(row, "request")?, created: get(row, "created")? })
}
