//! Configurations with which the server starts, and those with which it does not.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    api::{Api, Credential, ok},
    process::{Process, Server, cli, json, rescind, run},
};

#[test]
fn a_bad_value_stops_the_start_naming_key_value_origin_and_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rescind.toml");
    let name = file.to_str().unwrap();
    for (text, expected) in [
        ("[tokens]\naccess_ttl = 'soon'", "tokens.access_ttl = \"soon\" (FILE): expected a duration such as"),
        (
            "[tokens]\naccess_ttl = '8d'",
            "tokens.access_ttl = \"8d\" (FILE): expected no more than tokens.refresh_ttl (7d)",
        ),
        ("[server]\nlisten = 'localhost'", "server.listen = \"localhost\" (FILE): "),
        (
            "[server]\ntrusted_proxies = ['10.0.0.1/8']",
            "server.trusted_proxies = [\"10.0.0.1/8\"] (FILE): 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
        ),
        (
            "[server]\nlitsen = '127.0.0.1:1'",
            "server.litsen (FILE): no such setting: did you mean server.listen?",
        ),
        (
            "[sever]\nlisten = '127.0.0.1:1'",
            "sever.listen (FILE): no such setting: did you mean server.listen?",
        ),
        ("[limits]\nfailed_logins_per_minute = -1", "limits.failed_logins_per_minute = -1 (FILE): "),
        ("[server", "configuration file FILE: line 1: "),
    ] {
        fs::write(&file, text).unwrap();
        let expected = format!("error: {}", expected.replace("FILE", name));
        let data_dir = dir.path().join("data");
        run(rescind().args(["serve", "--config"]).arg(&file).arg("--data-dir").arg(&data_dir))
            .refused(1, &expected);
        run(rescind().args(["config", "check", "--config"]).arg(&file)).refused(1, &expected);
        run(rescind().args(["config", "check"]).env("RESCIND_CONFIG", &file)).refused(1, &expected);
        assert!(!data_dir.exists(), "a refused start left a folder");
    }
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let check = |variable: &str, value: &str| run(rescind().args(["config", "check"]).env(variable, value));
    check("RESCIND_TOKENS__REFRESH_TTL", "1 week").refused(
        1,
        "tokens.refresh_ttl = \"1 week\" (environment variable RESCIND_TOKENS__REFRESH_TTL): expected a duration",
    );
    check("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "many")
        .refused(1, "RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE");
    check("RESCIND_SERVER__LISTN", "x").refused(
        1,
        "server.listn (environment variable RESCIND_SERVER__LISTN): no such setting: did you mean RESCIND_SERVER__LISTEN?",
    );
    check("RESCIND_CONFIG", "/nowhere.toml").refused(1, "/nowhere.toml: No such file");
    check("RESCIND_DATABASE__URL_FILE", "/nowhere").refused(1, "RESCIND_DATABASE__URL_FILE names /nowhere");
    let serve = |args: &[&str]| cli(dir.path(), ["serve"].iter().chain(args));
    serve(&["--listen", "8080"]).refused(1, "server.listen = \"8080\" (flag --listen): ");
    serve(&["--management-listen", ""])
        .refused(1, "server.management_listen = \"\" (flag --management-listen): ");
    let database = serve(&["--database-url", "mysql://u:canary@db/x"]);
    database.refused(1, "database.url (flag --database-url): ");
    assert!(!database.stderr.contains("canary"), "{database:?}");
}

#[test]
fn check_and_print_agree_with_what_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let good = run(rescind().args(["config", "check"]));
    assert_eq!((good.code, good.stdout.as_str()), (Some(0), ""), "{good:?}");
    // Every default is printed with what it is for, and is a file that is read again.
    let defaults = run(rescind().args(["config", "print", "--defaults"]));
    assert!(
        defaults.code == Some(0) && defaults.stdout.contains("# The address for clients"),
        "{defaults:?}"
    );
    let file = dir.path().join("c.toml");
    fs::write(&file, &defaults.stdout).unwrap();
    let printed = |command: &mut Command| run(command.args(["config", "print"])).stdout;
    assert_eq!(printed(rescind().arg("--config").arg(&file)), printed(&mut rescind()));

    let mut changed = rescind();
    changed
        .env("RESCIND_TOKENS__SESSION_MAX_AGE", "30d")
        .env("RESCIND_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,::1")
        .env("RESCIND_SERVER__CLIENT_ADDRESS_HEADER", "X-Real-IP");
    let text = printed(&mut changed);
    assert!(text.contains("session_max_age = \"30d\"") && text.contains("\"10.0.0.0/8\""), "{text}");
    fs::write(&file, &text).unwrap();
    assert_eq!(printed(rescind().arg("--config").arg(&file)), text);
}

#[tokio::test]
async fn serve_with_no_configuration_at_all_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = rescind();
    // Its default ports may be taken on this machine; all else is left as it is.
    command.args(["serve", "--listen", "127.0.0.1:0", "--management-listen", "127.0.0.1:0"]);
    let mut process = Process::spawn(command.current_dir(dir.path()));
    let serving = process.wait_for_log("serving");
    assert_eq!(serving["data_dir"], "./rescind-data");
    let created =
        run(rescind().current_dir(dir.path()).args(["client", "create", "--name", "c", "--json"])).json();
    let api = Api::new(&format!("http://{}", serving["listen"].as_str().unwrap()));
    assert_eq!(api.verify(&api.login(&Credential::from_json(&created)).await.access).await, ok());
}

#[tokio::test]
async fn variables_and_the_file_are_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let file = dir.path().join("c.toml");
    fs::write(&file, "[tokens]\nissuer = 'https://from-file'\naccess_ttl = '1m'\nrefresh_ttl = '2m'")
        .unwrap();
    let mut command = rescind();
    command
        .arg("serve")
        .env("RESCIND_CONFIG", &file)
        .env("RESCIND_SERVER__DATA_DIR", &data_dir)
        .env("RESCIND_SERVER__LISTEN", "127.0.0.1:0")
        .env("RESCIND_SERVER__MANAGEMENT_LISTEN", "127.0.0.1:0")
        .env("RESCIND_TOKENS__REFRESH_TTL", "3m");
    let mut process = Process::spawn(&mut command);
    let serving = process.wait_for_log("serving");
    let credential = Credential::from_json(&json(&data_dir, "client create --name c"));
    let api = Api::new(&format!("http://{}", serving["listen"].as_str().unwrap()));
    let tokens = api.login(&credential).await;
    let life = |token: &str| {
        let view = json(&data_dir, &format!("token inspect {token}"));
        let second_of_day = |at: &Value| {
            let time = at.as_str().unwrap()[11..19].split(':').map(|part| part.parse::<i64>().unwrap());
            time.fold(0, |seconds, part| seconds * 60 + part)
        };
        (second_of_day(&view["expires_at"]) - second_of_day(&view["issued_at"])).rem_euclid(86_400)
    };
    assert_eq!((life(&tokens.access), life(&tokens.refresh)), (60, 180));
}

#[tokio::test]
async fn another_issuer_ends_every_token() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let credential = Credential::from_json(&json(dir.path(), "client create --name c"));
    let tokens = Api::new(&server.url).login(&credential).await;
    server.stop(rustix::process::Signal::TERM).await;
    let server = Server::start_with(dir.path(), &[("RESCIND_TOKENS__ISSUER", "https://elsewhere")]);
    assert_eq!(Api::new(&server.url).verify(&tokens.access).await.0, 401);
}
