//! Derives events from the values before and after a change. The code names every field of the values, so that the
//! compiler reports a new one.

use std::{collections::HashSet, hash::Hash};

use super::{
    Actor, Administrator, ChangeOrigin, Client, Credential, Event, EventKind, Handover, ManagementToken,
    Phase, Session, SigningKeyRecord, Status, Suspension, VerifierRecord,
};
use crate::clock::rfc3339;

/// Returns the events of a change of a client. A caller's logout of its own client is no event: logouts are so
/// frequent that they would hide all else.
pub fn of_client(before: Option<&Client>, after: &Client, origin: &ChangeOrigin) -> Vec<Event> {
    let Client {
        id,
        name,
        status,
        suspension,
        generation,
        tokens_revoked_at: _,
        revision: _,
        allowlist,
        certificates,
        scopes,
        resources,
        enforces_allowlist,
        introspect_lifetime,
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
            if *status != before.status || *suspension != before.suspension {
                match status {
                    Status::Active => happened(EventKind::ClientResumed, None),
                    Status::Suspended => happened(EventKind::ClientSuspended, suspended(suspension)),
                    Status::Deleted => happened(EventKind::ClientDeleted, None),
                }
            } else if *generation != before.generation && origin.by != Actor::Caller {
                happened(EventKind::ClientLoggedOut, None);
            }
            if *name != before.name {
                happened(EventKind::ClientRenamed, Some(name.clone()));
            }
            if *allowlist != before.allowlist {
                let difference = difference(before.allowlist.entries().iter(), allowlist.entries().iter());
                let open = if allowlist.is_empty() { ": every address may call" } else { "" };
                happened(EventKind::AllowlistChanged, Some(difference + open));
            }
            if *certificates != before.certificates {
                let difference = difference(before.certificates.iter(), certificates.iter());
                let open = if certificates.is_empty() { ": no certificate is needed" } else { "" };
                happened(EventKind::CertificatesChanged, Some(difference + open));
            }
            if *scopes != before.scopes {
                let difference = difference(before.scopes.iter(), scopes.iter());
                happened(EventKind::ScopesChanged, Some(difference));
            }
            if *resources != before.resources {
                let difference = difference(before.resources.iter(), resources.iter());
                let default = if resources.is_empty() { ": the default audience" } else { "" };
                happened(EventKind::ResourcesChanged, Some(difference + default));
            }
            if *enforces_allowlist != before.enforces_allowlist {
                let what = if *enforces_allowlist { "it enforces allowlists" } else { "it enforces none" };
                happened(EventKind::EnforcementChanged, Some(what.into()));
            }
            if *introspect_lifetime != before.introspect_lifetime {
                let after = introspect_lifetime.map_or("off".into(), |seconds| format!("{seconds}s"));
                happened(EventKind::LifetimeChanged, Some(after));
            }
        }
    }
    // The deletion of a client includes all of its credentials.
    if *status != Status::Deleted {
        let known = before.map_or(&[][..], |before| &before.credentials);
        for gone in missing(known, credentials, |credential| credential.id) {
            let (client, api_key) = (Some(*id), Some(gone.api_key.clone()));
            events.push(Event { client, api_key, ..origin.event(EventKind::CredentialDeleted) });
        }
        for credential in credentials {
            let before = known.iter().find(|known| known.id == credential.id);
            events.extend(of_credential(before, credential, origin).map(|event| Event {
                client: Some(*id),
                api_key: Some(credential.api_key.clone()),
                ..event
            }));
        }
    }
    events
}

fn suspended(Suspension { until, reason }: &Suspension) -> Option<String> {
    let until = until.map(|at| format!("until {}", rfc3339(at)));
    let said = [until, reason.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    Some(said).filter(|said| !said.is_empty())
}

fn of_credential(before: Option<&Credential>, after: &Credential, origin: &ChangeOrigin) -> Option<Event> {
    let Credential {
        id: _,
        api_key: _,
        secret_hash: _,
        created_at: _,
        expires_at,
        revoked_at,
        replaced_at: _,
        note,
    } = after;
    let ends = expires_at.map(|at| format!("ends {}", rfc3339(at)));
    let event = |kind, detail| Some(Event { detail, ..origin.event(kind) });
    match before {
        None => event(EventKind::CredentialCreated, ends),
        Some(before) if *revoked_at != before.revoked_at => {
            Some(of_revocation_of(EventKind::CredentialRevoked, None, origin))
        }
        Some(before) if *expires_at != before.expires_at => event(EventKind::CredentialExpiryChanged, ends),
        Some(before) if *note != before.note => event(EventKind::CredentialNoteChanged, note.clone()),
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
            rfc9068: _,
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
    let shown = |verifier: &VerifierRecord| {
        let VerifierRecord { id, name, token_hash: _, shares_hs256, created_at: _ } = verifier;
        let keys = if *shares_hs256 { ", with HS256 keys" } else { "" };
        Some(format!("{id}, {name}{keys}"))
    };
    let created = missing(after, before, |verifier| verifier.id)
        .map(|v| Event { detail: shown(v), ..origin.event(EventKind::VerifierCreated) });
    let revoked = missing(before, after, |verifier| verifier.id)
        .map(|v| of_revocation_of(EventKind::VerifierRevoked, shown(v), origin));
    created.chain(revoked).collect()
}

/// Returns the event of the creation or revocation of a management token.
pub fn of_management_token(token: &ManagementToken, kind: EventKind, origin: &ChangeOrigin) -> Event {
    let ManagementToken {
        id,
        name,
        role,
        clients,
        token_hash: _,
        created_at: _,
        expires_at,
        last_used_at: _,
    } = token;
    let bound = clients.as_ref().map(|clients| format!(", for clients {clients:?}")).unwrap_or_default();
    let ends = expires_at.map(|at| format!(", ends {}", rfc3339(at))).unwrap_or_default();
    let detail = Some(format!("{id}, {name}, {}{bound}{ends}", role.name()));
    match kind {
        EventKind::ManagementTokenRevoked => of_revocation_of(kind, detail, origin),
        kind => Event { detail, ..origin.event(kind) },
    }
}

/// Returns the events of a change of the administrators. That a link for an enrolment was made is an event only where it
/// ends what was good before.
pub fn of_administrators(
    before: &[Administrator],
    after: &[Administrator],
    origin: &ChangeOrigin,
) -> Vec<Event> {
    let event = |kind, administrator: &Administrator| {
        let Administrator {
            id,
            name,
            role,
            generation: _,
            proofs: _,
            totp_used: _,
            enrolment: _,
            created_at: _,
            signed_in_at: _,
        } = administrator;
        Event { detail: Some(format!("{id}, {name}, {}", role.name())), ..origin.event(kind) }
    };
    let mut events = Vec::new();
    events.extend(missing(before, after, |a| a.id).map(|a| event(EventKind::AdministratorRemoved, a)));
    for now in after {
        let Some(was) = before.iter().find(|was| was.id == now.id) else {
            events.push(event(EventKind::AdministratorCreated, now));
            continue;
        };
        // Who has not enrolled yet is reset by another link.
        let is_reset = now.proofs.is_none() && (was.proofs.is_some() || was.enrolment != now.enrolment);
        let kinds = [
            (was.role != now.role).then_some(EventKind::AdministratorChanged),
            is_reset.then_some(EventKind::AdministratorReset),
            (was.proofs != now.proofs && now.proofs.is_some()).then_some(EventKind::AdministratorEnrolled),
            (was.signed_in_at != now.signed_in_at).then_some(EventKind::AdministratorSignedIn),
        ];
        events.extend(kinds.into_iter().flatten().map(|kind| event(kind, now)));
    }
    events
}

/// Returns the event of a secret that was handed over by a link, or read by it.
pub fn of_handover(handover: &Handover, origin: &ChangeOrigin) -> Event {
    let Handover { hash: _, client, api_key, sealed: _, created_at: _, ends_at, read_at } = handover;
    let (kind, detail) = match read_at {
        None => (EventKind::SecretHandedOver, Some(format!("the link ends {}", rfc3339(*ends_at)))),
        Some(_) => (EventKind::HandedOverSecretRead, None),
    };
    Event { client: Some(*client), api_key: Some(api_key.clone()), detail, ..origin.event(kind) }
}

/// Returns the event of a webhook's events that are sent anew. `None`: there are none.
pub fn of_replay(webhook: &str, events: u64, origin: &ChangeOrigin) -> Option<Event> {
    let event = Event {
        detail: Some(format!("{webhook}, {events} events")),
        ..origin.event(EventKind::WebhookReplayed)
    };
    Some(event).filter(|_| events > 0)
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
    let ended = match session.phase {
        Phase::Ended => "the session was ended",
        Phase::Live | Phase::RefreshEnded => "the session can be refreshed no more",
    };
    let event = Event { detail: Some(ended.into()), ..origin.event(EventKind::RefreshTokenReused) };
    of_session(client, session, event)
}

/// Returns the event of a session that an operator has ended, or whose token was reported as leaked.
pub fn of_revocation(client: &Client, session: &Session, origin: &ChangeOrigin) -> Event {
    of_session(client, session, of_revocation_of(EventKind::SessionRevoked, None, origin))
}

fn of_session(client: &Client, session: &Session, event: Event) -> Event {
    Event {
        client: Some(client.id),
        api_key: client.api_key(session.credential).map(str::to_owned),
        session: Some(session.id),
        ..event
    }
}

/// Returns the event of a revocation of this kind. A caller of the public routes revokes what was reported as leaked: the
/// event says that, and what was revoked.
fn of_revocation_of(kind: EventKind, detail: Option<String>, origin: &ChangeOrigin) -> Event {
    if origin.by != Actor::Caller {
        return Event { detail, ..origin.event(kind) };
    }
    let what = kind.name().replace('_', " ");
    let detail = detail.map_or(what.clone(), |detail| format!("{what}: {detail}"));
    Event { detail: Some(detail), ..origin.event(EventKind::LeakReported) }
}

/// Returns the elements of `these` that are not among `those`.
fn missing<'a, T>(these: &'a [T], those: &'a [T], id: fn(&T) -> u64) -> impl Iterator<Item = &'a T> {
    these.iter().filter(move |this| those.iter().all(|that| id(that) != id(this)))
}

/// Returns a text such as `+added -removed`.
fn difference<T: ToString + Eq + Hash>(
    before: impl Iterator<Item = T>,
    after: impl Iterator<Item = T>,
) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.collect(), after.collect());
    // There may be ten thousand on either side.
    let signed = |sign, these: &[T], those: &[T]| {
        let those: HashSet<_> = those.iter().collect();
        let only = these.iter().filter(|this| !those.contains(this));
        only.map(|this| format!("{sign}{}", this.to_string())).collect::<Vec<_>>()
    };
    [signed('+', &after, &before), signed('-', &before, &after)].concat().join(" ")
}
