//! The disk fails, and comes back.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Response;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    api::{Api, Credential, ok, unauthorized},
    disk::{Disk, Fault},
    history::{Crew, History, losses, losses_since},
    process::{Process, Server, serve},
};

const FAULTS: [Fault; 5] = [Fault::Full, Fault::ReadOnly, Fault::Write, Fault::Flush, Fault::Gone];
const WORKERS: usize = 4;

// check 16, 28, 89
#[tokio::test]
async fn while_the_disk_fails_changes_are_refused_and_known_tokens_decided() {
    let disk = Disk::new();
    let server = start(&disk);
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&create(&disk, "kept").await);
    let gone = Credential::from_json(&create(&disk, "gone").await);
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
    let credential = Credential::from_json(&create(&disk, "kept").await);
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
        refuses_to_start(&disk).await;
    }
    disk.fails(Fault::None);
    let server = start(&disk);
    let credential = Credential::from_json(&create(&disk, "kept").await);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_holds_up_nobody_but_those_who_change_something() {
    let disk = Disk::new();
    let server = start(&disk);
    let api = Api::new(&server.url);
    let credential = Credential::from_json(&create(&disk, "kept").await);
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
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=2M none '{}' && exec \"$@\"", dir.path().display());
    let in_its_own = |command: &Command| {
        let mut own = Command::new("unshare");
        own.args(["--mount", "--map-root-user", "--", "sh", "-c", &mount, "sh"]);
        own.arg(command.get_program()).args(command.get_args());
        own
    };
    if !in_its_own(&Command::new("true")).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let data = dir.path().join("data");
    let server = Server::spawn(&mut in_its_own(&serve(&data)));
    // Its file system is seen through the process.
    let seen = |path: &Path| {
        let pid = server.pid().as_raw_nonzero();
        PathBuf::from(format!("/proc/{pid}/root{}", path.display()))
    };
    let (filler, socket) = (seen(&dir.path().join("filler")), seen(&data.join("rescind.sock")));
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..4 {
        let histories = until(&server, &socket, &mut random, || {
            let mut filler = File::create(&filler).unwrap();
            while filler.write_all(&[0; 4096]).is_ok() {}
        })
        .await;
        fs::remove_file(&filler).unwrap();
        hold(&server, &histories, &mut random, &format!("round {round}")).await;
    }
}

/// Breaks the disk in the middle of the work, and waits until everybody was told.
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

async fn refuses_to_start(disk: &Disk) {
    let (status, said) = Process::spawn(&mut on(disk)).ended().await;
    assert_eq!(status.code(), Some(1), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("error: ")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("panicked")), "{said:?}");
}

fn socket(disk: &Disk) -> PathBuf {
    disk.data().join("rescind.sock")
}

fn admin(disk: &Disk) -> Api {
    Api::local(&socket(disk))
}

async fn create(disk: &Disk, name: &str) -> Value {
    admin(disk).post("/admin/v1/clients", &json!({ "name": name }), None, "create").await.unwrap().1
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
        "message": "The service cannot answer safely now. Retry after 1 seconds.",
    } });
    assert_eq!(body, told);
}
