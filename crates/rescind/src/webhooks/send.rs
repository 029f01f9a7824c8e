//! One attempt to deliver an event, in the form of Standard Webhooks (<https://www.standardwebhooks.com>).

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rescind_base::{
    files::{circumstances::circumstances, pem},
    model::UnixSeconds,
    secret,
};
use rescind_node::config::Webhook;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use sha2::Sha256;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::warn;
use zeroize::Zeroizing;

/// How long a receiver may take, from the connection to the head of its answer.
const PATIENCE: Duration = Duration::from_secs(10);

const SECRET_PREFIX: &str = "whsec_";

/// Why a webhook cannot be used. No text has the secret, or the query of the URL.
#[derive(Debug, Error)]
pub enum HookError {
    #[error("webhook {0}: secret_file: {1}: {2}")]
    SecretFile(String, String, String),
    #[error(
        "webhook {0}: secret_file: expected whsec_ and 24 to 64 bytes in base64, as `printf 'whsec_%s' \"$(openssl rand -base64 32)\"` prints them"
    )]
    Secret(String),
    #[error("webhook {0}: ca: {1}")]
    Authorities(String, String),
    #[error("webhook {0}: TLS: {1}")]
    Tls(String, rustls::Error),
}

/// Why an event was not accepted.
#[derive(Debug, Error)]
pub enum SendError {
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("the receiver cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("the receiver broke the connection off: {0}")]
    BrokenOff(hyper::Error),
    #[error("the receiver did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the receiver answered {0}, and redirects are not followed")]
    Redirected(StatusCode),
    #[error("the receiver answered {0}")]
    Refused(StatusCode),
}

/// A receiver of events, and whom it must prove to be.
#[derive(Clone)]
pub struct Hook {
    pub config: Webhook,
    tls: TlsConnector,
}

impl Hook {
    /// Reads what the webhook's configuration names.
    ///
    /// # Errors
    ///
    /// Fails if the secret or the authorities cannot be used.
    pub fn open(config: &Webhook) -> Result<Hook, HookError> {
        let hook = Hook { tls: connector(config)?, config: config.clone() };
        hook.secret()?;
        Ok(hook)
    }

    /// The key of the signatures. It is read for each delivery, so that it can be replaced without a restart.
    fn secret(&self) -> Result<Zeroizing<Vec<u8>>, HookError> {
        let name = || self.config.name.clone();
        let path = &self.config.secret_file;
        let text = secret::read(path).map_err(|e| {
            // In the place of the path there may be the secret.
            let problem = format!("{e}{}", circumstances(path, &e));
            HookError::SecretFile(name(), secret::shown(&path.display().to_string()), problem)
        })?;
        let key = text.trim().strip_prefix(SECRET_PREFIX).and_then(|key| BASE64.decode(key.as_bytes()).ok());
        let key = key.map(Zeroizing::new).filter(|key| (24..=64).contains(&key.len()));
        key.ok_or_else(|| HookError::Secret(name()))
    }

    /// Sends an event. The receiver has it when this returns.
    ///
    /// # Errors
    ///
    /// Fails if the receiver does not accept it.
    pub async fn send(&self, id: &str, now: UnixSeconds, body: String) -> Result<(), SendError> {
        let url = &self.config.url;
        let signature = sign(&self.secret()?, id, now, &body);
        let request = Request::post(&url.target)
            .header(HOST, &url.authority)
            .header(USER_AGENT, concat!("rescind/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| SendError::Unreachable(io::Error::other(e)))?;
        let exchange = async {
            let connected = TcpStream::connect((url.host.as_str(), url.port)).await;
            let stream = connected.map_err(SendError::Unreachable)?;
            if !url.is_https {
                return exchange(stream, request).await;
            }
            let name = ServerName::try_from(url.host.clone());
            let name = name.map_err(|e| SendError::Unreachable(io::Error::other(e)))?;
            let stream = self.tls.connect(name, stream).await.map_err(SendError::Unreachable)?;
            exchange(stream, request).await
        };
        let status = timeout(PATIENCE, exchange).await.map_err(|_| SendError::Silent)??;
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(SendError::Redirected(status)),
            status => Err(SendError::Refused(status)),
        }
    }
}

/// Sends a request, and returns the answer's status. Its body is not read.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, SendError> {
    let (mut requests, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(SendError::BrokenOff)?;
    let answer = requests.send_request(request);
    tokio::pin!(answer, connection);
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer.map_err(SendError::BrokenOff)?.status()),
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

/// Returns the header `webhook-signature`.
fn sign(key: &[u8], id: &str, now: UnixSeconds, body: &str) -> String {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{now}.{body}").as_bytes());
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

/// Returns a connector that trusts the webhook's authorities, or else those of the machine.
fn connector(Webhook { name, ca, .. }: &Webhook) -> Result<TlsConnector, HookError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let file = secret::shown(&path.display().to_string());
            let bad = |problem: String| HookError::Authorities(name.clone(), format!("{file}: {problem}"));
            for certificate in certificates(path).map_err(bad)? {
                let added = roots.add(certificate);
                added.map_err(|_| bad("it has a certificate that is damaged, or is none of X.509".into()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            if !found.errors.is_empty() {
                warn!(files = found.errors.len(), "certificate authorities of this machine cannot be read");
            }
            roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|e| HookError::Tls(name.clone(), e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, String> {
    pem::certificates(path).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, and of its libraries.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let key = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
