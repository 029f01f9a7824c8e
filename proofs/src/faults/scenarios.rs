//! The scenarios: single promises, each by itself, and then random faults.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use tokio::{task::JoinSet, time::sleep};

use super::{
    caller::{Caller, Credential, Tokens},
    clock::{between, now},
    cluster::{Cluster, Setup},
    databases, episodes, fail_over,
    fault::Fault,
    figures::{Latencies, judge},
    leases,
    node::{LEASE, Node, WAIT},
    recorder::Recorder,
    revocation,
    verifier::Verifier,
    workload::{Load, Workload},
};
use crate::history::{Kind, Operation, Report, Verdict};

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Three nodes are restarted in turn: a caller that tries the next node always gets a correct verdict
    RollingRestart,
    /// The database is unavailable for 10 s: after one lease no token is accepted; later all nodes serve again
    Outage,
    /// A hundred refreshes of one token at once, at three nodes: one succeeds
    RefreshRace,
    /// The stand-by takes over: no node starts on it before, and it has lost nothing afterwards
    FailOver,
    /// How long a logout takes, and how long with an unavailable node
    LogoutLatency,
    /// How many verifications a node does, compared with a single server with SQLite
    Throughput,
    /// A restart with a shorter lease, while an unreachable verifier holds a longer one
    LeaseShortened,
    /// A restart after the last verifier was revoked, which is unreachable and holds a lease
    LastVerifierRevoked,
    /// Sessions are revoked while they are refreshed, with memory for a few sessions
    RefreshBesideRevoke,
    /// Pgpool-II answers the list of nodes from a stand-by that lags
    ReadFromAStandby,
    /// Commits stop waiting for the stand-by during logouts and logins, and then the stand-by takes over
    NamesEmptied,
    /// The database is upgraded to the next version by pg_upgrade, under running nodes
    Upgraded,
    /// One random fault after the other, under load
    Episodes,
}

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The number of faults, one after the other.
    pub episodes: usize,
    /// The kinds of faults.
    pub kinds: Vec<Fault>,
    /// Exceeded time limits fail too. This is meaningful only on a machine without other work.
    pub timed: bool,
}

const LOAD: Load = Load { clients: 16, pause: Duration::from_millis(200), apis: 4, verifications: 50.0 };

/// The time added to a node's waits in a caller's view: the commit, and other work of the machine.
const ALLOWANCE: Duration = Duration::from_millis(400);

/// The recording of one scenario.
pub(super) struct Recording {
    pub(super) path: PathBuf,
    pub(super) recorder: Arc<Recorder>,
    pub(super) callers: Vec<Caller>,
    pub(super) verifiers: Vec<Verifier>,
}

impl Scenario {
    /// Runs the scenario and returns its figures. `tell` gets the result of each episode as it ends.
    ///
    /// # Errors
    ///
    /// Fails if a server cannot be started or a promise is broken.
    pub async fn run(
        self,
        setup: &Setup,
        cluster: &mut Option<Cluster>,
        plan: &Plan,
        tell: impl FnMut(&str),
    ) -> anyhow::Result<String> {
        match self {
            Scenario::LeaseShortened => return leases::shortened(&setup.apart("leases")?).await,
            Scenario::LastVerifierRevoked => return leases::revoked(&setup.apart("verifiers")?).await,
            Scenario::RefreshBesideRevoke => return revocation::run(&setup.apart("sessions")?).await,
            Scenario::ReadFromAStandby => return databases::pgpool(&setup.apart("pgpool")?).await,
            Scenario::NamesEmptied => return databases::names_emptied(&setup.apart("names")?).await,
            Scenario::Upgraded => return databases::upgraded(&setup.apart("upgraded")?).await,
            _ => {}
        }
        let cluster = match cluster {
            Some(cluster) => cluster,
            None => cluster.insert(Cluster::start(setup).await?),
        };
        let recording = Recording::start(cluster, self)?;
        match self {
            Scenario::RollingRestart => rolling_restart(cluster, &recording).await,
            Scenario::Outage => outage(cluster, &recording, plan.timed).await,
            Scenario::RefreshRace => refresh_race(cluster, &recording).await,
            Scenario::FailOver => fail_over::run(cluster, &recording).await,
            Scenario::LogoutLatency => logout_latency(cluster, &recording, plan.timed).await,
            Scenario::Throughput => throughput(cluster, &recording).await,
            _ => episodes::run(cluster, &recording, plan, tell).await,
        }
    }
}

impl Recording {
    pub(super) fn start(cluster: &Cluster, scenario: Scenario) -> anyhow::Result<Recording> {
        let mut recording = Recording::create(cluster.folder.join(format!("{scenario:?}.jsonl")))?;
        recording.callers = cluster.callers(&recording.recorder)?;
        recording.verifiers = cluster.verifiers(&recording.recorder)?;
        Ok(recording)
    }

    /// A recording without callers or verifiers.
    pub(super) fn create(path: PathBuf) -> anyhow::Result<Recording> {
        let recorder = Arc::new(Recorder::create(&path)?);
        Ok(Recording { path, recorder, callers: vec![], verifiers: vec![] })
    }

    /// The report, if it has no violation.
    pub(super) async fn judged(&self) -> anyhow::Result<Report> {
        self.recorder.finish().await?;
        let report = judge(&self.path)?;
        ensure!(report.violations.is_empty(), "{report}");
        Ok(report)
    }
}

async fn rolling_restart(cluster: &mut Cluster, recording: &Recording) -> anyhow::Result<String> {
    let clients = cluster.clients(LOAD.clients + 8).await?;
    let (persistent, clients) = clients.split_at(8);
    let workload =
        Workload::start((&recording.callers, &recording.verifiers), clients.to_vec(), LOAD, &mut cluster.rng);
    let stopped = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for credential in persistent {
        let tokens = recording.callers[0].login(credential).await.given().context("login")?;
        tasks.spawn(verify_somewhere(recording.callers.clone(), tokens, Arc::clone(&stopped)));
    }
    for node in &mut cluster.nodes {
        node.stop().await?;
        node.start(0).await?;
    }
    sleep(Duration::from_secs(1)).await;
    stopped.store(true, Ordering::SeqCst);
    let (mut decided, mut undecided) = (0, 0);
    for (one, other) in tasks.join_all().await {
        (decided, undecided) = (decided + one, undecided + other);
    }
    workload.stop().await;
    let report = recording.judged().await?;
    ensure!(undecided == 0, "{undecided} times no node of three had a verdict");
    let verified = report.verdicts[&Kind::Verify];
    Ok(format!(
        "{decided} verifications at whichever node answers, every one accepted; of all, {} accepted, {} refused, \
         {} without a verdict at the node that was asked",
        verified.accepted, verified.refused, verified.unknown
    ))
}

/// Verifies a valid token at one node after the other until one has a verdict. Returns how often there was a
/// verdict, and how often not. (The history shows whether it was correct.)
async fn verify_somewhere(callers: Vec<Caller>, tokens: Arc<Tokens>, stopped: Arc<AtomicBool>) -> (u64, u64) {
    let (mut decided, mut undecided) = (0, 0);
    for first in (0..callers.len()).cycle() {
        if stopped.load(Ordering::SeqCst) {
            break;
        }
        let mut verdict = Verdict::Unknown;
        for next in 0..callers.len() {
            if verdict == Verdict::Unknown {
                verdict = callers[(first + next) % callers.len()].verify(&tokens).await;
            }
        }
        *(if verdict == Verdict::Unknown { &mut undecided } else { &mut decided }) += 1;
        sleep(Duration::from_millis(5)).await;
    }
    (decided, undecided)
}

async fn outage(cluster: &mut Cluster, recording: &Recording, timed: bool) -> anyhow::Result<String> {
    let clients = cluster.clients(LOAD.clients).await?;
    let workload =
        Workload::start((&recording.callers, &recording.verifiers), clients, LOAD, &mut cluster.rng);
    sleep(Duration::from_secs(2)).await;
    cluster.postgres.stop().await?;
    let away = now();
    sleep(Duration::from_secs(10)).await;
    let starting = now();
    cluster.postgres.start_again().await?;
    cluster.postgres.is_synchronous().await?;
    let returned = now();
    cluster.serves(&recording.recorder, Duration::from_secs(30)).await?;
    let back = between(returned, now());
    sleep(Duration::from_secs(2)).await;
    workload.stop().await;
    let report = recording.judged().await?;

    let mut last = away;
    for line in BufReader::new(File::open(&recording.path)?).lines() {
        let operation: Operation = line?.parse()?;
        let accepted = operation.kind() == Kind::Verify && operation.verdict() == Verdict::Accepted(());
        if accepted && operation.begin < starting {
            last = last.max(operation.begin);
        }
    }
    let last = between(away, last);
    ensure!(
        last <= Duration::from_millis(LEASE),
        "a token was accepted {last:?} after the database was away"
    );
    ensure!(!timed || back <= Duration::from_secs(2), "it took {back:?} until every node served again");
    Ok(format!(
        "the last acceptance began {:.2} s after the database was away, of at most {:.2}; all served {:.2} s after \
         its return; none of {} logins and {} logouts is lost",
        last.as_secs_f64(),
        Duration::from_millis(LEASE).as_secs_f64(),
        back.as_secs_f64(),
        report.verdicts[&Kind::Login].accepted,
        report.verdicts[&Kind::Logout].accepted
    ))
}

async fn refresh_race(cluster: &mut Cluster, recording: &Recording) -> anyhow::Result<String> {
    let clients = cluster.clients(5).await?;
    for credential in &clients {
        let tokens = recording.callers[0].login(credential).await.given().context("login")?;
        let mut racers = JoinSet::new();
        for caller in recording.callers.iter().cycle().take(100) {
            let (caller, tokens) = (caller.clone(), Arc::clone(&tokens));
            racers.spawn(async move { caller.refresh(&tokens).await });
        }
        let verdicts = racers.join_all().await;
        let refused = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Refused)).count();
        let mut won = verdicts.into_iter().filter_map(Verdict::given);
        let (winner, second) = (won.next().context("no refresh was accepted")?, won.next());
        ensure!(second.is_none() && refused == 99, "of 100 refreshes {refused} were refused");
        // The token was presented again, which has ended the session.
        ensure!(
            matches!(recording.callers[1].refresh(&winner).await, Verdict::Refused),
            "the session goes on"
        );
    }
    recording.judged().await?;
    Ok(format!("{} times 100 refreshes at once over three nodes: one winner each", clients.len()))
}

async fn logout_latency(cluster: &mut Cluster, recording: &Recording, timed: bool) -> anyhow::Result<String> {
    cluster.serves(&recording.recorder, Duration::from_secs(30)).await?;
    let start = now();
    log_out_often(cluster, recording, 300).await?;
    cluster.detach().await;
    let detached = now();
    log_out_often(cluster, recording, 600).await?;
    cluster.attach();
    cluster.serves(&recording.recorder, Duration::from_secs(30)).await?;
    let paused = now();
    log_out_with_a_node_paused(cluster, recording).await?;
    recording.judged().await?;

    let begun = |from, to| Latencies::read(&recording.path, move |logout| (from..to).contains(&logout.begin));
    let (followed, alone) = (begun(start, detached)?, begun(detached, paused)?);
    let silenced = begun(paused, u64::MAX)?;
    let counts = [&followed, &alone, &silenced].map(Latencies::count);
    ensure!(counts == [300, 600, 20], "{counts:?} logouts were accepted");
    if timed {
        ensure!(alone.percentile(99) <= Duration::from_millis(100), "three nodes: {alone}");
        let most = Duration::from_millis(WAIT) + ALLOWANCE;
        ensure!(silenced.percentile(100) <= most, "a node paused: {silenced}");
    }
    Ok(format!(
        "three nodes: {alone}; with a verifier at each: {followed}; and a node paused: {silenced}, W being {WAIT} ms"
    ))
}

/// Makes `count` logouts, four at a time.
async fn log_out_often(cluster: &Cluster, recording: &Recording, count: usize) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for (i, credential) in cluster.clients(4).await?.into_iter().enumerate() {
        let callers = recording.callers.clone();
        tasks.spawn(async move {
            for login in i..i + count / 4 {
                log_in_and_out(&callers[login % 3], &callers[(login + 1) % 3], &credential).await?;
            }
            anyhow::Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// Makes 20 logouts at two nodes, one every 200 ms, from the moment that the third node is paused.
async fn log_out_with_a_node_paused(cluster: &Cluster, recording: &Recording) -> anyhow::Result<()> {
    let clients = cluster.clients(20).await?;
    cluster.nodes[2].pause()?;
    let mut tasks = JoinSet::new();
    for (i, credential) in clients.into_iter().enumerate() {
        let callers = recording.callers.clone();
        tasks.spawn(async move {
            sleep(Duration::from_millis(200 * i as u64)).await;
            log_in_and_out(&callers[i % 2], &callers[(i + 1) % 2], &credential).await
        });
    }
    let ended = tasks.join_all().await;
    cluster.nodes[2].go_on()?;
    ended.into_iter().collect::<anyhow::Result<()>>()?;
    cluster.serves(&recording.recorder, Duration::from_secs(30)).await?;
    Ok(())
}

async fn log_in_and_out(login: &Caller, logout: &Caller, credential: &Credential) -> anyhow::Result<()> {
    let tokens = login.login(credential).await.given().context("login")?;
    logout.logout(&tokens).await.given().context("logout")
}

async fn throughput(cluster: &mut Cluster, recording: &Recording) -> anyhow::Result<String> {
    let program = cluster.nodes[0].door.command_line.program.clone();
    let mut single = Node::new("single", &program, &cluster.folder, None, &"0".repeat(64)).await?;
    single.start(0).await?;
    let credential = Credential::create(&single.door.command_line, "client").await?;
    let alone = Caller::new(&single.door, &recording.recorder)?;
    let alone = (alone.login(&credential).await.given().context("login")?, alone);
    let clients = cluster.clients(1).await?;
    let among = recording.callers[0].clone();
    let among = (among.login(&clients[0]).await.given().context("login")?, among);

    // Measured in turns, so that other work of the machine slows both.
    let mut rates = [vec![], vec![]];
    for _ in 0..7 {
        for (rates, (tokens, caller)) in rates.iter_mut().zip([&alone, &among]) {
            rates.push(rate(caller, tokens).await?);
        }
    }
    single.stop().await?;
    let [alone, among] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    Ok(format!(
        "{among:.0} verifications a second at a node of three, {alone:.0} at a single one with SQLite: {:.0} %",
        100.0 * among / alone
    ))
}

/// Verifications per second.
async fn rate(caller: &Caller, tokens: &Arc<Tokens>) -> anyhow::Result<f64> {
    const CALLERS: usize = 16;
    const EACH: usize = 1500;
    let began = now();
    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        let (caller, tokens) = (caller.clone(), Arc::clone(tokens));
        tasks.spawn(async move {
            for _ in 0..EACH {
                caller.verify(&tokens).await.given().context("verify")?;
            }
            anyhow::Ok(())
        });
    }
    for ended in tasks.join_all().await {
        ended?;
    }
    Ok((CALLERS * EACH) as f64 / between(began, now()).as_secs_f64())
}
