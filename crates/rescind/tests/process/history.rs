//! Clients at work, the answers that they got, and whether a server still knows what it answered.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    api::{Answer, Api, Credential, Tokens, ok, unauthorized},
    process::PATIENCE,
};

/// The number of a client's newest sessions that are checked, of its other sessions, and of each session's newest
/// tokens.
const LOOKED_AT: usize = 2;

/// A network from which no test calls.
const ELSEWHERE: &str = "192.0.2.0/24";

/// A request of an operator or a client. The numbers are indices of the client's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Create,
    Login,
    Refresh(usize),
    Logout(usize),
    Suspend,
    Resume,
    /// Revokes the credential, and the tokens of its sessions.
    Revoke,
    /// Creates another credential.
    Renew,
    /// Restricts the client to `ELSEWHERE`.
    Narrow,
    /// Lets the client call from any address again.
    Widen,
    /// Deletes the client. The worker then creates another one.
    Delete,
}

/// A request that was answered with success.
#[derive(Debug)]
pub(crate) struct Step {
    /// The request's id, which is in the answer too.
    pub(crate) id: String,
    act: Act,
    told: Told,
}

#[derive(Debug)]
enum Told {
    Done,
    Credential(Credential),
    Tokens(Tokens),
}

/// All requests of one worker, in order.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) steps: Vec<Step>,
    /// The last request, if it was not answered with success: it may have happened or not.
    doubt: Option<Act>,
}

/// The state that a server must have after a history.
#[derive(Debug, Clone, Default)]
struct Standing {
    client: u64,
    status: Status,
    credential: Option<Credential>,
    sessions: Vec<Session>,
    /// Revoked credentials; `dead` has the revoked sessions.
    revoked: Vec<Credential>,
    dead: Vec<Session>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Status {
    /// Not created yet, or deleted.
    #[default]
    Absent,
    Active,
    Suspended,
    Narrowed,
}

#[derive(Debug, Clone)]
struct Session {
    access: Vec<String>,
    refresh: String,
    used: Vec<String>,
}

/// Sends requests of one client until a request is not answered with success.
struct Worker {
    api: Api,
    /// The admin API.
    local: Api,
    name: String,
    /// Only logs in and refreshes.
    only_opens: bool,
    random: StdRng,
    /// Counts the successful answers to all workers.
    answered: Arc<AtomicUsize>,
}

/// Several workers at the same time.
pub(crate) struct Crew {
    answered: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<History>>,
}

impl Crew {
    /// Starts `workers` workers on a server. They stop when they have got `enough` answers together.
    pub(crate) fn start(
        url: &str,
        socket: &Path,
        workers: usize,
        enough: usize,
        random: &mut StdRng,
    ) -> Crew {
        let answered = Arc::new(AtomicUsize::new(0));
        let worker = |i| {
            let worker = Worker {
                api: Api::new(url),
                local: Api::local(socket),
                name: format!("worker-{:016x}", random.random::<u64>()),
                only_opens: i == 0,
                random: StdRng::from_rng(random),
                answered: Arc::clone(&answered),
            };
            tokio::spawn(worker.work(enough))
        };
        let workers = (0..workers).map(worker).collect();
        Crew { answered, workers }
    }

    /// Waits until the workers have got `enough` answers, or all have stopped.
    pub(crate) async fn has_done(&self, enough: usize) {
        let done = || self.answered.load(Ordering::SeqCst) >= enough;
        while !done() && !self.workers.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until all workers have stopped, and returns their histories.
    pub(crate) async fn histories(self) -> Vec<History> {
        let mut histories = vec![];
        for worker in self.workers {
            // A request has a limit of its own, which is reached first.
            let ended = timeout(PATIENCE * 3, worker).await.expect("the worker stops");
            histories.push(ended.unwrap());
        }
        histories
    }
}

impl Worker {
    async fn work(mut self, enough: usize) -> History {
        let mut history = History::default();
        let mut standing = Standing::default();
        while self.answered.load(Ordering::SeqCst) < enough {
            let act = self.choose(&standing);
            let id = format!("{}-{}", self.name, history.steps.len());
            let Some(told) = self.ask(&standing, act, &id).await else {
                history.doubt = Some(act);
                break;
            };
            standing.apply(act, &told);
            history.steps.push(Step { id, act, told });
            self.answered.fetch_add(1, Ordering::SeqCst);
            if let Some(session) = standing.sessions.first() {
                // Some are not in memory any more: the store is read while it is written.
                let _ = self.api.try_verify(&session.access[0]).await;
            }
        }
        history
    }

    fn choose(&mut self, standing: &Standing) -> Act {
        let sessions = standing.sessions.len();
        match (standing.status, &standing.credential) {
            (Status::Absent, _) => Act::Create,
            (Status::Suspended, _) => Act::Resume,
            (Status::Narrowed, _) => Act::Widen,
            (Status::Active, None) => Act::Renew,
            (Status::Active, Some(_)) if sessions == 0 => Act::Login,
            (Status::Active, Some(_)) => {
                let session = self.random.random_range(0..sessions);
                match self.random.random_range(0..100) {
                    0..50 => Act::Login,
                    50..80 => Act::Refresh(session),
                    _ if self.only_opens => Act::Login,
                    80..88 => Act::Logout(session),
                    88..91 => Act::Suspend,
                    91..94 => Act::Revoke,
                    94..98 => Act::Narrow,
                    _ => Act::Delete,
                }
            }
        }
    }

    /// `None`: the request was not answered with success.
    async fn ask(&self, standing: &Standing, act: Act, id: &str) -> Option<Told> {
        let (local, api) = (&self.local, &self.api);
        let client = format!("/admin/v1/clients/{}", standing.client);
        let nothing = json!({});
        let asked = match act {
            Act::Create => local.post("/admin/v1/clients", &json!({ "name": self.name }), None, id).await,
            Act::Suspend => local.post(&format!("{client}/suspend"), &nothing, None, id).await,
            Act::Resume => local.post(&format!("{client}/resume"), &nothing, None, id).await,
            Act::Renew => local.post(&format!("{client}/credentials"), &nothing, None, id).await,
            Act::Narrow => {
                local.post(&format!("{client}/allow"), &json!({ "add": [ELSEWHERE] }), None, id).await
            }
            Act::Widen => {
                let body = json!({ "remove": [ELSEWHERE], "allow_any": true });
                local.post(&format!("{client}/allow"), &body, None, id).await
            }
            Act::Delete => local.delete(&client, id).await,
            Act::Revoke => {
                let key = &standing.credential.as_ref()?.api_key;
                local.post(&format!("/admin/v1/credentials/{key}/revoke"), &nothing, None, id).await
            }
            Act::Login => {
                let Credential { api_key, api_secret, .. } = standing.credential.as_ref()?;
                let body = json!({ "username": api_key, "password": api_secret });
                api.post("/auth/login", &body, None, id).await
            }
            Act::Refresh(session) => {
                let body = json!({ "refresh_token": standing.sessions[session].refresh });
                api.post("/auth/refresh", &body, None, id).await
            }
            Act::Logout(session) => {
                let access = standing.sessions[session].access.last()?;
                api.post("/auth/logout", &nothing, Some(access), id).await
            }
        };
        let (answer, body) = asked.ok()?;
        assert!(answer == ok() || answer.0 == 503, "{act:?} of {}: {answer:?}", self.name);
        (answer == ok()).then(|| match act {
            Act::Create | Act::Renew => Told::Credential(Credential::from_json(&body)),
            Act::Login | Act::Refresh(_) => Told::Tokens(Tokens::from_json(&body["data"])),
            Act::Logout(_)
            | Act::Suspend
            | Act::Resume
            | Act::Revoke
            | Act::Narrow
            | Act::Widen
            | Act::Delete => Told::Done,
        })
    }
}

impl Standing {
    fn apply(&mut self, act: Act, told: &Told) {
        match (act, told) {
            (Act::Create | Act::Renew, Told::Credential(credential)) => {
                self.client = credential.client_id;
                self.credential = Some(credential.clone());
                self.status = Status::Active;
            }
            (Act::Login, Told::Tokens(Tokens { access, refresh })) => self.sessions.push(Session {
                access: vec![access.clone()],
                refresh: refresh.clone(),
                used: vec![],
            }),
            (Act::Refresh(session), Told::Tokens(Tokens { access, refresh })) => {
                let session = &mut self.sessions[session];
                session.access.push(access.clone());
                session.used.push(std::mem::replace(&mut session.refresh, refresh.clone()));
            }
            (Act::Logout(_), Told::Done) => self.dead.append(&mut self.sessions),
            (Act::Suspend, Told::Done) => {
                self.status = Status::Suspended;
                self.dead.append(&mut self.sessions);
            }
            (Act::Resume | Act::Widen, Told::Done) => self.status = Status::Active,
            (Act::Narrow, Told::Done) => self.status = Status::Narrowed,
            (Act::Revoke, Told::Done) => {
                self.revoked.extend(self.credential.take());
                self.dead.append(&mut self.sessions);
            }
            (Act::Delete, Told::Done) => {
                self.status = Status::Absent;
                self.revoked.extend(self.credential.take());
                self.dead.append(&mut self.sessions);
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// The expected answer to a request with a valid token or credential of the client.
    fn answer(&self) -> Answer {
        match self.status {
            Status::Narrowed => (403, "IP address not authorized".into()),
            Status::Absent | Status::Active | Status::Suspended => ok(),
        }
    }

    fn verified(&self, access: &String) -> Answer {
        let holds = |session: &Session| session.access.contains(access);
        if self.sessions.iter().any(holds) { self.answer() } else { unauthorized("Invalid token") }
    }

    fn refreshed(&self, refresh: &String) -> Answer {
        let holds = |session: &Session| session.refresh == *refresh;
        if self.sessions.iter().any(holds) { self.answer() } else { unauthorized("Invalid token") }
    }

    fn logged_in(&self, Credential { api_key, .. }: &Credential) -> Answer {
        let holds = self.credential.as_ref().is_some_and(|credential| credential.api_key == *api_key);
        let opens = holds && self.status != Status::Suspended;
        if opens { self.answer() } else { unauthorized("Invalid credentials") }
    }
}

/// Returns how a server differs from the first `steps` of a history. The step after those may have happened or not.
/// Uses refresh tokens up.
pub(crate) async fn losses(api: &Api, history: &History, steps: usize, random: &mut impl Rng) -> Vec<String> {
    let fates = Fates::new(history, steps);
    let mut seen = look(api, &fates, random).await;
    let Standing { sessions, credential, revoked, .. } = &fates.before;
    for i in some_of(sessions.len(), random) {
        let Session { refresh, used, .. } = &sessions[i];
        // The newest first: after one that was used it is refused.
        for refresh in [refresh].into_iter().chain(newest(used)) {
            let answer = answered(api.refresh(refresh).await);
            seen.push(fates.judge("a refresh token", answer, |standing| standing.refreshed(refresh)));
        }
    }
    for credential in credential.iter().chain(newest(revoked)) {
        let answer = answered(api.try_login(credential).await.unwrap());
        seen.push(fates.judge("a credential", answer, |standing| standing.logged_in(credential)));
    }
    lost(&seen)
}

/// Like [`losses`], for a history that was checked before.
pub(crate) async fn losses_since(api: &Api, history: &History, random: &mut impl Rng) -> Vec<String> {
    lost(&look(api, &Fates::new(history, history.steps.len()), random).await)
}

impl History {
    /// Whether the outcome of the last request is unknown.
    pub(crate) fn ends_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }
}

/// The two states that are right: if the request in doubt has not happened, and if it has.
struct Fates {
    before: Standing,
    after: Standing,
}

/// An answer of the server, and the expected answer in either case.
struct Seen {
    what: &'static str,
    answer: Answer,
    before: Answer,
    after: Answer,
}

impl Fates {
    fn new(history: &History, steps: usize) -> Fates {
        let mut before = Standing::default();
        for step in &history.steps[..steps] {
            before.apply(step.act, &step.told);
        }
        let mut after = before.clone();
        match history.steps.get(steps).map(|step| step.act).or(history.doubt) {
            // What it gave is not known; what it took is its token.
            Some(Act::Refresh(session)) => {
                let session = &mut after.sessions[session];
                session.used.push(std::mem::take(&mut session.refresh));
            }
            None | Some(Act::Create | Act::Login | Act::Renew) => {}
            Some(act) => after.apply(act, &Told::Done),
        }
        Fates { before, after }
    }

    fn judge(&self, what: &'static str, answer: Answer, expected: impl Fn(&Standing) -> Answer) -> Seen {
        Seen { what, answer, before: expected(&self.before), after: expected(&self.after) }
    }
}

/// Presents access tokens, and refresh tokens that were revoked.
async fn look(api: &Api, fates: &Fates, random: &mut impl Rng) -> Vec<Seen> {
    let mut seen = vec![];
    let Standing { sessions, dead, .. } = &fates.before;
    for sessions in [sessions, dead] {
        for i in some_of(sessions.len(), random) {
            for access in newest(&sessions[i].access) {
                let answer = api.verify(access).await;
                seen.push(fates.judge("an access token", answer, |standing| standing.verified(access)));
            }
        }
    }
    for i in some_of(dead.len(), random) {
        let Session { refresh, .. } = &dead[i];
        let answer = answered(api.refresh(refresh).await);
        seen.push(fates.judge("a refresh token", answer, |standing| standing.refreshed(refresh)));
    }
    seen
}

/// The differences, if the answers fit neither case: the request in doubt has happened wholly or not at all.
fn lost(seen: &[Seen]) -> Vec<String> {
    if seen.iter().all(|seen| seen.answer == seen.after) {
        return vec![];
    }
    let lost = seen.iter().filter(|seen| seen.answer != seen.before);
    lost.map(|Seen { what, answer, before, .. }| format!("{what}: {answer:?} instead of {before:?}"))
        .collect()
}

fn answered(answer: Result<Tokens, Answer>) -> Answer {
    answer.err().unwrap_or_else(ok)
}

fn newest<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(LOOKED_AT)..]
}

/// The indices of the newest, which are lost most easily, and of some others.
fn some_of(count: usize, random: &mut impl Rng) -> BTreeSet<usize> {
    let newest = count.saturating_sub(LOOKED_AT);
    let others = LOOKED_AT.min(newest);
    (0..others).map(|_| random.random_range(0..newest)).chain(newest..count).collect()
}

impl Tokens {
    fn from_json(data: &Value) -> Tokens {
        let text = |field: &str| data[field].as_str().unwrap().to_owned();
        Tokens { access: text("access_token"), refresh: text("refresh_token") }
    }
}
