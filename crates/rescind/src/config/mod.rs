//! Configuration: a TOML file, then the environment, then flags.

mod environment;
mod error;
mod names;
mod source;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use hyper::header::HeaderName;
use ipnet::IpNet;
use rescind_verifier::Profile;
use rustix::system::uname;
use serde::{Deserialize, Serialize};

pub use environment::Environment;
pub use error::{ConfigError, ValueSource};
pub use source::Flags;
pub use values::{Brief, Span};

use crate::{
    cluster::Terms,
    model::{LONGEST_LEASE, OnReuse, Retention, TokenRules},
    store::{DatabaseUrl, PostgresOptions},
};

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
    pub audit: Audit,
    pub log: Log,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub keep: Span,
    pub max_rows: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
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
            ("database.statement_timeout", Some(&self.database.statement_timeout)),
            ("server.request_timeout", Some(request_timeout)),
            ("server.idle_timeout", Some(idle_timeout)),
            ("tokens.access_ttl", Some(access_ttl)),
            ("tokens.refresh_ttl", Some(refresh_ttl)),
            ("tokens.session_max_age", session_max_age.as_ref()),
            ("tokens.refresh_grace", refresh_grace.as_ref()),
            ("audit.keep", Some(&self.audit.keep)),
        ];
        for (key, span) in at_least_one_second {
            if span.is_some_and(|span| span.seconds() == 0) {
                return Err((key, "expected at least 1s".into()));
            }
        }
        if access_ttl > refresh_ttl {
            return Err((
                "tokens.access_ttl",
                format!("expected no more than tokens.refresh_ttl ({refresh_ttl})"),
            ));
        }
        if Profile::new(&self.tokens.issuer, "x").is_none() {
            return Err((
                "tokens.issuer",
                "expected 1 to 255 visible ASCII characters other than \" and \\".into(),
            ));
        }
        if self.profile().is_none() {
            return Err((
                "tokens.audience",
                "expected at most 255 visible ASCII characters other than \" and \\".into(),
            ));
        }
        if self.server.client_address_header.is_some() && self.server.trusted_proxies.is_empty() {
            return Err((
                "server.client_address_header",
                "expected server.trusted_proxies to name the proxies that write it".into(),
            ));
        }
        if self.server.client_address_header.is_none() && !self.server.trusted_proxies.is_empty() {
            return Err((
                "server.client_address_header",
                "expected the one header in which the proxies of server.trusted_proxies write the caller's address, such as \"X-Forwarded-For\""
                    .into(),
            ));
        }
        let any = self.server.trusted_proxies.iter().find(|net| net.prefix_len() == 0);
        if let Some(any) = any.filter(|_| !self.server.trust_any_proxy) {
            return Err((
                "server.trusted_proxies",
                format!(
                    "{any} lets every address of its kind say who the caller is: say so with server.trust_any_proxy = true"
                ),
            ));
        }
        if !(1000..=1_000_000_000).contains(&self.audit.max_rows) {
            return Err(("audit.max_rows", "expected between 1000 and 1000000000".into()));
        }
        if self.database.pool_size == 0 {
            return Err(("database.pool_size", "expected at least 1".into()));
        }
        if self.database.require_synchronous && self.database.accept_lost_commits {
            return Err((
                "database.require_synchronous",
                "expected false beside database.accept_lost_commits = true".into(),
            ));
        }
        let Server { max_connections, max_connections_per_address, .. } = self.server;
        for (key, connections) in [
            ("server.max_connections", max_connections),
            ("server.max_connections_per_address", max_connections_per_address),
        ] {
            if !(1..=1_000_000).contains(&connections) {
                return Err((key, "expected between 1 and 1000000".into()));
            }
        }
        for (key, quota) in [
            ("limits.logins_per_minute", self.limits.logins_per_minute),
            ("limits.refreshes_per_minute", self.limits.refreshes_per_minute),
        ] {
            if quota > MAX_QUOTA {
                return Err((key, format!("expected between 1 and {MAX_QUOTA}, or 0 for no quota")));
            }
        }
        match &self.tls {
            Tls { certificate: Some(_), key: None, .. } => {
                return Err(("tls.key", "expected the file of the certificate's key".into()));
            }
            Tls { certificate: None, key: Some(_), .. }
            | Tls { certificate: None, client_ca: Some(_), .. }
            | Tls { certificate: None, management: true, .. } => {
                return Err(("tls.certificate", "expected the file of a certificate: TLS needs one".into()));
            }
            Tls { client_ca: None, client_certificates: ClientCertificates::Optional, .. } => {
                return Err((
                    "tls.client_ca",
                    "expected the file of the authorities that sign what tls.client_certificates asks for"
                        .into(),
                ));
            }
            _ => {}
        }
        let Cluster { node_name, lease, margin, clock_drift_percent } = &self.cluster;
        if node_name.len() > 64 || !node_name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(("cluster.node_name", "expected at most 64 visible ASCII characters".into()));
        }
        if !(Duration::from_secs(1)..=LONGEST_LEASE).contains(&Duration::from(*lease)) {
            return Err(("cluster.lease", "expected between 1s and 60s".into()));
        }
        if *clock_drift_percent > 30 {
            return Err(("cluster.clock_drift_percent", "expected between 0 and 30".into()));
        }
        let least = self.terms().least_margin().max(Duration::from_millis(10));
        let least = u64::try_from(least.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        if !(least..=lease.millis() / 2).contains(&margin.millis()) {
            let problem = format!(
                "expected between {least}ms and half of cluster.lease, for a clock_drift_percent of {clock_drift_percent}"
            );
            return Err(("cluster.margin", problem));
        }
        Ok(())
    }

    /// The terms of this node's lease.
    pub fn terms(&self) -> Terms {
        Terms {
            lease: self.cluster.lease.into(),
            clock_drift: f64::from(self.cluster.clock_drift_percent) / 100.0,
            margin: self.cluster.margin.into(),
        }
    }

    /// How long audit events are kept.
    pub fn retention(&self) -> Retention {
        Retention { keep: self.audit.keep.seconds(), max_rows: self.audit.max_rows }
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
        let Database { url, pool_size, statement_timeout, tls_ca, accept_lost_commits, require_synchronous } =
            &self.database;
        Some(PostgresOptions {
            url: url.clone()?,
            pool_size: *pool_size,
            statement_timeout: (*statement_timeout).into(),
            tls_ca: tls_ca.clone(),
            accept_lost_commits: *accept_lost_commits,
            require_synchronous: *require_synchronous,
        })
    }

    /// The issuer and audience of every token. `None` if they cannot be written in a token.
    pub fn profile(&self) -> Option<Profile> {
        let Tokens { issuer, audience, .. } = &self.tokens;
        Profile::new(issuer, if audience.is_empty() { issuer } else { audience })
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
