//! How values of the domain are read from PostgreSQL's rows.
//!
//! Statements name their columns: a newer version may add columns while this one runs.

use std::error::Error;

use bytes::BytesMut;
use rescind_base::{
    model::{Client, Credential, Session, SigningKeyRecord, Suspension, VerifierRecord},
    secret::{SealedSecrets, SecretHash},
};
use rescind_verifier::follow::wire::EndedSession;
use tokio_postgres::{
    Row,
    types::{FromSql, FromSqlOwned, IsNull, ToSql, Type, accepts, to_sql_checked},
};

use super::statements::decisive;
use crate::{
    Known, Mark, Result, StoreError,
    values::{parsed, read_algorithm, read_allowlist, read_phase, read_status},
};

macro_rules! client {
    () => {
        "id, name, status, generation, revision, allowlist, certificates, scopes, resources, \
         enforces_allowlist, introspect_lifetime, created_at,
         suspended_until, suspension_reason, tokens_revoked_at"
    };
}
macro_rules! credential {
    () => {
        "id, client_id, api_key, secret_hash, pepper, created_at, expires_at, revoked_at, replaced_at, note"
    };
}

macro_rules! session {
    () => {
        "id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at, issued_at,
         access_expires_at, refresh_expires_at, resources"
    };
}

pub(super) const CLIENT: &str = decisive!(client!(), "FROM client WHERE id = $1");
// With FOR SHARE a flood of logins could keep a logout waiting: share locks are granted while it waits.
pub(super) const CLIENT_LOCKED: &str =
    concat!("SELECT ", client!(), " FROM client WHERE id = $1 FOR NO KEY UPDATE");
pub(super) const CLIENTS: &str = decisive!(client!(), "FROM client ORDER BY id");
pub(super) const CREDENTIALS_OF_CLIENT: &str =
    decisive!(credential!(), "FROM credential WHERE client_id = $1", "id");
pub(super) const CLIENTS_OF: &str = decisive!(client!(), "FROM client WHERE id = ANY($1)");
pub(super) const CREDENTIALS_OF: &str =
    decisive!(credential!(), "FROM credential WHERE client_id = ANY($1)", "client_id, id");
pub(super) const CREDENTIALS: &str = decisive!(credential!(), "FROM credential", "client_id, id");
pub(super) const SESSION: &str = decisive!(session!(), "FROM session WHERE id = $1");
pub(super) const SESSIONS_OF: &str = decisive!(session!(), "FROM session WHERE id = ANY($1)");
pub(super) const SESSIONS_OF_CLIENT: &str =
    decisive!(session!(), "FROM session WHERE client_id = $1 AND id >= $2 AND id < $3", "id DESC");
pub(super) const ENDED: &str = decisive!("id, refresh_expires_at", "FROM session WHERE phase = 2");
pub(super) const KEYS: &str = decisive!(
    "id, kid, algorithm, sealed, refresh_sealed, rfc9068, created_at, signs_from, retire_at",
    "FROM signing_key",
    "id"
);
pub(super) const VERIFIERS: &str =
    decisive!("id, name, token_hash, pepper, shares_hs256, created_at", "FROM verifier", "id");
pub(super) const SECRETS: &str = decisive!("name, sealed", "FROM sealed_secret");

/// A `u64` in a `bigint`, which holds half of its range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) u64);

impl ToSql for Number {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        i64::try_from(self.0)?.to_sql(ty, out)
    }

    accepts!(INT8);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Number {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Number(u64::try_from(i64::from_sql(ty, raw)?)?))
    }

    accepts!(INT8);
}

impl ToSql for Mark {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Mark {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Mark(u128::from_be_bytes(raw.try_into()?)))
    }

    accepts!(UUID);
}

/// Returns the one row of a statement.
pub(super) fn one(mut rows: Vec<Row>) -> Result<Row> {
    let row = rows.pop().filter(|_| rows.is_empty());
    row.ok_or_else(|| StoreError::Unreadable("there is not one row where one was asked for".into()))
}

pub(super) fn get<T: FromSqlOwned>(row: &Row, column: &str) -> Result<T> {
    row.try_get(column).map_err(|e| StoreError::Unreadable(super::error::in_words(&e)))
}

pub(super) fn number(row: &Row, column: &str) -> Result<u64> {
    get(row, column).map(|Number(number)| number)
}

pub(super) fn maybe_number(row: &Row, column: &str) -> Result<Option<u64>> {
    Ok(get::<Option<Number>>(row, column)?.map(|Number(number)| number))
}

pub(super) fn read<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T>) -> Result<Vec<T>> {
    rows.iter().map(read).collect()
}

/// Reads a client from its row and the rows of its credentials.
pub(super) fn client(rows: &[Row], credentials: &[Row]) -> Result<Option<Client>> {
    let Some(row) = rows.first() else { return Ok(None) };
    let credentials = read(credentials, credential)?;
    Ok(Some(Client { credentials, ..client_alone(row)? }))
}

/// Reads clients, in the order of their ids, from their rows and the rows of their credentials.
pub(super) fn clients(rows: &[Row], credentials: &[Row]) -> Result<Vec<Client>> {
    let mut clients = read(rows, client_alone)?;
    // The rows are usually in order, but a join does not guarantee it. Sorting in SQL costs more than all the rest.
    clients.sort_by_key(|client| client.id);
    for row in credentials {
        let owner = number(row, "client_id")?;
        if let Ok(i) = clients.binary_search_by_key(&owner, |client| client.id) {
            clients[i].credentials.push(credential(row)?);
        }
    }
    Ok(clients)
}

fn client_alone(row: &Row) -> Result<Client> {
    Ok(Client {
        id: number(row, "id")?,
        name: get(row, "name")?,
        status: read_status(&get::<String>(row, "status")?)?,
        generation: number(row, "generation")?,
        revision: number(row, "revision")?,
        allowlist: read_allowlist(&get::<String>(row, "allowlist")?)?,
        certificates: parsed(&get::<String>(row, "certificates")?)?,
        scopes: parsed(&get::<String>(row, "scopes")?)?,
        resources: parsed(&get::<String>(row, "resources")?)?,
        enforces_allowlist: get(row, "enforces_allowlist")?,
        introspect_lifetime: maybe_number(row, "introspect_lifetime")?,
        created_at: number(row, "created_at")?,
        suspension: Suspension {
            until: maybe_number(row, "suspended_until")?,
            reason: get(row, "suspension_reason")?,
        },
        tokens_revoked_at: maybe_number(row, "tokens_revoked_at")?,
        credentials: Vec::new(),
    })
}

fn credential(row: &Row) -> Result<Credential> {
    Ok(Credential {
        id: number(row, "id")?,
        api_key: get(row, "api_key")?,
        secret_hash: secret_hash(row, "secret_hash")?,
        created_at: number(row, "created_at")?,
        expires_at: maybe_number(row, "expires_at")?,
        revoked_at: maybe_number(row, "revoked_at")?,
        replaced_at: maybe_number(row, "replaced_at")?,
        note: get(row, "note")?,
    })
}

pub(super) fn session(row: &Row) -> Result<Session> {
    Ok(Session {
        id: number(row, "id")?,
        client: number(row, "client_id")?,
        credential: number(row, "credential_id")?,
        key: number(row, "key_id")?,
        generation: number(row, "generation")?,
        scopes: parsed(&get::<String>(row, "scopes")?)?,
        pair: number(row, "pair")?,
        phase: read_phase(get::<i16>(row, "phase")?.into())?,
        started_at: number(row, "started_at")?,
        issued_at: number(row, "issued_at")?,
        access_expires_at: number(row, "access_expires_at")?,
        refresh_expires_at: number(row, "refresh_expires_at")?,
        resources: parsed(&get::<String>(row, "resources")?)?,
    })
}

pub(super) fn key(row: &Row) -> Result<SigningKeyRecord> {
    Ok(SigningKeyRecord {
        id: number(row, "id")?,
        kid: get(row, "kid")?,
        algorithm: read_algorithm(&get::<String>(row, "algorithm")?)?,
        sealed: get(row, "sealed")?,
        refresh_sealed: get(row, "refresh_sealed")?,
        rfc9068: get(row, "rfc9068")?,
        created_at: number(row, "created_at")?,
        signs_from: number(row, "signs_from")?,
        retire_at: maybe_number(row, "retire_at")?,
    })
}

pub(super) fn verifier(row: &Row) -> Result<VerifierRecord> {
    Ok(VerifierRecord {
        id: number(row, "id")?,
        name: get(row, "name")?,
        token_hash: secret_hash(row, "token_hash")?,
        shares_hs256: get(row, "shares_hs256")?,
        created_at: number(row, "created_at")?,
    })
}

pub(super) fn ended(row: &Row) -> Result<EndedSession> {
    Ok(EndedSession { session: number(row, "id")?, until: number(row, "refresh_expires_at")? })
}

pub(super) fn secrets(rows: &[Row]) -> Result<SealedSecrets> {
    rows.iter().map(|row| Ok((get(row, "name")?, get(row, "sealed")?))).collect()
}

/// Reads a change from the columns `history`, `seq` and `mark`.
pub(super) fn known(row: &Row) -> Result<Known> {
    let mark = get::<Option<Mark>>(row, "mark")?.unwrap_or_default();
    Ok(Known { history: get(row, "history")?, seq: number(row, "seq")?, mark })
}

/// Returns the values of a hash's two columns.
pub(super) fn hash_values(hash: &SecretHash) -> (&[u8], Number) {
    (&hash.bytes, Number(hash.pepper.into()))
}

pub(super) fn hash_bytes(row: &Row, column: &str) -> Result<[u8; 32]> {
    let hash: Vec<u8> = get(row, column)?;
    hash.try_into().map_err(|_| StoreError::Unreadable(format!("{column} of another length")))
}

pub(super) fn secret_hash(row: &Row, column: &str) -> Result<SecretHash> {
    let bytes = hash_bytes(row, column)?;
    let pepper = u32::try_from(number(row, "pepper")?);
    let pepper = pepper.map_err(|_| StoreError::Unreadable("pepper of too high a number".into()))?;
    Ok(SecretHash { bytes, pepper })
}
