//! Three servers on one database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rescind_node::cluster::Receipt;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};

use crate::{
    api::{Api, Credential, Tokens, ok, unauthorized},
    database::Database,
    fixture::{Server as Postgres, connect},
    process::{Server, cli, json},
};

const MASTER_KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) server: Server,
    pub(crate) api: Api,
}

pub(crate) struct Cluster {
    pub(crate) database: String,
    pub(crate) nodes: Vec<Node>,
    _postgres: Option<Postgres>,
}

impl Node {
    fn start(database: &str) -> Node {
        Node::start_until(database, &[], "joined the cluster")
    }

    /// Starts a node again in its folder.
    pub(crate) fn start_in(dir: TempDir, database: &str) -> Node {
        Node::start_there(dir, database, &[], "joined the cluster")
    }

    /// Starts a node with more settings, and waits for this line.
    pub(crate) fn start_until(database: &str, settings: &[(&str, &str)], line: &str) -> Node {
        Node::start_there(tempfile::tempdir().unwrap(), database, settings, line)
    }

    pub(crate) fn variables(database: &str) -> [(&str, &str); 3] {
        [
            ("RESCIND_DATABASE__URL", database),
            ("RESCIND_MASTER_KEY", MASTER_KEY),
            ("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0"),
        ]
    }

    fn start_there(dir: TempDir, database: &str, settings: &[(&str, &str)], line: &str) -> Node {
        let mut server = Server::start_with(dir.path(), &[&Node::variables(database), settings].concat());
        server.wait_for_log(line);
        let api = Api::new(&server.url);
        Node { dir, server, api }
    }
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        Cluster::on(Postgres::shared().database().await, None)
    }

    fn on(database: String, postgres: Option<Postgres>) -> Cluster {
        // Together, on a database without any tables.
        let nodes = std::thread::scope(|scope| {
            let starting = [0; 3].map(|_| scope.spawn(|| Node::start(&database)));
            starting.map(|node| node.join().unwrap())
        });
        Cluster { nodes: nodes.into(), database, _postgres: postgres }
    }

    pub(crate) fn client(&self) -> Credential {
        Credential::from_json(&json(self.nodes[0].dir.path(), "client create --name demo"))
    }

    /// The status of a verification on each node.
    async fn verify(&self, tokens: &Tokens) -> Vec<u16> {
        let mut verdicts = vec![];
        for node in &self.nodes {
            verdicts.push(node.api.verify(&tokens.access).await.0);
        }
        verdicts
    }
}

pub(crate) fn receipt(node: &Node, command: &str) -> Receipt {
    serde_json::from_value(json(node.dir.path(), command)["receipt"].clone()).unwrap()
}

// check 15
#[tokio::test]
async fn a_logout_on_one_node_is_exact_on_all() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    for round in 0..30 {
        let at = |i: usize| &cluster.nodes[(round + i) % 3];
        let tokens = at(0).api.login(&client).await;
        assert_eq!(cluster.verify(&tokens).await, [200; 3], "round {round}");
        assert_eq!(at(1).api.logout(&tokens.access).await, ok());
        assert_eq!(cluster.verify(&tokens).await, [401; 3], "round {round}");
        assert_eq!(at(2).api.refresh(&tokens.refresh).await.unwrap_err(), unauthorized("Invalid token"));
    }
}

// checks 17, 72
#[tokio::test]
async fn what_an_operator_does_on_one_node_is_so_on_all() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let [one, two, three] = cluster.nodes.as_slice() else { panic!("three nodes") };
    let everyone = |receipt: Receipt| assert_eq!((receipt.nodes, receipt.acknowledged), (3, 3));

    let tokens = two.api.login(&client).await;
    everyone(receipt(three, "client suspend 1 --yes"));
    assert_eq!(cluster.verify(&tokens).await, [401; 3]);
    assert_eq!(one.api.try_login(&client).await.unwrap().unwrap_err().0, 401);
    everyone(receipt(one, "client resume 1"));
    let tokens = two.api.login(&client).await;
    everyone(receipt(three, "client allow add 1 192.0.2.0/24 --yes"));
    assert_eq!(cluster.verify(&tokens).await, [403; 3]);
    everyone(receipt(three, "client allow remove 1 192.0.2.0/24 --allow-any"));
    assert_eq!(cluster.verify(&tokens).await, [200; 3]);

    let new = Credential::from_json(&json(one.dir.path(), "credential create 1"));
    let of_new = three.api.login(&new).await;
    json(two.dir.path(), &format!("credential revoke {} --yes", new.api_key));
    assert_eq!(cluster.verify(&of_new).await, [401; 3]);
    assert_eq!(cluster.verify(&tokens).await, [200; 3]);

    // The key that signs next is everywhere before it does.
    let keys = json(two.dir.path(), "key rotate");
    assert_eq!((&keys[0]["status"], &keys[1]["status"]), (&"signing".into(), &"next".into()));
    assert_eq!(json(three.dir.path(), "key list"), keys);
    cli(one.dir.path(), ["key", "rotate", "--publish-ahead", "1s"])
        .refused(1, "publish_ahead: expected at least 7s");
}

// check 10
#[tokio::test]
async fn of_a_hundred_refreshes_on_three_nodes_one_wins() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let tokens = cluster.nodes[0].api.login(&client).await;
    let mut refreshes = JoinSet::new();
    for node in cluster.nodes.iter().cycle().take(100) {
        let (api, token) = (node.api.clone(), tokens.refresh.clone());
        refreshes.spawn(async move { api.refresh(&token).await });
    }
    let outcomes = refreshes.join_all().await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 99));
    // A token used twice was stolen: what it was traded for is refreshed no more.
    let won = won.into_iter().next().unwrap().unwrap();
    assert_eq!(cluster.nodes[1].api.refresh(&won.refresh).await.unwrap_err(), unauthorized("Invalid token"));
}

// check 89
#[tokio::test]
async fn a_node_that_hangs_is_waited_for_and_answers_nothing_when_it_wakes() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let [one, two, three] = cluster.nodes.as_slice() else { panic!("three nodes") };
    let tokens = three.api.login(&client).await;
    three.server.signal(Signal::STOP);
    let Receipt { nodes, acknowledged, milliseconds } = receipt(one, "client logout 1 --yes");
    // It is waited for until W has passed, or until another node forgets it, which it may W after hearing of it last.
    assert_eq!(acknowledged, 2);
    assert!((nodes == 3 && milliseconds >= 3600) || nodes == 2, "{nodes} nodes, {milliseconds} ms");
    assert_eq!(two.api.verify(&tokens.access).await.0, 401);
    three.server.signal(Signal::CONT);
    // Not able to decide at first, and refused when it is again; never let pass.
    let verdicts = async {
        loop {
            match three.api.verify(&tokens.access).await.0 {
                401 => break,
                403 => tokio::time::sleep(Duration::from_millis(5)).await,
                other => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), verdicts).await.unwrap();
    let tokens = three.api.login(&client).await;
    assert_eq!(cluster.verify(&tokens).await, [200; 3]);
}

#[tokio::test]
async fn a_node_that_stops_in_order_is_waited_for_by_nobody() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client();
    let tokens = cluster.nodes[2].api.login(&client).await;
    let third = cluster.nodes.remove(2);
    let (status, log) = third.server.stop(Signal::TERM).await;
    assert!(status.success() && log.iter().any(|line| line.contains("left the cluster")), "{log:#?}");
    let Receipt { nodes, acknowledged, .. } = receipt(&cluster.nodes[0], "client logout 1 --yes");
    assert_eq!((nodes, acknowledged), (2, 2));
    assert_eq!(cluster.verify(&tokens).await, [401; 2]);
    cluster.nodes.push(Node::start(&cluster.database));
    let tokens = cluster.nodes[2].api.login(&client).await;
    assert_eq!(cluster.verify(&tokens).await, [200; 3]);
}

// checks 16, 28, 89
#[tokio::test]
async fn without_a_database_nothing_is_accepted_for_longer_than_a_lease() {
    let postgres = Postgres::start();
    let database = postgres.database().await;
    let mut cluster = Cluster::on(database, Some(postgres));
    let client = cluster.client();
    let tokens = cluster.nodes[0].api.login(&client).await;
    assert_eq!(cluster.verify(&tokens).await, [200; 3]);
    drop(cluster._postgres.take());
    for node in &mut cluster.nodes {
        node.server.wait_for_log("this node cannot renew its lease");
    }
    let denied = async {
        while cluster.verify(&tokens).await != [403; 3] {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), denied).await.unwrap();
    for node in &cluster.nodes {
        assert_eq!(node.api.try_login(&client).await.unwrap().unwrap_err().0, 503);
        assert_eq!(node.api.logout(&tokens.access).await.0, 503);
        assert_eq!(node.api.refresh(&tokens.refresh).await.unwrap_err().0, 503);
        let (status, message) = Api::new(&node.server.management).get("/readyz?verbose").await;
        assert_eq!(status, 503);
        let why = message.strip_prefix("Not able to answer safely now: this node has no lease: ").unwrap();
        assert!(why.contains("onnection refused"), "{message}");
        assert_eq!(cli(node.dir.path(), ["status"]).code, Some(2));
    }
}

#[tokio::test]
async fn every_node_is_shown_with_what_it_has_acknowledged() {
    let cluster = Cluster::start().await;
    cluster.client();
    let node = &cluster.nodes[1];
    let all_acknowledged = async {
        loop {
            let status = json(node.dir.path(), "status");
            let shown = &status["cluster"];
            let nodes = shown["nodes"].as_array().unwrap();
            if nodes.len() == 3 && nodes.iter().all(|node| node["lag"] == 0) {
                break shown.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(60), all_acknowledged).await.unwrap();
    assert!(shown["lease_ms"].as_u64().unwrap() <= 2700, "{shown}");
    assert_eq!(shown["applied"], shown["head"]);
    let table = cli(node.dir.path(), ["status"]).stdout;
    assert_eq!(table.lines().filter(|line| line.ends_with(" ms ago")).count(), 3, "{table}");
    assert!(table.contains("commits wait for    no stand-by\n"), "{table}");
    assert_eq!(Api::new(&node.server.management).get("/readyz?verbose").await, ok());
    let metrics = reqwest::get(format!("{}/metrics", node.server.management)).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for name in ["rescind_node_lag{", "rescind_node_acknowledged{", "rescind_node_heard_seconds{"] {
        assert_eq!(metrics.lines().filter(|line| line.starts_with(name)).count(), 3, "{metrics}");
    }
    let (_, documented) = include_str!("../../../../docs/metrics.md").split_once("## In a cluster").unwrap();
    let documented = documented.split("\n## ").next().unwrap();
    let documented = documented.lines().filter_map(|line| line.strip_prefix("| `rescind_")?.split_once('`'));
    let documented: Vec<_> = documented.map(|(name, _)| format!("# TYPE rescind_{name} gauge")).collect();
    let told = metrics.lines().filter(|line| {
        ["clock_ahead_of", "lease", "change", "database", "node"]
            .iter()
            .any(|part| line.starts_with(&format!("# TYPE rescind_{part}_")))
    });
    assert_eq!(told.collect::<Vec<_>>(), documented);
    for line in ["rescind_ready 1.0", "rescind_clients 1.0", "rescind_database_synchronous 0.0"] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
}

#[tokio::test]
async fn a_node_with_another_issuer_does_not_join_and_says_why() {
    let database = Postgres::shared().database().await;
    let one = Node::start(&database);
    let other =
        [("RESCIND_TOKENS__ISSUER", "https://auth.example/"), ("RESCIND_CLUSTER__NODE_NAME", "other")];
    let mut two = Node::start_until(&database, &other, "this node cannot renew its lease");
    let (status, why) = Api::new(&two.server.management).get("/readyz?verbose").await;
    assert_eq!(status, 503);
    assert!(why.contains("https://auth.example/") && why.contains("set the same on every node"), "{why}");
    let client = Credential::from_json(&json(one.dir.path(), "client create --name demo"));
    assert_eq!(two.api.try_login(&client).await.unwrap().unwrap_err().0, 503);
    one.api.login(&client).await;
    // Once no node has the former one, it serves.
    one.server.stop(Signal::TERM).await;
    two.server.wait_for_log("joined the cluster");
    two.api.login(&client).await;
}

#[tokio::test]
async fn a_node_with_another_issuer_waits_while_nodes_with_the_former_one_restart() {
    let database = Postgres::shared().database().await;
    let (one, two) = (Node::start(&database), Node::start(&database));
    let other =
        [("RESCIND_TOKENS__ISSUER", "https://auth.example/"), ("RESCIND_CLUSTER__NODE_NAME", "other")];
    let mut waits = Node::start_until(&database, &other, "this node cannot renew its lease");
    // Its lease, and so its row, is given back, and it does not come before a node that joins again.
    one.server.stop(Signal::TERM).await;
    let one = Node::start(&database);
    two.server.stop(Signal::TERM).await;
    let two = Node::start(&database);
    let client = Credential::from_json(&json(one.dir.path(), "client create --name demo"));
    two.api.login(&client).await;
    assert_eq!(waits.api.try_login(&client).await.unwrap().unwrap_err().0, 503);
    // Nodes that are killed are forgotten, however often it has joined and left meanwhile.
    one.server.stop(Signal::KILL).await;
    two.server.stop(Signal::KILL).await;
    waits.server.wait_for_log("joined the cluster");
    waits.api.login(&client).await;
}

#[tokio::test]
async fn two_nodes_of_one_name_are_told_apart_by_the_log() {
    let database = Postgres::shared().database().await;
    let name = [("RESCIND_CLUSTER__NODE_NAME", "same")];
    let mut one = Node::start_until(&database, &name, "joined the cluster");
    let _two = Node::start_until(&database, &name, "joined the cluster");
    let line = "another node has this node's name: set cluster.node_name, by which people tell them apart";
    one.server.wait_for_log(line);
}

#[tokio::test]
async fn each_reason_why_a_lease_is_not_renewed_is_told() {
    let database = Postgres::shared().database().await;
    let name = database.rsplit_once('/').unwrap().1;
    let db = connect(&database).await;
    db.batch_execute(&format!("CREATE ROLE {name} LOGIN; ALTER DATABASE {name} OWNER TO {name}"))
        .await
        .unwrap();
    let url = database.replace("postgres@", &format!("{name}@"));
    let mut node = Node::start(&url);
    let reasons = [
        ("NOLOGIN", "is not permitted to log in", "LOGIN"),
        ("CONNECTION LIMIT 0", "too many connections for role", "CONNECTION LIMIT -1"),
    ];
    for (broken, told, mended) in reasons {
        db.batch_execute(&format!("ALTER ROLE {name} {broken}")).await.unwrap();
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = current_database()";
        db.query_one(end, &[]).await.unwrap();
        node.server.wait_for(told, |line| {
            (line.contains(told) && line.contains("this node cannot renew its lease")).then_some(())
        });
        let status = cli(node.dir.path(), ["status"]).stdout;
        assert!(status.contains(told), "{status}");
        db.batch_execute(&format!("ALTER ROLE {name} {mended}")).await.unwrap();
        node.server.wait_for_log("this node renews its lease again");
    }
}

// Each pool alone may have more connections than the database has for both nodes.
#[tokio::test]
async fn no_lease_starves_when_the_database_starts_again_under_logins() {
    let mut postgres = Database::start();
    let db = connect(&postgres.url).await;
    db.batch_execute("CREATE ROLE few LOGIN CONNECTION LIMIT 17").await.unwrap();
    db.batch_execute("CREATE DATABASE few OWNER few").await.unwrap();
    let url = postgres.url.replace("postgres@", "few@").replace("/postgres", "/few");
    let mut nodes = [Node::start(&url), Node::start(&url)];
    let mut load = JoinSet::new();
    let phase = Arc::new(AtomicUsize::new(0));
    let (login, mut logins) = unbounded_channel();
    for i in 0..CALLERS {
        // Each its own: the logins of one client run one after the other.
        let client = Credential::from_json(&json(nodes[0].dir.path(), "client create --name demo"));
        let (api, phase) = (Api::new(&nodes[i % 2].server.url), Arc::clone(&phase));
        let login = login.clone();
        load.spawn(async move {
            let (mut given, mut refused) = ([0; 4], [0; 4]);
            loop {
                let during = phase.load(Ordering::SeqCst);
                let is_given = matches!(api.try_login(&client).await, Ok(Ok(_)));
                // What began in one phase and ended in another counts in neither.
                if phase.load(Ordering::SeqCst) == during {
                    (if is_given { &mut given } else { &mut refused })[during] += 1;
                    let _ = login.send((i, during));
                }
                if during == 3 {
                    break (given, refused);
                }
            }
        });
    }
    every_caller_has_tried(&mut logins, 0).await;
    phase.store(1, Ordering::SeqCst);
    postgres.kill().await;
    for node in &mut nodes {
        node.server.wait_for_log("this node cannot renew its lease");
    }
    postgres.start_again();
    for node in &mut nodes {
        node.server.wait_for_log("this node renews its lease again");
    }
    for node in &nodes {
        node.server.ready().await;
    }
    phase.store(2, Ordering::SeqCst);
    every_caller_has_tried(&mut logins, 2).await;
    phase.store(3, Ordering::SeqCst);
    for (given, refused) in load.join_all().await {
        assert!(given[0] > 0 && given[2] > 0, "{given:?}");
        assert_eq!([refused[0], refused[2]], [0, 0]);
    }
}

/// Callers that log in again and again.
const CALLERS: usize = 32;

/// Waits until each caller has tried twenty logins that began and ended in this phase.
async fn every_caller_has_tried(logins: &mut UnboundedReceiver<(usize, usize)>, in_phase: usize) {
    let mut tried = [0; CALLERS];
    while tried.iter().any(|&times| times < 20) {
        let (caller, phase) = logins.recv().await.unwrap();
        tried[caller] += usize::from(phase == in_phase);
    }
}
