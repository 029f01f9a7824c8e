//! Stores that were replaced by an older copy, and stores that were not.

use std::{fs, path::Path, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    api::{Api, Credential, Tokens, ok, unauthorized},
    process::{Process, Server, cli, json, serve},
};

/// These tests present many refused tokens.
const UNTHROTTLED: (&str, &str) = ("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0");

fn start(data_dir: &Path) -> Server {
    Server::start_with(data_dir, &[UNTHROTTLED])
}

/// A server's folder, its client, tokens that were revoked (`gone`) and tokens that were not.
struct Folder {
    dir: TempDir,
    server: Option<Server>,
    credential: Credential,
    gone: Vec<Tokens>,
    kept: Tokens,
}

impl Folder {
    async fn start() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let server = start(&data);
        let credential = Credential::from_json(&json(&data, "client create --name demo"));
        let other = Credential::from_json(&json(&data, "client create --name other"));
        let kept = Api::new(&server.url).login(&other).await;
        // From here on the file has all of that.
        server.stop(Signal::TERM).await;
        let server = start(&data);
        Folder { dir, server: Some(server), credential, gone: vec![], kept }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(name)
    }

    async fn log_out(&mut self) {
        let api = Api::new(&self.server.as_ref().unwrap().url);
        let tokens = api.login(&self.credential).await;
        assert_eq!(api.logout(&tokens.access).await, ok());
        self.gone.push(tokens);
    }

    /// Logs out until SQLite has copied its log into the database.
    async fn checkpoint(&mut self) {
        let before = fs::metadata(self.path("rescind.db")).unwrap().modified().unwrap();
        while fs::metadata(self.path("rescind.db")).unwrap().modified().unwrap() == before {
            self.log_out().await;
        }
    }

    async fn stop(&mut self, signal: Signal) {
        self.server.take().unwrap().stop(signal).await;
    }

    fn keep(&self, names: &[&str]) {
        for name in names {
            fs::copy(self.path(name), self.dir.path().join(name)).unwrap();
        }
    }

    fn put_back(&self, names: &[&str]) {
        for name in names {
            fs::copy(self.dir.path().join(name), self.path(name)).unwrap();
        }
    }

    /// Asserts that the server starts, logs this text, and has ended every token.
    async fn ends_every_token(mut self, found: &str) {
        let mut process =
            Process::spawn(serve(&self.dir.path().join("data")).env(UNTHROTTLED.0, UNTHROTTLED.1));
        let told = process.wait_for("what was found", |line| line.contains(found).then(|| line.to_owned()));
        assert!(told.contains("ERROR") && told.contains("every token has been ended"), "{told}");
        let serving = process.wait_for_log("serving");
        let api = Api::new(&format!("http://{}", serving["listen"].as_str().unwrap()));
        for tokens in self.gone.iter().chain([&self.kept]) {
            assert_eq!(api.verify(&tokens.access).await, unauthorized("Invalid token"));
            assert_eq!(api.refresh(&tokens.refresh).await.unwrap_err(), unauthorized("Invalid token"));
        }
        let events = json(&self.dir.path().join("data"), "audit list");
        let events = events.as_array().unwrap().iter().filter(|event| event["kind"] == "store_went_back");
        assert_eq!(events.count(), 1);
        // That was that.
        let again = api.login(&self.credential).await;
        process.signal(Signal::KILL);
        process.ended().await;
        self.kept = again;
        self.goes_on().await;
    }

    /// Asserts that the server starts, and that no token has changed.
    async fn goes_on(&mut self) {
        let server = start(&self.dir.path().join("data"));
        let api = Api::new(&server.url);
        assert_eq!(api.verify(&self.kept.access).await, ok());
        for tokens in &self.gone {
            assert_eq!(api.verify(&tokens.access).await, unauthorized("Invalid token"));
        }
        self.server = Some(server);
    }
}

// check 97
#[tokio::test]
async fn a_log_that_is_missing_after_a_kill_ends_every_token() {
    for checkpointed in [false, true] {
        let mut folder = Folder::start().await;
        if checkpointed {
            folder.checkpoint().await;
        }
        folder.log_out().await;
        folder.stop(Signal::KILL).await;
        fs::remove_file(folder.path("rescind.db-wal")).unwrap();
        folder.ends_every_token("rescind.db-wal, with the last changes of rescind.db, is missing").await;
    }
}

// check 97
#[tokio::test]
async fn a_log_that_is_cut_short_ends_every_token() {
    let mut folder = Folder::start().await;
    folder.log_out().await;
    folder.stop(Signal::KILL).await;
    let log = fs::OpenOptions::new().write(true).open(folder.path("rescind.db-wal")).unwrap();
    log.set_len(log.metadata().unwrap().len() - 1).unwrap();
    folder.ends_every_token("is older than what was last written here").await;
}

// check 97
#[tokio::test]
async fn an_older_copy_ends_every_token() {
    const BOTH: &[&str] = &["rescind.db", "rescind.db-wal"];
    // Of before a clean end, and of a run that was killed.
    for clean in [true, false] {
        let mut folder = Folder::start().await;
        folder.log_out().await;
        if clean {
            folder.stop(Signal::TERM).await;
            folder.keep(&["rescind.db"]);
            folder.goes_on().await;
            folder.log_out().await;
            folder.stop(Signal::TERM).await;
            folder.put_back(&["rescind.db"]);
        } else {
            folder.keep(BOTH);
            folder.log_out().await;
            folder.stop(Signal::KILL).await;
            folder.put_back(BOTH);
        }
        folder.ends_every_token("is older than what was last written here").await;
    }
}

// check 97
#[tokio::test]
async fn a_copy_that_went_on_elsewhere_ends_every_token() {
    let mut folder = Folder::start().await;
    folder.stop(Signal::TERM).await;
    let (data, elsewhere) = (folder.dir.path().join("data"), folder.dir.path().join("elsewhere"));
    copy(&data, &elsewhere);
    let server = Server::start(&elsewhere);
    for _ in 0..9 {
        json(&elsewhere, "client create --name elsewhere");
    }
    server.stop(Signal::TERM).await;
    folder.goes_on().await;
    folder.log_out().await;
    folder.stop(Signal::TERM).await;
    fs::copy(elsewhere.join("rescind.db"), folder.path("rescind.db")).unwrap();
    folder.ends_every_token("or from elsewhere").await;
}

// check 97
#[tokio::test]
async fn a_mark_that_is_missing_or_damaged_ends_every_token() {
    for damage in [None, Some(""), Some("rescind 2"), Some("x")] {
        let mut folder = Folder::start().await;
        folder.log_out().await;
        folder.stop(Signal::TERM).await;
        let mark = folder.path("rescind.mark");
        let text = fs::read_to_string(&mark).unwrap();
        match damage {
            None => fs::remove_file(&mark).unwrap(),
            Some("x") => fs::write(&mark, format!("{text}x")).unwrap(),
            Some(other) => fs::write(&mark, other).unwrap(),
        }
        let found = if damage.is_none() { "is missing" } else { "cannot be read" };
        folder
            .ends_every_token(&format!("rescind.mark, which tells the store from an older one, {found}"))
            .await;
    }
}

// check 97
#[tokio::test]
async fn what_is_whole_goes_on() {
    let mut folder = Folder::start().await;
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL, Signal::KILL, Signal::TERM] {
        folder.log_out().await;
        json(
            &folder.dir.path().join("data"),
            &format!("db backup {}", folder.dir.path().join("b").display()),
        );
        fs::remove_file(folder.dir.path().join("b")).unwrap();
        folder.checkpoint().await;
        if signal == Signal::KILL {
            folder.log_out().await;
        }
        folder.stop(signal).await;
        // A command that opens the store itself, and another machine.
        let data = folder.dir.path().join("data");
        let listed = cli(&data, ["client", "list"]);
        assert_eq!((listed.code, listed.stderr.as_str()), (Some(0), ""));
        let moved = folder.dir.path().join("moved");
        copy(&data, &moved);
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&moved, &data).unwrap();
        folder.goes_on().await;
    }
    folder.stop(Signal::TERM).await;
    assert!(!folder.path("rescind.db-wal").exists(), "a clean end leaves one file");
}

// check 97
#[tokio::test]
async fn a_command_says_what_it_found_and_no_other_moves_it_on() {
    let mut folder = Folder::start().await;
    folder.log_out().await;
    folder.stop(Signal::KILL).await;
    fs::remove_file(folder.path("rescind.db-wal")).unwrap();
    let data = folder.dir.path().join("data");
    for _ in 0..2 {
        assert_eq!(cli(&data, ["db", "migrate"]).code, Some(0));
        let to = "postgres://nobody@127.0.0.1:1/none?sslmode=disable";
        cli(&data, ["db", "copy", "--to", to]).refused(1, "start `rescind serve` on it once");
    }
    let listed = cli(&data, ["client", "list"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(
        listed.stderr.contains("is missing") && listed.stderr.contains("every token has been ended"),
        "{listed:?}"
    );
    assert_eq!(cli(&data, ["client", "list"]).stderr, "");
    folder.kept = folder.gone.pop().unwrap();
    let server = Server::start(&data);
    assert_eq!(Api::new(&server.url).verify(&folder.kept.access).await, unauthorized("Invalid token"));
}

/// Copies a folder like `cp -a`.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}
