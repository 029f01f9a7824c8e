//! What the service costs, as docs/benchmarks.md has it: `scripts/bench [PART]...`

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the time between two moments is all that is read here")]

use std::{
    fs,
    future::Future,
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rescind::{
    admin::{self, CreatedClient, NewClient},
    app::App,
    auth::{self, Caller, Grant},
    clock::Clock,
    config::Config,
    random::Random,
    secret::{ApiSecret, generate_api_key},
};
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinSet};

mod memory;
mod slow;
mod timing;
mod waiting;

use memory::memory;
use slow::slow;
use timing::timing;
use waiting::waiting;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CALLER: Caller = Caller::direct(HOME);
const MANY_SESSIONS: usize = 100_000;
/// The part that takes far longer than all the others, and is left out unless named.
const ON_REQUEST: &str = "memory";
/// Its name on the command line, and what it does.
type Part = (&'static str, fn(&Runtime));

fn main() {
    let parts: [Part; 8] = [
        ("start", start),
        ("logout", logout),
        ("login", login),
        ("verify", verify),
        ("slow", slow),
        ("timing", timing),
        ("waiting", waiting),
        (ON_REQUEST, memory),
    ];
    // Cargo adds --bench.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, part) in parts {
        if (wanted.is_empty() && name != ON_REQUEST) || wanted.iter().any(|w| w == name) {
            println!("\n{name}");
            part(&runtime);
        }
    }
}

/// From nothing to the first answer, with few and with many sessions in the store.
fn start(runtime: &Runtime) {
    let (few, many) = (Store::with_sessions(runtime, 1), Store::with_sessions(runtime, MANY_SESSIONS));
    let in_process = |store: &Store| {
        let begun = Instant::now();
        let app = store.open(runtime);
        runtime.block_on(auth::verify(&app, &store.token, &CALLER)).unwrap();
        begun.elapsed()
    };
    let as_process = |store: &Store| {
        let begun = Instant::now();
        let server = Server::start(store.dir.path());
        assert!(Connection::to(&server.management).ask("/readyz", "").starts_with("HTTP/1.1 200"));
        begun.elapsed()
    };
    let parts: [&dyn Fn(&Store) -> Duration; 2] = [&in_process, &as_process];
    for (what, part) in ["open and verify one token", "process to /readyz 200"].into_iter().zip(parts) {
        let (mut with_few, mut with_many) = (vec![], vec![]);
        for _ in 0..15 {
            with_few.push(part(&few));
            with_many.push(part(&many));
        }
        let (with_few, with_many) = (percentile(&mut with_few, 50.0), percentile(&mut with_many, 50.0));
        println!(
            "  {what:<28} 1 session {with_few:>9.2?}   {MANY_SESSIONS} sessions {with_many:>9.2?}   ratio {:.2}",
            with_many.as_secs_f64() / with_few.as_secs_f64()
        );
    }
}

/// A durable logout of a client with one live session and of one with many.
fn logout(runtime: &Runtime) {
    let (few, many) = (Store::with_sessions(runtime, 1), Store::with_sessions(runtime, MANY_SESSIONS));
    let measure = |store: &Store| {
        // A logout spends the sessions, so each is of a copy.
        let copy = store.copied();
        let app = copy.open(runtime);
        runtime.block_on(async {
            let other = client(&app).await;
            let warm = login_as(&app, &other).await;
            auth::logout(&app, &warm.pair.access_token, &CALLER).await.unwrap();
            auth::verify(&app, &copy.token, &CALLER).await.unwrap();
            let begun = Instant::now();
            auth::logout(&app, &copy.token, &CALLER).await.unwrap();
            begun.elapsed()
        })
    };
    let (mut with_few, mut with_many) = (vec![], vec![]);
    for _ in 0..200 {
        with_few.push(measure(&few));
        with_many.push(measure(&many));
    }
    for p in [50.0, 99.0] {
        let (few, many) = (percentile(&mut with_few, p), percentile(&mut with_many, p));
        println!(
            "  p{p:<4} 1 session {few:>9.2?}   {MANY_SESSIONS} sessions {many:>9.2?}   ratio {:.2}",
            many.as_secs_f64() / few.as_secs_f64()
        );
    }
}

/// Durable logins in a second, by callers who wait for each answer.
fn login(runtime: &Runtime) {
    for (callers, each) in [(1, 3000), (16, 1500), (256, 400)] {
        let store = Store::with_sessions(runtime, 1);
        let app = store.open(runtime);
        let begun = Instant::now();
        runtime.block_on(log_in(&app, &store.client, callers, each));
        let seconds = begun.elapsed().as_secs_f64();
        println!("  {callers:>3} callers {:>8.0} logins/s", (callers * each) as f64 / seconds);
    }
}

/// Verification of a token that memory knows.
fn verify(runtime: &Runtime) {
    const TOKENS: usize = 1000;
    const ROUNDS: usize = 2000;
    let store = Store::with_sessions(runtime, 1);
    let app = store.open(runtime);
    let mut rounds = runtime.block_on(async {
        let mut tokens = vec![];
        for _ in 0..TOKENS {
            tokens.push(login_as(&app, &store.client).await.pair.access_token);
        }
        let mut rounds = vec![];
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            for token in &tokens {
                black_box(auth::verify(&app, token, &CALLER).await.unwrap());
            }
            rounds.push(begun.elapsed());
        }
        rounds
    });
    let each = percentile(&mut rounds, 50.0).as_secs_f64() * 1e9 / TOKENS as f64;
    println!("  in process, one thread {each:>8.0} ns");
    drop(app);

    let server = Server::start(store.dir.path());
    for connections in [1, 2] {
        const EACH: usize = 50_000;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    let mut connection = Connection::to(&server.public);
                    for _ in 0..EACH {
                        assert!(connection.ask("/verify", &store.token).starts_with("HTTP/1.1 200"));
                    }
                });
            }
        });
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "  HTTP, {connections} kept connections     {:>8.0} requests/s",
            (connections * EACH) as f64 / seconds
        );
    }
}

/// A closed store with one client that is logged in so many times.
struct Store {
    dir: tempfile::TempDir,
    client: Arc<CreatedClient>,
    token: String,
}

impl Store {
    fn with_sessions(runtime: &Runtime, sessions: usize) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let app = open(runtime, dir.path());
        let (client, grant) = runtime.block_on(async {
            let client = Arc::new(client(&app).await);
            log_in(&app, &client, 250, (sessions - 1).div_ceil(250)).await;
            let grant = login_as(&app, &client).await;
            (client, grant)
        });
        Store { dir, client, token: grant.pair.access_token }
    }

    fn open(&self, runtime: &Runtime) -> Arc<App> {
        open(runtime, self.dir.path())
    }

    fn copied(&self) -> Store {
        let dir = tempfile::tempdir().unwrap();
        for file in ["rescind.db", "master.key"] {
            fs::copy(self.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        Store { dir, client: Arc::clone(&self.client), token: self.token.clone() }
    }
}

fn open(runtime: &Runtime, dir: &Path) -> Arc<App> {
    runtime.block_on(App::open(&config(dir), None, Clock::System, Random::System)).unwrap()
}

fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.server.data_dir = dir.to_owned();
    config.server.listen = (HOME, 0).into();
    config.server.management_listen = (HOME, 0).into();
    config.limits.failed_logins_per_minute = 0;
    config
}

async fn client(app: &Arc<App>) -> CreatedClient {
    admin::create_client(app, NewClient { name: "bench".into(), ..NewClient::default() }).await.unwrap()
}

async fn login_as(app: &Arc<App>, client: &CreatedClient) -> Grant {
    auth::login(app, &client.api_key, &client.api_secret, &CALLER).await.unwrap()
}

async fn log_in(app: &Arc<App>, client: &Arc<CreatedClient>, callers: usize, each: usize) {
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let (app, client) = (Arc::clone(app), Arc::clone(client));
        running.spawn(async move {
            for _ in 0..each {
                login_as(&app, &client).await;
            }
        });
    }
    running.join_all().await;
}

/// The value of a future that does not wait for anything.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a refused login waited for something"),
    }
}

fn percentile(values: &mut [Duration], percent: f64) -> Duration {
    values.sort();
    values[((values.len() - 1) as f64 * percent / 100.0).round() as usize]
}

/// `rescind serve`, killed when dropped.
struct Server {
    child: Child,
    public: String,
    management: String,
}

impl Server {
    fn start(dir: &Path) -> Server {
        Server::start_with(dir, &[])
    }

    /// With these settings, by their names in the environment.
    fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Server {
        Server::start_program(env!("CARGO_BIN_EXE_rescind").as_ref(), dir, settings)
    }

    fn start_program(program: &Path, dir: &Path, settings: &[(&str, &str)]) -> Server {
        let mut command = Command::new(program);
        command.envs(settings.iter().copied());
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--management-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]);
        let mut child = command.arg(dir).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = log.find(|line| line.contains("serving")).unwrap();
        // What it logs later must go somewhere.
        std::thread::spawn(move || log.for_each(drop));
        let serving: Value = serde_json::from_str(&line).unwrap();
        let address = |field: &str| serving[field].as_str().unwrap().to_owned();
        Server { child, public: address("listen"), management: address("management") }
    }
}

impl Server {
    /// Its resident memory, in megabytes.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A connection that is kept.
struct Connection {
    stream: TcpStream,
    answer: [u8; 4096],
}

impl Connection {
    fn to(address: &str) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, answer: [0; 4096] }
    }

    /// All refusals are of one length.
    fn refused_login(&mut self, key: &str, secret: &str) {
        let body = format!(r#"{{"username":"{key}","password":"{secret}"}}"#);
        let head = "POST /auth/login HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        while !self.answer[..length].ends_with(b"\"Invalid credentials\"}}") {
            let read = self.stream.read(&mut self.answer[length..]).unwrap();
            assert!(read > 0, "the server went away");
            length += read;
        }
    }

    /// The JSON that a change is answered with.
    fn post(&mut self, path: &str, token: Option<&str>, body: &Value) -> Value {
        let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let body = body.to_string();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{token}");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.answer[length..]).unwrap();
            assert!(read > 0, "the server went away");
            length += read;
            // An object is whole when it can be read.
            let whole = self.answer[..length].windows(4).position(|window| window == b"\r\n\r\n");
            let answer = whole.and_then(|end| serde_json::from_slice(&self.answer[end + 4..length]).ok());
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// The head of an answer without a body.
    fn ask(&mut self, path: &str, token: &str) -> &str {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        while !self.answer[..length].windows(4).any(|window| window == b"\r\n\r\n") {
            let read = self.stream.read(&mut self.answer[length..]).unwrap();
            assert!(read > 0, "the server went away");
            length += read;
        }
        std::str::from_utf8(&self.answer[..length]).unwrap()
    }
}
