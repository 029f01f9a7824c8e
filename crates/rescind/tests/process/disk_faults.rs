//! The disk fails, and then works again.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Response;
use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    api::{Api, Credential, ok, unauthorized},
    database::{Database, gone},
    disk::{Disk, Fault, SmallDisk},
    history::{Crew, History, losses, losses_since},
    process::{self, PATIENCE, Process, Server, serve},
};

const FAULTS: [Fault; 5] = [Fault::Full, Fault::ReadOnly, Fault::Write, Fault::Flush, Fault::Gone];
const WORKERS: usize = 4;
/// The term of a node's lease, unless configured.
const LEASE: Duration = Duration::from_secs(3);

// check 16, 28, 89
#[tokio::test]
async fn while_the_disk_fails_changes_are_refused_and_known_tokens_decided() {
    let disk = Disk::new();
    let server = start(&disk);
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&create(&admin(&disk), "kept").await);
    let gone = Credential::from_json(&create(&admin(&disk), "gone").await);
    let revoked = api.login(&gone).await;
    assert_eq!(api.logout(&revoked.access).await, ok());
    for fault in FAULTS {
        let pair = api.login(&credential).await;
        disk.fails(fault);
        for _ in 0..3 {
            let login = json!({ "username": credential.api_key, "password": credential.api_secret });
            is_unavailable(post(&server, "/auth/login", &login, None).await).await;
            let refresh = json!({ "refresh_token": pair.refresh });
            is_unavailable(post(&server, "/auth/refresh", &refresh, None).await).await;
            is_unavailable(post(&server, "/auth/logout", &json!({}), Some(&pair.access)).await).await;
            let suspend = format!("/admin/v1/clients/{}/suspend", credential.client_id);
            assert_eq!(
                admin(&disk).post(&suspend, &json!({}), None, "a").await.unwrap().0.0,
                503,
                "{fault:?}"
            );
            // What is known without the disk is still decided.
            assert_eq!(api.verify(&pair.access).await, ok(), "{fault:?}");
            assert_eq!(api.verify(&revoked.access).await, unauthorized("Invalid token"), "{fault:?}");
            let wrong = Credential { api_secret: "rs_wrong".into(), ..credential.clone() };
            let refused = api.try_login(&wrong).await.unwrap().unwrap_err();
            assert_eq!(refused, unauthorized("Invalid credentials"), "{fault:?}");
        }
        disk.fails(Fault::None);
        // Nothing of it was done, and everything can be.
        assert_eq!(api.verify(&pair.access).await, ok(), "{fault:?}");
        let pair = api.refresh(&pair.refresh).await.unwrap();
        assert_eq!(api.logout(&pair.access).await, ok(), "{fault:?}");
        assert_eq!(api.verify(&pair.access).await, unauthorized("Invalid token"), "{fault:?}");
    }
}

// Sessions that are not in memory cannot be told from unknown ones while the disk is gone.
// check 89
#[tokio::test]
async fn what_memory_does_not_know_is_refused_while_the_disk_is_gone() {
    let disk = Disk::new();
    let server = start(&disk);
    let credential = Credential::from_json(&create(&admin(&disk), "kept").await);
    let pair = Api::new(&server.url).login(&credential).await;
    server.stop(Signal::KILL).await;
    let server = start(&disk);
    let api = Api::new(&server.url);
    disk.fails(Fault::Gone);
    for _ in 0..3 {
        assert_eq!(api.verify(&pair.access).await, (403, "Not able to decide now".into()));
        is_unavailable(post(&server, "/auth/logout", &json!({}), Some(&pair.access)).await).await;
    }
    disk.fails(Fault::None);
    assert_eq!(api.verify(&pair.access).await, ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_disk_fails_what_was_answered_holds_and_work_goes_on_afterwards() {
    let (disk, mut random) = (Disk::new(), StdRng::seed_from_u64(1));
    let (mut server, mut before) = (start(&disk), vec![]);
    for fault in FAULTS.into_iter().chain(FAULTS) {
        let histories = until(&server, &socket(&disk), &mut random, || disk.fails(fault)).await;
        disk.fails(Fault::None);
        hold(&server, &histories, &mut random, &format!("{fault:?}")).await;
        before.extend(histories);
        let crew = Crew::start(&server.url, &socket(&disk), WORKERS, 100, &mut random);
        before.extend(crew.histories().await);
        assert!(!before.last().unwrap().ends_in_doubt(), "{fault:?}");

        server.stop(Signal::KILL).await;
        server = start(&disk);
        let api = Api::new(&server.url);
        for history in &before[before.len().saturating_sub(4 * WORKERS)..] {
            let lost = losses_since(&api, history, &mut random).await;
            assert!(lost.is_empty(), "{fault:?}: {lost:#?}");
        }
    }
}

#[tokio::test]
async fn a_start_while_the_disk_fails_spoils_nothing() {
    let disk = Disk::new();
    for fault in FAULTS {
        disk.fails(fault);
        let said = refuses_to_start(&disk).await;
        // An empty store is no foreign one.
        assert!(!said.contains("its tables"), "{fault:?}: {said}");
        assert!(said.contains(&disk.data().display().to_string()), "{fault:?}: {said}");
    }
    disk.fails(Fault::None);
    let server = start(&disk);
    let credential = Credential::from_json(&create(&admin(&disk), "kept").await);
    let pair = Api::new(&server.url).login(&credential).await;
    server.stop(Signal::KILL).await;
    for fault in FAULTS {
        disk.fails(fault);
        refuses_to_start(&disk).await;
        disk.fails(Fault::None);
        let server = start(&disk);
        assert_eq!(Api::new(&server.url).verify(&pair.access).await, ok(), "{fault:?}");
        server.stop(Signal::KILL).await;
    }
}

// What does not fit at the first start, at whichever file that is.
#[tokio::test]
async fn a_first_start_on_a_full_file_system_says_so_by_path_owner_and_us() {
    for size in ["4k", "8k", "20k", "64k", "100k"] {
        let Some(disk) = SmallDisk::new(size) else { return };
        let (status, said) =
            Process::spawn(&mut disk.holding(&serve(&disk.path().join("data")))).ended().await;
        let said = said.join("\n");
        assert_eq!(status.code(), Some(1), "{said}");
        let us = format!("this process is uid {}", geteuid().as_raw());
        for part in
            [disk.path().to_str().unwrap(), "o space", " belongs to uid ", &us, " bytes are free there"]
        {
            assert!(said.contains(part), "{size}: {part} is not in {said}");
        }
    }
}

#[tokio::test]
async fn status_says_that_nothing_can_be_written_until_something_was() {
    let disk = Disk::new();
    let server = start(&disk);
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&create(&admin(&disk), "kept").await);
    let unwritable = || process::json(&disk.data(), "status")["unwritable"].as_str().map(str::to_owned);
    assert_eq!(unwritable(), None);
    disk.fails(Fault::Full);
    assert_eq!(api.try_login(&credential).await.unwrap().unwrap_err().0, 503);
    // If a commit of the server's own was on the disk already, its mark is what could not be written.
    let full = [
        "rescind.db: database or disk is full",
        "rescind.db: rescind.mark, beside it: No space left on device",
    ];
    let told = unwritable().unwrap();
    assert!(full.iter().any(|full| told.contains(full)) && told.contains(" belongs to uid "), "{told}");
    let verbose = Api::new(&server.management).get_text("/readyz?verbose").await;
    assert!(full.iter().any(|full| verbose.contains(full)), "{verbose}");
    disk.fails(Fault::None);
    api.login(&credential).await;
    assert_eq!(unwritable(), None);
}

#[tokio::test]
async fn operators_are_told_that_the_disk_is_full_and_callers_are_not() {
    let disk = Disk::new();
    let server = start(&disk);
    let credential = Credential::from_json(&create(&admin(&disk), "kept").await);
    let token = process::json(&disk.data(), "admin token create --name ci --role admin");
    let token = token["token"].as_str().unwrap();
    let (there, full) = (disk.data().join("rescind.db"), "database or disk is full");
    disk.fails(Fault::Full);
    let login = json!({ "username": credential.api_key, "password": credential.api_secret });
    is_unavailable(post(&server, "/auth/login", &login, None).await).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}/admin/v1/keys/rotate", server.management));
    let answer = request.json(&json!({})).bearer_auth(token).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let why = told["detail"].as_str().unwrap();
    assert!(why.contains(full) && why.contains(there.to_str().unwrap()), "{told}");
    let backup = disk.data().with_file_name("b.db");
    let commands = [
        &["client", "create", "--name", "x"][..],
        &["key", "rotate"],
        &["db", "backup", backup.to_str().unwrap()],
    ];
    for command in commands {
        process::cli(&disk.data(), command).refused(1, full);
    }
    disk.fails(Fault::None);
    server.stop(Signal::TERM).await;
    // Without a server there is no log that says it.
    disk.fails(Fault::Full);
    for command in commands {
        let mut command = process::command(&disk.data(), command);
        process::run(command.envs(disk.variables())).refused(1, there.to_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_holds_up_nobody_but_those_who_change_something() {
    let disk = Disk::new();
    let server = start(&disk);
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&create(&admin(&disk), "kept").await);
    let pair = api.login(&credential).await;
    disk.fails(Fault::Slow);
    let login = tokio::spawn({
        let (api, credential) = (api.clone(), credential.clone());
        async move { api.login(&credential).await }
    });
    let mut meanwhile = 0;
    while !login.is_finished() {
        assert_eq!(api.verify(&pair.access).await, ok());
        meanwhile += 1;
    }
    assert!(meanwhile > 1, "{meanwhile}");
    assert_eq!(api.verify(&login.await.unwrap().access).await, ok());
}

// The same with a file system that is really full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_system_refuses_changes_until_there_is_room() {
    let Some(disk) = SmallDisk::new("16M") else { return };
    let server = Server::spawn(&mut disk.holding(&serve(&disk.path().join("data"))));
    let socket = disk.file(server.pid(), "data/rescind.sock");
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..4 {
        let histories = until(&server, &socket, &mut random, || disk.fill(server.pid())).await;
        disk.make_room(server.pid());
        hold(&server, &histories, &mut random, &format!("round {round}")).await;
    }
}

// The same with a database whose file system is full: its statements fail; where its log has no room it fails itself.
// checks 16, 28, 89
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_database_refuses_changes_until_there_is_room() {
    let Some(disk) = SmallDisk::new("128M") else { return };
    let mut database = Database::start_on(&disk);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(
        dir.path(),
        &[("RESCIND_DATABASE__URL", &database.url), ("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0")],
    );
    server.ready().await;
    let (api, socket) = (Api::new(&server.url), dir.path().join("rescind.sock"));
    let credential = Credential::from_json(&create(&Api::local(&socket), "kept").await);
    let login = json!({ "username": credential.api_key, "password": credential.api_secret });
    let revoked = api.login(&credential).await;
    assert_eq!(api.logout(&revoked.access).await, ok());
    let mut random = StdRng::seed_from_u64(1);

    let before = until(&server, &socket, &mut random, || disk.fill(database.pid())).await;
    // Some pages may have room yet.
    let refused = async {
        loop {
            let response = post(&server, "/auth/login", &login, None).await;
            if response.status() != 200 {
                break response;
            }
        }
    };
    is_unavailable(timeout(PATIENCE, refused).await.unwrap()).await;
    disk.make_room(database.pid());
    hold(&server, &before, &mut random, "no room for data").await;

    let pair = api.login(&credential).await;
    let processes = [database.server().await];
    let histories = until(&server, &socket, &mut random, || disk.fill(database.pid())).await;
    database.use_up_the_log().await;
    gone(&processes).await;
    let away = Instant::now();
    let verdicts = async {
        let mut last = away;
        loop {
            let asked = Instant::now();
            match api.verify(&pair.access).await {
                (200, _) => last = asked,
                denied => break (last, denied),
            }
        }
    };
    let (last, denied) = timeout(PATIENCE, verdicts).await.unwrap();
    assert_eq!(denied, (403, "Not able to decide now".into()));
    assert!(last - away <= LEASE, "{:?}", last - away);
    for _ in 0..3 {
        is_unavailable(post(&server, "/auth/login", &login, None).await).await;
        let refresh = json!({ "refresh_token": pair.refresh });
        is_unavailable(post(&server, "/auth/refresh", &refresh, None).await).await;
        is_unavailable(post(&server, "/auth/logout", &json!({}), Some(&pair.access)).await).await;
        assert_eq!(api.verify(&pair.access).await, denied);
        assert_eq!(api.verify(&revoked.access).await, denied);
    }
    disk.make_room(database.pid());
    database.start_again();
    server.wait_for_log("this node renews its lease again");
    hold(&server, &histories, &mut random, "no room for the log").await;
    for history in &before {
        let lost = losses_since(&api, history, &mut random).await;
        assert!(lost.is_empty(), "{lost:#?} of {history:#?}");
    }
    assert_eq!(api.verify(&revoked.access).await, unauthorized("Invalid token"));
    // Nothing of what was refused was done.
    let pair = api.refresh(&pair.refresh).await.unwrap();
    assert_eq!(api.logout(&pair.access).await, ok());
    assert_eq!(api.verify(&pair.access).await, unauthorized("Invalid token"));
}

/// Breaks the disk while clients are at work, and waits until each client has got an error.
async fn until(server: &Server, socket: &Path, random: &mut StdRng, breaks: impl FnOnce()) -> Vec<History> {
    let crew = Crew::start(&server.url, socket, WORKERS, usize::MAX, random);
    crew.has_done(random.random_range(WORKERS..100)).await;
    breaks();
    let histories = crew.histories().await;
    assert!(histories.iter().all(History::ends_in_doubt));
    histories
}

async fn hold(server: &Server, histories: &[History], random: &mut StdRng, when: &str) {
    let api = Api::new(&server.url);
    for history in histories {
        let lost = losses(&api, history, history.steps.len(), random).await;
        assert!(lost.is_empty(), "{when}: {lost:#?} of {history:#?}");
    }
}

fn start(disk: &Disk) -> Server {
    Server::spawn(&mut on(disk))
}

fn on(disk: &Disk) -> Command {
    let mut command = serve(&disk.data());
    command.env("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0").envs(disk.variables());
    command
}

async fn refuses_to_start(disk: &Disk) -> String {
    let (status, said) = Process::spawn(&mut on(disk)).ended().await;
    assert_eq!(status.code(), Some(1), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("error: ")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("panicked")), "{said:?}");
    said.join("\n")
}

fn socket(disk: &Disk) -> PathBuf {
    disk.data().join("rescind.sock")
}

fn admin(disk: &Disk) -> Api {
    Api::local(&socket(disk))
}

async fn create(admin: &Api, name: &str) -> Value {
    admin.post("/admin/v1/clients", &json!({ "name": name }), None, "create").await.unwrap().1
}

async fn post(server: &Server, path: &str, body: &Value, bearer: Option<&str>) -> Response {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}{path}", server.url)).json(body);
    bearer.into_iter().fold(request, |request, token| request.bearer_auth(token)).send().await.unwrap()
}

async fn is_unavailable(response: Response) {
    assert_eq!(response.status().as_u16(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let told = json!({ "error": {
        "name": "ServiceUnavailableError",
        "code": "SERVICE_UNAVAILABLE",
        "message": "The service cannot answer safely now. Retry after 1 second.",
    } });
    assert_eq!(body, told);
}
