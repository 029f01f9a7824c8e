//! Configuration: a TOML file, then the environment, then flags.

mod environment;
mod error;
mod log;
mod names;
mod profile;
mod settings;
mod source;
mod urls;
mod values;
mod webhook;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use hyper::header::HeaderName;
use ipnet::IpNet;
use rescind_verifier::{Profile, Scopes};
use rustix::system::uname;
use serde::{Deserialize, Serialize};

pub use environment::{Environment, words};
pub use error::{ConfigError, ValueSource};
pub use log::{Log, LogFormat, LogLevel};
pub use settings::Setting;
use settings::Sources;
pub use source::Flags;
pub use urls::port_of;
pub use values::{Brief, Kept, Past, Span, Time};
pub use webhook::{Webhook, WebhookUrl};

use rescind_base::model::{LONGEST_LEASE, OnReuse, ProtectedResource, TokenRules};
use rescind_store::{DatabaseUrl, PostgresOptions};

use crate::cluster::Terms;

/// A quota keeps every success of a minute in memory.
const MAX_QUOTA: usize = 10_000;

/// Every key with its default and its description.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub tls: Tls,
    pub database: Database,
    pub cluster: Cluster,
    pub tokens: Tokens,
    pub forward_auth: ForwardAuth,
    pub limits: Limits,
    pub audit: Kept,
    pub denials: Kept,
    pub log: Log,
    #[serde(default)]
    pub webhook: Vec<Webhook>,
    #[serde(skip)]
    sources: Sources,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    pub management_listen: SocketAddr,
    pub data_dir: PathBuf,
    #[serde(with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub trust_any_proxy: bool,
    #[serde(with = "values::header")]
    pub client_address_header: Option<HeaderName>,
    pub proxy_protocol: bool,
    pub shutdown_delay: Span,
    pub drain_timeout: Span,
    pub request_timeout: Span,
    pub idle_timeout: Span,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub max_requests: usize,
    pub max_requests_per_address: usize,
    pub sessions_in_memory: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    #[serde(with = "values::path_or_none")]
    pub certificate: Option<PathBuf>,
    #[serde(with = "values::path_or_none")]
    pub key: Option<PathBuf>,
    #[serde(with = "values::path_or_none")]
    pub client_ca: Option<PathBuf>,
    pub client_certificates: ClientCertificates,
    pub management: bool,
}

/// Whether a connection without a client certificate is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    Required,
    Optional,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    #[serde(with = "values::database_url")]
    pub url: Option<DatabaseUrl>,
    pub pool_size: usize,
    pub statement_timeout: Span,
    pub start_timeout: Span,
    #[serde(with = "values::path_or_none")]
    pub tls_ca: Option<PathBuf>,
    pub accept_lost_commits: bool,
    pub require_synchronous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub node_name: String,
    pub lease: Brief,
    pub margin: Brief,
    pub clock_drift_percent: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    pub issuer: String,
    pub audience: String,
    pub scopes_supported: Vec<String>,
    pub resources: Vec<ProtectedResource>,
    pub access_ttl: Span,
    pub refresh_ttl: Span,
    #[serde(with = "values::span_or_off")]
    pub session_max_age: Option<Span>,
    #[serde(with = "values::span_or_off")]
    pub refresh_grace: Option<Span>,
    pub on_reuse: OnReuse,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuth {
    pub unavailable: OnUnavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnavailable {
    #[serde(rename = "403")]
    Forbidden,
    #[serde(rename = "503")]
    Unavailable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub failed_logins_per_minute: u32,
    pub logins_per_minute: usize,
    pub refreshes_per_minute: usize,
}

/// Fails with the key that breaks a rule, and with what is expected.
fn rule(holds: bool, key: &'static str, problem: impl Into<String>) -> Result<(), (&'static str, String)> {
    if holds { Ok(()) } else { Err((key, problem.into())) }
}

impl Config {
    /// Reads file, environment and flags, and checks the result.
    ///
    /// # Errors
    ///
    /// Fails if a source cannot be read, or if a key or value is wrong.
    pub fn load(environment: &Environment, flags: &Flags) -> Result<Config, ConfigError> {
        source::load(environment, flags)
    }

    /// Checks the rules between keys. An error names the wrong key and the expected value.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let Tokens { access_ttl, refresh_ttl, session_max_age, refresh_grace, .. } = &self.tokens;
        let Server { request_timeout, idle_timeout, .. } = &self.server;
        let at_least_one_second = [
            ("server.request_timeout", Some(request_timeout)),
            ("server.idle_timeout", Some(idle_timeout)),
            ("tokens.access_ttl", Some(access_ttl)),
            ("tokens.refresh_ttl", Some(refresh_ttl)),
            ("tokens.session_max_age", session_max_age.as_ref()),
            ("tokens.refresh_grace", refresh_grace.as_ref()),
            ("audit.keep", Some(&self.audit.keep)),
            ("denials.keep", Some(&self.denials.keep)),
        ];
        for (key, span) in at_least_one_second {
            rule(span.is_none_or(|span| span.seconds() > 0), key, "expected at least 1s")?;
        }
        let most = format!("expected no more than tokens.refresh_ttl ({refresh_ttl})");
        rule(access_ttl <= refresh_ttl, "tokens.access_ttl", most)?;
        rule(
            Profile::new(&self.tokens.issuer, "x").is_some(),
            "tokens.issuer",
            "expected 1 to 255 visible ASCII characters other than \" and \\",
        )?;
        rule(
            self.profile().is_some(),
            "tokens.audience",
            "expected at most 1024 visible ASCII characters other than \" and \\",
        )?;
        let is_scope = |text: &String| text.parse::<Scopes>().is_ok_and(|one| one.iter().eq([text.as_str()]));
        rule(
            self.tokens.scopes_supported.iter().all(is_scope),
            "tokens.scopes_supported",
            "expected scopes, each of visible ASCII characters other than \" and \\",
        )?;
        let Server { client_address_header: header, trusted_proxies: proxies, proxy_protocol, .. } =
            &self.server;
        rule(
            !proxy_protocol || !proxies.is_empty(),
            "server.proxy_protocol",
            "expected server.trusted_proxies to name the balancers that speak it",
        )?;
        rule(
            !proxy_protocol || header.is_none(),
            "server.proxy_protocol",
            "expected no server.client_address_header beside it: a balancer passes on a header that the caller wrote",
        )?;
        rule(
            header.is_none() || !proxies.is_empty(),
            "server.client_address_header",
            "expected server.trusted_proxies to name the proxies that write it",
        )?;
        rule(
            header.is_some() || *proxy_protocol || proxies.is_empty(),
            "server.client_address_header",
            "expected the one header in which the proxies of server.trusted_proxies write the caller's address, such as \"X-Forwarded-For\", or server.proxy_protocol = true",
        )?;
        let any = proxies.iter().find(|net| net.prefix_len() == 0);
        if let Some(any) = any.filter(|_| !self.server.trust_any_proxy) {
            let problem = "lets every address of its kind say who the caller is: say so with server.trust_any_proxy = true";
            return Err(("server.trusted_proxies", format!("{any} {problem}")));
        }
        for (key, kept) in [("audit.max_rows", &self.audit), ("denials.max_rows", &self.denials)] {
            let rows = 1000..=1_000_000_000;
            rule(rows.contains(&kept.max_rows), key, "expected between 1000 and 1000000000")?;
        }
        let in_time = 1..=86_400;
        rule(
            in_time.contains(&self.database.statement_timeout.seconds()),
            "database.statement_timeout",
            "expected between 1s and 1d",
        )?;
        let connections = 1..=10_000;
        rule(
            connections.contains(&self.database.pool_size),
            "database.pool_size",
            "expected between 1 and 10000",
        )?;
        rule(
            !(self.database.require_synchronous && self.database.accept_lost_commits),
            "database.require_synchronous",
            "expected false beside database.accept_lost_commits = true",
        )?;
        for (key, most) in [
            ("server.max_connections", self.server.max_connections),
            ("server.max_connections_per_address", self.server.max_connections_per_address),
            ("server.max_requests", self.server.max_requests),
            ("server.max_requests_per_address", self.server.max_requests_per_address),
        ] {
            rule((1..=1_000_000).contains(&most), key, "expected between 1 and 1000000")?;
        }
        for (key, quota) in [
            ("limits.logins_per_minute", self.limits.logins_per_minute),
            ("limits.refreshes_per_minute", self.limits.refreshes_per_minute),
        ] {
            rule(quota <= MAX_QUOTA, key, format!("expected between 1 and {MAX_QUOTA}, or 0 for no quota"))?;
        }
        let Tls { certificate, key, client_ca, client_certificates, management } = &self.tls;
        rule(
            certificate.is_none() || key.is_some(),
            "tls.key",
            "expected the file of the certificate's key",
        )?;
        rule(
            certificate.is_some() || (key.is_none() && client_ca.is_none() && !management),
            "tls.certificate",
            "expected the file of a certificate: TLS needs one",
        )?;
        rule(
            client_ca.is_some() || *client_certificates == ClientCertificates::Required,
            "tls.client_ca",
            "expected the file of the authorities that sign what tls.client_certificates asks for",
        )?;
        let Cluster { node_name, lease, margin, clock_drift_percent } = &self.cluster;
        rule(
            node_name.len() <= 64 && node_name.bytes().all(|b| b.is_ascii_graphic()),
            "cluster.node_name",
            "expected at most 64 visible ASCII characters",
        )?;
        let leases = Duration::from_secs(1)..=LONGEST_LEASE;
        rule(leases.contains(&Duration::from(*lease)), "cluster.lease", "expected between 1s and 60s")?;
        rule(*clock_drift_percent <= 30, "cluster.clock_drift_percent", "expected between 0 and 30")?;
        let least = self.terms().least_margin().max(Duration::from_millis(10));
        let least = u64::try_from(least.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        let problem = format!(
            "expected between {least}ms and half of cluster.lease, for a clock_drift_percent of {clock_drift_percent}"
        );
        rule((least..=lease.millis() / 2).contains(&margin.millis()), "cluster.margin", problem)
    }

    /// The terms of this node's lease.
    pub fn terms(&self) -> Terms {
        Terms {
            lease: self.cluster.lease.into(),
            clock_drift: f64::from(self.cluster.clock_drift_percent) / 100.0,
            margin: self.cluster.margin.into(),
        }
    }

    /// This node's name.
    pub fn node_name(&self) -> String {
        match self.cluster.node_name.as_str() {
            "" => format!("{}:{}", uname().nodename().to_string_lossy(), self.server.listen.port()),
            name => name.to_owned(),
        }
    }

    /// The options of the PostgreSQL database, if one is configured.
    pub fn postgres(&self) -> Option<PostgresOptions> {
        let database = self.database.clone();
        Some(PostgresOptions {
            url: database.url?,
            pool_size: database.pool_size,
            statement_timeout: database.statement_timeout.into(),
            tls_ca: database.tls_ca,
            accept_lost_commits: database.accept_lost_commits,
            require_synchronous: database.require_synchronous,
        })
    }

    /// The lifetimes of tokens and sessions, in seconds.
    pub fn token_rules(&self) -> TokenRules {
        TokenRules {
            access_ttl: self.tokens.access_ttl.seconds(),
            refresh_ttl: self.tokens.refresh_ttl.seconds(),
            session_max_age: self.tokens.session_max_age.map(Span::seconds),
            refresh_grace: self.tokens.refresh_grace.map(Span::seconds),
            on_reuse: self.tokens.on_reuse,
        }
    }
}
