//! What operators ask about: sessions of a client, and the uses of credentials. And what ends by itself.

use std::collections::BTreeMap;

use rescind_base::{
    model::{
        ChangeOrigin, ClientId, CredentialId, CredentialUse, EventKind, SessionId, SigningKeyRecord,
        UnixSeconds,
    },
    secret::SealedSecrets,
};
use tokio_postgres::Row;

use super::{
    Postgres, audit,
    connection::Parameters,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
};
use crate::{
    Result, SessionPart, StoreError,
    values::{BATCH, USES_KEPT, USES_TOLD, address_text, read_address},
};

const BEGIN_RESEAL: &str = "BEGIN; LOCK TABLE node, signing_key IN EXCLUSIVE MODE";
const NODES: &str = decisive!("count(*) AS nodes", "FROM node");
const RESEAL_SECRET: &str = "UPDATE sealed_secret SET sealed = $2 WHERE name = $1";
const RESEAL_KEY: &str = "UPDATE signing_key SET sealed = $2, refresh_sealed = $3 WHERE id = $1";
const RESEAL_AUTHENTICATOR: &str = "UPDATE administrator SET totp = $2 WHERE id = $1";
const SESSIONS_BEFORE: &str = decisive!(
    "min(id) AS first",
    "FROM (SELECT id FROM session WHERE id < $1 ORDER BY id DESC LIMIT $2) AS part"
);
const CLIENT_OF_SESSION: &str = decisive!("client_id", "FROM session WHERE id = $1");
const CLIENT_OF_CREDENTIAL: &str = decisive!("client_id", "FROM credential WHERE api_key = $1");
const SUSPENDED_UNTIL: &str =
    decisive!("id", "FROM client WHERE suspended_until <= $1 AND status = 'suspended' LIMIT $2");
const WITH_ENDED_CREDENTIALS: &str = decisive!(
    "id",
    "FROM (SELECT DISTINCT client_id AS id FROM credential WHERE coalesce(revoked_at, expires_at) < $1 LIMIT $2) AS ended"
);
// In the order of the key, so that no two nodes wait for each other.
const ADD_USES: &str = "
    INSERT INTO credential_use (credential_id, address, at, times)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[]) AS new (credential, address, at, times)
    ORDER BY credential, address
    ON CONFLICT (credential_id, address) DO UPDATE
    SET at = greatest(credential_use.at, excluded.at), times = credential_use.times + excluded.times";
const USES_OF: &str = decisive!(
    "credential_id, address, at, times",
    "FROM credential_use WHERE credential_id IN (SELECT id FROM credential WHERE client_id = $1)",
    "at DESC LIMIT $2"
);
const LAST_USES: &str = decisive!(
    "client_id, at",
    "FROM (SELECT client_id, max(at) AS at
           FROM (SELECT credential_id, at FROM credential_use
                 UNION ALL SELECT credential_id, at FROM last_verification) AS used
           JOIN credential ON credential.id = credential_id
           GROUP BY client_id) AS last"
);
const NEXT_USED: &str = decisive!(
    "credential_id",
    "FROM (SELECT DISTINCT credential_id FROM credential_use WHERE credential_id > $1
           ORDER BY credential_id LIMIT $2) AS used",
    "credential_id"
);
// The newest use of a credential stays, however old it is. What another node writes is left to that node: so none waits
// for another one here, and no two for each other.
const TRIM_USES: &str = "
    DELETE FROM credential_use WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM credential_use WHERE (credential_id, address) IN (
            SELECT credential_id, address FROM (
                SELECT credential_id, address, at,
                       row_number() OVER (PARTITION BY credential_id ORDER BY at DESC) AS place
                FROM credential_use WHERE credential_id = ANY ($1::bigint[])) AS placed
            WHERE (place > 1 AND at < $2) OR place > $3
               OR NOT EXISTS (SELECT FROM credential WHERE id = credential_id))
        FOR UPDATE SKIP LOCKED))";

impl Postgres {
    pub(crate) async fn reseal(
        &self,
        secrets: SealedSecrets,
        keys: Vec<SigningKeyRecord>,
        authenticators: Vec<(u64, Vec<u8>)>,
        origin: ChangeOrigin,
    ) -> Result<()> {
        let mut tx = self.transaction().await?;
        let [record] = tx.prepared([audit::INSERT]).await?;
        tx.batch(BEGIN_RESEAL).await?;
        // A server seals its next key under the master key that it has.
        let nodes = number(&tx.fetch_one(NODES, &[]).await?, "nodes")?;
        if nodes > 0 {
            tx.roll_back().await?;
            return Err(StoreError::Unsuitable(format!(
                "{nodes} nodes serve from it, or were not stopped in order: stop each, and start and stop one in the place of each that was killed"
            )));
        }
        for (name, sealed) in &secrets {
            tx.run(RESEAL_SECRET, &[name, sealed]).await?;
        }
        for key in &keys {
            tx.run(RESEAL_KEY, &[&Number(key.id), &key.sealed, &key.refresh_sealed]).await?;
        }
        for (administrator, sealed) in &authenticators {
            tx.run(RESEAL_AUTHENTICATOR, &[&Number(*administrator), sealed]).await?;
        }
        tx.commit_and_record(&record, &[origin.event(EventKind::MasterKeyRotated)]).await
    }

    pub(crate) async fn sessions_of(
        &self,
        client: ClientId,
        before: SessionId,
        rows: u64,
    ) -> Result<SessionPart> {
        let first = rows::one(self.fetch(SESSIONS_BEFORE, &[&Number(before), &Number(rows)]).await?)?;
        let next = maybe_number(&first, "first")?;
        let sessions = match next {
            Some(first) => {
                let which: Parameters<'_> = &[&Number(client), &Number(first), &Number(before)];
                rows::read(&self.fetch(rows::SESSIONS_OF_CLIENT, which).await?, rows::session)?
            }
            None => vec![],
        };
        Ok(SessionPart { sessions, next })
    }

    pub(crate) async fn client_of_session(&self, session: SessionId) -> Result<Option<ClientId>> {
        let found = self.fetch(CLIENT_OF_SESSION, &[&Number(session)]).await?;
        found.first().map(|row| number(row, "client_id")).transpose()
    }

    pub(crate) async fn client_of_credential(&self, api_key: &str) -> Result<Option<ClientId>> {
        // No text of PostgreSQL has a NUL, so no credential has such a key.
        if api_key.contains('\0') {
            return Ok(None);
        }
        let found = self.fetch(CLIENT_OF_CREDENTIAL, &[&api_key]).await?;
        found.first().map(|row| number(row, "client_id")).transpose()
    }

    pub(crate) async fn suspended_until(&self, now: UnixSeconds) -> Result<Vec<ClientId>> {
        let due = self.fetch(SUSPENDED_UNTIL, &[&Number(now), &Number(BATCH)]).await?;
        rows::read(&due, |row| number(row, "id"))
    }

    pub(crate) async fn with_ended_credentials(&self, before: UnixSeconds) -> Result<Vec<ClientId>> {
        let ended = self.fetch(WITH_ENDED_CREDENTIALS, &[&Number(before), &Number(BATCH)]).await?;
        rows::read(&ended, |row| number(row, "id"))
    }

    pub(crate) async fn add_uses(&self, uses: Vec<CredentialUse>) -> Result<()> {
        // One statement must not name a row twice.
        let mut by_key = BTreeMap::new();
        for CredentialUse { credential, address, at, times } in uses {
            let (last, sum) = by_key.entry((credential, address_text(address))).or_insert((0, 0));
            (*last, *sum) = (at.max(*last), times + *sum);
        }
        let credentials: Vec<_> = by_key.keys().map(|(credential, _)| Number(*credential)).collect();
        let addresses: Vec<_> = by_key.keys().map(|(_, address)| address.as_str()).collect();
        let at: Vec<_> = by_key.values().map(|(at, _)| Number(*at)).collect();
        let times: Vec<_> = by_key.values().map(|(_, times)| Number(*times)).collect();
        let mut tx = self.transaction().await?;
        tx.batch("BEGIN").await?;
        tx.run(ADD_USES, &[&credentials, &addresses, &at, &times]).await?;
        tx.run(TRIM_USES, &[&credentials, &Number(0), &Number(USES_KEPT)]).await?;
        tx.commit().await
    }

    pub(crate) async fn uses_of(&self, client: ClientId) -> Result<Vec<CredentialUse>> {
        rows::read(&self.fetch(USES_OF, &[&Number(client), &Number(USES_TOLD)]).await?, credential_use)
    }

    pub(crate) async fn last_uses(&self) -> Result<Vec<(ClientId, UnixSeconds)>> {
        let last = self.fetch(LAST_USES, &[]).await?;
        rows::read(&last, |row| Ok((number(row, "client_id")?, number(row, "at")?)))
    }

    pub(crate) async fn sweep_uses(
        &self,
        after: CredentialId,
        before: UnixSeconds,
    ) -> Result<Option<CredentialId>> {
        let next = self.fetch(NEXT_USED, &[&Number(after), &Number(BATCH)]).await?;
        let credentials = rows::read(&next, |row| number(row, "credential_id"))?;
        let last = credentials.last().copied();
        let credentials: Vec<_> = credentials.into_iter().map(Number).collect();
        let mut tx = self.transaction().await?;
        tx.run(TRIM_USES, &[&credentials, &Number(before), &Number(USES_KEPT)]).await?;
        tx.done();
        Ok(last)
    }
}

fn credential_use(row: &Row) -> Result<CredentialUse> {
    Ok(CredentialUse {
        credential: number(row, "credential_id")?,
        address: read_address(&get::<String>(row, "address")?)?,
        at: number(row, "at")?,
        times: number(row, "times")?,
    })
}
