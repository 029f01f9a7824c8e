//! How administrators sign in to the dashboard, and enrol for it.
//!
//! 1. A sign-in has a name, a password and a code of an authenticator. Each attempt is counted before anything is compared,
//!    by name and network. All refusals are the same, and take as long.
//! 2. A code is good once: the store notes its step in the transaction that accepts it.
//! 3. An enrolment has a link that is good once. Each look at it offers another secret for an authenticator, so that who
//!    looks and does not enrol learns nothing. The page has the secret sealed, so that the store need not keep it before the
//!    first code has shown that the authenticator has it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rescind_base::{
    model::{Actor, Administrator, ChangeOrigin, EventKind, Proofs, Role, SignIn},
    secret::{ApiSecret, ENROLMENT_PREFIX, SIGN_IN_PREFIX, SealError, TicketHash, is_well_formed},
};
use rescind_node::{app::App, limits::network};
use rescind_store::StoreError;
use tracing::info;
use zeroize::Zeroizing;

use super::{
    Error,
    administrator::{new_link, path_of},
    client::checked_name,
    invalid, password, totp,
};

/// Attempts of one name from one network, and of one network, in a minute.
const ATTEMPTS: u32 = 10;
const ATTEMPTS_OF_NETWORK: u32 = 100;
/// Codes beside the right password of one name, from all networks, in a minute.
const CODES: u32 = 20;
/// In seconds: how long the first administrator's link is good.
const FIRST_LINK_TTL: u64 = 3600;
/// In seconds: how long the link is good that an administrator has asked for.
const OWN_LINK_TTL: u64 = 600;

/// Why nobody has signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// One of the name, the password and the code is wrong.
    #[error("The name, the password or the code is wrong, or the code was used before")]
    Refused,
    /// Too many attempts.
    #[error("There were too many attempts: try again in a minute")]
    Throttled,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> SignInError {
        SignInError::Failed(error.into())
    }
}

impl From<SealError> for SignInError {
    fn from(error: SealError) -> SignInError {
        SignInError::Failed(error.into())
    }
}

/// What somebody shows who signs in.
pub struct Shown {
    pub name: String,
    pub password: Zeroizing<String>,
    pub code: String,
}

/// Who may enrol by a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invited {
    /// The first administrator, whose name is not known yet.
    First,
    Known(Administrator),
}

/// Signs an administrator in. Returns the text of the cookie.
///
/// # Errors
///
/// If what was shown is wrong, there were too many attempts, or the store is unavailable.
pub async fn sign_in(app: &Arc<App>, shown: Shown, address: IpAddr) -> Result<ApiSecret, SignInError> {
    let proved = prove(app, &shown.name, shown.password, &shown.code, address, |of, now| {
        of.signed_in_at = Some(now);
    });
    begin(app, &proved.await?).await
}

/// Gives an administrator who has signed in another password. All sign-ins of the administrator end, and a new one
/// begins, whose cookie is returned.
///
/// # Errors
///
/// As [`sign_in`]; also if the new password is invalid.
pub async fn change_password(
    app: &Arc<App>,
    shown: Shown,
    new: Zeroizing<String>,
    address: IpAddr,
) -> Result<ApiSecret, SignInError> {
    let hash = password::hash(&shown.name, new, &app.random).await?;
    let proved = prove(app, &shown.name, shown.password, &shown.code, address, move |of, _| {
        if let Some(proofs) = &mut of.proofs {
            proofs.password = hash;
        }
        // Whoever knew the old password may have asked for it.
        of.enrolment = None;
        of.generation += 1;
    });
    begin(app, &proved.await?).await
}

/// Makes a link by which an administrator who has signed in may enrol again, with another authenticator. Returns its path.
///
/// # Errors
///
/// As [`sign_in`].
pub async fn enrol_again(app: &Arc<App>, shown: Shown, address: IpAddr) -> Result<String, SignInError> {
    let (link, enrolment) = new_link(app, OWN_LINK_TTL);
    let proved = prove(app, &shown.name, shown.password, &shown.code, address, move |of, _| {
        of.enrolment = Some(enrolment);
    });
    proved.await?;
    Ok(path_of(&link))
}

/// Lets `then` change the administrator who has shown this, and notes that the code was used.
async fn prove(
    app: &Arc<App>,
    name: &str,
    password: Zeroizing<String>,
    code: &str,
    address: IpAddr,
    then: impl FnOnce(&mut Administrator, u64) + Send + 'static,
) -> Result<Administrator, SignInError> {
    let (source, elapsed) = (network(address), app.clock.elapsed());
    let refused = |error| {
        app.audit.note(EventKind::SignInRefused, None, Some(address));
        error
    };
    let admitted = app.limiter.admits(&("dashboard", source), ATTEMPTS_OF_NETWORK, elapsed)
        && app.limiter.admits(&("dashboard", name, source), ATTEMPTS, elapsed);
    if !admitted {
        return Err(refused(SignInError::Throttled));
    }
    let known = app.store.administrators().await?.into_iter().find(|of| of.name == name);
    let known = known.and_then(|of| Some((of.proofs.clone()?, of)));
    let hash = known.as_ref().map(|(proofs, _)| proofs.password.clone());
    let matches = password::matches(password, hash).await;
    let Some((proofs, of)) = known.filter(|_| matches) else { return Err(refused(SignInError::Refused)) };
    // Another answer would tell that the password is right.
    if !app.limiter.admits(&("dashboard codes", name), CODES, elapsed) {
        return Err(refused(SignInError::Refused));
    }
    let secret = app.memory.master.open(&sealed_as(&of.name), &proofs.totp)?;
    let (now, code) = (app.clock.now(), code.to_owned());
    let (id, generation) = (of.id, of.generation);
    let rule = move |all: &mut Vec<Administrator>| {
        // As the store has the administrator now.
        let of = all.iter_mut().find(|of| of.id == id && of.generation == generation).ok_or(())?;
        of.totp_used = totp::matched(&secret, &code, of.totp_used, now).ok_or(())?;
        then(of, now);
        Ok::<_, ()>(of.clone())
    };
    match app.store.change_administrators(origin(app, &of, address), rule).await? {
        Ok((administrator, _)) => Ok(administrator),
        Err(()) => Err(refused(SignInError::Refused)),
    }
}

/// Begins a sign-in, under a cookie that nobody knows yet.
async fn begin(app: &Arc<App>, of: &Administrator) -> Result<ApiSecret, SignInError> {
    let (cookie, now) = (ApiSecret::generate_token(SIGN_IN_PREFIX, &app.random), app.clock.now());
    let hash = app.memory.peppers.load().ticket_hash(cookie.expose());
    let begun = SignIn { hash, administrator: of.id, generation: of.generation, began_at: now, used_at: now };
    app.store.begin_sign_in(begun).await?;
    info!(administrator = of.id, "administrator signed in");
    Ok(cookie)
}

/// Returns whose cookie this is.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn signed_in(app: &App, cookie: &str) -> Result<Option<Administrator>, Error> {
    if !is_well_formed(SIGN_IN_PREFIX, cookie) {
        return Ok(None);
    }
    Ok(app.store.use_sign_in(app.memory.peppers.load().ticket_hash(cookie), app.clock.now()).await?)
}

/// Ends a sign-in.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn sign_out(app: &App, cookie: &str) -> Result<(), Error> {
    Ok(app.store.end_sign_in(app.memory.peppers.load().ticket_hash(cookie)).await?)
}

/// Makes the first administrator's link, if there is no administrator. Returns its path.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn first_link(app: &App) -> Result<Option<String>, Error> {
    if !app.store.administrators().await?.is_empty() {
        return Ok(None);
    }
    let (link, enrolment) = new_link(app, FIRST_LINK_TTL);
    app.first_link.offer(enrolment.hash, app.clock.elapsed() + Duration::from_secs(FIRST_LINK_TTL));
    Ok(Some(path_of(&link)))
}

/// Returns who may enrol by this link. `None`: it is unknown, was used, or has ended.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn invited(app: &App, link: &str) -> Result<Option<Invited>, Error> {
    if !is_well_formed(ENROLMENT_PREFIX, link) {
        return Ok(None);
    }
    let (hash, now) = (app.memory.peppers.load().ticket_hash(link), app.clock.now());
    let all = app.store.administrators().await?;
    if app.first_link.is(hash, app.clock.elapsed()) {
        return Ok(Some(Invited::First).filter(|_| all.is_empty()));
    }
    Ok(all.into_iter().find(|of| may_enrol(of, hash, now)).map(Invited::Known))
}

/// A secret for the authenticator of whoever enrols by a link.
pub struct OfferedSecret {
    /// As an authenticator takes it.
    pub secret: Zeroizing<String>,
    /// For [`enrol`]. Only this service opens it, and only for the link.
    pub sealed: String,
}

/// Returns a new secret for the authenticator of whoever enrols by this link.
///
/// # Errors
///
/// If the encryption fails.
pub fn offer_secret(app: &App, link: &str) -> Result<OfferedSecret, Error> {
    let secret = app.random.bytes();
    let sealed = app.memory.master.seal(&offered_by(app, link), &secret, &app.random)?;
    Ok(OfferedSecret { secret: totp::text(&secret), sealed: BASE64URL_NOPAD.encode(&sealed) })
}

/// Enrols an administrator with the secret that was `offered`, sealed, who is signed in from then on. Returns the text of
/// the cookie. The first administrator chooses the name.
///
/// # Errors
///
/// If the link is not good, the name, password or code is invalid, or the store is unavailable.
pub async fn enrol(
    app: &Arc<App>,
    link: &str,
    offered: &str,
    shown: Shown,
    address: IpAddr,
) -> Result<ApiSecret, SignInError> {
    let gone = || Error::NotFound("link: it was used, or has ended");
    let invited = invited(app, link).await?.ok_or_else(gone)?;
    if !app.limiter.admits(&("enrolment", network(address)), ATTEMPTS, app.clock.elapsed()) {
        return Err(SignInError::Throttled);
    }
    let (first, of) = match invited {
        Invited::First => (true, new_administrator(app, checked_name(&shown.name)?)),
        Invited::Known(of) => (false, of),
    };
    let sealed = BASE64URL_NOPAD.decode(offered.as_bytes()).unwrap_or_default();
    let opened = app.memory.master.open(&offered_by(app, link), &sealed);
    let secret =
        opened.map_err(|_| invalid("offered", "expected what the page of the link has: open it again"))?;
    let (now, hash) = (app.clock.now(), app.memory.peppers.load().ticket_hash(link));
    // The code shows that the authenticator has the secret, so that nobody is locked out by a wrong one.
    let used = totp::matched(&secret, &shown.code, 0, now);
    let used = used.ok_or_else(|| invalid("code", "expected the one that the authenticator shows now"))?;
    let password = password::hash(&of.name, shown.password, &app.random).await?;
    let proofs =
        Proofs { password, totp: app.memory.master.seal(&sealed_as(&of.name), &secret, &app.random)? };
    let (name, origin) = (of.name.clone(), origin(app, &of, address));
    let rule = move |all: &mut Vec<Administrator>| {
        let known = match first {
            true if all.is_empty() => {
                all.push(of);
                all.last_mut()
            }
            true => None,
            false => all.iter_mut().find(|known| known.id == of.id && may_enrol(known, hash, now)),
        };
        let of = known.ok_or_else(gone)?;
        of.proofs = Some(proofs);
        of.totp_used = used;
        of.enrolment = None;
        of.generation += 1;
        of.signed_in_at = Some(now);
        Ok::<_, Error>(())
    };
    let ((), after) = app.store.change_administrators(origin, rule).await??;
    app.first_link.withdraw();
    let of = after.into_iter().find(|of| of.name == name).ok_or_else(gone)?;
    begin(app, &of).await
}

fn may_enrol(of: &Administrator, hash: TicketHash, now: u64) -> bool {
    of.enrolment.is_some_and(|enrolment| enrolment.hash == hash && now < enrolment.until)
}

fn new_administrator(app: &App, name: String) -> Administrator {
    Administrator {
        id: 0,
        name,
        role: Role::Admin,
        generation: 0,
        proofs: None,
        totp_used: 0,
        enrolment: None,
        created_at: app.clock.now(),
        signed_in_at: None,
    }
}

/// The name under which a link's page seals a secret.
fn offered_by(app: &App, link: &str) -> String {
    format!("enrolment {}", HEXLOWER.encode(&app.memory.peppers.load().ticket_hash(link).0))
}

/// The name under which the secret of an authenticator is sealed.
pub(super) fn sealed_as(administrator: &str) -> String {
    format!("authenticator {administrator}")
}

/// How the audit log names an administrator.
pub fn named(of: &Administrator) -> String {
    format!("administrator {} ({})", of.id, of.name)
}

fn origin(app: &App, of: &Administrator, address: IpAddr) -> ChangeOrigin {
    let operator = Some(named(of).into());
    ChangeOrigin { operator, ..app.audit.origin(Actor::Operator, Some(address)) }
}
