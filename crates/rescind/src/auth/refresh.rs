//! Trades a refresh token for the session's next pair.

use std::sync::Arc;

use rescind_base::model::{
    Actor, Client, EventKind, OnReuse, Phase, Presented, Session, TokenRules, UnixSeconds, changes,
};
use rescind_node::app::{App, run_to_completion};
use rescind_store::StoreError;
use rescind_verifier::{Claims, Denied, Kind, Refused};
use tracing::{info, warn};

use super::{
    Caller, Error, Failed, Grant, address_denied, failed, grant, is_logged, is_on_record, outcome,
    over_quota,
    refusals::{Whose, log_refused},
    refused, shown, uncertified,
};

/// Trades a refresh token for the session's next pair. The token can be used once.
///
/// # Errors
///
/// [`Error::InvalidToken`], [`Error::TokenExpired`] or [`Error::Reused`], or [`Error::Throttled`] after too many of them;
/// [`Error::Uncertified`]; [`Error::AddressNotAllowed`]; [`Error::OverQuota`]; [`Error::Store`] if the node has no lease,
/// or the store is unavailable.
pub async fn refresh(app: &Arc<App>, token: &str, caller: &Caller) -> Result<Grant, Error> {
    let mut whose = Whose::default();
    let refreshed = try_refresh(app, token, caller, &mut whose).await;
    app.metrics.refresh(outcome(refreshed.as_ref()));
    if let Err(error) = &refreshed {
        log_refused(app, "refresh", error, caller, whose);
    }
    refreshed
}

/// Also returns whose token it is, as far as its issuer wrote it.
async fn try_refresh(
    app: &Arc<App>,
    token: &str,
    caller: &Caller,
    whose: &mut Whose,
) -> Result<Grant, Error> {
    app.cluster.lease.check().map_err(StoreError::from)?;
    app.cluster.node_clock.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    let keyring = app.memory.issuer.keyring().clone();
    let claims = match keyring.authenticate(token, Kind::Refresh, now) {
        Ok(claims) => claims,
        Err(Refused { reason, claims, .. }) => {
            match claims {
                Some(claims) => *whose = Whose::of_token(app, token, &claims, Kind::Refresh),
                // A token that was valid once is no guess, even if its key was retired. So it counts for its client alone.
                None => whose.client = keyring.client_of(token),
            }
            let counted = whose.client.map_or(Failed::Unknown(token.as_bytes()), Failed::Client);
            return Err(failed(app, counted, caller, refused(app, reason)));
        }
    };
    let (client, session) = (claims.client, claims.session);
    *whose = Whose::of_token(app, token, &claims, Kind::Refresh);

    // A token that memory knows as revoked costs no read of the store.
    let known = app.memory.registry.policy(client).map_or(Ok(()), |policy| policy.stands_behind(&claims));
    let outcome = match known {
        Err(denied @ (Denied::ClientInactive | Denied::Revoked)) => Err(denied.into()),
        _ => {
            let (key, rules, app) = (app.memory.issuer.signing_key(now), app.rules, Arc::clone(app));
            let (quota, origin, caller) = (
                app.quotas.refreshes.clone(),
                app.audit.origin(Actor::Caller, caller.address),
                caller.clone(),
            );
            let (counting, address) = (Arc::clone(&app), caller.address);
            run_to_completion(async move {
                let use_up = move |client: &Client, session: &mut Session| {
                    let presented = present(client, session, &claims, &caller, now, &rules)?;
                    // The quota is checked first, so that a refusal does not use the token up.
                    let place = quota.take(client.id)?;
                    if presented == Presented::Current {
                        session.advance(key, now, &rules);
                    }
                    Ok((place, client.api_key(session.credential).unwrap_or_default().to_owned()))
                };
                let rule = move |client: &Client, session: &mut Session| {
                    let before = session.phase;
                    let outcome = use_up(client, session);
                    let reused = matches!(outcome, Err(Error::Reused));
                    // A reuse that changes nothing, or comes too often, is only counted.
                    let recorded = reused
                        && session.phase != before
                        && is_on_record(&counting, EventKind::RefreshTokenReused, client.id);
                    let event = recorded.then(|| changes::of_reuse(client, session, &origin));
                    ((outcome, reused && event.is_none()), event)
                };
                let Some(((outcome, counted), session)) = app.change_session(client, session, rule).await?
                else {
                    return Ok(Err(Denied::NotKnown.into()));
                };
                if counted {
                    app.audit.note(EventKind::RefreshTokenReused, Some(client), address);
                }
                Ok(outcome.and_then(|(place, api_key)| {
                    app.usage.refreshed(client, session.credential, address);
                    if is_logged(&app, client) {
                        let (session, pair, credential) = (session.id, session.pair, &api_key);
                        info!(client, session, pair, credential, address = shown(address), "refresh");
                    }
                    let granted = grant(&app, &session, &api_key)?;
                    place.commit();
                    Ok(granted)
                }))
            })
            .await?
        }
    };
    outcome.map_err(|error| match error {
        Error::Reused => {
            if let Some(times) = app.log_limits.reused.due(client) {
                warn!(
                    client,
                    session, times, "a refresh token was used again: the session can be refreshed no more"
                );
            }
            failed(app, Failed::Client(client), caller, error)
        }
        Error::InvalidToken(_) => failed(app, Failed::Client(client), caller, error),
        Error::Uncertified => uncertified(app, client, caller),
        Error::AddressNotAllowed => address_denied(app, client, caller),
        Error::OverQuota(retry_after) => over_quota(app, client, caller, retry_after),
        error => error,
    })
}

/// Decides whether a refresh token may be used, or used again within the grace time. `client` and `session` are the
/// present rows. A token that was used before ends the session's refreshing.
fn present(
    client: &Client,
    session: &mut Session,
    claims: &Claims,
    caller: &Caller,
    now: UnixSeconds,
    rules: &TokenRules,
) -> Result<Presented, Error> {
    client.policy().stands_behind(claims)?;
    client.admits(claims.credential, now)?;
    // Checked before the session: a used token without the client's certificate is no evidence of theft.
    if !caller.shows(&client.certificates, now) {
        return Err(Error::Uncertified);
    }
    match session.present(claims.pair, now, rules) {
        good @ (Presented::Current | Presented::Again) => {
            client.permits(caller.address)?;
            Ok(good)
        }
        Presented::Reused => {
            session.phase = session.phase.max(match rules.on_reuse {
                OnReuse::EndRefresh => Phase::RefreshEnded,
                OnReuse::EndSession => Phase::Ended,
            });
            Err(Error::Reused)
        }
        Presented::Ended => Err(Denied::Revoked.into()),
        Presented::Unknown => Err(Denied::NotKnown.into()),
    }
}
