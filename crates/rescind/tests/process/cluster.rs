//! Three servers on one database.

use std::{iter, time::Duration};

use rescind::cluster::Receipt;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    api::{Api, Credential, Tokens, ok, unauthorized},
    fixture::Server as Postgres,
    process::{Server, cli, json},
};

struct Node {
    dir: TempDir,
    server: Server,
    api: Api,
}

struct Cluster {
    database: String,
    nodes: Vec<Node>,
    _postgres: Option<Postgres>,
}

impl Node {
    fn start(database: &str) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let master_key = "5a".repeat(32);
        let variables = [
            ("RESCIND_DATABASE__URL", database),
            ("RESCIND_MASTER_KEY", &master_key),
            ("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0"),
        ];
        let mut server = Server::start_with(dir.path(), &variables);
        server.wait_for_log("joined the cluster");
        let api = Api::new(&server.url);
        Node { dir, server, api }
    }
}

impl Cluster {
    async fn start() -> Cluster {
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

    fn client(&self) -> Credential {
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

fn receipt(node: &Node, command: &str) -> Receipt {
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
    everyone(receipt(three, "client suspend 1"));
    assert_eq!(cluster.verify(&tokens).await, [401; 3]);
    assert_eq!(one.api.try_login(&client).await.unwrap().unwrap_err().0, 401);
    everyone(receipt(one, "client resume 1"));
    let tokens = two.api.login(&client).await;
    everyone(receipt(three, "client allow add 1 192.0.2.0/24"));
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
    let Receipt { nodes, acknowledged, milliseconds } = receipt(one, "client logout 1");
    assert_eq!((nodes, acknowledged), (3, 2));
    assert!(milliseconds >= 3600, "{milliseconds}");
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
    let Receipt { nodes, acknowledged, .. } = receipt(&cluster.nodes[0], "client logout 1");
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
        assert_eq!(
            (status, message.as_str()),
            (503, "Not able to answer safely now: this node has no lease")
        );
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
    let documented = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: Vec<_> = documented.map(|(name, _)| format!("# TYPE {name} gauge")).collect();
    let told = metrics.lines().filter(|line| {
        ["clock_ahead_of", "lease", "change", "database", "node"]
            .iter()
            .any(|part| line.starts_with(&format!("# TYPE rescind_{part}_")))
    });
    assert_eq!(told.collect::<Vec<_>>(), documented);
    for line in ["rescind_ready 1.0", "rescind_clients 1.0", "rescind_database_synchronous 0.0"]
        .into_iter()
        .chain(iter::once("# EOF"))
    {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
}
