//! Operations on clients and their credentials.

use rescind_base::model::{ChangeOrigin, Client, ClientId, Credential, changes::of_client};
use tokio::try_join;
use tokio_postgres::Statement;

use super::{
    Postgres, SNAPSHOT, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    connection::{Connection, Parameters},
    rows::{self, Number, hash_values, number},
    statements::decisive,
};
use crate::{
    Result, guarded,
    values::{allowlist_text, status_text},
};

const INSERT_CLIENT: &str = "
    INSERT INTO client (name, status, generation, revision, allowlist, certificates, scopes,
                        resources, enforces_allowlist, introspect_lifetime, suspended_until,
                        suspension_reason, tokens_revoked_at, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING id";
pub(super) const UPDATE_CLIENT: &str = "
    UPDATE client SET name = $1, status = $2, generation = $3, revision = $4, allowlist = $5,
                      certificates = $6, scopes = $7, resources = $8, enforces_allowlist = $9,
                      introspect_lifetime = $10, suspended_until = $11, suspension_reason = $12,
                      tokens_revoked_at = $13
    WHERE id = $14";
const INSERT_CREDENTIAL: &str = "
    INSERT INTO credential (client_id, api_key, secret_hash, pepper, created_at, expires_at, revoked_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
const DELETE_CREDENTIAL: &str = "DELETE FROM credential WHERE id = $1";
// Nodes that would add a client of one name at the same time wait for each other.
const LOCK_NAME: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
const CLIENT_OF_NAME: &str =
    decisive!("id", "FROM client WHERE name = $1 AND status <> 'deleted' ORDER BY id LIMIT 1");
const UPDATE_CREDENTIAL: &str = "UPDATE credential SET expires_at = $2, revoked_at = $3, replaced_at = $4, secret_hash = $5, pepper = $6, note = $7 WHERE id = $1";

/// The values of a client's columns, and one more.
macro_rules! client_values {
    ($client:expr, $last:expr) => {
        &[
            &$client.name,
            &status_text($client.status),
            &Number($client.generation),
            &Number($client.revision),
            &allowlist_text(&$client.allowlist),
            &$client.certificates.to_string(),
            &$client.scopes.as_str(),
            &$client.resources.to_string(),
            &$client.enforces_allowlist,
            &$client.introspect_lifetime.map(Number),
            &$client.suspension.until.map(Number),
            &$client.suspension.reason,
            &$client.tokens_revoked_at.map(Number),
            $last,
        ]
    };
}

impl Postgres {
    pub(crate) async fn clients(&self) -> Result<Vec<Client>> {
        let mut tx = self.transaction().await?;
        tx.batch(SNAPSHOT).await?;
        let clients = all_clients(&mut tx).await?;
        tx.batch("COMMIT").await?;
        tx.done();
        Ok(clients)
    }

    pub(crate) async fn create_client(
        &self,
        mut client: Client,
        if_absent: bool,
        origin: ChangeOrigin,
    ) -> Result<Result<Client, ClientId>> {
        let mut tx = self.transaction().await?;
        let [tell, record] = tx.prepared([RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        if if_absent {
            tx.fetch(LOCK_NAME, &[&client.name]).await?;
            if let Some(there) = tx.fetch(CLIENT_OF_NAME, &[&client.name]).await?.first() {
                let there = number(there, "id")?;
                tx.roll_back().await?;
                return Ok(Err(there));
            }
        }
        let row = tx.fetch_one(INSERT_CLIENT, client_values!(client, &Number(client.created_at))).await?;
        client.id = number(&row, "id")?;
        for new in &mut client.credentials {
            insert_credential(&mut tx, client.id, new).await?;
        }
        let events = of_client(None, &client, &origin);
        tx.commit_with_change([&tell, &record], ChangedRow::Client(client.id), &events).await?;
        Ok(Ok(client))
    }

    pub(crate) async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>> {
        let mut tx = self.transaction_of(id).await?;
        let [update, tell, record] = tx.prepared([UPDATE_CLIENT, RECORD_CHANGE, audit::INSERT]).await?;
        let Some(before) = tx.begin_with_client(id).await? else {
            tx.roll_back().await?;
            return Ok(None);
        };
        let mut after = before.clone();
        let outcome = guarded(|| rule(&mut after))?;
        if outcome.is_err() {
            tx.roll_back().await?;
            return Ok(Some(outcome.map(|outcome| (outcome, after))));
        }
        if after == before {
            // An earlier attempt may have committed this change without a stand-by's confirmation. The row's lock is
            // a write: when this commit is confirmed, so are all commits before it.
            tx.commit().await?;
            return Ok(Some(outcome.map(|outcome| (outcome, after))));
        }
        after.revision += 1;
        for changed in &mut after.credentials {
            if changed.id == 0 {
                insert_credential(&mut tx, id, changed).await?;
            } else if !before.credentials.contains(changed) {
                save_credential(&mut tx, changed).await?;
            }
        }
        for gone in before.credentials.iter().filter(|c| after.credentials.iter().all(|kept| kept.id != c.id))
        {
            tx.run(DELETE_CREDENTIAL, &[&Number(gone.id)]).await?;
        }
        let events = of_client(Some(&before), &after, &origin);
        let told = tx.commit_with_change([&tell, &record], ChangedRow::Client(id), &events);
        try_join!(biased; save_client(&tx, &update, &after), told)?;
        Ok(Some(outcome.map(|outcome| (outcome, after))))
    }
}

pub(super) async fn all_clients(db: &mut Connection) -> Result<Vec<Client>> {
    rows::clients(&db.fetch(rows::CLIENTS, &[]).await?, &db.fetch(rows::CREDENTIALS, &[]).await?)
}

/// Sends the statement at the first poll.
pub(super) async fn save_client(db: &Connection, update: &Statement, client: &Client) -> Result<()> {
    db.execute(update, client_values!(client, &Number(client.id))).await?;
    Ok(())
}

pub(super) async fn save_credential(db: &mut Connection, credential: &Credential) -> Result<()> {
    let (expires_at, revoked_at) = (credential.expires_at.map(Number), credential.revoked_at.map(Number));
    let replaced_at = credential.replaced_at.map(Number);
    let (hash, pepper) = hash_values(&credential.secret_hash);
    let values: Parameters<'_> =
        &[&Number(credential.id), &expires_at, &revoked_at, &replaced_at, &hash, &pepper, &credential.note];
    db.run(UPDATE_CREDENTIAL, values).await?;
    Ok(())
}

async fn insert_credential(db: &mut Connection, client: ClientId, new: &mut Credential) -> Result<()> {
    let (client, created_at) = (Number(client), Number(new.created_at));
    let (expires_at, revoked_at) = (new.expires_at.map(Number), new.revoked_at.map(Number));
    let (hash, pepper) = hash_values(&new.secret_hash);
    let values: Parameters<'_> =
        &[&client, &new.api_key, &hash, &pepper, &created_at, &expires_at, &revoked_at];
    new.id = number(&db.fetch_one(INSERT_CREDENTIAL, values).await?, "id")?;
    Ok(())
}
