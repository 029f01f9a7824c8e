//! How clients are used.

use std::net::IpAddr;

use rescind_base::{
    clock::rfc3339,
    model::{Client, ClientId, CredentialId, CredentialUse, HOUR, Hours, Last, Tally, UnixSeconds},
};
use rescind_node::{
    app::App,
    config::Past,
    usage::{KEPT, LAG},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Error, ensure, find};

/// Which hours are wanted. An hour that has begun counts as a whole one.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TotalUsageQuery {
    /// A time in the first hour. Absent: all hours that are kept.
    #[schema(value_type = Option<String>, example = "24h")]
    pub since: Option<Past>,
    /// The time after the last hour. Absent: now.
    #[schema(value_type = Option<String>, example = "1h")]
    pub until: Option<Past>,
}

/// Which hours of a client are wanted. An hour that has begun counts as a whole one.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UsageQuery {
    /// A time in the first hour. Absent: all hours that are kept.
    #[schema(value_type = Option<String>, example = "24h")]
    pub since: Option<Past>,
    /// The time after the last hour. Absent: now.
    #[schema(value_type = Option<String>, example = "1h")]
    pub until: Option<Past>,
    /// Only what this credential was used for.
    pub api_key: Option<String>,
}

/// How a client was used.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    pub client_id: ClientId,
    /// The last login or refresh.
    pub last_login: Option<LastView>,
    /// The last time that an access token was found valid.
    pub last_verification: Option<LastView>,
    #[serde(flatten)]
    pub hours: HoursView,
}

/// When and from where a credential was used last.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LastView {
    pub api_key: String,
    pub at: String,
    /// `None`: it was not known.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

/// Counts of some hours.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HoursView {
    /// The beginning of the first hour, and the end of the last one.
    pub since: String,
    pub until: String,
    /// What other nodes and followers have counted may be missing for so long.
    pub lag_seconds: u64,
    pub total: CountsView,
    /// Hours without any are left out.
    pub hours: Vec<HourView>,
}

/// The counts of an hour.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HourView {
    /// The beginning of the hour.
    pub hour: String,
    #[serde(flatten)]
    pub counts: CountsView,
}

/// How often something was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountsView {
    pub logins: u64,
    pub refreshes: u64,
    /// Access tokens found valid, by this service and by followers.
    pub verifications: u64,
    /// Logins, refreshes and access tokens that were refused.
    pub denials: u64,
}

/// Returns how a client was used.
///
/// # Errors
///
/// If there is no such client or credential, there is no hour between the times, or the store is unavailable.
pub async fn usage(app: &App, id: ClientId, wanted: UsageQuery) -> Result<UsageView, Error> {
    let client = find(app, id).await?;
    let hours = wanted_hours(app.clock.now(), wanted.since, wanted.until)?;
    let credential = match wanted.api_key {
        None => None,
        Some(api_key) => {
            let known = client.credentials.iter().find(|credential| credential.api_key == api_key);
            Some(known.ok_or(Error::NotFound("credential"))?.id)
        }
    };
    let last = LastUse::read(app, &client, credential).await?;
    let counted = app.store.usage_of(id, credential, hours).await?;
    Ok(UsageView {
        client_id: id,
        last_login: last.login,
        last_verification: last.verification,
        hours: view(hours, counted),
    })
}

/// Returns how all clients together were used.
///
/// # Errors
///
/// If there is no hour between the times, or the store is unavailable.
pub async fn total_usage(app: &App, wanted: TotalUsageQuery) -> Result<HoursView, Error> {
    let hours = wanted_hours(app.clock.now(), wanted.since, wanted.until)?;
    app.usage.write(&app.store).await;
    Ok(view(hours, app.store.usage_of(0, None, hours).await?))
}

/// The last use of a client, or of one of its credentials.
pub(super) struct LastUse {
    pub(super) at: Option<UnixSeconds>,
    login: Option<LastView>,
    pub(super) verification: Option<LastView>,
}

impl LastUse {
    pub(super) async fn read(
        app: &App,
        client: &Client,
        credential: Option<CredentialId>,
    ) -> Result<LastUse, Error> {
        app.usage.write(&app.store).await;
        let is_wanted = |id| credential.is_none_or(|credential| credential == id);
        let uses = app.store.uses_of(client.id).await?;
        let login = uses.into_iter().find(|used| is_wanted(used.credential));
        let verified = app.store.last_verifications(client.id).await?;
        let verified = verified.into_iter().filter(|(id, _)| is_wanted(*id)).max_by_key(|(_, last)| last.at);
        let view = |id: CredentialId, at, address| {
            let api_key = client.api_key(id)?.to_owned();
            Some(LastView { api_key, at: rfc3339(at), address })
        };
        Ok(LastUse {
            at: login.iter().map(|used| used.at).chain(verified.iter().map(|(_, last)| last.at)).max(),
            login: login
                .and_then(|CredentialUse { credential, at, address, .. }| view(credential, at, address)),
            verification: verified.and_then(|(id, Last { at, from })| view(id, at, from)),
        })
    }
}

fn wanted_hours(now: UnixSeconds, since: Option<Past>, until: Option<Past>) -> Result<Hours, Error> {
    let present = now / HOUR;
    let oldest = present.saturating_sub(KEPT);
    let since = since.map_or(oldest, |since| since.seconds(now) / HOUR).max(oldest);
    let until = until.map_or(present + 1, |until| until.seconds(now).div_ceil(HOUR)).min(present + 1);
    ensure(since < until, "since", || {
        "expected a time before until, not in the future, and within the last 30 days".into()
    })?;
    Ok(Hours { since, until })
}

fn view(Hours { since, until }: Hours, counted: Vec<(u64, Tally)>) -> HoursView {
    let mut total = Tally::default();
    counted.iter().for_each(|(_, tally)| total.add(tally));
    let hour = |(hour, tally): &(u64, Tally)| HourView { hour: rfc3339(hour * HOUR), counts: counts(tally) };
    HoursView {
        since: rfc3339(since * HOUR),
        until: rfc3339(until * HOUR),
        lag_seconds: LAG,
        total: counts(&total),
        hours: counted.iter().map(hour).collect(),
    }
}

fn counts(&Tally { logins, refreshes, verifications, denials, last: _ }: &Tally) -> CountsView {
    CountsView { logins, refreshes, verifications, denials }
}
