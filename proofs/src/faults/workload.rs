//! Clients that log in and out at every node, and APIs that verify their tokens.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    caller::{Caller, Credential, Tokens, Which},
    verifier::Verifier,
};
use crate::history::Verdict;

/// The size of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Clients, each with one request at a time.
    pub(super) clients: usize,
    /// The longest pause between two requests of a client.
    pub(super) pause: Duration,
    /// APIs at each verifier, and how often each verifies per second.
    pub(super) apis: usize,
    pub(super) verifications: f64,
}

/// How long a caller waits before its next request. The answer is recorded even if it arrives later.
const CLIENT_PATIENCE: Duration = Duration::from_secs(1);
const API_PATIENCE: Duration = Duration::from_millis(250);
/// Logouts take longer while a node is unavailable.
const LOGOUT_PATIENCE: Duration = Duration::from_secs(6);

/// The number of a client's latest tokens that are verified, revoked ones included.
const REMEMBERED: usize = 16;

/// A running load.
#[derive(Debug)]
pub(super) struct Workload {
    verifiers: Arc<[Verifier]>,
    subjects: Arc<[Arc<Subject>]>,
    stopped: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// A client and its latest tokens.
#[derive(Debug)]
struct Subject {
    held: Mutex<VecDeque<Arc<Tokens>>>,
}

/// The actions of one client.
#[derive(Debug)]
struct Driver {
    callers: Arc<[Caller]>,
    verifiers: Arc<[Verifier]>,
    subject: Arc<Subject>,
    credential: Credential,
    /// The newest pair of each session that may still be valid.
    sessions: Vec<Arc<Tokens>>,
    rng: StdRng,
    load: Load,
}

impl Workload {
    /// Starts these clients and the APIs.
    pub(super) fn start(
        (callers, verifiers): (&[Caller], &[Verifier]),
        clients: Vec<Credential>,
        load: Load,
        rng: &mut StdRng,
    ) -> Workload {
        let stopped = Arc::new(AtomicBool::new(false));
        let (callers, verifiers): (Arc<[_]>, Arc<[_]>) = (callers.into(), verifiers.into());
        let mut tasks = JoinSet::new();
        let mut subjects = vec![];
        for credential in clients {
            let subject = Arc::new(Subject { held: Mutex::default() });
            subjects.push(Arc::clone(&subject));
            let rng = StdRng::seed_from_u64(rng.random());
            let driver = Driver {
                callers: Arc::clone(&callers),
                verifiers: Arc::clone(&verifiers),
                subject,
                credential,
                sessions: vec![],
                rng,
                load,
            };
            tasks.spawn(driver.run(Arc::clone(&stopped)));
        }
        let subjects: Arc<[_]> = subjects.into();
        for verifier in verifiers.iter() {
            for _ in 0..load.apis {
                let rng = StdRng::seed_from_u64(rng.random());
                let (verifier, subjects, stopped) =
                    (verifier.clone(), Arc::clone(&subjects), Arc::clone(&stopped));
                tasks.spawn(api(verifier, subjects, load, rng, stopped));
            }
        }
        Workload { verifiers, subjects, stopped, tasks }
    }

    /// Stops the load, and then verifies all tokens once more at every verifier.
    pub(super) async fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        for subject in self.subjects.iter() {
            let held: Vec<_> = subject.held().iter().map(Arc::clone).collect();
            for tokens in held {
                for verifier in self.verifiers.iter() {
                    verifier.verify(&tokens).await;
                }
            }
        }
    }
}

/// An API: verifies tokens of random clients repeatedly at one verifier.
async fn api(
    verifier: Verifier,
    subjects: Arc<[Arc<Subject>]>,
    load: Load,
    mut rng: StdRng,
    stopped: Arc<AtomicBool>,
) {
    let mut pace = interval(Duration::from_secs_f64(1.0 / load.verifications));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stopped.load(Ordering::SeqCst) {
        pace.tick().await;
        let Some(tokens) = subjects.choose(&mut rng).and_then(|subject| subject.any(&mut rng)) else {
            continue;
        };
        let verifier = verifier.clone();
        within(API_PATIENCE, async move { verifier.verify(&tokens).await }).await;
    }
}

/// The answer, if it arrives within `patience`. A later answer is only recorded.
async fn within<T: Send + 'static>(
    patience: Duration,
    asked: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    timeout(patience, tokio::spawn(asked)).await.ok()?.ok()
}

impl Subject {
    fn held(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Tokens>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A random token of the client, more probably one of the latest.
    fn any(&self, rng: &mut StdRng) -> Option<Arc<Tokens>> {
        let held = self.held();
        let age = rng.random_range(0..=held.len()).min(rng.random_range(0..=held.len()));
        held.iter().rev().nth(age).map(Arc::clone)
    }

    /// Keeps the tokens of a login or refresh, even if the client did not wait for them.
    fn got(&self, verdict: Verdict<Arc<Tokens>>) -> Verdict<Arc<Tokens>> {
        if let Verdict::Accepted(tokens) = &verdict {
            let mut held = self.held();
            held.push_back(Arc::clone(tokens));
            if held.len() > REMEMBERED {
                held.pop_front();
            }
        }
        verdict
    }
}

impl Driver {
    async fn run(mut self, stopped: Arc<AtomicBool>) {
        while !stopped.load(Ordering::SeqCst) {
            if self.step().await.is_none() {
                // A client without an answer waits before its next request.
                sleep(Duration::from_millis(100)).await;
            }
            sleep(self.load.pause.mul_f64(self.rng.random())).await;
        }
    }

    /// One random action. `None`: there was no verdict.
    async fn step(&mut self) -> Option<()> {
        if self.sessions.is_empty() {
            return self.login().await;
        }
        match self.rng.random_range(0..100) {
            0..30 => self.login().await,
            30..60 => self.refresh().await,
            60..64 => self.refresh_twice_at_once().await,
            64..83 => self.verify_everywhere().await,
            83..86 => self.revoke().await,
            86..94 => self.logout().await,
            94..97 => self.logout_and_login_at_once().await,
            97..99 => self.logout_by_operator().await,
            _ => self.delete().await,
        }
    }

    async fn login(&mut self) -> Option<()> {
        let (caller, credential, subject) =
            (self.caller(), self.credential.clone(), Arc::clone(&self.subject));
        let login = async move { subject.got(caller.login(&credential).await) };
        let verdict = within(CLIENT_PATIENCE, login).await?;
        if matches!(verdict, Verdict::Refused) {
            // The database has lost the client.
            self.sessions.clear();
            self.replace_client().await;
        }
        self.opened(verdict)
    }

    async fn refresh(&mut self) -> Option<()> {
        let (session, caller, subject) = (self.session(), self.caller(), Arc::clone(&self.subject));
        let tokens = Arc::clone(&session);
        let refresh = async move { subject.got(caller.refresh(&tokens).await) };
        let verdict = within(CLIENT_PATIENCE, refresh).await?;
        if matches!(verdict, Verdict::Accepted(_)) && self.rng.random_ratio(1, 10) {
            // The old token is presented again, as by a thief. That ends the session, whatever the answer.
            let caller = self.caller();
            within(CLIENT_PATIENCE, async move { caller.refresh(&session).await.map(|_| ()) }).await?;
            return Some(());
        }
        self.opened(verdict)
    }

    async fn refresh_twice_at_once(&mut self) -> Option<()> {
        let (session, one, other) = (self.session(), self.caller(), self.caller());
        let subject = Arc::clone(&self.subject);
        let both = async move {
            let (first, second) = tokio::join!(one.refresh(&session), other.refresh(&session));
            subject.got(first);
            subject.got(second);
        };
        within(CLIENT_PATIENCE, both).await
    }

    async fn verify_everywhere(&mut self) -> Option<()> {
        let tokens = self.sessions.choose(&mut self.rng).map(Arc::clone)?;
        self.probe(&[tokens]);
        Some(())
    }

    /// Revokes one session alone, in half of the cases during a refresh.
    async fn revoke(&mut self) -> Option<()> {
        let (session, caller, other) = (self.session(), self.caller(), self.caller());
        let (credential, subject) = (self.credential.clone(), Arc::clone(&self.subject));
        let which = if self.rng.random() { Which::Access } else { Which::Refresh };
        let refreshed = self.rng.random_ratio(1, 2);
        let both = async move {
            let refresh = async {
                if refreshed {
                    subject.got(other.refresh(&session).await);
                }
            };
            tokio::join!(caller.revoke(&credential, &session, which), refresh).0
        };
        let verdict = within(LOGOUT_PATIENCE, both).await?;
        self.logged_out(verdict)
    }

    async fn logout(&mut self) -> Option<()> {
        let (tokens, caller) = (self.session(), self.caller());
        self.sessions.clear();
        let verdict = within(LOGOUT_PATIENCE, async move { caller.logout(&tokens).await }).await?;
        self.logged_out(verdict)
    }

    async fn logout_and_login_at_once(&mut self) -> Option<()> {
        let (tokens, caller, other) = (self.session(), self.caller(), self.caller());
        let (credential, subject) = (self.credential.clone(), Arc::clone(&self.subject));
        self.sessions.clear();
        let both = async move {
            let (logout, login) = tokio::join!(caller.logout(&tokens), other.login(&credential));
            // The login has the old or the new generation, so its tokens may be revoked.
            subject.got(login);
            logout
        };
        let verdict = within(LOGOUT_PATIENCE, both).await?;
        self.logged_out(verdict)
    }

    async fn logout_by_operator(&mut self) -> Option<()> {
        let (client, caller) = (self.credential.clone(), self.caller());
        self.sessions.clear();
        let verdict = within(LOGOUT_PATIENCE, async move { caller.logout_by_operator(&client).await }).await;
        self.logged_out(verdict.unwrap_or(Verdict::Unknown));
        if verdict != Some(Verdict::Accepted(())) {
            // The logout may still be executed at any time, and would explain every later refusal. So a new
            // client replaces this one.
            self.replace_client().await;
        }
        Some(())
    }

    async fn delete(&mut self) -> Option<()> {
        let (client, caller) = (self.credential.clone(), self.caller());
        self.sessions.clear();
        let verdict = within(LOGOUT_PATIENCE, async move { caller.delete(&client).await }).await;
        self.logged_out(verdict.unwrap_or(Verdict::Unknown));
        self.replace_client().await;
        Some(())
    }

    async fn replace_client(&mut self) {
        loop {
            let beside = self.caller();
            let created = Credential::create(&beside.node.command_line, "client");
            if let Ok(Ok(credential)) = timeout(LOGOUT_PATIENCE, created).await {
                self.credential = credential;
                self.subject.held().clear();
                return;
            }
        }
    }

    /// Keeps the session of a login or refresh.
    fn opened(&mut self, verdict: Verdict<Arc<Tokens>>) -> Option<()> {
        let decided = !matches!(verdict, Verdict::Unknown);
        self.sessions.extend(verdict.given());
        decided.then_some(())
    }

    /// Verifies the latest tokens everywhere, right after a logout.
    fn logged_out(&mut self, verdict: Verdict) -> Option<()> {
        let held: Vec<_> = self.subject.held().iter().rev().take(3).map(Arc::clone).collect();
        self.probe(&held);
        (verdict != Verdict::Unknown).then_some(())
    }

    /// Verifies these tokens at every verifier, without waiting.
    fn probe(&self, tokens: &[Arc<Tokens>]) {
        for verifier in self.verifiers.iter() {
            for tokens in tokens {
                let (verifier, tokens) = (verifier.clone(), Arc::clone(tokens));
                tokio::spawn(async move { verifier.verify(&tokens).await });
            }
        }
    }

    fn caller(&mut self) -> Caller {
        self.callers[self.rng.random_range(0..self.callers.len())].clone()
    }

    /// Removes and returns a random session. The caller puts it back if it stays valid.
    fn session(&mut self) -> Arc<Tokens> {
        let which = self.rng.random_range(0..self.sessions.len());
        self.sessions.swap_remove(which)
    }
}
