//! What the service costs, as docs/performance.md has it: `scripts/bench [PART]...`

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the time between two moments is all that is read here")]

use std::{
    fs,
    future::Future,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rescind::auth::{self, Caller, Grant};
use rescind_admin::{self as admin, CreatedClient, NewClient};
use rescind_base::{
    clock::Clock,
    random::Random,
    secret::{ApiSecret, generate_api_key},
};
use rescind_node::{app::App, config::Config};
use serde_json::Value;
use tokio::runtime::Runtime;

mod memory;
mod slow;
mod timing;

use memory::memory;
use slow::slow;
use timing::timing;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CALLER: Caller = Caller::direct(HOME);
/// The part that takes far longer than the others, and is left out unless named.
const ON_REQUEST: &str = "memory";
/// Its name on the command line, and what it does.
type Part = (&'static str, fn(&Runtime));

fn main() {
    let parts: [Part; 3] = [("slow", slow), ("timing", timing), ("memory", memory)];
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

/// A closed store with one client that is logged in.
struct Store {
    dir: tempfile::TempDir,
    token: String,
}

impl Store {
    fn new(runtime: &Runtime) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let app = open(runtime, dir.path());
        let token = runtime.block_on(async { login_as(&app, &client(&app).await).await.pair.access_token });
        Store { dir, token }
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
}

impl Server {
    fn start(dir: &Path) -> Server {
        Server::start_with(dir, &[])
    }

    /// With these settings, by their names in the environment.
    fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rescind"));
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
        Server { child, public: serving["listen"].as_str().unwrap().to_owned() }
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
