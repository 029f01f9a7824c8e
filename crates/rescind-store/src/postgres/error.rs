//! What PostgreSQL's errors mean to an operator. No message repeats the server's details, which may contain values.

use std::{error::Error, iter::successors};

use rustls::CertificateError;
use thiserror::Error;
use tokio_postgres::error::SqlState;

use super::{answered::SHARED, url::DatabaseUrl};
use crate::StoreError;

/// A part of the driver's message.
const NO_WRITES: &str = "database does not allow writes";
const READ_ONLY: &str =
    "it is a stand-by or set to be read-only: name the primary in database.url, or all hosts of the cluster";

/// The server, or a pooler before it, has no connection left.
#[derive(Debug, Error)]
#[error("{0}")]
struct Full(String);

/// The error if no answer came in time.
pub(super) fn silent() -> StoreError {
    StoreError::Unavailable("PostgreSQL does not answer".into())
}

/// The error if no answer to a new connection came in time.
pub(super) fn silent_at_connect() -> StoreError {
    let said = "PostgreSQL does not answer to a new connection; or a pooler before it has none to spare \
                (PgBouncer: default_pool_size)";
    StoreError::Unavailable(Full(said.into()).into())
}

/// Returns whether no connection is left, as far as the error shows.
pub(super) fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(why) if why.is::<Full>())
}

/// Returns the error for hosts that have all failed, from their names and errors. Of one host it is that one's.
///
/// A stand-by beside an unavailable host may be the primary soon. Any other unsuitable host is for the operator.
pub(super) fn of_each(failed: impl Iterator<Item = (String, StoreError)>) -> StoreError {
    let mut failed: Vec<_> = failed.collect();
    if failed.len() == 1 {
        return failed.remove(0).1;
    }
    let said: Vec<_> = failed.iter().map(|(host, error)| format!("{host}: {}", why(error))).collect();
    let said = said.join("; ");
    let unsuitable = |error: &StoreError| matches!(error, StoreError::Unsuitable(_));
    if failed.iter().all(|(_, error)| unsuitable(error))
        || failed.iter().any(|(_, error)| unsuitable(error) && !is_read_only(error))
    {
        StoreError::Unsuitable(said)
    } else if failed.iter().any(|(_, error)| is_full(error)) {
        StoreError::Unavailable(Full(said).into())
    } else {
        StoreError::Unavailable(said.into())
    }
}

/// Returns why an operation failed, without what every error of its kind says.
pub(super) fn why(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable(why) => why.to_string(),
        StoreError::Unreadable(why) | StoreError::Unsuitable(why) => why.clone(),
        StoreError::Damaged(_) => error.to_string(),
    }
}

/// Returns the error of the store for an error of a statement.
pub(super) fn during(error: tokio_postgres::Error) -> StoreError {
    let said = in_words(&error);
    match error.code() {
        // The server lacks the session's prepared statements: a pooler has handed on another session.
        Some(code)
            if *code == SqlState::INVALID_SQL_STATEMENT_NAME
                || *code == SqlState::DUPLICATE_PSTATEMENT
                || said.contains("pooling mode") =>
        {
            StoreError::Unsuitable(format!("{said}: {SHARED}"))
        }
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
            StoreError::Unsuitable(format!("{said}: {READ_ONLY}"))
        }
        _ => StoreError::Unavailable(said.into()),
    }
}

/// Returns whether a new connection was refused because the server is read-only.
pub(super) fn is_read_only(error: &StoreError) -> bool {
    matches!(error, StoreError::Unsuitable(why) if why.contains(NO_WRITES))
}

/// Returns the error of the store for an error of a new connection.
pub(super) fn at_connect(error: tokio_postgres::Error, url: &DatabaseUrl) -> StoreError {
    let said = in_words(&error);
    let advice = match error.code() {
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            "create it on the server, or name another in database.url"
        }
        Some(code) if code.code().starts_with("28") => {
            "look at user and password in database.url, and at the server's pg_hba.conf"
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            "GRANT CONNECT ON DATABASE to the user, as the database's owner"
        }
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => {
            return StoreError::Unavailable(Full(format!("{url}: {said}")).into());
        }
        _ if said.ends_with("password missing") => {
            "the server asks for a password, and database.url has none: write it there, or set \
             RESCIND_DATABASE__URL_FILE (PGPASSWORD and .pgpass are not read)"
        }
        _ if let Some(refused) = causes(&error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) => {
            about_tls(refused)
        }
        _ if said.ends_with("server does not support TLS") => {
            "set TLS up on the server, or say sslmode=disable in database.url where the way there needs no \
             protection: the password may go over it in the clear"
        }
        _ if said.ends_with("no hostname provided for TLS handshake") => {
            "name the host in database.url beside its hostaddr: the server's certificate is for that name"
        }
        _ if said.ends_with(NO_WRITES) => READ_ONLY,
        _ => return StoreError::Unavailable(format!("{url}: {said}").into()),
    };
    StoreError::Unsuitable(format!("{said}: {advice}"))
}

/// Returns what to do about a TLS connection that was refused here.
fn about_tls(refused: &rustls::Error) -> &'static str {
    use CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext, Other};
    match refused {
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "the server's certificate is for another host: name the host in database.url as the certificate does \
             (its address may be named by hostaddr), or give the server a certificate for this name"
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "renew the server's certificate, or set the clock right"
        }
        rustls::Error::InvalidCertificate(Other(why)) if format!("{why:?}").contains("CaUsedAsEndEntity") => {
            "the server's certificate is one of an authority (CA:TRUE), as `openssl req -new -x509` makes it, and is used \
             as the server's own: make one with -addext basicConstraints=critical,CA:FALSE and \
             -addext subjectAltName=DNS:…, and name it in database.tls_ca"
        }
        _ => {
            "name the authority that signed the server's certificate in database.tls_ca, or say sslmode=disable in \
             database.url where the way there needs no protection"
        }
    }
}

/// Returns the error and its causes on one line; for an error of the server, its message and code.
pub(super) fn in_words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": "),
    }
}

/// Returns an error, its cause, and the causes of that.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| {
        // An I/O error displays the error that it wraps, and its `source` is already that one's cause.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        wrapped.map(|e| e as &(dyn Error + 'static)).or_else(move || error.source())
    })
}
