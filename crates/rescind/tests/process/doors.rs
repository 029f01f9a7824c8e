//! What an operator changes leaves the same rows in the audit log and takes effect at the next verification, whether by the
//! admin API over the network, by the command line, or by a form of the dashboard.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use regex::Regex;
use reqwest::Method;
use rescind_base::clock::Clock;
use serde_json::Value;

use crate::{
    api::{Api, Credential},
    browser::Browser,
    process::{Server, cli},
};

const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");
const PREFIX: &str = "/admin/v1";

/// One operation by every door. `{…}` stands for what was prepared.
struct Row {
    operation: &'static str,
    /// What is done over the socket before: path and body.
    before: &'static [(&'static str, &'static str)],
    request: (&'static str, &'static str, &'static str),
    command: &'static str,
    /// The status of the next verification of a token that was valid before.
    verified: u16,
}

const fn row(
    operation: &'static str,
    request: (&'static str, &'static str, &'static str),
    command: &'static str,
    verified: u16,
) -> Row {
    Row { operation, before: &[], request, command, verified }
}

/// Operations that change something, and are tested elsewhere: what the table prepares is not enough for them.
const ELSEWHERE: [&str; 5] =
    ["handOverSecret", "rotatePepper", "retirePepper", "replayEvents", "testWebhook"];
/// Operations that read what is in a body.
const READS: [&str; 2] = ["inspectToken", "verifyAudit"];

const ROWS: [Row; 31] = [
    row("createClient", ("POST", "/clients", r#"{"name":"new"}"#), "client create --name new", 200),
    row(
        "ensureClient",
        ("POST", "/clients/if-absent", r#"{"name":"absent-{id}"}"#),
        "client create --if-absent --name absent-{id}",
        200,
    ),
    row("updateClient", ("PATCH", "/clients/{id}", r#"{"name":"other"}"#), "client rename {id} other", 200),
    row(
        "renameClient",
        ("POST", "/clients/{id}/name", r#"{"name":"other"}"#),
        "client rename {id} other",
        200,
    ),
    row("deleteClient", ("DELETE", "/clients/{id}", ""), "client delete {id}", 401),
    row(
        "suspendClient",
        ("POST", "/clients/{id}/suspend", r#"{"reason":"leaked"}"#),
        "client suspend {id} --reason leaked",
        401,
    ),
    Row {
        before: &[("/clients/{id}/suspend", "{}")],
        ..row("resumeClient", ("POST", "/clients/{id}/resume", "{}"), "client resume {id}", 401)
    },
    row("logOutClient", ("POST", "/clients/{id}/logout", "{}"), "client logout {id}", 401),
    row(
        "changeScopes",
        ("POST", "/clients/{id}/scopes", r#"{"add":["b"],"remove":[]}"#),
        "client scope add {id} b",
        200,
    ),
    row(
        "changeAllowlist",
        ("POST", "/clients/{id}/allow", r#"{"add":["192.0.2.0/24"]}"#),
        "client allow add {id} 192.0.2.0/24",
        403,
    ),
    row(
        "changeCertificates",
        ("POST", "/clients/{id}/certificates", r#"{"add":["dns:a.example"]}"#),
        "client certificate add {id} dns:a.example",
        200,
    ),
    row(
        "changeResources",
        ("POST", "/clients/{id}/resources", r#"{"add":["urn:a"]}"#),
        "client resource add {id} urn:a",
        401,
    ),
    row(
        "changeEnforcement",
        ("POST", "/clients/{id}/enforces-allowlist", r#"{"enforces_allowlist":true}"#),
        "client enforces-allowlist {id} yes",
        200,
    ),
    row(
        "changeLifetime",
        ("POST", "/clients/{id}/introspect-lifetime", r#"{"introspect_lifetime":"60s"}"#),
        "client introspect-lifetime {id} 60s",
        200,
    ),
    row("revokeSession", ("DELETE", "/sessions/{session}", ""), "session revoke {session}", 401),
    row("createCredential", ("POST", "/clients/{id}/credentials", "{}"), "credential create {id}", 200),
    row(
        "expireCredential",
        ("POST", "/credentials/{key}/expire", r#"{"at":"2030-01-31"}"#),
        "credential expire {key} --at 2030-01-31",
        200,
    ),
    row("rotateCredential", ("POST", "/credentials/{key}/rotate", "{}"), "credential rotate {key}", 200),
    row(
        "noteCredential",
        ("POST", "/credentials/{key}/note", r#"{"note":"vault"}"#),
        "credential note {key} vault",
        200,
    ),
    row("revokeCredential", ("POST", "/credentials/{key}/revoke", "{}"), "credential revoke {key}", 401),
    row("createVerifier", ("POST", "/verifiers", r#"{"name":"twin"}"#), "verifier create --name twin", 200),
    row("revokeVerifier", ("DELETE", "/verifiers/{verifier}", ""), "verifier revoke {verifier}", 200),
    row(
        "createManagementToken",
        ("POST", "/management-tokens", r#"{"name":"twin","role":"admin"}"#),
        "admin token create --name twin --role admin",
        200,
    ),
    row(
        "revokeManagementToken",
        ("DELETE", "/management-tokens/{spare}", ""),
        "admin token revoke {spare}",
        200,
    ),
    row(
        "createAdministrator",
        ("POST", "/administrators", r#"{"name":"new-{id}","role":"viewer"}"#),
        "admin create new-{id} --role viewer",
        200,
    ),
    row(
        "changeRole",
        ("POST", "/administrators/{administrator}/role", r#"{"role":"operator"}"#),
        "admin role twin-{id} operator",
        200,
    ),
    row(
        "resetAdministrator",
        ("POST", "/administrators/{administrator}/reset", "{}"),
        "admin reset twin-{id}",
        200,
    ),
    row(
        "removeAdministrator",
        ("DELETE", "/administrators/{administrator}", ""),
        "admin remove twin-{id}",
        200,
    ),
    row("rotateKey", ("POST", "/keys/rotate", "{}"), "key rotate", 200),
    Row {
        before: &[("/keys/rotate", "{}")],
        ..row("retireKey", ("POST", "/keys/{kid}/retire", "{}"), "key retire {kid}", 401)
    },
    // The last, because it ends the tokens and verifiers of all others. They have one name, so that its rows are the same again.
    row("endEveryToken", ("POST", "/restored", "{}"), "db restored", 401),
];

/// What an audit row says, but for numbers, times and keys.
type Said = (String, String, bool, bool, bool, Option<String>, u64);

fn said(event: &Value, id: u64) -> Said {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let numbers = Regex::new(
        r"\b[a-z2-7]{16}\b|(new|twin)-\d+|(viewer|operator|admin)$|\d{4}-\d{2}-\d{2}T[\d:]+Z|^\d+|\d+$",
    )
    .unwrap();
    (
        text("kind").unwrap(),
        text("by").unwrap(),
        event["client_id"].as_u64() == Some(id),
        event["api_key"].is_string(),
        event["session"].is_u64(),
        text("detail").map(|detail| numbers.replace_all(&detail, "…").into_owned()),
        event["count"].as_u64().unwrap(),
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Command,
    Api,
    Form,
}

struct Doors<'a> {
    dir: &'a Path,
    server: &'a Server,
    local: Api,
    browser: Browser,
}

/// The fields of a form with this input.
fn fields(input: &str) -> Vec<(String, String)> {
    let members: BTreeMap<String, Value> = serde_json::from_str(input).unwrap();
    let line = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = |value: &Value| match value {
        Value::Array(values) => values.iter().map(line).collect::<Vec<_>>().join("\n"),
        value => line(value),
    };
    members.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

impl Doors<'_> {
    async fn local(&self, path: &str, body: &str) -> Value {
        let body: Value = serde_json::from_str(body).unwrap();
        let (answer, value) =
            self.local.post(&format!("{PREFIX}{path}"), &body, None, "before").await.unwrap();
        assert_eq!(answer.0, 200, "{path}: {answer:?}");
        value
    }

    async fn read(&self, path: &str) -> Value {
        serde_json::from_str(&self.local.get_text(&format!("{PREFIX}{path}")).await).unwrap()
    }

    /// Carries out one operation by one door. Returns the rows that it has left, and the status of the next verification.
    async fn pass(&self, row: &Row, door: Door) -> (BTreeSet<Said>, u16) {
        let public = Api::new(&self.server.url);
        let credential = Credential::from_json(&self.local("/clients", r#"{"name":"twin"}"#).await);
        let token = public.login(&credential).await.access;
        assert_eq!(public.verify(&token).await.0, 200);
        let id = credential.client_id;
        let sessions = self.read(&format!("/clients/{id}/sessions")).await;
        let signing = self.read("/keys").await.as_array().unwrap().last().unwrap()["kid"].clone();
        let verifier = self.local("/verifiers", r#"{"name":"twin"}"#).await;
        let role = r#"{"name":"twin","role":"admin"}"#;
        let (mine, spare) =
            (self.local("/management-tokens", role).await, self.local("/management-tokens", role).await);
        let administrator = format!(r#"{{"name":"twin-{id}","role":"viewer"}}"#);
        let administrator = self.local("/administrators", &administrator).await;
        let fill = |template: &str| {
            let values = [
                ("{id}", id.to_string()),
                ("{key}", credential.api_key.clone()),
                ("{session}", sessions["sessions"][0]["session_id"].to_string()),
                ("{verifier}", verifier["verifier_id"].to_string()),
                ("{spare}", spare["management_token_id"].to_string()),
                ("{administrator}", administrator["administrator_id"].to_string()),
                ("{kid}", signing.as_str().unwrap().to_owned()),
            ];
            values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        for (path, body) in row.before {
            self.local(&fill(path), body).await;
        }
        let newest = self.read("/audit?limit=1").await["events"][0]["id"].as_u64().unwrap();

        let (method, path, body) = row.request;
        if door == Door::Api {
            let url = format!("{}{PREFIX}{}", self.server.management, fill(path));
            let request = reqwest::Client::new().request(method.parse().unwrap(), url);
            let request = request.bearer_auth(mine["token"].as_str().unwrap());
            let request = if method == Method::DELETE.as_str() {
                request
            } else {
                request.header("content-type", "application/json").body(fill(body))
            };
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{}: {}", row.operation, answer.text().await.unwrap());
        } else if door == Door::Form {
            let parameter = path.find('{').map(|at| path[at..].split('/').next().unwrap());
            let parameter = parameter.map(|parameter| format!("/{}", fill(parameter))).unwrap_or_default();
            let mut fields = fields(&fill(if body.is_empty() { "{}" } else { body }));
            // What is destroyed is named.
            fields.push(("_name".into(), "twin".into()));
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let page =
                self.browser.post(&format!("/dashboard/do/{}{parameter}", row.operation), &fields).await;
            assert_eq!(page.status, 200, "{}: {}", row.operation, page.body);
        } else {
            let command = fill(row.command);
            let ran = cli(self.dir, command.split(' ').chain(["--yes", "--json"]));
            assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
        }
        let verified = public.verify(&token).await.0;

        let events = self.read(&format!("/audit?after={newest}&limit=1000")).await;
        // What callers are refused is written later, by the audit's task: such a row can be of any verification until now.
        let of_the_change = |event: &&Value| event["by"] != "caller";
        let events: Vec<_> = events["events"].as_array().unwrap().iter().filter(of_the_change).collect();
        for event in &events {
            let operator = event["operator"].as_str().unwrap_or_default();
            assert_eq!(operator.starts_with("management token "), door == Door::Api, "{event}");
            assert_eq!(operator.starts_with("administrator "), door == Door::Form, "{event}");
            assert!(!operator.is_empty() && event["request_id"].is_string(), "{event}");
        }
        (events.into_iter().map(|event| said(event, id)).collect(), verified)
    }
}

#[tokio::test]
async fn every_change_leaves_the_same_rows_and_takes_effect_by_every_door() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.ready().await;
    let local = Api::local(&dir.path().join("rescind.sock"));
    let browser = Browser::new(server.management.clone(), Clock::System);
    let doors = Doors { dir: dir.path(), server: &server, local, browser };
    let invited = doors.local("/administrators", r#"{"name":"twin-0","role":"admin"}"#).await;
    let page = doors.browser.enrol(invited["link"].as_str().unwrap(), None).await;
    assert_eq!(page.status, 200, "{}", page.body);
    for row in &ROWS {
        let by_form = doors.pass(row, Door::Form).await;
        let by_command = doors.pass(row, Door::Command).await;
        let by_api = doors.pass(row, Door::Api).await;
        assert_eq!(by_command, by_api, "{}", row.operation);
        assert_eq!(by_form, by_api, "{}", row.operation);
        assert_eq!(by_api.1, row.verified, "{}", row.operation);
        assert!(!by_api.0.is_empty(), "{} leaves no row", row.operation);
        assert!(by_api.0.iter().all(|(_, by, ..)| by == "operator"), "{}: {by_api:?}", row.operation);
    }
}

#[test]
fn the_table_has_every_operation_that_changes_something() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap());
    let changing: BTreeMap<_, _> = operations
        .filter(|(method, _)| ["post", "put", "patch", "delete"].contains(&method.as_str()))
        .map(|(method, operation)| (operation["operationId"].as_str().unwrap(), method.to_uppercase()))
        .filter(|(id, _)| !ELSEWHERE.contains(id) && !READS.contains(id))
        .collect();
    let listed = ROWS.iter().map(|row| (row.operation, row.request.0.to_owned())).collect();
    assert_eq!(changing, listed);
}
