//! How values of the domain are read from and written to rows.

use std::time::Duration;

use rescind_verifier::follow::wire::EndedSession;
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use crate::{
    model::{Client, ClientId, Credential, Session, SessionId, SigningKeyRecord, VerifierRecord},
    secret::SecretHash,
    store::{
        StoreError,
        values::{
            allowlist_text, parsed, read_algorithm, read_allowlist, read_phase, read_status, status_text,
        },
    },
};

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

pub(super) fn client(db: &Connection, id: ClientId) -> Result<Option<Client>, StoreError> {
    let mut query = db.prepare_cached("SELECT * FROM client WHERE id = ?")?;
    let Some(mut client) = query.query_row([id], |row| Ok(read_client(row))).optional()?.transpose()? else {
        return Ok(None);
    };
    let mut query = db.prepare_cached("SELECT * FROM credential WHERE client_id = ? ORDER BY id")?;
    let mut rows = query.query([id])?;
    while let Some(row) = rows.next()? {
        client.credentials.push(read_credential(row)?);
    }
    Ok(Some(client))
}

pub(super) fn clients(db: &Connection) -> Result<Vec<Client>, StoreError> {
    let mut query = db.prepare("SELECT * FROM client ORDER BY id")?;
    let mut rows = query.query([])?;
    let mut clients: Vec<Client> = Vec::new();
    while let Some(row) = rows.next()? {
        clients.push(read_client(row)?);
    }
    let mut query = db.prepare("SELECT * FROM credential ORDER BY client_id, id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let owner: ClientId = row.get("client_id")?;
        if let Ok(i) = clients.binary_search_by_key(&owner, |c| c.id) {
            clients[i].credentials.push(read_credential(row)?);
        }
    }
    Ok(clients)
}

pub(super) fn insert_client(db: &Connection, client: &mut Client) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO client (name, status, generation, revision, allowlist, certificates, scopes,
                             enforces_allowlist, created_at)
         VALUES (:name, :status, :generation, :revision, :allowlist, :certificates, :scopes,
                 :enforces_allowlist, :created_at)",
    )?
    .execute(named_params! {
        ":name": client.name,
        ":status": status_text(client.status),
        ":generation": client.generation,
        ":revision": client.revision,
        ":allowlist": allowlist_text(&client.allowlist),
        ":certificates": client.certificates.to_string(),
        ":scopes": client.scopes.as_str(),
        ":enforces_allowlist": client.enforces_allowlist,
        ":created_at": client.created_at,
    })?;
    client.id = db.last_insert_rowid().cast_unsigned();
    for credential in &mut client.credentials {
        insert_credential(db, client.id, credential)?;
    }
    Ok(())
}

/// Writes only what differs.
pub(super) fn update_client(db: &Connection, before: &Client, after: &mut Client) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE client SET name = :name, status = :status, generation = :generation, revision = :revision,
         allowlist = :allowlist, certificates = :certificates, scopes = :scopes,
         enforces_allowlist = :enforces_allowlist WHERE id = :id",
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
        ":enforces_allowlist": after.enforces_allowlist,
    })?;
    for credential in &mut after.credentials {
        if credential.id == 0 {
            insert_credential(db, after.id, credential)?;
        } else if !before.credentials.contains(credential) {
            db.prepare_cached("UPDATE credential SET expires_at = ?2, revoked_at = ?3 WHERE id = ?1")?
                .execute((credential.id, credential.expires_at, credential.revoked_at))?;
        }
    }
    Ok(())
}

fn insert_credential(
    db: &Connection,
    client: ClientId,
    credential: &mut Credential,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO credential (client_id, api_key, secret_hash, created_at, expires_at, revoked_at)
         VALUES (:client, :api_key, :secret_hash, :created_at, :expires_at, :revoked_at)",
    )?
    .execute(named_params! {
        ":client": client,
        ":api_key": credential.api_key,
        ":secret_hash": credential.secret_hash.0,
        ":created_at": credential.created_at,
        ":expires_at": credential.expires_at,
        ":revoked_at": credential.revoked_at,
    })?;
    credential.id = db.last_insert_rowid().cast_unsigned();
    Ok(())
}

pub(super) fn session(db: &Connection, id: SessionId) -> Result<Option<Session>, StoreError> {
    let mut query = db.prepare_cached("SELECT * FROM session WHERE id = ?")?;
    query.query_row([id], |row| Ok(read_session(row))).optional()?.transpose()
}

/// Inserts a session, and numbers it unless `id` is given.
pub(super) fn insert_session(
    db: &Connection,
    id: Option<SessionId>,
    session: &mut Session,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO session (id, client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                              issued_at, access_expires_at, refresh_expires_at)
         VALUES (:id, :client, :credential, :key, :generation, :scopes, :pair, :phase, :started_at,
                 :issued_at, :access_expires_at, :refresh_expires_at)",
    )?
    .execute(named_params! {
        ":id": id,
        ":client": session.client,
        ":credential": session.credential,
        ":key": session.key,
        ":generation": session.generation,
        ":scopes": session.scopes.as_str(),
        ":pair": session.pair,
        ":phase": session.phase as u8,
        ":started_at": session.started_at,
        ":issued_at": session.issued_at,
        ":access_expires_at": session.access_expires_at,
        ":refresh_expires_at": session.refresh_expires_at,
    })?;
    session.id = db.last_insert_rowid().cast_unsigned();
    Ok(())
}

pub(super) fn update_session(db: &Connection, session: &Session) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE session SET key_id = :key, pair = :pair, phase = :phase, issued_at = :issued_at,
         access_expires_at = :access_expires_at, refresh_expires_at = :refresh_expires_at WHERE id = :id",
    )?
    .execute(named_params! {
        ":id": session.id,
        ":key": session.key,
        ":pair": session.pair,
        ":phase": session.phase as u8,
        ":issued_at": session.issued_at,
        ":access_expires_at": session.access_expires_at,
        ":refresh_expires_at": session.refresh_expires_at,
    })?;
    Ok(())
}

pub(super) fn verifiers(db: &Connection) -> Result<Vec<VerifierRecord>, StoreError> {
    let mut query = db.prepare_cached("SELECT * FROM verifier ORDER BY id")?;
    let verifiers = query.query_map([], |row| {
        Ok(VerifierRecord {
            id: row.get("id")?,
            name: row.get("name")?,
            token_hash: SecretHash(row.get("token_hash")?),
            shares_hs256: row.get("shares_hs256")?,
            created_at: row.get("created_at")?,
        })
    })?;
    Ok(verifiers.collect::<Result<_, _>>()?)
}

pub(super) fn ended(db: &Connection) -> Result<Vec<EndedSession>, StoreError> {
    let mut query = db.prepare_cached("SELECT id, refresh_expires_at FROM session WHERE phase = 2")?;
    let ended = query.query_map([], |row| Ok(EndedSession { session: row.get(0)?, until: row.get(1)? }))?;
    Ok(ended.collect::<Result<_, _>>()?)
}

pub(super) fn lent(db: &Connection) -> Result<Duration, StoreError> {
    Ok(Duration::from_millis(db.query_row("SELECT term_ms FROM lent", [], |row| row.get(0))?))
}

pub(super) fn keys(db: &Connection) -> Result<Vec<SigningKeyRecord>, StoreError> {
    let mut query = db.prepare_cached("SELECT * FROM signing_key ORDER BY id")?;
    let mut rows = query.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let algorithm: String = row.get("algorithm")?;
        keys.push(SigningKeyRecord {
            id: row.get("id")?,
            kid: row.get("kid")?,
            algorithm: read_algorithm(&algorithm)?,
            sealed: row.get("sealed")?,
            refresh_sealed: row.get("refresh_sealed")?,
            created_at: row.get("created_at")?,
            signs_from: row.get("signs_from")?,
            retire_at: row.get("retire_at")?,
        });
    }
    Ok(keys)
}

pub(super) fn insert_key(db: &Connection, key: SigningKeyRecord) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO signing_key (kid, algorithm, sealed, refresh_sealed, created_at, signs_from)
         VALUES (?, ?, ?, ?, ?, ?)",
        (key.kid, key.algorithm.name(), key.sealed, key.refresh_sealed, key.created_at, key.signs_from),
    )?;
    Ok(())
}

pub(super) fn pepper(db: &Connection) -> Result<Option<Vec<u8>>, StoreError> {
    let mut query = db.prepare("SELECT sealed FROM sealed_secret WHERE name = 'pepper'")?;
    Ok(query.query_row([], |row| row.get(0)).optional()?)
}

fn read_client(row: &Row<'_>) -> Result<Client, StoreError> {
    let allowlist: String = row.get("allowlist")?;
    let certificates: String = row.get("certificates")?;
    let scopes: String = row.get("scopes")?;
    let status: String = row.get("status")?;
    Ok(Client {
        id: row.get("id")?,
        name: row.get("name")?,
        status: read_status(&status)?,
        generation: row.get("generation")?,
        revision: row.get("revision")?,
        allowlist: read_allowlist(&allowlist)?,
        certificates: parsed(&certificates)?,
        scopes: parsed(&scopes)?,
        enforces_allowlist: row.get("enforces_allowlist")?,
        created_at: row.get("created_at")?,
        credentials: Vec::new(),
    })
}

fn read_credential(row: &Row<'_>) -> Result<Credential, StoreError> {
    Ok(Credential {
        id: row.get("id")?,
        api_key: row.get("api_key")?,
        secret_hash: SecretHash(row.get("secret_hash")?),
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        revoked_at: row.get("revoked_at")?,
    })
}

fn read_session(row: &Row<'_>) -> Result<Session, StoreError> {
    let scopes: String = row.get("scopes")?;
    Ok(Session {
        id: row.get("id")?,
        client: row.get("client_id")?,
        credential: row.get("credential_id")?,
        key: row.get("key_id")?,
        generation: row.get("generation")?,
        scopes: parsed(&scopes)?,
        pair: row.get("pair")?,
        phase: read_phase(row.get("phase")?)?,
        started_at: row.get("started_at")?,
        issued_at: row.get("issued_at")?,
        access_expires_at: row.get("access_expires_at")?,
        refresh_expires_at: row.get("refresh_expires_at")?,
    })
}
