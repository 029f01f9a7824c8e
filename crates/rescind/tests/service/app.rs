//! A running service in a folder of its own, and the requests that tests send to it.

use std::{fs::File, net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{
    Method, RequestBuilder,
    header::{HeaderName, HeaderValue},
};
use rescind::server::Server;
use rescind_admin::{self as admin, NewClient};
use rescind_base::{clock::Clock, model, random::Random};
use rescind_node::{app::App, config::Config};
use serde_json::json;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::reply::Reply;

/// 2025-01-15T12:00:00Z
pub(crate) const NOW: u64 = 1_736_942_400;

pub(crate) const HOUR: i64 = 3600;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The time after which a stop counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// The header that the trusted proxy of [`TestApp::behind_proxy`] writes.
pub(crate) const FORWARDED_FOR: &str = "x-forwarded-for";

pub(crate) struct TestApp {
    pub(crate) app: Arc<App>,
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    pub(crate) management: SocketAddr,
    pub(crate) folder: TempDir,
    config: Config,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

/// The folder and the clock of a stopped service.
pub(crate) struct Stopped {
    clock: Clock,
    folder: TempDir,
    config: Config,
}

impl Stopped {
    /// The clock, which still runs.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The configuration, which names the folder.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Starts the service again on the same folder.
    pub(crate) async fn start_with(self, change: impl FnOnce(&mut Config)) -> TestApp {
        let Stopped { clock, folder, mut config } = self;
        change(&mut config);
        TestApp::open(folder, config, clock, Random::System).await
    }
}

/// A client with its first credential.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// The tokens of a login or a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) access_expires_at: String,
    pub(crate) refresh_expires_at: String,
    pub(crate) client_id: u64,
}

impl TestApp {
    /// A service with the default configuration.
    pub(crate) async fn start() -> TestApp {
        TestApp::with(|_| {}).await
    }

    /// A service that trusts this machine as a proxy, so that requests may name any caller's address. By default they
    /// name the proxy itself.
    pub(crate) async fn behind_proxy() -> TestApp {
        TestApp::with(trust_proxy).await
    }

    /// A service with the default configuration after `change`.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::at_time(NOW, change).await
    }

    /// A service with the machine's own clocks, for time limits.
    pub(crate) async fn in_real_time(change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::clocked(Clock::System, change).await
    }

    /// A service with a manual clock at the present time, for tests in which others use the machine's clock.
    pub(crate) async fn today(change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::at_time(Clock::System.now(), change).await
    }

    /// A service with the machine's own clocks, for leases.
    pub(crate) async fn live(change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::clocked(Clock::System, change).await
    }

    async fn at_time(now: u64, change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::clocked(Clock::manual(now), change).await
    }

    async fn clocked(clock: Clock, change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::set_up(tempfile::tempdir().unwrap(), clock, change).await
    }

    async fn set_up(folder: TempDir, clock: Clock, change: impl FnOnce(&mut Config)) -> TestApp {
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.management_listen = config.server.listen;
        config.server.data_dir = folder.path().join("data");
        change(&mut config);
        TestApp::open(folder, config, clock, Random::System).await
    }

    /// A service on an existing data folder, with a manual clock at `now`.
    pub(crate) async fn on(folder: TempDir, now: u64, change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::set_up(folder, Clock::manual(now), change).await
    }

    async fn open(folder: TempDir, config: Config, clock: Clock, random: Random) -> TestApp {
        let app = App::open(&config, None, clock.clone(), random).await.unwrap();
        let server = Server::bind(Arc::clone(&app), &config).await.unwrap();
        let (address, management) = (server.address().unwrap(), server.management_address().unwrap());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            server.run(async { _ = stopped.await }).await.unwrap();
        });
        // A node of a cluster answers once it has a lease.
        let leased = async {
            while config.database.url.is_some() && !app.is_ready() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, leased).await.expect("a lease");
        let names_caller = config.server.client_address_header.as_ref().is_some_and(|h| h == FORWARDED_FOR);
        let own = names_caller
            .then(|| (HeaderName::from_static(FORWARDED_FOR), HeaderValue::from_static("127.0.0.1")));
        let http = reqwest::Client::builder().no_proxy().default_headers(own.into_iter().collect());
        let http = http.build().unwrap();
        TestApp { app, clock, address, management, folder, config, http, stop, running }
    }

    /// Stops the server as SIGTERM does, and starts it again on the same folder.
    pub(crate) async fn restart(self) -> TestApp {
        self.restart_with(|_| {}).await
    }

    /// Like `restart`, with a changed configuration.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut Config)) -> TestApp {
        self.stop().await.start_with(change).await
    }

    /// Stops the server as SIGTERM does.
    pub(crate) async fn stop(self) -> Stopped {
        let TestApp { app, clock, folder, config, stop, running, .. } = self;
        let lock = File::open(config.server.data_dir.join("rescind.lock")).unwrap();
        stop.send(()).unwrap();
        running.await.unwrap();
        drop(app);
        // The last connections let go of the app in their own tasks. The folder's lock is released last.
        let (released, release) = oneshot::channel();
        std::thread::spawn(move || {
            let taken = lock.lock();
            // Before it is told, for whoever is told may take the folder at once.
            drop(lock);
            released.send(taken)
        });
        let release =
            timeout(PATIENCE, release).await.expect("the server is still held after it has stopped");
        release.unwrap().unwrap();
        Stopped { clock, folder, config }
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_allowed(&[]).await
    }

    /// Creates a client that may call only from these networks.
    pub(crate) async fn client_allowed(&self, networks: &[&str]) -> Client {
        let allow = networks.iter().map(|&network| network.into()).collect();
        self.client_of(NewClient { name: "test".into(), allow, ..NewClient::default() }).await
    }

    pub(crate) async fn client_of(&self, new: NewClient) -> Client {
        let created = admin::create_client(&self.app, new).await.unwrap();
        Client { id: created.client_id, key: created.api_key, secret: created.api_secret }
    }

    /// Reads the client from the store.
    pub(crate) async fn stored(&self, client: &Client) -> model::Client {
        self.app.store.find(client.id, 0).await.unwrap().client.unwrap()
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.advance(seconds);
    }

    /// Whether the client in the store is equal to `before`.
    pub(crate) async fn is_unchanged(&self, before: &model::Client) -> bool {
        self.app.store.find(before.id, 0).await.unwrap().client.as_ref() == Some(before)
    }

    /// Reads a session from the store.
    pub(crate) async fn session(&self, id: u64) -> model::Session {
        self.app.store.find(0, id).await.unwrap().session.unwrap()
    }

    /// The newest pair of a session, as it was or would be issued.
    pub(crate) fn pair_of(&self, session: &model::Session) -> rescind_node::memory::Pair {
        let memory = &self.app.memory;
        let api_key = memory.registry.api_key(session.credential).unwrap_or_default();
        memory.issuer.pair(session, &api_key).unwrap()
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.app.folder().socket()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    /// The same service behind a proxy that names no caller by default.
    pub(crate) fn naming_nobody(mut self) -> TestApp {
        self.http = reqwest::Client::builder().no_proxy().build().unwrap();
        self
    }

    /// The same service over HTTP/2.
    pub(crate) fn over_http2(mut self) -> TestApp {
        self.http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        self
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Sends a request, and checks in the answer what holds for every answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Reply {
        Reply::read(request.send().await.unwrap()).await
    }

    /// The same requests, from another address.
    pub(crate) fn at<'a>(&'a self, address: &'a str) -> Caller<'a> {
        Caller { app: self, address: Some(address) }
    }

    fn here(&self) -> Caller<'_> {
        Caller { app: self, address: None }
    }

    pub(crate) async fn login(&self, client: &Client) -> Reply {
        self.here().login(client).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Reply {
        self.here().refresh(token).await
    }

    pub(crate) async fn logout(&self, token: &str) -> Reply {
        self.here().logout(token).await
    }

    pub(crate) async fn verify(&self, token: &str) -> Reply {
        self.here().verify(token).await
    }

    /// Logs in, which must succeed.
    pub(crate) async fn grant(&self, client: &Client) -> Pair {
        self.login(client).await.pair()
    }

    /// Refreshes a pair, which must succeed.
    pub(crate) async fn renew(&self, pair: &Pair) -> Pair {
        self.refresh(&pair.refresh).await.pair()
    }

    /// Whether an access token is valid. If not, every endpoint must refuse it as revoked.
    pub(crate) async fn stands(&self, access_token: &str) -> bool {
        let reply = self.verify(access_token).await;
        if reply.status != 200 {
            reply.is_error(401, "Invalid token");
            self.logout(access_token).await.is_error(401, "Invalid token");
        }
        reply.status == 200
    }
}

/// Requests from one address.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    app: &'a TestApp,
    address: Option<&'a str>,
}

impl Caller<'_> {
    pub(crate) async fn login(&self, client: &Client) -> Reply {
        let body = json!({"username": client.key, "password": client.secret});
        self.send(self.app.post("/auth/login").json(&body)).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Reply {
        self.send(self.app.post("/auth/refresh").json(&json!({"refresh_token": token}))).await
    }

    pub(crate) async fn logout(&self, token: &str) -> Reply {
        self.send(self.app.post("/auth/logout").bearer_auth(token)).await
    }

    pub(crate) async fn verify(&self, token: &str) -> Reply {
        self.send(self.app.request(Method::GET, "/verify").bearer_auth(token)).await
    }

    async fn send(&self, request: RequestBuilder) -> Reply {
        self.app
            .send(match self.address {
                Some(address) => request.header(FORWARDED_FOR, address),
                None => request,
            })
            .await
    }
}

/// Makes this machine a trusted proxy.
pub(crate) fn trust_proxy(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    config.server.client_address_header = Some(FORWARDED_FOR.parse().unwrap());
}
