//! Administrators: who may use the dashboard, and as what.

use std::sync::Arc;

use rescind_base::{
    clock::rfc3339,
    model::{Administrator, Enrolment, Role},
    secret::{ApiSecret, ENROLMENT_PREFIX},
};
use rescind_node::{app::App, cluster::Receipt};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{Error, client::checked_name, ensure};

/// In seconds: how long the link for an enrolment is good.
const LINK_TTL: u64 = 24 * 3600;
const MAX_ADMINISTRATORS: usize = 1000;

/// The properties of a new administrator.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdministrator {
    /// By this name the administrator signs in.
    pub name: String,
    pub role: Role,
}

/// An administrator's new role.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    pub role: Role,
}

/// An administrator, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AdministratorView {
    pub administrator_id: u64,
    pub name: String,
    pub role: Role,
    /// The administrator has a password and an authenticator.
    pub enrolled: bool,
    pub created_at: String,
    pub signed_in_at: Option<String>,
    /// Until when the link for the enrolment is good.
    pub link_until: Option<String>,
    /// The receipt of the change that had this result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<Receipt>,
}

/// An administrator who is to enrol, by a link that is shown only here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct InvitedAdministrator {
    pub administrator_id: u64,
    pub name: String,
    pub role: Role,
    /// The link's path on the management listener. It is good once.
    #[schema(example = "/dashboard/enrol/re_…")]
    pub link: String,
    pub link_until: String,
}

/// Returns every administrator.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn administrators(app: &App) -> Result<Vec<AdministratorView>, Error> {
    let now = app.clock.now();
    Ok(app.store.administrators().await?.iter().map(|of| view(of, now, None)).collect())
}

/// Creates an administrator, who enrols by the link.
///
/// # Errors
///
/// If the name is invalid or another administrator's, or the store is unavailable.
pub async fn create_administrator(
    app: &Arc<App>,
    new: NewAdministrator,
) -> Result<InvitedAdministrator, Error> {
    let name = checked_name(&new.name)?;
    let (link, enrolment) = new_link(app, LINK_TTL);
    let administrator = Administrator {
        id: 0,
        name: name.clone(),
        role: new.role,
        generation: 0,
        proofs: None,
        totp_used: 0,
        enrolment: Some(enrolment),
        created_at: app.clock.now(),
        signed_in_at: None,
    };
    let rule = move |all: &mut Vec<Administrator>| {
        if all.iter().any(|of| of.name == administrator.name) {
            return Err(Error::Refused("there is an administrator of this name".into()));
        }
        ensure(all.len() < MAX_ADMINISTRATORS, "name", || "there are too many administrators".into())?;
        all.push(administrator);
        Ok(())
    };
    let (after, _) = change(app, "administrator created", rule).await?;
    let created = after.into_iter().find(|of| of.name == name).ok_or(Error::NotFound("administrator"))?;
    Ok(invited(&created, &link, enrolment))
}

/// Takes an administrator's password, authenticator and sign-ins away. The administrator enrols again by the link.
///
/// # Errors
///
/// If there is no such administrator, or the store is unavailable.
pub async fn reset_administrator(app: &Arc<App>, id: u64) -> Result<InvitedAdministrator, Error> {
    let (link, enrolment) = new_link(app, LINK_TTL);
    let rule = move |of: &mut Administrator| {
        of.proofs = None;
        of.enrolment = Some(enrolment);
        of.generation += 1;
        Ok(())
    };
    let (after, _) = change_one(app, id, "administrator reset", rule).await?;
    Ok(invited(&after, &link, enrolment))
}

/// Gives an administrator another role, and ends the administrator's sign-ins.
///
/// # Errors
///
/// If there is no such administrator, or the store is unavailable.
pub async fn change_role(app: &Arc<App>, id: u64, wanted: NewRole) -> Result<AdministratorView, Error> {
    let rule = move |of: &mut Administrator| {
        if of.role != wanted.role {
            of.role = wanted.role;
            of.generation += 1;
        }
        Ok(())
    };
    let (after, receipt) = change_one(app, id, "administrator's role changed", rule).await?;
    Ok(view(&after, app.clock.now(), Some(receipt)))
}

/// Removes an administrator, whose sign-ins end.
///
/// # Errors
///
/// If there is no such administrator, or the store is unavailable.
pub async fn remove_administrator(app: &Arc<App>, id: u64) -> Result<AdministratorView, Error> {
    let known = app.store.administrators().await?.into_iter().find(|of| of.id == id);
    let known = known.ok_or(Error::NotFound("administrator"))?;
    let rule = move |all: &mut Vec<Administrator>| {
        all.retain(|of| of.id != id);
        Ok(())
    };
    let (_, receipt) = change(app, "administrator removed", rule).await?;
    Ok(view(&known, app.clock.now(), Some(receipt)))
}

/// Returns a new link's text, and what is kept of it.
pub(super) fn new_link(app: &App, ttl: u64) -> (ApiSecret, Enrolment) {
    let link = ApiSecret::generate_token(ENROLMENT_PREFIX, &app.random);
    let hash = app.memory.peppers.load().ticket_hash(link.expose());
    (link, Enrolment { hash, until: app.clock.now() + ttl })
}

/// Returns the path of a link.
pub(super) fn path_of(link: &ApiSecret) -> String {
    format!("/dashboard/enrol/{}", link.expose())
}

async fn change_one(
    app: &Arc<App>,
    id: u64,
    what: &'static str,
    rule: impl FnOnce(&mut Administrator) -> Result<(), Error> + Send + 'static,
) -> Result<(Administrator, Receipt), Error> {
    let rule = move |all: &mut Vec<Administrator>| {
        let of = all.iter_mut().find(|of| of.id == id);
        rule(of.ok_or(Error::NotFound("administrator"))?)
    };
    let (after, receipt) = change(app, what, rule).await?;
    let after = after.into_iter().find(|of| of.id == id).ok_or(Error::NotFound("administrator"))?;
    Ok((after, receipt))
}

async fn change(
    app: &Arc<App>,
    what: &'static str,
    rule: impl FnOnce(&mut Vec<Administrator>) -> Result<(), Error> + Send + 'static,
) -> Result<(Vec<Administrator>, Receipt), Error> {
    let origin = app.by_operator();
    let change = async move |app: Arc<App>| app.store.change_administrators(origin, rule).await;
    let (((), after), receipt) = app.commit(change, move |_: &App, _: &_, _| info!("{what}")).await??;
    Ok((after, receipt))
}

fn invited(of: &Administrator, link: &ApiSecret, enrolment: Enrolment) -> InvitedAdministrator {
    InvitedAdministrator {
        administrator_id: of.id,
        name: of.name.clone(),
        role: of.role,
        link: path_of(link),
        link_until: rfc3339(enrolment.until),
    }
}

fn view(of: &Administrator, now: u64, receipt: Option<Receipt>) -> AdministratorView {
    let link = of.enrolment.filter(|enrolment| now < enrolment.until);
    AdministratorView {
        administrator_id: of.id,
        name: of.name.clone(),
        role: of.role,
        enrolled: of.proofs.is_some(),
        created_at: rfc3339(of.created_at),
        signed_in_at: of.signed_in_at.map(rfc3339),
        link_until: link.map(|enrolment| rfc3339(enrolment.until)),
        receipt,
    }
}
