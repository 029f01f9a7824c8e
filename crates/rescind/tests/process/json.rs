//! The JSON output of commands.

use serde_json::{Value, json};

use crate::{
    api::Credential,
    process::{Server, cli, json, rescind, run},
};

#[test]
fn client_create_prints_exactly_the_contracts_shape() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "client",
        "create",
        "--name",
        "Büro <b>",
        "--allow",
        "203.0.113.0/24",
        "--scope",
        "orders:read",
        "--json",
    ];
    let outcome = cli(dir.path(), args);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let created = outcome.json();
    let Credential { api_key, api_secret, .. } = Credential::from_json(&created);
    assert_eq!((&api_key[..3], &api_secret[..3]), ("rk_", "rs_"));
    let expected = format!(
        r#"{{"client_id":1,"name":"Büro <b>","allow":["203.0.113.0/24"],"scopes":["orders:read"],"status":"active","api_key":"{api_key}","api_secret":"{api_secret}"}}"#
    );
    assert_eq!(outcome.stdout, expected + "\n");
    // Shown then, and never again.
    for again in ["client show 1", "client list", "credential list 1"] {
        assert!(!json(dir.path(), again).to_string().contains(&api_secret), "{again}");
    }
}

#[test]
fn the_fields_of_everything_that_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let printed = |args: &str| json(dir.path(), args);
    has_fields(&printed("client create --name c"), "client_id name allow scopes status api_key api_secret");
    let client = "client_id name allow enforces_allowlist introspect_lifetime certificates scopes resources status created_at";
    has_fields(&printed("client show 1"), client);
    let changed = "client_id name allow enforces_allowlist introspect_lifetime certificates scopes resources status created_at receipt";
    for command in
        ["suspend 1 --yes", "resume 1", "logout 1 --yes", "allow add 1 ::1", "allow remove 1 ::1 --allow-any"]
    {
        let printed = printed(&format!("client {command}"));
        has_fields(&printed, changed);
        has_fields(&printed["receipt"], "nodes acknowledged milliseconds");
    }
    has_fields(&printed("client list")[0], client);
    has_fields(&printed("client allow check 1 ::1"), "client_id address allowed entries");
    has_fields(&printed("session list 1"), "client_id live sessions");

    let added = printed("credential create 1");
    has_fields(&added, "client_id api_key api_secret expires_at");
    let key = added["api_key"].as_str().unwrap();
    let rotated = printed(&format!("credential rotate {key}"));
    has_fields(&rotated, "client_id api_key api_secret expires_at replaces");
    has_fields(&rotated["replaces"], "api_key expires_at");
    let credential = "api_key status created_at expires_at revoked_at";
    has_fields(&printed("credential list 1")[0], credential);
    let replaced = "api_key status created_at expires_at revoked_at replaced_at";
    has_fields(&printed(&format!("credential expire {key} --in 7d")), replaced);
    let shown = "client_id client_name uses last_verification api_key status created_at expires_at revoked_at replaced_at";
    has_fields(&printed(&format!("credential show {key}")), shown);
    has_fields(&printed(&format!("credential revoke {key} --yes")), replaced);

    has_fields(&printed("key list")[0], "kid algorithm status created_at signs_from retires_at");
    has_fields(
        &printed("audit list --kind client_created")[0],
        "id at kind by operator client_id api_key session address node request_id detail count number hash",
    );
    has_fields(&printed("audit checkpoint"), "public_key checkpoints");
    has_fields(&printed("audit checkpoint")["checkpoints"][0], "chain number hash at signature");
    let verified = printed("audit verify");
    has_fields(&verified, "valid rows unchained chains faults");
    has_fields(&verified["chains"][0], "chain number signed signed_at");
    has_fields(
        &printed("status"),
        "ready version url management_url store clients sessions_in_memory attached_verifiers clock followers",
    );
    has_fields(
        &printed("token inspect x"),
        "verdict stands kind client_id session pair generation scopes audience issued_at expires_at",
    );
    has_fields(&printed("client delete 1 --yes"), changed);
}

#[test]
fn times_are_rfc_3339_in_whole_seconds() {
    let dir = tempfile::tempdir().unwrap();
    json(dir.path(), "client create --name c");
    let created_at = json(dir.path(), "client show 1")["created_at"].as_str().unwrap().to_owned();
    assert_eq!(created_at.len(), "2025-01-15T13:00:00Z".len());
    assert!(created_at.ends_with('Z') && created_at.as_bytes()[10] == b'T', "{created_at}");
}

#[test]
fn the_configuration_as_json() {
    let outcome = run(rescind().args(["config", "print", "--json", "--defaults"]));
    let defaults = outcome.json();
    assert_eq!(defaults["server"]["listen"], "127.0.0.1:8080");
    assert_eq!(defaults["tokens"]["access_ttl"], "1h");
    assert_eq!(defaults["server"]["trusted_proxies"], json!([]));
    let outcome = run(rescind().args(["config", "print", "--json"]).env("RESCIND_TOKENS__ACCESS_TTL", "2m"));
    assert_eq!(outcome.json()["tokens"]["access_ttl"], "2m");
}

/// An object with exactly these fields.
#[track_caller]
fn has_fields(object: &Value, names: &str) {
    let fields = object.as_object().unwrap_or_else(|| panic!("{object}")).keys();
    let mut names: Vec<_> = names.split(' ').collect();
    names.sort_unstable();
    assert_eq!(fields.map(String::as_str).collect::<Vec<_>>(), names);
}
