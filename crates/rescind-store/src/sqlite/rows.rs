//! How values of the domain are read from and written to rows.

use std::time::Duration;

use rescind_base::{
    model::{Client, ClientId, Credential, Session, SessionId, SigningKeyRecord, Suspension, VerifierRecord},
    secret::{SealedSecrets, SecretHash},
};
use rescind_verifier::follow::wire::EndedSession;
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use crate::{
    Result, SessionPart, StoreError,
    values::{allowlist_text, parsed, read_algorithm, read_allowlist, read_phase, read_status, status_text},
};

/// The columns that [`read_client`], [`read_credential`] and [`read_session`] read, by their places.
macro_rules! client {
    () => {
        "SELECT id, name, status, generation, revision, allowlist, certificates, scopes, resources, \
         enforces_allowlist, introspect_lifetime, created_at, suspended_until, suspension_reason, \
         tokens_revoked_at FROM client"
    };
}
macro_rules! credential {
    () => {
        "SELECT id, api_key, secret_hash, created_at, expires_at, revoked_at, client_id, replaced_at, pepper, note FROM credential"
    };
}
macro_rules! session {
    () => {
        "SELECT id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at, issued_at, \
         access_expires_at, refresh_expires_at, resources FROM session"
    };
}

pub(super) const SESSIONS_BEFORE: &str = concat!(session!(), " WHERE id < ? ORDER BY id DESC LIMIT ?");

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        match e {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => StoreError::Unreadable(e.to_string()),
            e => StoreError::Unavailable(e.into()),
        }
    }
}

pub(super) fn client(db: &Connection, id: ClientId) -> Result<Option<Client>> {
    let mut query = db.prepare_cached(concat!(client!(), " WHERE id = ?"))?;
    let Some(client) = query.query_and_then([id], read_client)?.next().transpose()? else { return Ok(None) };
    let mut query = db.prepare_cached(concat!(credential!(), " WHERE client_id = ? ORDER BY id"))?;
    let credentials = query.query_and_then([id], read_credential)?.collect::<Result<_>>()?;
    Ok(Some(Client { credentials, ..client }))
}

pub(super) fn clients(db: &Connection) -> Result<Vec<Client>> {
    let mut query = db.prepare(concat!(client!(), " ORDER BY id"))?;
    let mut clients = query.query_and_then([], read_client)?.collect::<Result<Vec<_>>>()?;
    let mut query = db.prepare(concat!(credential!(), " ORDER BY client_id, id"))?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let owner: ClientId = row.get(6)?;
        if let Ok(i) = clients.binary_search_by_key(&owner, |c| c.id) {
            clients[i].credentials.push(read_credential(row)?);
        }
    }
    Ok(clients)
}

/// Returns the first client of this name that was not deleted.
pub(super) fn client_of_name(db: &Connection, name: &str) -> Result<Option<ClientId>> {
    let mut query =
        db.prepare("SELECT id FROM client WHERE name = ? AND status <> 'deleted' ORDER BY id LIMIT 1")?;
    Ok(query.query_row([name], |row| row.get(0)).optional()?)
}

pub(super) fn insert_client(db: &Connection, client: &mut Client) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO client (name, status, generation, revision, allowlist, certificates, scopes, resources,
                             enforces_allowlist, introspect_lifetime, created_at, suspended_until, suspension_reason,
                             tokens_revoked_at)
         VALUES (:name, :status, :generation, :revision, :allowlist, :certificates, :scopes, :resources,
                 :enforces_allowlist, :introspect_lifetime, :created_at, :suspended_until, :suspension_reason,
                 :tokens_revoked_at)",
    )?
    .execute(named_params! {
        ":name": client.name,
        ":status": status_text(client.status),
        ":generation": client.generation,
        ":revision": client.revision,
        ":allowlist": allowlist_text(&client.allowlist),
        ":certificates": client.certificates.to_string(),
        ":scopes": client.scopes.as_str(),
        ":resources": client.resources.to_string(),
        ":enforces_allowlist": client.enforces_allowlist,
        ":introspect_lifetime": client.introspect_lifetime,
        ":created_at": client.created_at,
        ":suspended_until": client.suspension.until,
        ":suspension_reason": client.suspension.reason,
        ":tokens_revoked_at": client.tokens_revoked_at,
    })?;
    client.id = db.last_insert_rowid().cast_unsigned();
    for credential in &mut client.credentials {
        insert_credential(db, client.id, credential)?;
    }
    Ok(())
}

/// Writes only what differs.
pub(super) fn update_client(db: &Connection, before: &Client, after: &mut Client) -> Result<()> {
    db.prepare_cached(
        "UPDATE client SET name = :name, status = :status, generation = :generation, revision = :revision,
         allowlist = :allowlist, certificates = :certificates, scopes = :scopes, resources = :resources,
         enforces_allowlist = :enforces_allowlist, introspect_lifetime = :introspect_lifetime,
         suspended_until = :suspended_until, suspension_reason = :suspension_reason,
         tokens_revoked_at = :tokens_revoked_at WHERE id = :id",
    )?
    .execute(named_params! {
        ":id": after.id,
        ":name": after.name,
        ":status": status_text(after.status),
        ":generation": after.generation,
        ":revision": after.revision,
        ":allowlist": allowlist_text(&after.allowlist),
        ":certificates": after.certificates.to_string(),
        ":scopes": after.scopes.as_str(),
        ":resources": after.resources.to_string(),
        ":enforces_allowlist": after.enforces_allowlist,
        ":introspect_lifetime": after.introspect_lifetime,
        ":suspended_until": after.suspension.until,
        ":suspension_reason": after.suspension.reason,
        ":tokens_revoked_at": after.tokens_revoked_at,
    })?;
    for gone in before.credentials.iter().filter(|c| after.credentials.iter().all(|kept| kept.id != c.id)) {
        db.prepare_cached("DELETE FROM credential WHERE id = ?")?.execute([gone.id])?;
    }
    for credential in &mut after.credentials {
        if credential.id == 0 {
            insert_credential(db, after.id, credential)?;
        } else if !before.credentials.contains(credential) {
            db.prepare_cached(
                "UPDATE credential SET secret_hash = ?, pepper = ?, expires_at = ?, revoked_at = ?, replaced_at = ?, note = ? WHERE id = ?",
            )?
            .execute((
                credential.secret_hash.bytes,
                credential.secret_hash.pepper,
                credential.expires_at,
                credential.revoked_at,
                credential.replaced_at,
                &credential.note,
                credential.id,
            ))?;
        }
    }
    Ok(())
}

fn insert_credential(db: &Connection, client: ClientId, credential: &mut Credential) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO credential (client_id, api_key, secret_hash, pepper, created_at, expires_at, revoked_at)
         VALUES (:client, :api_key, :secret_hash, :pepper, :created_at, :expires_at, :revoked_at)",
    )?
    .execute(named_params! {
        ":client": client,
        ":api_key": credential.api_key,
        ":secret_hash": credential.secret_hash.bytes,
        ":pepper": credential.secret_hash.pepper,
        ":created_at": credential.created_at,
        ":expires_at": credential.expires_at,
        ":revoked_at": credential.revoked_at,
    })?;
    credential.id = db.last_insert_rowid().cast_unsigned();
    Ok(())
}

pub(super) fn session(db: &Connection, id: SessionId) -> Result<Option<Session>> {
    let mut query = db.prepare_cached(concat!(session!(), " WHERE id = ?"))?;
    query.query_and_then([id], read_session)?.next().transpose()
}

/// Reads the sessions of a client among the newest rows before `before`.
pub(super) fn sessions_of(
    db: &Connection,
    client: ClientId,
    before: SessionId,
    rows: u64,
) -> Result<SessionPart> {
    let mut query = db.prepare_cached(SESSIONS_BEFORE)?;
    let mut found = query.query((before, rows))?;
    let mut part = SessionPart { sessions: vec![], next: None };
    while let Some(row) = found.next()? {
        part.next = Some(row.get(0)?);
        if row.get::<_, ClientId>(1)? == client {
            part.sessions.push(read_session(row)?);
        }
    }
    Ok(part)
}

/// Inserts a session, and numbers it unless `id` is given.
pub(super) fn insert_session(db: &Connection, id: Option<SessionId>, session: &mut Session) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO session (id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                              issued_at, access_expires_at, refresh_expires_at, resources)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute((
        id,
        session.client,
        session.credential,
        session.key,
        session.generation,
        session.scopes.as_str(),
        session.pair,
        session.phase as u8,
        session.started_at,
        session.issued_at,
        session.access_expires_at,
        session.refresh_expires_at,
        session.resources.to_string(),
    ))?;
    session.id = db.last_insert_rowid().cast_unsigned();
    Ok(())
}

pub(super) fn update_session(db: &Connection, session: &Session) -> Result<()> {
    db.prepare_cached(
        "UPDATE session SET key_id = ?2, pair = ?3, phase = ?4, issued_at = ?5, access_expires_at = ?6,
         refresh_expires_at = ?7 WHERE id = ?1",
    )?
    .execute((
        session.id,
        session.key,
        session.pair,
        session.phase as u8,
        session.issued_at,
        session.access_expires_at,
        session.refresh_expires_at,
    ))?;
    Ok(())
}

pub(super) fn verifiers(db: &Connection) -> Result<Vec<VerifierRecord>> {
    let mut query = db.prepare_cached("SELECT * FROM verifier ORDER BY id")?;
    let verifiers = query.query_map([], |row| {
        Ok(VerifierRecord {
            id: row.get("id")?,
            name: row.get("name")?,
            token_hash: SecretHash { bytes: row.get("token_hash")?, pepper: row.get("pepper")? },
            shares_hs256: row.get("shares_hs256")?,
            created_at: row.get("created_at")?,
        })
    })?;
    Ok(verifiers.collect::<Result<_, _>>()?)
}

pub(super) fn ended(db: &Connection) -> Result<Vec<EndedSession>> {
    let mut query = db.prepare_cached("SELECT id, refresh_expires_at FROM session WHERE phase = 2")?;
    let ended = query.query_map([], |row| Ok(EndedSession { session: row.get(0)?, until: row.get(1)? }))?;
    Ok(ended.collect::<Result<_, _>>()?)
}

pub(super) fn lent(db: &Connection) -> Result<Duration> {
    Ok(Duration::from_millis(db.query_row("SELECT term_ms FROM lent", [], |row| row.get(0))?))
}

pub(super) fn keys(db: &Connection) -> Result<Vec<SigningKeyRecord>> {
    let mut query = db.prepare_cached("SELECT * FROM signing_key ORDER BY id")?;
    let keys = query.query_and_then([], |row| {
        Ok(SigningKeyRecord {
            id: row.get("id")?,
            kid: row.get("kid")?,
            algorithm: read_algorithm(&row.get::<_, String>("algorithm")?)?,
            sealed: row.get("sealed")?,
            refresh_sealed: row.get("refresh_sealed")?,
            rfc9068: row.get("rfc9068")?,
            created_at: row.get("created_at")?,
            signs_from: row.get("signs_from")?,
            retire_at: row.get("retire_at")?,
        })
    })?;
    keys.collect()
}

pub(super) fn insert_key(db: &Connection, key: SigningKeyRecord) -> Result<()> {
    db.execute(
        "INSERT INTO signing_key (kid, algorithm, sealed, refresh_sealed, rfc9068, created_at, signs_from)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            key.kid,
            key.algorithm.name(),
            key.sealed,
            key.refresh_sealed,
            key.rfc9068,
            key.created_at,
            key.signs_from,
        ),
    )?;
    Ok(())
}

/// Reads every sealed secret that is no signing key.
pub(super) fn secrets(db: &Connection) -> Result<SealedSecrets> {
    let mut query = db.prepare("SELECT name, sealed FROM sealed_secret")?;
    let secrets = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(secrets.collect::<Result<_, _>>()?)
}

fn read_client(row: &Row<'_>) -> Result<Client> {
    Ok(Client {
        id: row.get(0)?,
        name: row.get(1)?,
        status: read_status(text(row, 2)?)?,
        generation: row.get(3)?,
        revision: row.get(4)?,
        allowlist: read_allowlist(text(row, 5)?)?,
        certificates: parsed(text(row, 6)?)?,
        scopes: parsed(text(row, 7)?)?,
        resources: parsed(text(row, 8)?)?,
        enforces_allowlist: row.get(9)?,
        introspect_lifetime: row.get(10)?,
        created_at: row.get(11)?,
        suspension: Suspension { until: row.get(12)?, reason: row.get(13)? },
        tokens_revoked_at: row.get(14)?,
        credentials: Vec::new(),
    })
}

fn read_credential(row: &Row<'_>) -> Result<Credential> {
    Ok(Credential {
        id: row.get(0)?,
        api_key: row.get(1)?,
        secret_hash: SecretHash { bytes: row.get(2)?, pepper: row.get(8)? },
        created_at: row.get(3)?,
        expires_at: row.get(4)?,
        revoked_at: row.get(5)?,
        replaced_at: row.get(7)?,
        note: row.get(9)?,
    })
}

fn read_session(row: &Row<'_>) -> Result<Session> {
    Ok(Session {
        id: row.get(0)?,
        client: row.get(1)?,
        credential: row.get(2)?,
        key: row.get(3)?,
        generation: row.get(4)?,
        scopes: parsed(text(row, 5)?)?,
        pair: row.get(6)?,
        phase: read_phase(row.get(7)?)?,
        started_at: row.get(8)?,
        issued_at: row.get(9)?,
        access_expires_at: row.get(10)?,
        refresh_expires_at: row.get(11)?,
        resources: parsed(text(row, 12)?)?,
    })
}

/// Reads a text where it lies.
fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str> {
    row.get_ref(column)?.as_str().map_err(|e| StoreError::Unreadable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::{
        super::{connect, migrate::migrate},
        *,
    };

    #[test]
    fn statements_are_prepared_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut db = connect(&folder.path().join("rescind.db")).unwrap();
        migrate(&mut db).unwrap();
        db.execute_batch(
            "INSERT INTO client (name, status, allowlist, scopes, created_at) VALUES ('c', 'active', '', '', 0)",
        )
        .unwrap();
        for _ in 0..3 {
            client(&db, 1).unwrap().unwrap();
        }
        for sql in
            [concat!(client!(), " WHERE id = ?"), concat!(credential!(), " WHERE client_id = ? ORDER BY id")]
        {
            let statement = db.prepare_cached(sql).unwrap();
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
            assert_eq!(statement.get_status(StatementStatus::Run), 3, "{sql}");
        }
    }
}
