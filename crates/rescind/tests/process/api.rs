//! A client of the service, for tests.

use std::path::Path;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::process::PATIENCE;

/// A caller that talks to one server.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    url: String,
}

/// An API key and secret.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) client_id: u64,
    pub(crate) api_key: String,
    pub(crate) api_secret: String,
}

/// The tokens of a login or a refresh.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

/// An answer: its status, and the error's message if it is one.
pub(crate) type Answer = (u16, String);

pub(crate) fn ok() -> Answer {
    (200, String::new())
}

pub(crate) fn unauthorized(message: &str) -> Answer {
    (401, message.to_owned())
}

impl Credential {
    /// Reads the output of `client create --json` or `credential create --json`.
    #[track_caller]
    pub(crate) fn from_json(created: &Value) -> Credential {
        let text = |field: &str| created[field].as_str().unwrap().to_owned();
        Credential {
            client_id: created["client_id"].as_u64().unwrap(),
            api_key: text("api_key"),
            api_secret: text("api_secret"),
        }
    }
}

impl Api {
    pub(crate) fn new(url: &str) -> Api {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Api { http, url: url.to_owned() }
    }

    /// A caller over a Unix socket.
    pub(crate) fn local(socket: &Path) -> Api {
        let http = reqwest::Client::builder().no_proxy().unix_socket(socket).build().unwrap();
        Api { http, url: "http://rescind".into() }
    }

    /// The outer error: the connection ended, and the outcome is unknown.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        bearer: Option<&str>,
        request_id: &str,
    ) -> Result<(Answer, Value), reqwest::Error> {
        let request = self.http.post(format!("{}{path}", self.url)).header("x-request-id", request_id);
        let request =
            bearer.into_iter().fold(request.json(body), |request, token| request.bearer_auth(token));
        answer(request).await
    }

    /// Like `post`, but DELETE and without a body.
    pub(crate) async fn delete(
        &self,
        path: &str,
        request_id: &str,
    ) -> Result<(Answer, Value), reqwest::Error> {
        let request = self.http.delete(format!("{}{path}", self.url)).header("x-request-id", request_id);
        answer(request).await
    }

    pub(crate) async fn login(&self, credential: &Credential) -> Tokens {
        self.try_login(credential).await.unwrap().unwrap()
    }

    pub(crate) async fn refresh(&self, token: &str) -> Result<Tokens, Answer> {
        self.tokens("/auth/refresh", &json!({ "refresh_token": token })).await.unwrap()
    }

    pub(crate) async fn logout(&self, token: &str) -> Answer {
        self.try_logout(token).await.unwrap()
    }

    pub(crate) async fn verify(&self, token: &str) -> Answer {
        self.try_verify(token).await.unwrap()
    }

    /// The outer error: the connection ended.
    pub(crate) async fn try_verify(&self, token: &str) -> Result<Answer, reqwest::Error> {
        self.try_verify_at("/verify", token).await
    }

    /// The outer error: the connection ended.
    pub(crate) async fn try_verify_at(&self, path: &str, token: &str) -> Result<Answer, reqwest::Error> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(token);
        Ok(answer(request).await?.0)
    }

    /// The outer error: the connection ended, and the outcome is unknown.
    pub(crate) async fn try_login(
        &self,
        credential: &Credential,
    ) -> Result<Result<Tokens, Answer>, reqwest::Error> {
        let body = json!({ "username": credential.api_key, "password": credential.api_secret });
        self.tokens("/auth/login", &body).await
    }

    /// The outer error: the connection ended, and the outcome is unknown.
    pub(crate) async fn try_logout(&self, token: &str) -> Result<Answer, reqwest::Error> {
        let request = self.http.post(format!("{}/auth/logout", self.url)).bearer_auth(token);
        Ok(answer(request).await?.0)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap()
    }

    /// The whole body of an answer.
    pub(crate) async fn get_text(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// The outer error: the connection ended.
    pub(crate) async fn try_get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        Ok(answer(self.http.get(format!("{}{path}", self.url))).await?.0)
    }

    async fn tokens(&self, path: &str, body: &Value) -> Result<Result<Tokens, Answer>, reqwest::Error> {
        let (outcome, body) = answer(self.http.post(format!("{}{path}", self.url)).json(body)).await?;
        let token = |name: &str| body["data"][name].as_str().unwrap().to_owned();
        Ok(if outcome == ok() {
            Ok(Tokens { access: token("access_token"), refresh: token("refresh_token") })
        } else {
            Err(outcome)
        })
    }
}

async fn answer(request: RequestBuilder) -> Result<(Answer, Value), reqwest::Error> {
    let asking = async {
        let response = request.send().await?;
        Ok((response.status(), response.text().await?))
    };
    let (status, text) = timeout(PATIENCE * 2, asking).await.expect("an answer, or the end of the server")?;
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = match status {
        StatusCode::OK => String::new(),
        _ => body["error"]["message"].as_str().unwrap_or_else(|| panic!("no envelope: {text}")).to_owned(),
    };
    Ok(((status.as_u16(), message), body))
}
