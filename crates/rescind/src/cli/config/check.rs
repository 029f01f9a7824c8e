//! `rescind config check`: what `serve` would read beside the configuration, and what is allowed but seldom meant.

use anyhow::{Context, bail};
use hyper::Uri;
use rescind_base::{clock::Clock, files::data_folder, secret::MasterKey};
use rescind_node::config::{Config, Environment};
use rescind_store::Store;

use crate::{cli::runtime, server, webhooks::Hook};

/// Access tokens that live no longer than this make clients log in all the time.
const SHORT: u64 = 60;

/// Reads what `serve` would read, and with `connect` asks the database. Returns warnings.
///
/// # Errors
/// Fails if `serve` could not start with this configuration, or its metadata would be of no use.
pub(super) fn check(
    config: &Config,
    environment: &Environment,
    connect: bool,
) -> anyhow::Result<Vec<String>> {
    server::check_tls(&config.tls, Clock::System.now())?;
    match environment.master_key()? {
        Some(key) => {
            MasterKey::parse(&key)
                .context("RESCIND_MASTER_KEY, or the file that RESCIND_MASTER_KEY_FILE names")?;
        }
        None => data_folder::check_master_key(&config.server.data_dir)?,
    }
    check_issuer(&config.tokens.issuer)?;
    config.webhook.iter().try_for_each(|webhook| Hook::open(webhook).map(drop))?;
    if let Some(options) = config.postgres().filter(|_| connect) {
        runtime()?.block_on(Store::reach(&options))?;
    }
    Ok(warnings(config))
}

/// The issuer is the beginning of every address in the metadata (RFC 8414 §2).
fn check_issuer(issuer: &str) -> anyhow::Result<()> {
    let uri = issuer.parse::<Uri>().ok();
    let is_url = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
    });
    if !is_url || issuer.contains(['?', '#']) {
        bail!(
            "tokens.issuer = {issuer:?}: expected the URL at which clients reach Rescind, such as https://auth.example.com, without a query"
        );
    }
    Ok(())
}

fn warnings(config: &Config) -> Vec<String> {
    let Config { server, tls, tokens, .. } = config;
    let is_local = server.listen.ip().is_loopback();
    let mut warnings = Vec::new();
    if !is_local && tls.certificate.is_none() {
        warnings.push(format!(
            "server.listen = {}: other machines can connect without TLS, and secrets and tokens are readable on the way. Set tls.certificate, or listen on 127.0.0.1 behind a proxy with TLS",
            server.listen
        ));
    }
    if !server.management_listen.ip().is_loopback() && !tls.management {
        warnings.push(format!(
            "server.management_listen = {}: other machines can read metrics, and verifiers' tokens are readable on the way. Set tls.management",
            server.management_listen
        ));
    }
    if server.trust_any_proxy && server.trusted_proxies.iter().any(|net| net.prefix_len() == 0) {
        warnings.push(
            "server.trust_any_proxy: any caller may claim any address, so allowlists protect nothing"
                .to_owned(),
        );
    }
    if tokens.access_ttl.seconds() <= SHORT {
        warnings.push(format!(
            "tokens.access_ttl = {}: clients must refresh or log in that often. Revocation is exact with longer ones too",
            tokens.access_ttl
        ));
    }
    if !is_local && tokens.issuer == Config::default().tokens.issuer {
        warnings.push(format!(
            "tokens.issuer = {:?} is the default, which other machines cannot reach: set the URL at which they reach Rescind",
            tokens.issuer
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_a_url_that_addresses_can_be_added_to() {
        for good in [
            "http://127.0.0.1:8080",
            "https://auth.example.com",
            "https://example.com/auth",
            "https://example.com/",
        ] {
            assert!(check_issuer(good).is_ok(), "{good}");
        }
        for bad in [
            "rescind",
            "auth.example.com",
            "ftp://example.com",
            "https://example.com?x=1",
            "https://u@example.com",
            "/auth",
        ] {
            assert!(check_issuer(bad).unwrap_err().to_string().starts_with("tokens.issuer"), "{bad}");
        }
    }

    #[test]
    fn what_is_seldom_meant_is_warned_of_and_the_defaults_are_not() {
        let mut config = Config::default();
        assert_eq!(warnings(&config), [""; 0]);
        config.server.listen = "0.0.0.0:8080".parse().unwrap();
        config.server.management_listen = "[::]:8081".parse().unwrap();
        config.server.trusted_proxies = vec!["0.0.0.0/0".parse().unwrap()];
        config.server.trust_any_proxy = true;
        config.tokens.access_ttl = "60s".parse().unwrap();
        let warned = warnings(&config);
        let of: Vec<_> = warned.iter().map(|text| text.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(
            of,
            [
                "server.listen",
                "server.management_listen",
                "server.trust_any_proxy",
                "tokens.access_ttl",
                "tokens.issuer"
            ]
        );
    }
}
