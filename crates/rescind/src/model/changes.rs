//! Derives events from the values before and after a change. The code names every field of the values, so that the
//! compiler reports a new one.

use super::{
    Actor, ChangeOrigin, Client, Credential, Event, EventKind, Phase, Session, SigningKeyRecord, Status,
    VerifierRecord,
};
use crate::clock::rfc3339;

/// The most entries that an event names.
const NAMED: usize = 16;

/// Returns the events of a change of a client. A caller's logout of its own client is no event: logouts are so
/// frequent that they would hide all else.
pub fn of_client(before: Option<&Client>, after: &Client, origin: &ChangeOrigin) -> Vec<Event> {
    let Client {
        id,
        name,
        status,
        generation,
        revision: _,
        allowlist,
        certificates,
        scopes,
        enforces_allowlist,
        created_at: _,
        credentials,
    } = after;
    let mut events = Vec::new();
    let mut happened = |kind, detail| {
        events.push(Event { client: Some(*id), detail, ..origin.event(kind) });
    };
    match before {
        None => happened(EventKind::ClientCreated, Some(name.clone())),
        Some(before) => {
            if *status != before.status {
                happened(
                    match status {
                        Status::Active => EventKind::ClientResumed,
                        Status::Suspended => EventKind::ClientSuspended,
                        Status::Deleted => EventKind::ClientDeleted,
                    },
                    None,
                );
            } else if *generation != before.generation && origin.by != Actor::Caller {
                happened(EventKind::ClientLoggedOut, None);
            }
            if *name != before.name {
                happened(EventKind::ClientRenamed, Some(name.clone()));
            }
            if *allowlist != before.allowlist {
                let difference = difference(before.allowlist.entries(), allowlist.entries());
                let open = if allowlist.is_empty() { ": every address may call" } else { "" };
                happened(EventKind::AllowlistChanged, Some(difference + open));
            }
            if *certificates != before.certificates {
                let [before, after] = [&before.certificates, certificates]
                    .map(|certificates| certificates.iter().collect::<Vec<_>>());
                let open = if after.is_empty() { ": no certificate is needed" } else { "" };
                happened(EventKind::CertificatesChanged, Some(difference(&before, &after) + open));
            }
            if *scopes != before.scopes {
                let [before, after] =
                    [&before.scopes, scopes].map(|scopes| scopes.iter().collect::<Vec<_>>());
                happened(EventKind::ScopesChanged, Some(difference(&before, &after)));
            }
            if *enforces_allowlist != before.enforces_allowlist {
                let what = if *enforces_allowlist { "it enforces allowlists" } else { "it enforces none" };
                happened(EventKind::EnforcementChanged, Some(what.into()));
            }
        }
    }
    // The deletion of a client includes all of its credentials.
    if *status != Status::Deleted {
        let known = before.map_or(&[][..], |before| &before.credentials);
        for credential in credentials {
            let before = known.iter().find(|known| known.id == credential.id);
            events.extend(of_credential(before, credential).map(|(kind, detail)| Event {
                client: Some(*id),
                api_key: Some(credential.api_key.clone()),
                detail,
                ..origin.event(kind)
            }));
        }
    }
    events
}

fn of_credential(before: Option<&Credential>, after: &Credential) -> Option<(EventKind, Option<String>)> {
    let Credential { id: _, api_key: _, secret_hash: _, created_at: _, expires_at, revoked_at } = after;
    let ends = expires_at.map(|at| format!("ends {}", rfc3339(at)));
    match before {
        None => Some((EventKind::CredentialCreated, ends)),
        Some(before) if *revoked_at != before.revoked_at => Some((EventKind::CredentialRevoked, None)),
        Some(before) if *expires_at != before.expires_at => Some((EventKind::CredentialExpiryChanged, ends)),
        Some(_) => None,
    }
}

/// Returns the events of a change of the signing keys. The retirement time of the former key is no event: it follows
/// from the creation of the next key.
pub fn of_keys(before: &[SigningKeyRecord], after: &[SigningKeyRecord], origin: &ChangeOrigin) -> Vec<Event> {
    let created = missing(after, before, |key| key.id).map(|key| {
        let SigningKeyRecord {
            id: _,
            kid,
            algorithm,
            sealed: _,
            refresh_sealed: _,
            created_at: _,
            signs_from,
            retire_at: _,
        } = key;
        let detail = format!("{kid}, {}, signs from {}", algorithm.name(), rfc3339(*signs_from));
        Event { detail: Some(detail), ..origin.event(EventKind::SigningKeyCreated) }
    });
    let retired = missing(before, after, |key| key.id)
        .map(|key| Event { detail: Some(key.kid.clone()), ..origin.event(EventKind::SigningKeyRetired) });
    created.chain(retired).collect()
}

/// Returns the events of a change of the verifiers.
pub fn of_verifiers(
    before: &[VerifierRecord],
    after: &[VerifierRecord],
    origin: &ChangeOrigin,
) -> Vec<Event> {
    let event = |kind, verifier: &VerifierRecord| {
        let VerifierRecord { id, name, token_hash: _, shares_hs256, created_at: _ } = verifier;
        let keys = if *shares_hs256 { ", with HS256 keys" } else { "" };
        Event { detail: Some(format!("{id}, {name}{keys}")), ..origin.event(kind) }
    };
    let created =
        missing(after, before, |verifier| verifier.id).map(|v| event(EventKind::VerifierCreated, v));
    let revoked =
        missing(before, after, |verifier| verifier.id).map(|v| event(EventKind::VerifierRevoked, v));
    created.chain(revoked).collect()
}

/// Returns the events of the revocation of every token, in a store that may have lost revocations.
pub fn of_end(
    keys: &[SigningKeyRecord],
    after: &[SigningKeyRecord],
    verifiers: &[VerifierRecord],
    origin: &ChangeOrigin,
) -> Vec<Event> {
    let restored = [origin.event(EventKind::StoreRestored)];
    [&restored[..], &of_keys(keys, after, origin), &of_verifiers(verifiers, &[], origin)].concat()
}

/// Returns the event of a refresh token that was used again, so that its session cannot be refreshed any more.
pub fn of_reuse(client: &Client, session: &Session, origin: &ChangeOrigin) -> Event {
    let credential = client.credentials.iter().find(|credential| credential.id == session.credential);
    let ended = match session.phase {
        Phase::Ended => "the session was ended",
        Phase::Live | Phase::RefreshEnded => "the session can be refreshed no more",
    };
    Event {
        client: Some(client.id),
        api_key: credential.map(|credential| credential.api_key.clone()),
        session: Some(session.id),
        detail: Some(ended.into()),
        ..origin.event(EventKind::RefreshTokenReused)
    }
}

/// Returns the elements of `these` that are not among `those`.
fn missing<'a, T>(these: &'a [T], those: &'a [T], id: fn(&T) -> u64) -> impl Iterator<Item = &'a T> {
    these.iter().filter(move |this| those.iter().all(|that| id(that) != id(this)))
}

/// Returns a text such as `+added -removed`.
fn difference<T: ToString + PartialEq>(before: &[T], after: &[T]) -> String {
    let signed = |sign, these: &[T], those: &[T]| {
        let only = these.iter().filter(|this| !those.contains(this));
        only.map(|this| format!("{sign}{}", this.to_string())).collect::<Vec<_>>()
    };
    let mut all = [signed('+', after, before), signed('-', before, after)].concat();
    if all.len() > NAMED {
        let more = all.split_off(NAMED).len();
        all.push(format!("and {more} more"));
    }
    all.join(" ")
}
