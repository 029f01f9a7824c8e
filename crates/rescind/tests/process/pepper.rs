//! The rotation of the pepper, under which secrets are hashed.

use rustix::process::Signal;

use crate::{
    api::{Api, Credential},
    cluster::{Cluster, Node},
    process::{Server, cli, json},
};

/// The peppers that are valid, and how many secrets are under the former one.
fn peppers(dir: &std::path::Path) -> (u64, Option<u64>, u64) {
    let status = json(dir, "pepper status");
    let count = status["left"]["count"].as_u64().unwrap();
    (status["present"].as_u64().unwrap(), status["former"].as_u64(), count)
}

#[tokio::test]
async fn an_operator_rotates_the_pepper_and_retires_the_former_one() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup.db"));
    let server = Server::start(&data);
    let clients = ["one", "two"]
        .map(|name| Credential::from_json(&json(&data, &format!("client create --name {name}"))));
    cli(&data, ["pepper", "retire"]).refused(1, "only one pepper is valid: rotate it first");
    cli(&data, ["pepper", "rotate"]).refused(2, "say --yes");
    json(&data, "--yes pepper rotate");
    cli(&data, ["pepper", "rotate", "--yes"]).refused(1, "the former one is still valid: retire it first");
    Api::new(&server.url).login(&clients[0]).await;
    assert_eq!(peppers(&data), (2, Some(1), 1));
    let status = cli(&data, ["pepper", "status"]).stdout;
    assert!(status.starts_with("Peppers 1 and 2 are valid; secrets under pepper 1: 1.\n"), "{status}");
    assert!(status.contains(&clients[1].api_key) && status.contains("client 2 (two)"), "{status}");
    cli(&data, ["--yes", "db", "backup", backup.to_str().unwrap()]);
    server.stop(Signal::TERM).await;

    // Both are sealed anew, and without a server too.
    cli(&data, ["master-key", "rotate", "--yes"]);
    assert_eq!(peppers(&data), (2, Some(1), 1));
    let server = Server::start(&data);
    for client in &clients {
        Api::new(&server.url).login(client).await;
    }
    json(&data, "pepper retire");
    assert_eq!(peppers(&data), (2, None, 0));
    let server = {
        server.stop(Signal::TERM).await;
        Server::start(&data)
    };
    for client in &clients {
        Api::new(&server.url).login(client).await;
    }
    server.stop(Signal::TERM).await;
}

#[tokio::test]
async fn a_backup_has_the_peppers_that_were_valid_then() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup.db"));
    let server = Server::start(&data);
    let clients = ["one", "two"]
        .map(|name| Credential::from_json(&json(&data, &format!("client create --name {name}"))));
    json(&data, "--yes pepper rotate");
    Api::new(&server.url).login(&clients[0]).await;
    assert_eq!(peppers(&data), (2, Some(1), 1));
    json(&data, &format!("--yes db backup {}", backup.display()));
    json(&data, "--yes pepper retire --revoke-left");
    assert_eq!(Api::new(&server.url).try_login(&clients[1]).await.unwrap().unwrap_err().0, 401);
    server.stop(Signal::TERM).await;
    json(&data, &format!("--yes db restore {}", backup.display()));
    let server = Server::start(&data);
    assert_eq!(peppers(&data), (2, Some(1), 1));
    for client in &clients {
        Api::new(&server.url).login(client).await;
    }
    assert_eq!(peppers(&data), (2, Some(1), 0));
    server.stop(Signal::TERM).await;
}

#[tokio::test]
async fn every_node_takes_over_the_peppers() {
    let mut cluster = Cluster::start().await;
    let before = cluster.client();
    let (unused, late) = (cluster.client(), cluster.client());
    let dirs: Vec<_> = cluster.nodes.iter().map(|node| node.dir.path().to_owned()).collect();
    json(&dirs[0], "--yes pepper rotate");
    let after = Credential::from_json(&json(&dirs[1], "client create --name after"));
    for (node, dir) in cluster.nodes.iter().zip(&dirs) {
        for client in [&before, &after] {
            node.api.login(client).await;
        }
        // The node writes what it has met before it tells.
        assert_eq!(peppers(dir), (2, Some(1), 2));
    }
    cli(&dirs[2], ["pepper", "retire"]).refused(1, "2 secrets are still under the former pepper");
    // What another node has met is not left, though that node writes it some seconds later.
    cluster.nodes[0].api.login(&late).await;
    json(&dirs[2], "--yes pepper retire --revoke-left");
    for (node, dir) in cluster.nodes.iter().zip(&dirs) {
        for client in [&before, &after, &late] {
            node.api.login(client).await;
        }
        assert_eq!(node.api.try_login(&unused).await.unwrap().unwrap_err().0, 401);
        assert_eq!(peppers(dir), (2, None, 0));
    }

    // The folder of a node that was away meanwhile is still one of this installation.
    let away = cluster.nodes.remove(2);
    away.server.stop(Signal::TERM).await;
    json(&dirs[0], "--yes pepper rotate");
    for client in [&before, &after, &late] {
        cluster.nodes[0].api.login(client).await;
    }
    json(&dirs[0], "pepper retire");
    let back = Node::start_in(away.dir, &cluster.database);
    for client in [&before, &after] {
        back.api.login(client).await;
    }
    assert_eq!(peppers(back.dir.path()), (3, None, 0));
}
