//! A database that loses changes or moves: by a stand-by that had not followed, by a recovery to a point in time, by a
//! copy on another server.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    api::{Api, Credential, Tokens, ok, unauthorized},
    fixture,
    process::{self, Outcome, PATIENCE, Server, cli, json, rescind},
    servers::{Postgres, folder, program, run},
};

/// A Rescind server on these PostgreSQL servers.
struct Node {
    dir: TempDir,
    url: String,
    server: Server,
    api: Api,
}

impl Node {
    fn start(databases: &[&Postgres]) -> Node {
        let hosts: Vec<_> = databases.iter().map(|postgres| format!("127.0.0.1:{}", postgres.port)).collect();
        Node::again(tempfile::tempdir().unwrap(), format!("postgres://postgres@{}/rescind", hosts.join(",")))
    }

    /// Starts a server in a folder, which an earlier server may have used.
    fn again(dir: TempDir, url: String) -> Node {
        Node::again_with(dir, url, &[])
    }

    fn again_with(dir: TempDir, url: String, more: &[(&str, &str)]) -> Node {
        let master_key = "5a".repeat(32);
        let variables = [
            ("RESCIND_DATABASE__URL", url.as_str()),
            ("RESCIND_MASTER_KEY", &master_key),
            ("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0"),
        ];
        let server = Server::start_with(dir.path(), &[&variables[..], more].concat());
        let api = Api::new(&server.url);
        Node { dir, url, server, api }
    }

    fn joined(&mut self) -> String {
        self.server.wait_for_log("joined the cluster")["history"].as_str().unwrap_or_default().to_owned()
    }

    fn client(&self) -> Credential {
        Credential::from_json(&json(self.dir.path(), "client create --name c"))
    }

    async fn verify(&self, tokens: &Tokens) -> u16 {
        self.api.verify(&tokens.access).await.0
    }

    /// Waits until `/readyz?verbose` contains this text.
    async fn says_why(&self, wanted: &str) {
        let management = Api::new(&self.server.management);
        let saying = async {
            while !management.get("/readyz?verbose").await.1.contains(wanted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, saying).await.unwrap_or_else(|_| panic!("{wanted}"));
    }

    /// The status of the server, even if it is not ready.
    fn status(&self) -> Value {
        serde_json::from_str(&cli(self.dir.path(), ["status", "--json"]).stdout).unwrap()
    }

    async fn metric(&self, name: &str) -> String {
        let metrics = reqwest::get(format!("{}/metrics", self.server.management)).await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{metrics}")).to_owned()
    }

    async fn revoke(&self, credential: &Credential, token: &str) {
        let answer = reqwest::Client::new()
            .post(format!("{}/oauth2/revoke", self.server.url))
            .basic_auth(&credential.api_key, Some(&credential.api_secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
}

/// Ends servers by this signal. Returns their folders and database URLs.
async fn stopped(nodes: impl IntoIterator<Item = Node>, how: Signal) -> Vec<(TempDir, String)> {
    let mut left = vec![];
    for Node { dir, url, server, .. } in nodes {
        server.stop(how).await;
        left.push((dir, url));
    }
    left
}

/// Runs a command without a running server.
fn run_with(url: &str, dir: &Path, args: &[&str]) -> Outcome {
    let mut command = rescind();
    command.env("RESCIND_DATABASE__URL", url).env("RESCIND_MASTER_KEY", "5a".repeat(32));
    process::run(command.arg("--data-dir").arg(dir).args(args))
}

/// Tokens that are revoked in every possible way, and tokens that are not.
struct Given {
    logged_out: Tokens,
    spare: Credential,
    of_spare: Tokens,
    owner: Credential,
    of_session: Tokens,
    bound: Credential,
    elsewhere: Tokens,
    used: Tokens,
    live: Tokens,
}

impl Given {
    async fn given(node: &Node) -> Given {
        let [one, owner, bound, live] = [(); 4].map(|()| node.client());
        let spare = json(node.dir.path(), &format!("credential create {}", owner.client_id));
        let spare = Credential::from_json(&spare);
        Given {
            logged_out: node.api.login(&one).await,
            of_spare: node.api.login(&spare).await,
            spare,
            of_session: node.api.login(&owner).await,
            owner,
            elsewhere: node.api.login(&bound).await,
            bound,
            used: node.api.login(&live).await,
            live: node.api.login(&live).await,
        }
    }

    /// Makes all revocations; each is answered 200. Returns the tokens for which the used refresh token was traded.
    async fn take_back(&self, node: &Node) -> Tokens {
        let refreshed = node.api.refresh(&self.used.refresh).await.unwrap();
        json(node.dir.path(), &format!("credential revoke {} --yes", self.spare.api_key));
        json(node.dir.path(), &format!("client allow add {} 192.0.2.0/24 --yes", self.bound.client_id));
        node.revoke(&self.owner, &self.of_session.access).await;
        assert_eq!(node.api.logout(&self.logged_out.access).await, ok());
        refreshed
    }

    async fn are_taken_back(&self, node: &Node) {
        for (what, tokens) in
            [("logout", &self.logged_out), ("credential", &self.of_spare), ("session", &self.of_session)]
        {
            assert_eq!(node.verify(tokens).await, 401, "{what}");
            assert_eq!(node.api.refresh(&tokens.refresh).await.unwrap_err().0, 401, "{what}");
        }
        assert_eq!(node.verify(&self.elsewhere).await, 403);
        assert_eq!(node.api.try_login(&self.spare).await.unwrap().unwrap_err().0, 401);
        assert_eq!(node.api.try_login(&self.bound).await.unwrap().unwrap_err().0, 403);
        assert_eq!(node.verify(&self.live).await, 200);
    }

    /// Asserts that every token has ended, also those that were not revoked.
    async fn all_end(&self, node: &Node) {
        for tokens in [&self.logged_out, &self.of_spare, &self.of_session, &self.elsewhere, &self.live] {
            assert_eq!(node.verify(tokens).await, 401);
            assert_eq!(node.api.refresh(&tokens.refresh).await.unwrap_err().0, 401);
        }
    }
}

const REPEATED: [&str; 2] = ["what it had lost was repeated by this node", "what it had lost was repeated"];

// check 96
#[tokio::test]
async fn what_a_stand_by_had_not_heard_of_is_done_again_before_it_is_served_from() {
    let folder = folder();
    let mut primary = Postgres::start(folder.path(), "primary").await;
    let mut standby = primary.stand_by(&folder.path().join("standby")).await;
    let mut nodes = [(); 3].map(|()| Node::start(&[&primary, &standby]));
    for node in &mut nodes {
        assert_eq!(node.joined(), "confirmed");
    }
    let [one, two, three] = nodes;
    let given = Given::given(&one).await;
    primary.until_followed().await;
    standby.stop(Signal::INT);
    let refreshed = given.take_back(&one).await;
    for node in [&one, &two, &three] {
        given.are_taken_back(node).await;
    }
    // The third one remembers nothing but what is in its folder.
    let Node { dir, url, server, .. } = three;
    server.stop(Signal::TERM).await;

    primary.kill();
    standby.run().await;
    standby.promote().await;
    let mut nodes = [one, two, Node::again(dir, url)];
    let stood = nodes.each_mut().map(|node| node.joined());
    assert!(stood[..2].iter().any(|stood| stood == REPEATED[0]) && stood[2] == REPEATED[1], "{stood:?}");
    for node in &mut nodes {
        node.server.ready().await;
        given.are_taken_back(node).await;
        assert_eq!(node.verify(&refreshed).await, 200);
        let shown = json(node.dir.path(), "status")["cluster"]["history"].clone();
        assert!(REPEATED.contains(&shown.as_str().unwrap()), "{shown}");
    }
    // A refresh token that was used stays so, and what it was traded for is as good as before.
    let [one, two, three] = &nodes;
    let newest = one.api.refresh(&refreshed.refresh).await.unwrap();
    assert_eq!(two.api.refresh(&given.used.refresh).await.unwrap_err().0, 401);
    assert_eq!(three.api.refresh(&newest.refresh).await.unwrap_err().0, 401);
    // And all goes on as before.
    let anew = one.api.login(&given.owner).await;
    assert_eq!(three.verify(&anew).await, 200);
    assert_eq!(two.api.logout(&anew.access).await, ok());
    assert_eq!(three.verify(&anew).await, 401);
    let events = json(one.dir.path(), "audit list --kind history_lost");
    assert!(events[0]["detail"].as_str().unwrap().contains("repeated: 3 clients"), "{events}");

    // The old primary comes back instead, and knows nothing of that.
    standby.kill();
    primary.run().await;
    for node in &mut nodes {
        node.says_why("taken over from (timeline 1 after 2)").await;
        assert_ne!(node.verify(&given.live).await, 200);
        node.server.wait_for("ERROR", |line| {
            (line.contains("ERROR") && line.contains("this node cannot renew its lease")).then_some(())
        });
    }
}

// check 96
#[tokio::test]
async fn a_logout_that_waits_while_another_server_takes_over_is_not_answered_for() {
    let folder = folder();
    let mut primary = Postgres::start(folder.path(), "primary").await;
    let standby = primary.stand_by(&folder.path().join("standby")).await;
    let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/rescind", primary.port, standby.port);
    let mut nodes = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        let terms = [("RESCIND_CLUSTER__LEASE", "30s"), ("RESCIND_CLUSTER__MARGIN", "3s")];
        Node::again_with(dir, url.clone(), &terms)
    });
    for node in &mut nodes {
        node.joined();
    }
    let [mut one, paused] = nodes;
    let tokens = one.api.login(&one.client()).await;
    primary.until_followed().await;

    // It waits for the other's acknowledgement. It has listed the nodes when it lists them again.
    paused.server.signal(Signal::STOP);
    let listed = "SELECT coalesce(max(query_start), now())::text FROM pg_stat_activity
                  WHERE state = 'idle' AND query LIKE '%LEFT JOIN node ON true%'";
    let before = primary.ask("rescind", listed).await;
    let logout = tokio::spawn({
        let (api, access) = (one.api.clone(), tokens.access.clone());
        async move { api.logout(&access).await }
    });
    let mut again = before;
    for _ in 0..2 {
        primary.until("rescind", &format!("SELECT ({listed}) > '{again}'"), "t").await;
        again = primary.ask("rescind", listed).await;
    }
    primary.until_followed().await;
    primary.kill();
    standby.promote().await;
    assert_eq!(one.joined(), "confirmed");
    assert_eq!(logout.await.unwrap().0, 503);

    // It was done all the same, as whoever asks again is told.
    assert_eq!(one.api.logout(&tokens.access).await, unauthorized("Invalid token"));
    paused.server.signal(Signal::CONT);
}

// check 96
#[tokio::test]
async fn what_a_recovery_to_a_point_in_time_lost_is_done_again_or_every_token_is_ended() {
    let folder = folder();
    let mut before = Postgres::start(folder.path(), "before").await;
    let mut nodes = [(); 2].map(|()| Node::start(&[&before]));
    for node in &mut nodes {
        node.joined();
    }
    let given = Given::given(&nodes[0]).await;
    let port = before.port;
    let recovered = |name: &str, from: &Postgres| {
        let mut copy = from.copy(&folder.path().join(name));
        copy.port = port;
        copy.configure(&format!("recovery_target_name = '{name}'\nrecovery_target_action = promote\n"));
        copy.signal_file("recovery.signal");
        copy
    };
    let mut under_them = recovered("one", &before);
    before.ask("postgres", "SELECT pg_create_restore_point('one')").await;
    given.take_back(&nodes[1]).await;
    before.stop(Signal::INT);
    under_them.run().await;
    under_them.until("postgres", "SELECT pg_is_in_recovery()", "f").await;
    for node in &mut nodes {
        assert!(REPEATED.contains(&node.joined().as_str()));
        node.server.ready().await;
        given.are_taken_back(node).await;
        assert_eq!(node.metric("rescind_histories_lost_total").await, "1");
    }

    // And once more, with nobody left who remembers.
    let mut once_more = recovered("two", &under_them);
    under_them.ask("postgres", "SELECT pg_create_restore_point('two')").await;
    assert_eq!(nodes[0].api.logout(&given.live.access).await, ok());
    // That it was answered is on the disk before anybody is told.
    let folders = stopped(nodes, Signal::KILL).await;
    under_them.stop(Signal::INT);
    once_more.run().await;
    once_more.until("postgres", "SELECT pg_is_in_recovery()", "f").await;
    // Nothing is done by the command line on a database that has lost something.
    let (dir, url) = &folders[0];
    let refused = run_with(url, dir.path(), &["client", "list"]);
    refused.refused(1, "`rescind db restored` ends every token");
    let mut nodes: Vec<_> = folders.into_iter().map(|(dir, url)| Node::again(dir, url)).collect();
    let stood: Vec<_> = nodes.iter_mut().map(Node::joined).collect();
    assert_eq!(
        stood.iter().filter(|stood| *stood == "every token was ended by this node").count(),
        1,
        "{stood:?}"
    );
    for node in &nodes {
        node.server.ready().await;
        given.all_end(node).await;
        let anew = node.api.login(&given.owner).await;
        assert_eq!(node.verify(&anew).await, 200);
        assert_eq!(json(node.dir.path(), "key list").as_array().unwrap().len(), 1);
    }
}

// check 96
#[tokio::test]
async fn a_node_that_was_restarted_waits_for_one_that_remembers() {
    let folder = folder();
    let mut before = Postgres::start(folder.path(), "before").await;
    let mut nodes = [(); 2].map(|()| Node::start(&[&before]));
    for node in &mut nodes {
        node.joined();
    }
    let given = Given::given(&nodes[0]).await;
    let mut copy = before.copy(&folder.path().join("copy"));
    copy.port = before.port;
    given.take_back(&nodes[1]).await;
    let [mut remembers, restarted] = nodes;
    let Node { dir, url, server, .. } = restarted;
    server.stop(Signal::TERM).await;
    // It comes back when the other one waits for it, and not before.
    remembers.server.signal(Signal::STOP);
    before.stop(Signal::INT);
    // As it was when it was copied, on the same timeline: only what is in it tells.
    copy.run().await;
    let patient = [("RESCIND_CLUSTER__LEASE", "40s"), ("RESCIND_CLUSTER__MARGIN", "4s")];
    let mut restarted = Node::again_with(dir, url, &patient);
    let told = restarted.server.wait_for_log("the database is older than what was answered, or another one");
    assert_eq!(told["level"], "ERROR");
    restarted.says_why("remembers nothing").await;
    remembers.server.signal(Signal::CONT);
    assert_eq!(restarted.joined(), REPEATED[1]);
    assert_eq!(remembers.joined(), REPEATED[0]);
    for node in [&restarted, &remembers] {
        node.server.ready().await;
        given.are_taken_back(node).await;
    }
}

#[tokio::test]
async fn a_folder_of_another_database_ends_nothing() {
    let shared = fixture::Server::shared();
    let (one, other) = (shared.database().await, shared.database().await);
    let [mut node, mut elsewhere] =
        [one, other.clone()].map(|url| Node::again(tempfile::tempdir().unwrap(), url));
    node.joined();
    elsewhere.joined();
    for _ in 0..5 {
        node.client();
    }
    let tokens = elsewhere.api.login(&elsewhere.client()).await;
    let folders = stopped([node, elsewhere], Signal::TERM).await;
    let mut moved = Node::again(folders.into_iter().next().unwrap().0, other);
    assert_eq!(moved.joined(), "confirmed");
    moved.server.ready().await;
    assert_eq!(moved.verify(&tokens).await, 200);
}

// check 96
#[tokio::test]
async fn a_database_that_lost_nothing_is_taken_up_again_and_the_one_before_it_is_not() {
    let folder = folder();
    let mut old = Postgres::start(folder.path(), "old").await;
    let mut new = Postgres::start(folder.path(), "new").await;
    let mut nodes = [(); 2].map(|()| Node::start(&[&old]));
    for node in &mut nodes {
        node.joined();
    }
    let given = Given::given(&nodes[0]).await;
    given.take_back(&nodes[1]).await;
    // Everything that is in the old one, on a server that was never its stand-by.
    let dumped = run(program("pg_dump").args([
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-p",
        &old.port.to_string(),
        "rescind",
    ]));
    old.stop(Signal::INT);
    let file = folder.path().join("dump.sql");
    fs::write(&file, dumped.stdout).unwrap();
    run(program("psql")
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &new.port.to_string(), "-v", "ON_ERROR_STOP=1"])
        .args(["-q", "-d", "rescind", "-f"])
        .arg(&file));
    new.stop(Signal::INT);
    let free = std::mem::replace(&mut new.port, old.port);
    new.run().await;
    for node in &mut nodes {
        assert_eq!(node.joined(), "confirmed");
        node.server.ready().await;
        given.are_taken_back(node).await;
        assert_eq!(node.metric("rescind_histories_lost_total").await, "0");
    }

    // The old one comes back in its place, and does not know what was done meanwhile.
    assert_eq!(nodes[0].api.logout(&given.live.access).await, ok());
    new.stop(Signal::INT);
    old.run().await;
    for node in &nodes {
        node.says_why("nodes have gone on to another one since").await;
        assert!(node.status()["lease_not_renewed"].as_str().unwrap().contains("another one"));
        assert_ne!(node.verify(&given.live).await, 200);
    }
    old.stop(Signal::INT);
    old.port = free;
    new.run().await;
    for node in &nodes {
        node.server.ready().await;
        assert_eq!(node.verify(&given.live).await, 401);
    }
}

// check 96
#[tokio::test]
async fn every_token_is_ended_by_hand_with_and_without_a_server() {
    let folder = folder();
    let postgres = Postgres::start(folder.path(), "one").await;
    let mut nodes = [(); 2].map(|()| Node::start(&[&postgres]));
    for node in &mut nodes {
        node.joined();
    }
    let given = Given::given(&nodes[0]).await;
    cli(nodes[0].dir.path(), ["db", "restored"]).refused(2, "say --yes");
    let ended = json(nodes[0].dir.path(), "--yes db restored");
    assert_eq!((&ended["receipt"]["nodes"], &ended["receipt"]["acknowledged"]), (&2.into(), &2.into()));
    for node in &nodes {
        given.all_end(node).await;
    }
    let anew = nodes[1].api.login(&given.owner).await;
    assert_eq!(nodes[0].verify(&anew).await, 200);
    let folders = stopped(nodes, Signal::TERM).await;
    let (dir, url) = &folders[0];
    let ended = run_with(url, dir.path(), &["--yes", "--json", "db", "restored"]).json();
    assert_eq!(ended["receipt"]["nodes"], 0);
    for (dir, url) in folders {
        let mut node = Node::again(dir, url);
        node.joined();
        node.server.ready().await;
        assert_eq!(node.verify(&anew).await, 401);
        assert_eq!(node.api.refresh(&anew.refresh).await.unwrap_err().0, 401);
    }
}
