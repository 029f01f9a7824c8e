//! Nodes whose database is slow, or far away.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{
    api::{Api, Credential, Tokens, ok},
    cluster::{Node, receipt},
    fixture::{Server as Postgres, connect},
    process::{PATIENCE, Server, json},
};

/// W is 1.2 s.
const BRIEF: [(&str, &str); 2] = [("RESCIND_CLUSTER__LEASE", "1s"), ("RESCIND_CLUSTER__MARGIN", "100ms")];

/// From now on everything takes longer than W to load.
async fn load_slowly(database: &str) {
    let slow = "
        ALTER TABLE verifier RENAME TO quick_verifier;
        CREATE VIEW verifier AS
            WITH slow AS MATERIALIZED (SELECT pg_sleep(2.5))
            SELECT * FROM quick_verifier WHERE EXISTS (SELECT FROM slow)";
    connect(database).await.batch_execute(slow).await.unwrap();
}

/// Waits until so many nodes are in the database.
async fn nodes(database: &str, expected: i64) {
    let db = connect(database).await;
    let joined = async {
        while db.query_one("SELECT count(*) FROM node", &[]).await.unwrap().get::<_, i64>(0) != expected {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, joined).await.unwrap();
}

/// Starts a node that does not serve yet.
fn joins(database: &str) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[&Node::variables(database), &BRIEF[..]].concat());
    (dir, server)
}

#[tokio::test]
async fn a_node_that_loads_for_longer_than_a_lease_joins_and_misses_nothing() {
    let database = Postgres::shared().database().await;
    let one = Node::start_until(&database, &BRIEF, "joined the cluster");
    let client = Credential::from_json(&json(one.dir.path(), "client create --name demo"));
    let tokens = one.api.login(&client).await;
    load_slowly(&database).await;
    let (_dir, mut two) = joins(&database);
    nodes(&database, 2).await;
    // It is waited for, for W at most, although it renews its row.
    let logout = receipt(&one, "client logout 1 --yes");
    assert_eq!((logout.nodes, logout.acknowledged), (2, 1), "{logout}");
    assert!(logout.milliseconds >= 1200, "{logout}");
    two.wait_for_log("joined the cluster");
    two.ready().await;
    let api = Api::new(&two.url);
    assert_eq!(api.verify(&tokens.access).await.0, 401);
    let tokens = one.api.login(&client).await;
    assert_eq!(api.verify(&tokens.access).await, ok());
    let (_, log) = one.server.stop(Signal::TERM).await;
    assert!(!log.iter().any(|line| line.contains("is forgotten")), "{log:#?}");
}

#[tokio::test]
async fn a_node_that_is_stopped_while_it_joins_is_waited_for_by_nobody() {
    let database = Postgres::shared().database().await;
    let one = Node::start_until(&database, &BRIEF, "joined the cluster");
    json(one.dir.path(), "client create --name demo");
    load_slowly(&database).await;
    let (_dir, two) = joins(&database);
    nodes(&database, 2).await;
    let (status, log) = two.stop(Signal::TERM).await;
    assert!(status.success() && log.iter().any(|line| line.contains("left the cluster")), "{log:#?}");
    let logout = receipt(&one, "client logout 1 --yes");
    assert_eq!((logout.nodes, logout.acknowledged), (1, 1), "{logout}");
}

/// How long everything takes on its way to a database that is far away.
const DISTANCE: Duration = Duration::from_millis(15);

/// The URL of the same database, far away.
async fn far_away(database: &str) -> String {
    let (_, place) = database.rsplit_once('@').unwrap();
    let (address, _) = place.split_once('/').unwrap();
    let server: SocketAddr = address.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, server));
        }
    });
    database.replace(address, &here)
}

async fn carry(client: TcpStream, server: SocketAddr) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        there = pump(from_client, to_server) => there,
        back = pump(from_server, to_client) => back,
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
) -> std::io::Result<()> {
    let mut piece = vec![0; 65_536];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        sleep(DISTANCE).await;
        to.write_all(&piece[..length]).await?;
    }
}

// The other threads carry on while one waits for a log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_from_the_database_catches_up_with_many_changes() {
    let database = Postgres::shared().database().await;
    let one = Node::start_until(&database, &BRIEF, "joined the cluster");
    let two = Node::start_until(&far_away(&database).await, &BRIEF, "joined the cluster");
    let client = Credential::from_json(&json(one.dir.path(), "client create --name demo"));
    let mut sessions: Vec<Tokens> = vec![];
    for _ in 0..250 {
        sessions.push(one.api.login(&client).await);
    }
    two.server.signal(Signal::STOP);
    let (http, mut revocations) = (reqwest::Client::new(), JoinSet::new());
    for tokens in &sessions {
        let request = http
            .post(format!("{}/oauth2/revoke", one.server.url))
            .basic_auth(&client.api_key, Some(&client.api_secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={}", tokens.access));
        revocations.spawn(async move { request.send().await.unwrap().status() });
    }
    let answers = revocations.join_all().await;
    assert!(answers.iter().all(|status| status.is_success()), "{answers:?}");
    two.server.signal(Signal::CONT);
    // Not before it knows that it hung.
    let refused = async {
        while two.api.verify(&sessions[249].access).await.0 != 401 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let tokens = one.api.login(&client).await;
    assert_eq!(two.api.verify(&tokens.access).await, ok());
}
