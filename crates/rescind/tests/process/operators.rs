//! What operators ask and change by one command.

use std::{
    fs::{self, File},
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    api::{Api, Credential, ok, unauthorized},
    process::{Server, cli, json, rescind, run},
};

fn create(dir: &Path, name: &str) -> Credential {
    Credential::from_json(&json(dir, &format!("client create --name {name}")))
}

#[test]
fn a_client_is_found_by_its_name_wherever_an_id_stands() {
    let dir = tempfile::tempdir().unwrap();
    let credential = create(dir.path(), "billing");
    let dir = dir.path();
    for command in [
        "client show billing",
        "client scope add billing invoices orders",
        "client allow add billing 192.0.2.0/24",
        "client certificate add billing dns:a.example",
        "client enforces-allowlist billing yes",
        "client suspend billing --yes",
        "client resume billing",
        "client logout billing --yes",
    ] {
        assert_eq!(json(dir, command)["client_id"], 1, "{command}");
    }
    assert_eq!(json(dir, "credential list billing")[0]["api_key"], *credential.api_key);
    assert_eq!(json(dir, "credential create billing")["client_id"], 1);
    assert_eq!(json(dir, "session list billing"), json!({"client_id": 1, "live": 0, "sessions": []}));
    assert_eq!(json(dir, "client scope remove billing orders")["scopes"], json!(["invoices"]));
    cli(dir, ["client", "scope", "remove", "billing", "x"])
        .refused(1, "the client does not have the scope x");

    assert_eq!(json(dir, "client rename billing billing-eu")["name"], "billing-eu");
    cli(dir, ["client", "show", "billing"])
        .refused(1, "no client has the name \"billing\"; `rescind client list --name \"billing\"` shows 1");
    cli(dir, ["client", "show", "nobody"]).refused(1, "no client has the name \"nobody\"");
    create(dir, "twin");
    create(dir, "twin");
    cli(dir, ["client", "show", "twin"]).refused(1, "several clients have the name \"twin\": 2, 3");
    // What would be lost is named by both.
    cli(dir, ["client", "delete", "billing-eu"]).refused(2, "client 1 \"billing-eu\"");
    for command in ["suspend", "logout"] {
        cli(dir, ["client", command, "1"]).refused(2, "client 1 \"billing-eu\"");
    }
    assert_eq!(json(dir, "client show 1")["status"], "active");
}

#[test]
fn a_client_is_created_once_if_absent() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["client", "create", "--name", "job", "--allow", "192.0.2.0/24", "--if-absent"];
    let created = cli(dir.path(), command.into_iter().chain(["--json"])).json();
    assert!(created["api_secret"].is_string());
    let again = cli(dir.path(), command.into_iter().chain(["--json"]));
    assert_eq!(
        (again.json()["client_id"].clone(), again.json()["api_secret"].clone()),
        (json!(1), Value::Null)
    );
    assert!(again.stderr.contains("There is client 1 \"job\" already"), "{again:?}");
    assert_eq!(json(dir.path(), "client list").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn clients_are_listed_by_what_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let dir = dir.path();
    let used = create(dir, "Zeta");
    create(dir, "alpha");
    create(dir, "beta");
    Api::new(&server.url).login(&used).await;
    json(dir, "client suspend beta --yes");
    let names = |args: &str| -> Vec<String> {
        let listed = json(dir, &format!("client list {args}"));
        listed.as_array().unwrap().iter().map(|client| client["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("--sort id"), ["Zeta", "alpha", "beta"]);
    assert_eq!(names("--sort name"), ["alpha", "beta", "Zeta"]);
    assert_eq!(names("--sort last-used"), ["alpha", "beta", "Zeta"]);
    assert_eq!(names("--name ETA"), ["Zeta", "beta"]);
    assert_eq!(names("--status suspended"), ["beta"]);
    assert_eq!(names("--stale 90d"), [""; 0]);
    let limited = cli(dir, ["client", "list", "--limit", "2"]);
    assert_eq!(limited.stdout.lines().count(), 3, "{limited:?}");
    assert!(limited.stderr.contains("There are more"), "{limited:?}");
    assert_eq!(cli(dir, ["client", "list", "--limit", "3"]).stderr, "");
    assert!(json(dir, "client show Zeta")["last_used_at"].is_string());
    assert_eq!(json(dir, "client show alpha")["last_used_at"], Value::Null);
    cli(dir, ["client", "list", "--limit", "0"]).refused(2, "expected a whole number, 1 or more");
    cli(dir, ["client", "list", "--status", "gone"]).refused(2, "[possible values: active, suspended]");
}

#[tokio::test]
async fn who_uses_a_credential_and_the_end_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (dir, api) = (dir.path(), Api::new(&server.url));
    let credential = create(dir, "c");
    let tokens = api.login(&credential).await;
    api.refresh(&tokens.refresh).await.unwrap();
    let key = &credential.api_key;
    let shown = json(dir, &format!("credential show {key}"));
    assert_eq!((&shown["client_name"], &shown["uses"][0]["address"]), (&json!("c"), &json!("127.0.0.1")));
    assert_eq!(shown["uses"][0]["times"], 2);
    let text = cli(dir, ["credential", "show", key]).stdout;
    assert!(text.contains("1 \"c\"") && text.contains("127.0.0.1"), "{text}");
    // After a leak this is asked of a credential that was revoked.
    let other = json(dir, "credential create c")["api_key"].as_str().unwrap().to_owned();
    let revoked = json(dir, &format!("credential revoke {other} --yes"))["revoked_at"].clone();
    let shown = json(dir, &format!("credential show {other}"));
    assert_eq!((&shown["status"], &shown["revoked_at"]), (&json!("revoked"), &revoked));
    let text = cli(dir, ["credential", "show", &other]).stdout;
    assert!(text.contains(&format!("revoked     {}", revoked.as_str().unwrap())), "{text}");
    cli(dir, ["credential", "revoke", &other, "--yes"]).refused(1, "was revoked at 20");

    let rotated = json(dir, &format!("credential rotate {key}"));
    cli(dir, ["credential", "rotate", key]).refused(1, "this credential was rotated at");
    assert_eq!(json(dir, "credential list 1").as_array().unwrap().len(), 3);
    let expiring = json(dir, &format!("credential expire {key} --at 2099-01-31"));
    assert_eq!(expiring["expires_at"], "2099-01-31T00:00:00Z");
    cli(dir, ["credential", "expire", key, "--at", "2020-01-31"]).refused(1, "expected a time in the future");
    cli(dir, ["credential", "expire", key, "--in", "0s"]).refused(1, "expected a time in the future");
    cli(dir, ["credential", "expire", key]).refused(2, "--in");
    cli(dir, ["credential", "expire", key, "--in", "1d", "--at", "2099-01-31"])
        .refused(2, "cannot be used with");
    cli(dir, ["credential", "create", "1", "--expires-in", "0s"]).refused(1, "expires_in: expected a time");
    // A rotation each day, as a job may do it: what has expired does not count.
    let mut newest = rotated["api_key"].as_str().unwrap().to_owned();
    for _ in 0..70 {
        let rotated = json(dir, &format!("credential rotate {newest} --overlap 0s"));
        newest = rotated["api_key"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn a_list_comes_from_arguments_a_file_or_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (dir, api) = (dir.path(), Api::new(&server.url));
    let credential = create(dir, "c");
    let tokens = api.login(&credential).await;
    let list = dir.join("list.txt");
    fs::write(&list, "# ours\n192.0.2.0/24, 2001:db8::/32\n198.51.100.1-198.51.100.2\n").unwrap();
    let at_list = format!("@{}", list.display());

    // It was seen at an address that is not on the list.
    let add = ["client", "allow", "add", "c", &at_list];
    cli(dir, add).refused(2, "Every address may call now. This shuts out addresses from which client 1 \"c\" logged in or refreshed in the last 24 h: 127.0.0.1.");
    assert_eq!(json(dir, "client show c")["allow"], json!([]));
    assert_eq!(api.verify(&tokens.access).await, ok());
    let against = cli(dir, ["client", "allow", "check", "c", "--against", list.to_str().unwrap()]);
    assert_eq!(against.code, Some(1), "{against:?}");
    for line in ["+ 192.0.2.0/24", "+ 198.51.100.1/32", "addresses that this would shut out", "127.0.0.1"] {
        assert!(against.stdout.contains(line), "{against:?}");
    }

    let added = cli(dir, add.into_iter().chain(["127.0.0.1", "--json"])).json();
    let all = json!(["127.0.0.1/32", "192.0.2.0/24", "198.51.100.1/32", "198.51.100.2/32", "2001:db8::/32"]);
    assert_eq!(added["allow"], all);
    assert_eq!(api.verify(&tokens.access).await, ok());

    let from_input = |command: &str, text: &str| {
        fs::write(dir.join("input"), text).unwrap();
        let mut child = rescind();
        child.args(["client", "allow", command, "c", "-", "--json", "--data-dir"]).arg(dir);
        run(child.stdin(File::open(dir.join("input")).unwrap()))
    };
    let replaced = from_input("replace", "[\"127.0.0.0/8\"]").json();
    assert_eq!(replaced["allow"], json!(["127.0.0.0/8"]));
    from_input("add", "192.0.2.0/24\nx\n").refused(1, "standard input, line 2: \"x\" is not an address");
    from_input("replace", "192.0.2.0/24").refused(2, "shuts out addresses");
    fs::write(&list, "192.0.2.0/24\n10.0.0.1/8\n").unwrap();
    cli(dir, add).refused(1, "list.txt, line 2: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8");
    cli(dir, ["client", "allow", "add", "c", "@/nowhere"]).refused(1, "/nowhere");
    assert_eq!(json(dir, "client show c")["allow"], json!(["127.0.0.0/8"]));

    // As many as a list may have.
    let many = |of: u32| {
        (0..of).map(|n| format!("11.{}.{}.{}/32\n", n >> 16, n >> 8 & 255, n & 255)).collect::<String>()
    };
    let full = from_input("add", &many(9_999)).json();
    assert_eq!(full["allow"].as_array().unwrap().len(), 10_000);
    assert_eq!(api.verify(&tokens.access).await, ok());
    from_input("add", &many(10_000)).refused(1, "an allowlist has at most 10000 entries");
    let record = json(dir, "audit list --kind allowlist_changed");
    let detail = record.as_array().unwrap().last().unwrap()["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail.split(' ').count(), 9_999, "a change is on record whole");
}

#[tokio::test]
async fn one_session_of_several_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (dir, api) = (dir.path(), Api::new(&server.url));
    let credential = create(dir, "c");
    let (one, two) = (api.login(&credential).await, api.login(&credential).await);
    let listed = json(dir, "session list c");
    assert_eq!((&listed["live"], &listed["sessions"][0]["status"]), (&json!(2), &json!("live")));
    let id = json(dir, &format!("token inspect {}", one.access))["session"].as_u64().unwrap();
    cli(dir, ["session", "revoke", &id.to_string()]).refused(2, "say --yes");
    assert_eq!(api.verify(&one.access).await, ok());
    let revoked = json(dir, &format!("session revoke {id} --yes"));
    assert_eq!((&revoked["status"], &revoked["receipt"]["nodes"]), (&json!("ended"), &json!(1)));
    assert_eq!(api.verify(&one.access).await, unauthorized("Invalid token"));
    assert_eq!(api.refresh(&one.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    assert_eq!(api.verify(&two.access).await, ok());
    assert_eq!(json(dir, "session list c")["live"], 1);
    let text = cli(dir, ["session", "list", "c", "--limit", "0"]).stdout;
    assert!(text.contains("1 live sessions of client 1 \"c\", of which 0 are shown"), "{text}");
    assert_eq!(json(dir, "audit list --kind session_revoked")[0]["session"], id);
    cli(dir, ["session", "revoke", "99", "--yes"]).refused(1, "no such session");
}

#[tokio::test]
async fn the_record_names_the_operator_and_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let dir = dir.path();
    create(dir, "=c,\"x\"");
    let uid = rustix::process::getuid().as_raw();
    let suspend = |name: &str, args: &[&str]| {
        let mut command = rescind();
        command
            .env("SUDO_USER", name)
            .args(["client", "suspend", "1", "--yes", "--data-dir"])
            .arg(dir)
            .args(args);
        assert_eq!(run(&mut command).code, Some(0));
    };
    suspend("alice", &["--for", "2h", "--reason", "key in a repository"]);
    // Again, for another reason: no logout.
    suspend("bob", &["--reason", "for good"]);
    let record = json(dir, "audit list");
    assert_eq!(record.as_array().unwrap().len(), 5);
    let of = |n: usize, field: &str| record[n][field].as_str().unwrap_or_default().to_owned();
    assert_eq!([of(3, "kind"), of(4, "kind")], ["client_suspended", "client_suspended"]);
    let operator = of(3, "operator");
    assert!(
        operator.contains(&format!("uid {uid}")) && operator.ends_with(", by sudo from alice"),
        "{operator}"
    );
    assert!(
        of(3, "detail").starts_with("until 20") && of(3, "detail").ends_with(": key in a repository"),
        "{record}"
    );
    assert_eq!(of(4, "detail"), "for good");
    assert!(cli(dir, ["audit", "list"]).stdout.contains("alice as "));
    let shown = json(dir, "client show 1");
    assert_eq!((&shown["suspended_until"], &shown["suspension_reason"]), (&Value::Null, &json!("for good")));

    let limited = cli(dir, ["audit", "list", "--limit", "2"]);
    assert!(limited.stderr.contains("There are older events"), "{limited:?}");
    assert_eq!(cli(dir, ["audit", "list", "--limit", "5"]).stderr, "");
    assert_eq!(json(dir, "audit list --limit all"), record);
    assert_eq!(json(dir, "audit list --until 2020-01-01"), json!([]));
    assert_eq!(json(dir, "audit list --since 2020-01-01 --client 1").as_array().unwrap().len(), 4);
    cli(dir, ["audit", "list", "--limit", "0"]).refused(2, "expected between 1 and 1000, or all");
    cli(dir, ["audit", "list", "--since", "yesterday"]).refused(2, "expected a duration such as 1h");

    assert_eq!(json(dir, "audit export"), record);
    let csv = cli(dir, ["audit", "export", "--csv", "--kind", "client_created"]).stdout;
    let lines: Vec<_> = csv.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("id,at,event,by,operator,client"), "{csv}");
    assert!(lines[1].contains(",\"'=c,\"\"x\"\"\",1"), "{csv}");
    cli(dir, ["audit", "export"]).refused(2, "--csv");
}

#[test]
fn help_fits_eighty_columns_and_has_examples() {
    for command in [
        "",
        "client",
        "client create",
        "client allow add",
        "client suspend",
        "credential expire",
        "audit list",
        "serve",
        "db",
        "proxy-config",
    ] {
        let help = run(rescind().args(command.split(' ').filter(|word| !word.is_empty())).arg("--help"));
        assert_eq!(help.code, Some(0), "{help:?}");
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
    for command in [
        "client create",
        "client suspend",
        "client allow check",
        "credential rotate",
        "session revoke",
        "audit export",
    ] {
        let help = run(rescind().args(command.split(' ')).arg("--help")).stdout;
        assert!(help.contains(&format!("  rescind {command}")), "{help}");
    }
}

#[test]
fn the_check_of_a_configuration_reads_what_serve_reads() {
    let dir = tempfile::tempdir().unwrap();
    let check = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = rescind();
        command
            .args(["config", "check", "--data-dir"])
            .arg(dir.path())
            .args(args)
            .envs(variables.iter().copied());
        run(&mut command)
    };
    let good = check(&[], &[]);
    assert_eq!((good.code, good.stderr.as_str()), (Some(0), "The configuration is good.\n"));
    let warned = check(&[("RESCIND_SERVER__LISTEN", "0.0.0.0:8080")], &["--json"]);
    assert_eq!(warned.json()["warnings"].as_array().unwrap().len(), 2, "{warned:?}");
    assert!(warned.stderr.contains("warning: server.listen = 0.0.0.0:8080"), "{warned:?}");
    check(&[("RESCIND_TOKENS__ISSUER", "rescind")], &[])
        .refused(1, "tokens.issuer = \"rescind\": expected the URL");
    let files = [("RESCIND_TLS__CERTIFICATE", "/nowhere.pem"), ("RESCIND_TLS__KEY", "/nowhere.key")];
    check(&files, &[]).refused(1, "/nowhere");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("webhook.toml");
    let webhook =
        "[[webhook]]\nname = 'siem'\nurl = 'http://127.0.0.1:9/'\nsecret_file = '/nowhere/secret'\n";
    fs::write(&file, webhook).unwrap();
    check(&[], &["--config", file.to_str().unwrap()])
        .refused(1, "webhook siem: secret_file: /nowhere/secret: No such file or directory");
    check(&[("RESCIND_MASTER_KEY", "short")], &[]).refused(1, "a master key is 64 hexadecimal digits");
    let database = [("RESCIND_DATABASE__URL", "postgres://u@127.0.0.1:1/x")];
    assert_eq!(check(&database, &[]).code, Some(0));
    check(&database, &["--connect"]).refused(1, "127.0.0.1");
    json(dir.path(), "client create --name c");
    assert_eq!(check(&[], &[]).code, Some(0));
    fs::rename(dir.path().join("master.key"), dir.path().join("kept")).unwrap();
    check(&[], &[]).refused(1, "master.key");
}
