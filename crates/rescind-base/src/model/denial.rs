//! Refused requests, as they are kept and explained.

use std::sync::Arc;

use rescind_verifier::{Claims, Denied, Kind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ClientId, CredentialId, SessionId, UnixSeconds};
use crate::secret::ApiKey;

/// Defines the checks that are no rule of a token, with their names, what failed, and what to do.
macro_rules! checks {
    ($($(#[$about:meta])* $check:ident $name:literal, $what:literal, $advice:literal;)*) => {
        /// The check that a refused request has failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Check {
            /// A rule of tokens.
            Token(Denied),
            $($(#[$about])* $check,)*
        }

        impl Check {
            /// Every check.
            pub fn all() -> impl Iterator<Item = Check> {
                Denied::ALL.iter().map(|&denied| Check::Token(denied)).chain([$(Check::$check,)*])
            }

            /// Returns the name, which never changes.
            pub fn name(self) -> &'static str {
                match self {
                    Check::Token(denied) => denied.name(),
                    $(Check::$check => $name,)*
                }
            }

            /// Returns what failed and what to do, for people.
            pub fn explained(self) -> (&'static str, &'static str) {
                match self {
                    Check::Token(denied) => of_token(denied),
                    $(Check::$check => ($what, $advice),)*
                }
            }
        }
    };
}

checks! {
    InvalidCredentials "invalid_credentials",
        "The API key is unknown, its secret is wrong, the credential has ended, or its client is not active.",
        "If the API key is known below, look at its state with `rescind credential show KEY`. If that is good, the caller has a wrong secret.";
    Uncertified "certificate_missing",
        "The secret or token is good, but the connection does not show the certificate that the client is bound to.",
        "Compare with `rescind client show`: the caller must present a certificate of one of these names, and no proxy may stand between.";
    Reused "refresh_token_reused",
        "The refresh token was used before, so its session can be refreshed no more.",
        "The caller logs in again. If it did not send the token twice itself, somebody else has it: look for its session in the audit log.";
    ResourceMissing "resource_missing",
        "The client asked for a resource that it does not have.",
        "Add it with `rescind client resource add`, or correct the caller's `resource`.";
    Throttled "throttled",
        "There were too many failures before from this network with this key, or of this client.",
        "Right credentials are never refused by this limit. Look at the denials before this one: they have the reason.";
    OverQuota "over_quota",
        "The client's quota of logins or refreshes of a minute is used up.",
        "The caller should keep its tokens until they expire. The quotas are limits.logins_per_minute and limits.refreshes_per_minute.";
    AuthorizationMissing "authorization_missing",
        "The request has no `Authorization: Bearer` header.",
        "The caller must send its access token. If it does, a proxy on the way removes the header.";
    CredentialsMissing "credentials_missing",
        "The request does not say who the client is, or its Basic header cannot be read.",
        "The caller must send client_id and client_secret, by HTTP Basic or in the body.";
    IdentityHeaders "identity_headers",
        "The request has X-Rescind-* headers, and does not come from a trusted proxy.",
        "If it comes from your proxy, name that in server.trusted_proxies. A client has no use for these headers.";
    UnknownParameter "unknown_parameter",
        "The query of /verify has a parameter that is unknown, empty or there twice.",
        "Correct the proxy's configuration: the log has the parameter's name.";
    Undecided "undecided",
        "The server could not decide on the request: it could not be read, was too large, or failed.",
        "Look for the request's id in the log. At /verify every such request is refused.";
    NoPlace "no_place",
        "Too many requests were under way.",
        "Raise server.max_requests or server.max_requests_per_address, or look for a caller that floods the service.";
}

fn of_token(denied: Denied) -> (&'static str, &'static str) {
    match denied {
        Denied::Malformed => (
            "The token is no token of this service: its form is another, or there are several.",
            "The caller must send exactly what it got at login. Look for a token that was cut, or of another issuer.",
        ),
        Denied::UnknownKey => (
            "The token's header names no key that is valid here.",
            "Its key was retired, or the token is of another installation. The caller logs in again, here.",
        ),
        Denied::BadSignature => (
            "The token's signature is wrong: its text was changed, or it is a forgery.",
            "The caller logs in again. Many of these from one address are an attack.",
        ),
        Denied::WrongKind => (
            "A refresh token was sent in the place of an access token, or the reverse.",
            "The caller must send its access token to APIs, and its refresh token to /auth/refresh only.",
        ),
        Denied::WrongIssuer => (
            "The token was issued under another tokens.issuer.",
            "If the issuer was changed, the caller logs in again.",
        ),
        Denied::WrongAudience => (
            "The token is not for the API that was asked for.",
            "The caller must request a token for it (`resource` at /oauth2/token), and the client must have the resource.",
        ),
        Denied::NotYetValid => (
            "The token was issued in the future, by this server's clock.",
            "A machine's clock is wrong: compare the clocks of the nodes.",
        ),
        Denied::Expired => (
            "The token has expired.",
            "The caller must refresh it or log in again before `expires`, which its login's answer names.",
        ),
        Denied::NotKnown => (
            "The token's session is not in the store.",
            "If the database was restored or lost its newest changes, the caller logs in again.",
        ),
        Denied::ClientInactive => (
            "The client is suspended or deleted.",
            "Resume it with `rescind client resume`, if it may call again.",
        ),
        Denied::Revoked => {
            ("The token was revoked.", "The caller logs in again, with a credential that is valid.")
        }
        Denied::AddressNotAllowed => (
            "The caller's address is on no entry of the client's allowlist, or could not be read.",
            "If the address is the caller's, add it with `rescind client allow add`. If it is a proxy's, correct server.trusted_proxies.",
        ),
        Denied::Stale => (
            "The node could not know whether the token was revoked: it had no lease, or the store was unavailable.",
            "Look at `rescind status`, and at the log of this time.",
        ),
        Denied::ScopeMissing => (
            "The token or its client lacks a scope that was asked for.",
            "Add it with `rescind client scope add`. Then the caller logs in again.",
        ),
        // Reasons of later versions of the verifier.
        _ => ("The token was refused.", "The caller logs in again."),
    }
}

/// What the rules know of a request that they refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub check: Check,
    /// The client that has proved its identity.
    pub client: Option<ClientId>,
    /// The API key that was presented, if it is one.
    pub api_key: Option<ApiKey>,
    /// The token that was presented, if its issuer wrote it.
    pub token: Option<PresentedToken>,
    /// In seconds: when the caller may try again.
    pub retry_after: Option<u64>,
}

/// The numbers of a token that was refused, as its issuer wrote them. The token itself is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresentedToken {
    pub kind: PresentedKind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub kid: Option<Arc<str>>,
    pub session: SessionId,
    pub pair: u64,
    pub generation: u64,
    /// The number of the credential that opened the session.
    pub credential: CredentialId,
    /// Seconds since 1970.
    pub iat: UnixSeconds,
    /// Seconds since 1970.
    pub exp: UnixSeconds,
}

/// What kind of token was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PresentedKind {
    Access,
    Refresh,
}

impl PresentedToken {
    /// The numbers of a token with these claims.
    pub fn new(claims: &Claims, kind: Kind, kid: Option<Arc<str>>) -> PresentedToken {
        let kind = match kind {
            Kind::Access => PresentedKind::Access,
            Kind::Refresh => PresentedKind::Refresh,
        };
        PresentedToken {
            kind,
            kid,
            session: claims.session,
            pair: claims.pair,
            generation: claims.generation,
            credential: claims.credential,
            iat: claims.issued_at,
            exp: claims.expires_at,
        }
    }
}

impl Refusal {
    /// A refusal of somebody unknown.
    pub const fn new(check: Check) -> Refusal {
        Refusal { check, client: None, api_key: None, token: None, retry_after: None }
    }
}

/// A refused request, with what explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The number in the store; 0 before.
    pub id: u64,
    /// The id of the request. A caller may choose it, so several denials may have the same.
    pub request: String,
    pub at: UnixSeconds,
    pub node: Arc<str>,
    /// What was asked for, as the metrics name it.
    pub operation: String,
    /// The name of the [`Check`].
    pub reason: String,
    /// The status of the answer.
    pub status: u16,
    /// The client: it has proved its identity, or its API key was presented.
    pub client: Option<ClientId>,
    /// The client has proved its identity, so that the denial takes a place of its share.
    pub proven: bool,
    /// The address that was judged.
    pub address: Option<String>,
    pub details: DenialDetails,
}

impl Denial {
    /// The client whose share of the room it takes; 0: nobody known.
    pub fn owner(&self) -> ClientId {
        self.client.filter(|_| self.proven).unwrap_or(0)
    }
}

/// What of a denial only people read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DenialDetails {
    /// The API key of the token, or the one that was presented.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub api_key: Option<ApiKey>,
    /// The token, if one of the present keys has signed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<PresentedToken>,
    /// The client's generation at that time. Tokens of a lower one are revoked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_generation: Option<u64>,
    /// Why a revoked token is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked: Option<Revoked>,
    /// The way of the request, the nearest hop first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub hops: Vec<Hop>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allowlist: Option<MissedAllowlist>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<AskedOfToken>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub forwarded: Option<Forwarded>,
    /// In seconds: when the caller might try again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<u64>,
    /// How many denials like it, of the same client or of nobody known, were not kept in the same seconds.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub not_kept: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What was revoked, so that a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Revoked {
    /// Every token of the client, by a logout or a suspension.
    EveryToken,
    /// The credential that opened the session.
    Credential,
    Session,
}

/// A hop of a request's way here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hop {
    /// The address, or the text if that is no address.
    pub address: String,
    /// `connection`, `proxy-protocol`, or the header that names the hop.
    pub named_by: String,
    pub role: HopRole,
}

/// What a hop was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HopRole {
    /// A trusted proxy, which names the hop before it.
    Trusted,
    /// The caller: the allowlist is for this address.
    Judged,
    /// No address, so that the caller is unknown.
    Unreadable,
    /// Named by a hop that is not trusted, so that it says nothing.
    Ignored,
}

impl HopRole {
    /// What the role means, for people.
    pub fn explained(self) -> &'static str {
        match self {
            HopRole::Trusted => "trusted to name the one before it",
            HopRole::Judged => "taken for the caller",
            HopRole::Unreadable => "no address, so the caller is unknown",
            HopRole::Ignored => "ignored: the hop that names it is not trusted",
        }
    }
}

/// The allowlist that an address was not on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissedAllowlist {
    pub entries: usize,
    /// The entries that have the most leading bits in common with the address, the nearest first.
    pub nearest: Vec<String>,
}

/// What was required of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskedOfToken {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub audience: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub scopes: Vec<String>,
}

/// The request that a proxy asked about, in the proxy's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forwarded {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// Without the query, and without parts that may be secret.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

/// A query for denials, the newest first.
#[derive(Debug, Clone, Default)]
pub struct DenialFilter {
    /// Only older denials than this one.
    pub before: Option<u64>,
    pub limit: u64,
    pub request: Option<String>,
    /// `None`: of every client, and of nobody known.
    pub clients: Option<Vec<ClientId>>,
    pub address: Option<String>,
    pub reason: Option<String>,
    pub since: UnixSeconds,
    /// The time after the last denial.
    pub until: UnixSeconds,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_what_to_do() {
        let mut names = HashSet::new();
        for check in Check::all() {
            assert!(names.insert(check.name()), "{}", check.name());
            let (what, advice) = check.explained();
            assert!(what.ends_with('.') && advice.ends_with('.'), "{}", check.name());
        }
        assert!(!Check::all().any(|check| check.explained().0 == "The token was refused."));
    }

    #[test]
    fn the_documentation_has_every_check_and_no_other() {
        let text = include_str!("../../../../docs/denials.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let names: Vec<_> = rows.map(|(name, _)| name).collect();
        assert_eq!(names, Check::all().map(Check::name).collect::<Vec<_>>());
    }
}
