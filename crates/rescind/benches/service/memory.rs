//! How much memory the server takes, for how long.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::json;

use super::*;

const CLIENTS: usize = 1000;
const MANY_SESSIONS: usize = 100_000;
const SESSIONS_EACH: usize = MANY_SESSIONS / CLIENTS;
/// Each with a connection and clients of its own, so that what it does has one outcome.
const CALLERS: usize = 8;
const PEAK: Duration = Duration::from_secs(20);
const SOAK: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);
const SAMPLE: Duration = Duration::from_secs(1);

/// What the server's resident memory does while 100,000 sessions are verified, refreshed, logged out
/// and logged in again, for ten minutes at half of the rate that it is able to.
pub(super) fn memory(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let app = open(runtime, dir.path());
    let clients = runtime.block_on(async {
        let mut clients = vec![];
        for _ in 0..CLIENTS {
            clients.push(client(&app).await);
        }
        clients
    });
    drop(app);

    // It remembers up to twice as many sessions as there are, and is full of them from the start: what
    // is asked is whether memory grows, not how far it is to its bound.
    let bound = (2 * MANY_SESSIONS).to_string();
    let server = Server::start_with(dir.path(), &[("RESCIND_SERVER__SESSIONS_IN_MEMORY", &bound)]);
    let empty = server.resident();
    let mut crew: Vec<Crew> =
        clients.chunks(CLIENTS / CALLERS).zip(1..).map(|(of, seed)| Crew::new(&server, of, seed)).collect();
    for _ in 0..3 {
        all(&mut crew, |crew| crew.begin_anew());
    }
    println!("  {MANY_SESSIONS} sessions: {:.1} MB resident, {:.1} MB before them", server.resident(), empty);

    let peak = all(&mut crew, |crew| crew.work(PEAK, None));
    let peak = total(&peak) as f64 / PEAK.as_secs_f64();
    println!("  peak {peak:.0} requests/s; {:.1} MB after {PEAK:?} of it", server.resident());

    let pause = Duration::from_secs_f64(CALLERS as f64 / (peak / 2.0));
    let over = AtomicBool::new(false);
    let (done, samples) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(&server, &over));
        let done = all(&mut crew, |crew| crew.work(SOAK, Some(pause)));
        over.store(true, Ordering::Relaxed);
        (done, sampler.join().unwrap())
    });
    let mut kinds = BTreeMap::new();
    for (kind, count) in done.iter().flatten() {
        *kinds.entry(*kind).or_insert(0) += count;
    }
    println!("  {:.0} requests/s: {kinds:?}", total(&done) as f64 / SOAK.as_secs_f64());

    let mean = |samples: &[(f64, f64)]| samples.iter().map(|(_, mb)| mb).sum::<f64>() / samples.len() as f64;
    let minute = MINUTE.as_secs() as usize;
    let (first, last) = (mean(&samples[..minute]), mean(&samples[samples.len() - minute..]));
    println!(
        "  first minute {first:.2} MB, last {last:.2} MB, ratio {:.4}; slope {:+.3} MB a minute",
        last / first,
        slope(&samples) * MINUTE.as_secs_f64()
    );
}

/// What each of the crew gives, side by side.
fn all<T: Send>(crew: &mut [Crew], work: impl Fn(&mut Crew) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let at_work: Vec<_> = crew.iter_mut().map(|crew| scope.spawn(move || work(crew))).collect();
        at_work.into_iter().map(|crew| crew.join().unwrap()).collect()
    })
}

type Done = BTreeMap<&'static str, usize>;

fn total(done: &[Done]) -> usize {
    done.iter().flat_map(Done::values).sum()
}

/// Seconds and megabytes, every second; one in thirty is printed.
fn sample(server: &Server, over: &AtomicBool) -> Vec<(f64, f64)> {
    let begun = Instant::now();
    let mut samples = vec![];
    while !over.load(Ordering::Relaxed) {
        let (at, resident) = (begun.elapsed().as_secs_f64(), server.resident());
        if samples.len() % 30 == 0 {
            println!("  {at:>5.0} s {resident:>7.2} MB");
        }
        samples.push((at, resident));
        std::thread::park_timeout(SAMPLE);
    }
    samples
}

/// By least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

/// A caller for some of the clients.
struct Crew {
    connection: Connection,
    clients: Vec<Holder>,
    /// Which of them logged out last.
    last: usize,
    random: u64,
    done: Done,
}

/// A client and what it holds: its sessions' access and refresh tokens.
struct Holder {
    credentials: Value,
    sessions: Vec<(String, String)>,
}

impl Crew {
    fn new(server: &Server, clients: &[CreatedClient], seed: u64) -> Crew {
        let holder = |client: &CreatedClient| Holder {
            credentials: json!({"username": client.api_key, "password": client.api_secret}),
            sessions: vec![],
        };
        Crew {
            connection: Connection::to(&server.public),
            clients: clients.iter().map(holder).collect(),
            last: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            done: Done::new(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        // xorshift64: the order is to be mixed, no more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) as usize % bound
    }

    /// Every client logs out, if it is logged in, and logs in as often as it may hold sessions.
    fn begin_anew(&mut self) {
        for client in 0..self.clients.len() {
            if !self.clients[client].sessions.is_empty() {
                self.log_out(client);
            }
            while self.clients[client].sessions.len() < SESSIONS_EACH {
                self.log_in(client);
            }
        }
    }

    /// For so long, a request each `pause` or as soon as the one before is answered. What was done.
    fn work(&mut self, time: Duration, pause: Option<Duration>) -> Done {
        self.done.clear();
        let begun = Instant::now();
        let mut due = begun;
        while begun.elapsed() < time {
            self.step();
            if let Some(pause) = pause {
                due += pause;
                std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            }
        }
        std::mem::take(&mut self.done)
    }

    /// A verification mostly; one in twenty is a refresh, one in a thousand a logout, after which the
    /// client logs in until it holds as much as before.
    fn step(&mut self) {
        if self.clients[self.last].sessions.len() < SESSIONS_EACH {
            return self.log_in(self.last);
        }
        let (client, session) = (self.below(self.clients.len()), self.below(SESSIONS_EACH));
        match self.below(1000) {
            0 => self.log_out(client),
            1..=50 => {
                let body = json!({"refresh_token": self.clients[client].sessions[session].1});
                let answer = self.connection.post("/auth/refresh", None, &body);
                self.clients[client].sessions[session] = tokens(&answer);
                *self.done.entry("refreshes").or_default() += 1;
            }
            _ => {
                let token = &self.clients[client].sessions[session].0;
                assert!(self.connection.ask("/verify", token).starts_with("HTTP/1.1 200"));
                *self.done.entry("verifications").or_default() += 1;
            }
        }
    }

    fn log_in(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let answer = self.connection.post("/auth/login", None, &client.credentials);
        client.sessions.push(tokens(&answer));
        *self.done.entry("logins").or_default() += 1;
    }

    fn log_out(&mut self, client: usize) {
        let sessions = std::mem::take(&mut self.clients[client].sessions);
        let answer = self.connection.post("/auth/logout", Some(&sessions[0].0), &json!({}));
        assert_eq!(answer["success"], true, "{answer}");
        self.last = client;
        *self.done.entry("logouts").or_default() += 1;
    }
}

fn tokens(answer: &Value) -> (String, String) {
    let token = |name: &str| answer["data"][name].as_str().unwrap().to_owned();
    (token("access_token"), token("refresh_token"))
}
