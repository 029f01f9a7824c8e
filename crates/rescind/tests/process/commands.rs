//! Every command that shows or changes the service's data, with and without a running server.

use std::{io::Write, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::{
    api::{Api, Credential, ok, unauthorized},
    process::{Server, cli, json, rescind},
};

#[test]
fn without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    // The folder is made by the first client.
    let data_dir = dir.path().join("new/folder");
    every_command(&data_dir);
    assert!(!data_dir.join("rescind.sock").exists());
}

#[tokio::test]
async fn with_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    every_command(dir.path());
}

fn every_command(dir: &Path) {
    let created =
        json(dir, "client create --name billing --allow 203.0.113.0/24 --allow ::1 --scope b --scope a");
    let credential = Credential::from_json(&created);
    let id = credential.client_id;
    clients(dir, id);
    allowlists(dir, id);
    certificates(dir, id);
    credentials(dir, &credential);
    keys(dir);
    tokens(dir);
    end_of_a_client(dir, id);
    enforcement(dir);
    resources(dir);
    lifetime(dir);
}

fn clients(dir: &Path, id: u64) {
    let shown = json(dir, &format!("client show {id}"));
    assert_eq!(shown["name"], "billing");
    assert_eq!(shown["allow"], json!(["203.0.113.0/24", "::1/128"]));
    assert_eq!(shown["scopes"], json!(["a", "b"]));
    assert_eq!(shown["status"], "active");
    assert_eq!(json(dir, "client list"), json!([shown]));
    let text = cli(dir, ["client", "list"]);
    assert!(text.stdout.starts_with("ID  NAME     STATUS"), "{text:?}");
    assert!(cli(dir, ["client", "show", &id.to_string()]).stdout.contains("billing"));

    assert_eq!(json(dir, &format!("client suspend {id} --yes"))["status"], "suspended");
    assert_eq!(json(dir, &format!("client resume {id}"))["status"], "active");
    assert_eq!(json(dir, &format!("client logout {id} --yes"))["client_id"], id);
    // Without --json the one sentence is prose, and there is no data.
    for (action, said) in [("suspend", "suspended"), ("resume", "resumed"), ("logout", "logged out")] {
        let outcome = cli(dir, ["client", action, &id.to_string(), "--yes"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{outcome:?}");
        assert!(outcome.stderr.contains(said), "{outcome:?}");
    }
}

fn allowlists(dir: &Path, id: u64) {
    let added = json(dir, &format!("client allow add {id} 198.51.100.7 2001:db8::/32"));
    let all = json!(["198.51.100.7/32", "203.0.113.0/24", "::1/128", "2001:db8::/32"]);
    let sorted = |list: &Value| {
        let mut list: Vec<_> =
            list.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
        list.sort();
        list
    };
    assert_eq!(sorted(&added["allow"]), sorted(&all));
    let check = |address: &str| cli(dir, ["client", "allow", "check", &id.to_string(), address, "--json"]);
    assert_eq!(
        check("::ffff:203.0.113.9").json(),
        json!({"client_id": id, "address": "203.0.113.9", "allowed": true, "entries": ["203.0.113.0/24"]})
    );
    let no = check("192.0.2.1");
    assert!(no.code == Some(1) && no.stderr.is_empty() && no.stdout.contains("\"allowed\":false"), "{no:?}");
    let removed = json(dir, &format!("client allow remove {id} 203.0.113.0/24 2001:db8::/32 ::1"));
    assert_eq!(removed["allow"], json!(["198.51.100.7/32"]));

    // checks 69, 70
    let id = id.to_string();
    let add = |entry: &str| cli(dir, ["client", "allow", "add", &id, entry]);
    add("10.0.0.1/8").refused(1, "10.0.0.1/8 has host bits set: the network is 10.0.0.0/8");
    add("0.0.0.0/0").refused(1, "--allow-any");
    add("10.0.0.0/33").refused(1, "10.0.0.0/33");
    add("010.0.0.1").refused(1, "010.0.0.1");
    let remove = ["client", "allow", "remove", &id, "198.51.100.7"];
    cli(dir, remove).refused(1, "--allow-any");
    cli(dir, ["client", "allow", "remove", &id, "192.0.2.0/24"])
        .refused(1, "192.0.2.0/24 is not on the allowlist");
    cli(dir, ["client", "allow", "check", &id, "localhost"]).refused(1, "is not an IP address");
    let emptied = cli(dir, remove.into_iter().chain(["--allow-any", "--json"])).json();
    assert_eq!(emptied["allow"], json!([]));
    assert!(cli(dir, ["client", "allow", "check", &id, "192.0.2.1"]).stdout.starts_with("yes"));
}

fn enforcement(dir: &Path) {
    let created = json(dir, "client create --name gateway --scope introspect --enforces-allowlist");
    assert_eq!(created["enforces_allowlist"], true);
    let id = created["client_id"].to_string();
    let show = || cli(dir, ["client", "show", &id]).stdout;
    let line = "enforces      allowlists of the tokens that it introspects\n";
    assert!(show().contains(line));
    assert_eq!(json(dir, &format!("client enforces-allowlist {id} no"))["enforces_allowlist"], false);
    assert!(!show().contains(line));
    assert_eq!(json(dir, &format!("client enforces-allowlist {id} yes"))["enforces_allowlist"], true);
    cli(dir, ["client", "enforces-allowlist", &id]).refused(2, "<yes|no>");
    cli(dir, ["client", "enforces-allowlist", &id, "maybe"]).refused(2, "invalid value 'maybe'");
}

fn resources(dir: &Path) {
    let created = json(dir, "client create --name app --resource urn:b --resource https://api.example/a");
    assert_eq!(created["resources"], json!(["https://api.example/a", "urn:b"]));
    let id = &created["client_id"];
    let added = json(dir, &format!("client resource add {id} urn:c urn:d"));
    assert_eq!(added["resources"], json!(["https://api.example/a", "urn:b", "urn:c", "urn:d"]));
    let left = json(dir, &format!("client resource remove {id} urn:b urn:c"));
    assert_eq!(left["resources"], json!(["https://api.example/a", "urn:d"]));
    assert!(
        cli(dir, ["client", "show", &id.to_string()])
            .stdout
            .contains("resources     https://api.example/a, urn:d\n")
    );
}

fn lifetime(dir: &Path) {
    let created = json(dir, "client create --name module --scope introspect --introspect-lifetime 0s");
    assert_eq!(created["introspect_lifetime"], "0s");
    let id = created["client_id"].to_string();
    let show = || cli(dir, ["client", "show", &id]).stdout;
    assert!(show().contains("answers       of introspection have no exp\n"), "{}", show());
    let change =
        |to: &str| json(dir, &format!("client introspect-lifetime {id} {to}"))["introspect_lifetime"].clone();
    assert_eq!(change("60s"), "1m");
    assert!(show().contains("answers       of introspection expire after 1m\n"), "{}", show());
    assert_eq!(change("off"), Value::Null);
    assert!(show().contains("answers       -\n"), "{}", show());
    cli(dir, ["client", "introspect-lifetime", &id]).refused(2, "<DURATION|off>");
    cli(dir, ["client", "introspect-lifetime", &id, "no"]).refused(2, "1h or 7d, up to 3650d, or off");
}

fn certificates(dir: &Path, id: u64) {
    let added =
        json(dir, &format!("client certificate add {id} dns:API.example.com uri:spiffe://example.com/api"));
    assert_eq!(added["certificates"], json!(["dns:api.example.com", "uri:spiffe://example.com/api"]));
    let id = id.to_string();
    assert!(cli(dir, ["client", "show", &id]).stdout.contains("dns:api.example.com"));
    let removed = json(dir, &format!("client certificate remove {id} uri:spiffe://example.com/api"));
    assert_eq!(removed["certificates"], json!(["dns:api.example.com"]));

    let add = |name: &str| cli(dir, ["client", "certificate", "add", &id, name]);
    add("dns:*.example.com").refused(1, "add: dns:*.example.com is not a DNS name");
    add("api.example.com").refused(1, "dns:api.example.com or uri:spiffe://example.com/api");
    cli(dir, ["client", "certificate", "remove", &id, "dns:b.example"])
        .refused(1, "remove: the client is not bound to dns:b.example");
    let remove = ["client", "certificate", "remove", &id, "dns:api.example.com"];
    cli(dir, remove).refused(1, "--unbind");
    let unbound = cli(dir, remove.into_iter().chain(["--unbind", "--json"])).json();
    assert_eq!(unbound["certificates"], json!([]));

    let bound = json(dir, "client create --name bound --certificate dns:a.example");
    assert_eq!(bound["certificates"], json!(["dns:a.example"]));
    json(dir, &format!("client delete {} --yes", bound["client_id"]));
}

fn credentials(dir: &Path, first: &Credential) {
    let id = first.client_id;
    let created = json(dir, &format!("credential create {id} --expires-in 90d"));
    assert_eq!(created["client_id"], id);
    assert!(created["expires_at"].as_str().unwrap().ends_with('Z'), "{created}");
    let second = Credential::from_json(&created);
    assert_ne!(second.api_key, first.api_key);
    assert!(second.api_key.starts_with("rk_") && second.api_secret.starts_with("rs_"), "{created}");

    let rotated = json(dir, &format!("credential rotate {} --overlap 1h", first.api_key));
    assert_eq!(rotated["replaces"]["api_key"], first.api_key.as_str());
    assert_eq!(rotated["client_id"], id);
    let revoked = json(dir, &format!("credential revoke {} --yes", second.api_key));
    assert_eq!((&revoked["api_key"], &revoked["status"]), (&json!(second.api_key), &json!("revoked")));

    let listed = json(dir, &format!("credential list {id}"));
    let status: Vec<_> = listed.as_array().unwrap().iter().map(|c| c["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["active", "revoked", "active"]);
    let text = cli(dir, ["credential", "list", &id.to_string()]);
    assert!(text.stdout.starts_with("API KEY") && text.stdout.contains(&first.api_key), "{text:?}");
    for secret in [&first.api_secret, &second.api_secret] {
        assert!(!text.stdout.contains(secret.as_str()) && !listed.to_string().contains(secret.as_str()));
    }
    cli(dir, ["credential", "create", &id.to_string(), "--expires-in", "soon"])
        .refused(2, "expected a duration");
    cli(dir, ["credential", "rotate", "rk_nobody"]).refused(1, "no such credential");
    cli(dir, ["credential", "revoke", "rk_/../?", "--yes"]).refused(1, "no such credential");
}

fn keys(dir: &Path) {
    let before = json(dir, "key list");
    assert_eq!((before.as_array().unwrap().len(), &before[0]["status"]), (1, &json!("signing")));
    assert_eq!(before[0]["algorithm"], "HS256");
    let old = before[0]["kid"].as_str().unwrap();
    cli(dir, ["key", "retire", old, "--yes"])
        .refused(1, "rotate the key, and retire this one when the new one signs");
    let rotated = json(dir, "key rotate");
    let status: Vec<_> = rotated.as_array().unwrap().iter().map(|k| k["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["verifying", "signing"]);
    assert_eq!(rotated[0]["kid"], old);
    let retired = json(dir, &format!("key retire {old} --yes"));
    assert_eq!(retired, json!([rotated[1]]));
    assert!(cli(dir, ["key", "list"]).stdout.starts_with("KID "));
    cli(dir, ["key", "retire", old, "--yes"]).refused(1, "no such signing key");
}

fn tokens(dir: &Path) {
    let bad = json(dir, "token inspect no-token");
    assert_eq!((&bad["stands"], &bad["kind"]), (&json!(false), &Value::Null));
    let outcome = cli(dir, ["token", "inspect", "no-token"]);
    assert!(outcome.code == Some(0) && outcome.stdout.starts_with("verdict"), "{outcome:?}");
}

fn end_of_a_client(dir: &Path, id: u64) {
    assert_eq!(json(dir, &format!("client delete {id} --yes"))["status"], "deleted");
    assert_eq!(json(dir, "client list"), json!([]));
    for action in ["show", "suspend", "resume", "logout"] {
        cli(dir, ["client", action, &id.to_string(), "--yes"]).refused(1, "no such client");
    }
    cli(dir, ["client", "delete", &id.to_string(), "--yes"]).refused(1, "no such client");
    cli(dir, ["client", "show", "999"]).refused(1, "no such client");
    cli(dir, ["credential", "list", &id.to_string()]).refused(1, "no such client");
}

// checks 15, 17
#[tokio::test]
async fn what_a_command_takes_back_is_refused_at_the_very_next_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let id = credential.client_id;
    for command in [
        format!("client logout {id} --yes"),
        format!("client suspend {id} --yes"),
        format!("credential revoke {} --yes", credential.api_key),
        format!("client allow add {id} 203.0.113.7 --yes"),
        format!("client delete {id} --yes"),
    ] {
        let other = Credential::from_json(&json(dir.path(), "client create --name untouched"));
        let untouched = api.login(&other).await;
        // What the last round took away is given back, to be taken away by this command alone.
        let credential = match command.split(' ').nth(1).unwrap() {
            "logout" | "suspend" => credential.clone(),
            "revoke" => {
                json(dir.path(), &format!("client resume {id}"));
                credential.clone()
            }
            "allow" => Credential::from_json(&json(dir.path(), &format!("credential create {id}"))),
            _ => {
                json(dir.path(), &format!("client allow remove {id} 203.0.113.7 --allow-any"));
                Credential::from_json(&json(dir.path(), &format!("credential create {id}")))
            }
        };
        let tokens = api.login(&credential).await;
        assert_eq!(api.verify(&tokens.access).await, ok(), "{command}");
        json(dir.path(), &command);
        let refused = if command.contains("allow") {
            (403, "IP address not authorized".to_owned())
        } else {
            unauthorized("Invalid token")
        };
        assert_eq!(api.verify(&tokens.access).await, refused, "{command}");
        assert_eq!(api.refresh(&tokens.refresh).await.unwrap_err(), refused, "{command}");
        assert_eq!(api.verify(&untouched.access).await, ok(), "{command}");
    }
}

// check 48
#[tokio::test]
async fn a_key_verifies_until_retired() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let old = api.login(&credential).await;
    let keys = json(dir.path(), "key rotate");
    let new = api.login(&credential).await;
    assert_eq!(api.verify(&old.access).await, ok());
    assert_eq!(api.verify(&new.access).await, ok());
    json(dir.path(), &format!("key retire {} --yes", keys[0]["kid"].as_str().unwrap()));
    assert_eq!(api.verify(&old.access).await, unauthorized("Invalid token"));
    assert_eq!(api.refresh(&old.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    assert_eq!(api.verify(&new.access).await, ok());
}

#[tokio::test]
async fn a_token_is_inspected_from_the_command_line_and_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&json(dir.path(), "client create --name c --scope read"));
    let tokens = api.login(&credential).await;
    let access = json(dir.path(), &format!("token inspect {}", tokens.access));
    assert_eq!(
        (&access["verdict"], &access["stands"], &access["kind"]),
        (&json!("stands"), &json!(true), &json!("access"))
    );
    assert_eq!((&access["client_id"], &access["scopes"]), (&json!(credential.client_id), &json!(["read"])));

    let inspect = |token: &str| -> Value {
        let mut command = rescind();
        command.args(["token", "inspect", "-", "--json", "--data-dir"]).arg(dir.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!(" {token}\n").as_bytes()).unwrap();
        serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(inspect(&tokens.access), access);
    let refresh = inspect(&tokens.refresh);
    assert_eq!((&refresh["kind"], &refresh["stands"]), (&json!("refresh"), &json!(true)));
    api.refresh(&tokens.refresh).await.unwrap();
    assert_eq!(inspect(&tokens.refresh)["stands"], false);
    // To look is not to use: the session goes on.
    assert_eq!(api.logout(&tokens.access).await, ok());
    assert_eq!(inspect(&tokens.access)["stands"], false);
}
