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
#[derive(Debug, Default)]
struct Standing {
    client: u64,
    credential: Option<Credential>,
    suspended: bool,
    sessions: Vec<Session>,
    dead: Vec<Session>,
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
            let act = self.choose(&standing, history.steps.len());
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

    fn choose(&mut self, standing: &Standing, steps: usize) -> Act {
        let sessions = standing.sessions.len();
        match standing.credential {
            None if steps == 0 => Act::Create,
            None => Act::Renew,
            Some(_) if standing.suspended => Act::Resume,
            Some(_) if sessions == 0 => Act::Login,
            Some(_) => {
                let session = self.random.random_range(0..sessions);
                match self.random.random_range(0..100) {
                    0..50 => Act::Login,
                    50..80 => Act::Refresh(session),
                    _ if self.only_opens => Act::Login,
                    80..92 => Act::Logout(session),
                    92..96 => Act::Suspend,
                    _ => Act::Revoke,
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
            Act::Logout(_) | Act::Suspend | Act::Resume | Act::Revoke => Told::Done,
        })
    }
}

impl Standing {
    fn apply(&mut self, act: Act, told: &Told) {
        match (act, told) {
            (Act::Create | Act::Renew, Told::Credential(credential)) => {
                self.client = credential.client_id;
                self.credential = Some(credential.clone());
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
                self.suspended = true;
                self.dead.append(&mut self.sessions);
            }
            (Act::Resume, Told::Done) => self.suspended = false,
            (Act::Revoke, Told::Done) => {
                self.credential = None;
                self.dead.append(&mut self.sessions);
            }
            other => unreachable!("{other:?}"),
        }
    }
}

/// What of the first `steps` of a history a server does not know, or knows better. The step after those may
/// have happened or not. Uses refresh tokens up.
pub(crate) async fn losses(api: &Api, history: &History, steps: usize, random: &mut impl Rng) -> Vec<String> {
    let mut lost = Lost::default();
    let (standing, doubt) = history.after(steps);
    let live = some_of(standing.sessions.len(), random);
    let taken_back = lost.verified(api, &standing, doubt, &live, random).await;
    if !taken_back {
        for i in live {
            let Session { refresh, used, .. } = &standing.sessions[i];
            if doubt != Some(Act::Refresh(i)) {
                let answer = answered(api.refresh(refresh).await);
                lost.unless(answer == ok(), "a session's newest pair", &answer);
            }
            for used in newest(used) {
                let answer = answered(api.refresh(used).await);
                lost.unless(answer == unauthorized("Invalid token"), "a pair's use", &answer);
            }
        }
    }
    if let Some(credential) = &standing.credential {
        let answer = answered(api.try_login(credential).await.unwrap());
        if standing.suspended {
            let expected = answer == unauthorized("Invalid credentials") || doubt == Some(Act::Resume);
            lost.unless(expected, "a suspension", &answer);
        } else {
            lost.unless(answer == ok() || takes_back(doubt), "a credential", &answer);
        }
    }
    lost.0
}

/// The same of a history that was looked at before.
pub(crate) async fn losses_since(api: &Api, history: &History, random: &mut impl Rng) -> Vec<String> {
    let mut lost = Lost::default();
    let (standing, doubt) = history.after(history.steps.len());
    let live = some_of(standing.sessions.len(), random);
    lost.verified(api, &standing, doubt, &live, random).await;
    lost.0
}

fn takes_back(act: Option<Act>) -> bool {
    matches!(act, Some(Act::Logout(_) | Act::Suspend | Act::Revoke))
}

impl History {
    /// Whether it ended with a request whose fate is not known.
    pub(crate) fn ends_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// What must be so after the first `steps`, and what may have come on top.
    fn after(&self, steps: usize) -> (Standing, Option<Act>) {
        let mut standing = Standing::default();
        for step in &self.steps[..steps] {
            standing.apply(step.act, &step.told);
        }
        (standing, self.steps.get(steps).map(|step| step.act).or(self.doubt))
    }
}

#[derive(Default)]
struct Lost(Vec<String>);

impl Lost {
    /// Looks at access tokens and revoked ones. Tells whether an act in doubt has taken the live ones back.
    async fn verified(
        &mut self,
        api: &Api,
        standing: &Standing,
        doubt: Option<Act>,
        live: &BTreeSet<usize>,
        random: &mut impl Rng,
    ) -> bool {
        let mut fates = vec![];
        for access in live.iter().flat_map(|&i| newest(&standing.sessions[i].access)) {
            fates.push(api.verify(access).await);
        }
        // It is done or not done, never in part.
        let taken_back = takes_back(doubt) && fates.first().is_some_and(|fate| *fate != ok());
        let expected = if taken_back { unauthorized("Invalid token") } else { ok() };
        for fate in fates {
            self.unless(fate == expected, "a session", &fate);
        }
        for i in some_of(standing.dead.len(), random) {
            let Session { access, refresh, .. } = &standing.dead[i];
            for access in newest(access) {
                let answer = api.verify(access).await;
                self.unless(answer == unauthorized("Invalid token"), "a revocation", &answer);
            }
            let answer = answered(api.refresh(refresh).await);
            self.unless(answer == unauthorized("Invalid token"), "a revocation", &answer);
        }
        taken_back
    }

    fn unless(&mut self, known: bool, what: &str, answer: &Answer) {
        if !known {
            self.0.push(format!("{what} is lost: {answer:?}"));
        }
    }
}

fn answered(answer: Result<Tokens, Answer>) -> Answer {
    answer.err().unwrap_or_else(ok)
}

fn newest(tokens: &[String]) -> &[String] {
    &tokens[tokens.len().saturating_sub(LOOKED_AT)..]
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
