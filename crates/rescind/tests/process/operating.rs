//! The commands of docs/operating.md print what stands there, and every message of the command line is in one snapshot.

use std::{fs, path::Path};

use regex::Regex;

use crate::{
    api::{Api, Credential},
    process::{Server, json, number, rescind, run},
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md");
const DAY: i64 = 86_400;
/// The id of the partner's request, as `settled` writes every id.
const REFUSED: &str = "3DMTB0v9cXh5r4sTqJm2uVw8yZa";

/// A text without what differs from run to run, in words of the same length where columns depend on it.
fn settled(text: &str, dir: &Path) -> String {
    let x = "x".repeat(58);
    let rules = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-11-29T12:00:00Z".to_owned()),
        (r"rk_[a-z2-7]{58}", format!("rk_{x}")),
        (r"rs_[a-z2-7]{58}", format!("rs_{x}")),
        (r"(http://)?127\.0\.0\.1:\d+", "${1}127.0.0.1:8080".to_owned()),
        (r"(management on +http://127\.0\.0\.1:)8080", "${1}8081".to_owned()),
        (r"\d+ ms\b", "2 ms".to_owned()),
        (r"\balice as \S+", "alice as root".to_owned()),
        (r"[\w-]+ \(uid \d+\)|\buid \d+", "root (uid 0)".to_owned()),
        (r"\b[0-9A-Za-z]{27}\b", "3DMTB0v9cXh5r4sTqJm2uVw8yZa".to_owned()),
        (r"\b[0-9a-f]{64}\b", "d13be465".repeat(8)),
        (r"\d+ bytes", "102400 bytes".to_owned()),
        (r"[a-z2-7]{16}(  HS256)", "kid7kid7kid7kid7$1".to_owned()),
        (r"[ \t]+(\n|$)", "$1".to_owned()),
    ];
    let text = text.replace(dir.to_str().unwrap(), "/var/lib/rescind");
    rules.iter().fold(text, |text, (found, with)| {
        Regex::new(found).unwrap().replace_all(&text, with.as_str()).into_owned()
    })
}

/// Clients as a service has them after some months.
async fn scene(dir: &Path) -> (Server, Credential) {
    let billing = Credential::from_json(&json(dir, "client create --name billing --scope invoices"));
    json(dir, "client create --name reports");
    let partner = Credential::from_json(&json(dir, "client create --name partner --allow 203.0.113.0/24"));
    let db = rusqlite::Connection::open(dir.join("rescind.db")).unwrap();
    db.execute("UPDATE client SET created_at = created_at - ?", [300 * DAY]).unwrap();
    // The partner was seen last long ago, the reports never.
    db.execute(
        "INSERT INTO credential_use SELECT id, '203.0.113.9', created_at - ?, 12 FROM credential WHERE client_id = 3",
        [120 * DAY],
    )
    .unwrap();
    drop(db);
    let server = Server::start_with(dir, &[("RESCIND_CLUSTER__NODE_NAME", "auth-1")]);
    let api = Api::new(&server.url);
    for _ in 0..2 {
        api.login(&billing).await;
    }
    ran("rescind client allow add billing 127.0.0.0/8 192.0.2.0/24", dir, "");
    let login = serde_json::json!({"username": partner.api_key, "password": partner.api_secret});
    api.post("/auth/login", &login, None, REFUSED).await.unwrap();
    fs::write(dir.join("narrower.txt"), "192.0.2.0/25\n").unwrap();
    (server, billing)
}

/// Runs a command as a shell in `dir` would. `rk_…` is the API key.
fn ran(command: &str, dir: &Path, api_key: &str) -> String {
    let mut program = rescind();
    program.current_dir(dir).env("SUDO_USER", "alice").env("RESCIND_SERVER__DATA_DIR", dir);
    let mut words: Vec<String> = Vec::new();
    for (n, part) in command.split('"').enumerate() {
        match n % 2 {
            0 => words.extend(part.split_whitespace().map(|word| word.replace("rk_…", api_key))),
            _ => words.push(part.to_owned()),
        }
    }
    let outcome = run(program.args(&words[1..]));
    let code = match outcome.code {
        Some(0) => String::new(),
        code => format!("(exit code {})\n", code.unwrap()),
    };
    settled(&format!("{}{}{code}", outcome.stderr, outcome.stdout), dir)
}

#[tokio::test]
async fn the_answers_to_operators_questions_are_what_the_document_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, billing) = scene(dir.path()).await;
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let mut now = String::new();
    let (mut in_block, mut skipping) = (false, false);
    for line in document.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
            skipping = false;
        }
        match line.strip_prefix("$ ").filter(|command| in_block && command.starts_with("rescind ")) {
            Some(command) => {
                now += &format!("{line}\n{}", ran(command, dir.path(), &billing.api_key));
                skipping = true;
            }
            None if skipping && !line.starts_with("$ ") => {}
            None => {
                skipping = false;
                now += &format!("{line}\n");
            }
        }
    }
    if number("RESCIND_TEST_UPDATE_DOCS", 0) > 0 {
        fs::write(DOCUMENT, &now).unwrap();
    }
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let differs = document.lines().zip(now.lines()).find(|(was, is)| was != is);
    assert!(document == now, "run it with RESCIND_TEST_UPDATE_DOCS=1 and look at the change: {differs:?}");
}

// Every command that says something else than data, right and wrong.
const COMMANDS: &str = r#"
rescind client list
rescind client create --name billing --allow 192.0.2.0/24 --scope invoices
rescind client create --name billing --if-absent
rescind client create --name ""
rescind client create --name x --allow 10.0.0.1/8
rescind client create --name x --allow 0.0.0.0/0
rescind client create --name x --certificate dns:
rescind client create --name x --scope a"b
rescind client show billing
rescind client show 99
rescind client show nobody
rescind client rename billing billing-eu
rescind client scope add 1 orders
rescind client scope remove 1 none
rescind client suspend 1
rescind client suspend 1 --yes --for 2h --reason "key in a repository"
rescind client suspend 1 --yes --for soon
rescind client resume 1
rescind client logout 1
rescind client logout 1 --yes
rescind client delete 1
rescind client allow add 1 example.com
rescind client allow add 1 10.0.0.0 255.0.0.0
rescind client allow add 1 198.51.100.1-198.51.100.4
rescind client allow add 1 @nowhere.txt
rescind client allow remove 1 203.0.113.0/24
rescind client allow remove 1 192.0.2.0/24 198.51.100.1/32 198.51.100.2/31 198.51.100.4/32
rescind client allow replace 1 192.0.2.0/24
rescind client allow check 1 192.0.2.9
rescind client allow check 1 203.0.113.9
rescind client allow check 1 localhost
rescind client allow check 1
rescind client enforces-allowlist 1 yes
rescind client certificate add 1 dns:a.example.com
rescind client certificate remove 1 dns:a.example.com
rescind client certificate remove 1 dns:a.example.com --unbind
rescind client list --status gone
rescind client list --stale ever
rescind credential create 1 --expires-in 90d
rescind credential create 1 --expires-in 0s
rescind credential list 1
rescind credential show rk_…
rescind credential show rk_none
rescind credential show secret
rescind credential rotate rk_…
rescind credential rotate rk_…
rescind credential expire rk_… --in 7d
rescind credential expire rk_… --at 2020-01-01
rescind credential expire rk_…
rescind credential revoke rk_…
rescind credential revoke rk_… --yes
rescind session list 1
rescind session revoke 1
rescind session revoke 1 --yes
rescind key list
rescind key rotate --algorithm RS256
rescind key retire none
rescind verifier list
rescind verifier revoke 1
rescind verifier revoke 1 --yes
rescind pepper status
rescind pepper retire
rescind pepper rotate
rescind pepper rotate --yes
rescind pepper rotate --yes
rescind pepper status
rescind pepper retire
rescind pepper retire --revoke-left
rescind pepper retire --revoke-left --yes
rescind token inspect x
rescind explain
rescind explain --client 1 --since 1h
rescind explain --reason none
rescind explain --address host
rescind explain nowhere
rescind explain nowhere --client 1
rescind audit list --limit 1
rescind audit list --limit none
rescind audit list --since yesterday
rescind audit list --kind none
rescind audit export
rescind config check
rescind db migrate
rescind db backup backup.db
rescind db backup backup.db
rescind db restore nowhere.db --yes
rescind db restored
rescind db copy
rescind status
rescind client delete 1 --yes
rescind clint list
"#;

#[test]
fn every_message_is_in_one_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = String::new();
    let mut api_key = String::new();
    for command in COMMANDS.trim().lines() {
        said += &format!("$ {command}\n{}\n", ran(command, dir.path(), &api_key));
        if api_key.is_empty() && dir.path().join("rescind.db").exists() {
            api_key = json(dir.path(), "credential list 1")[0]["api_key"].as_str().unwrap().to_owned();
        }
    }
    insta::assert_snapshot!("messages", said);
}
