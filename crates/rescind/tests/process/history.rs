//! Clients at work, what they were told, and whether a server still knows it.

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
use tokio::task::JoinHandle;

use crate::api::{Answer, Api, Credential, Tokens, ok, unauthorized};

/// Of a client's sessions so many of the newest are checked and as many of the others; of each session's tokens
/// so many of the newest.
const LOOKED_AT: usize = 2;

/// Where nobody calls from.
const ELSEWHERE: &str = "192.0.2.0/24";

/// What an operator or a client asks for. Numbers are those of the client's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Create,
    Login,
    Refresh(usize),
    Logout(usize),
    Suspend,
    Resume,
    /// Revokes the credential, and with it what was born of it.
    Revoke,
    /// Makes another credential.
    Renew,
    /// Lets the client call from somewhere else alone.
    Narrow,
    /// From anywhere again.
    Widen,
    /// Ends the client; another one takes its place.
    Delete,
}

/// Something that was answered with success.
#[derive(Debug)]
pub(crate) struct Step {
    /// The request's id, which the answer carries too.
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

/// Everything that happened to one client, one thing after the other.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) steps: Vec<Step>,
    /// What was asked for last, and not answered with success.
    doubt: Option<Act>,
}

/// What must be so after a history.
#[derive(Debug, Clone, Default)]
struct Standing {
    client: u64,
    status: Status,
    credential: Option<Credential>,
    sessions: Vec<Session>,
    /// What was taken back.
    revoked: Vec<Credential>,
    dead: Vec<Session>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Status {
    /// Not made yet, or deleted.
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

/// One who works for one client until the server is gone, or says that it cannot.
struct Worker {
    api: Api,
    /// The admin API.
    local: Api,
    name: String,
    /// Only logs in and refreshes.
    only_opens: bool,
    random: StdRng,
    /// Counts what was answered, to all.
    answered: Arc<AtomicUsize>,
}

/// Several who work at the same time.
pub(crate) struct Crew {
    answered: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<History>>,
}

impl Crew {
    /// Sets so many to work on a server until `enough` was answered to all together.
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

    /// Until so much was answered, or nobody works any more.
    pub(crate) async fn has_done(&self, enough: usize) {
        let done = || self.answered.load(Ordering::SeqCst) >= enough;
        while !done() && !self.workers.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What happened, when all have ended.
    pub(crate) async fn histories(self) -> Vec<History> {
        let mut histories = vec![];
        for worker in self.workers {
            histories.push(worker.await.unwrap());
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

    /// `None`: not answered, or not with success.
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

    /// What whoever holds something good of the client is answered.
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

/// What of the first `steps` of a history a server does not know, or knows better. The step after those may
/// have happened or not. Uses refresh tokens up.
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

/// The same of a history that was looked at before.
pub(crate) async fn losses_since(api: &Api, history: &History, random: &mut impl Rng) -> Vec<String> {
    lost(&look(api, &Fates::new(history, history.steps.len()), random).await)
}

impl History {
    /// Whether it ended with a request whose fate is not known.
    pub(crate) fn ends_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }
}

/// What must be so, if what is in doubt has not happened and if it has.
struct Fates {
    before: Standing,
    after: Standing,
}

/// An answer that was got, and what it must be in either case.
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

/// Looks at access tokens, and at what was taken back.
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

/// What is in doubt is done or not done, never in part.
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

/// The newest, which are lost most easily, and some others.
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
