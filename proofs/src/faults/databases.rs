//! Unusual databases, each with its own nodes.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use tokio::{task::JoinSet, time::sleep};

use super::{
    caller::{Caller, Credential, Tokens},
    cluster::{Cluster, Setup},
    fault::Fault,
    installed::Installed,
    node::LEASE,
    pgpool::Pgpool,
    postgres::Postgres,
    proxy::Link,
    scenarios::{Recording, Scenario},
    workload::{Load, Workload},
};
use crate::history::{Kind, Verdict};

const RECOVERY: Duration = Duration::from_secs(30);
const LOAD: Load = Load { clients: 8, pause: Duration::from_millis(300), apis: 2, verifications: 20.0 };

/// One node uses Pgpool-II, whose stand-by shows each commit only after 3 s. Another node has a slow link.
/// The first node must refuse Pgpool-II and report the reason, or keep the promise.
pub(super) async fn pgpool(setup: &Setup) -> anyhow::Result<String> {
    let mut cluster = Cluster::start(setup).await?;
    cluster.postgres.add_standby_behind(Duration::from_secs(3)).await?;
    let pgpool = Pgpool::start(&cluster.postgres, &setup.folder).await?;
    let recording = Recording::start(&cluster, Scenario::ReadFromAStandby)?;
    let clients = cluster.clients(30).await?;
    cluster.nodes[1].link()?.lead_to(pgpool.address);
    cluster.nodes[0].link()?.set(Link::Slow(Duration::from_millis(50)));
    let serves = cluster.serves(&recording.recorder, RECOVERY).await;
    let refusal = "sends reads to a stand-by";
    let refuses = serves.is_err() && cluster.nodes[1].said()?.contains(refusal);
    ensure!(
        serves.is_ok() || refuses,
        "a node neither serves by way of Pgpool-II nor says that it {refusal}"
    );

    let (far, pooled) = (&recording.callers[0], &recording.callers[1]);
    let mut revoked = 0;
    for credential in clients {
        let Some(tokens) = far.login(&credential).await.given() else { continue };
        if pooled.logout(&tokens).await == Verdict::Accepted(()) {
            revoked += 1;
            for _ in 0..3 {
                far.verify(&tokens).await;
            }
        }
    }
    cluster.lead_nodes_to_the_primary()?;
    cluster.nodes[0].link()?.set(Link::Open);
    cluster.serves(&recording.recorder, RECOVERY).await?;
    recording.judged().await?;
    drop(cluster);
    let how = if refuses { "refused, with the reason; " } else { "" };
    Ok(format!("{how}{revoked} logouts answered 200 by way of Pgpool-II, and every one held at once"))
}

/// Logouts and logins wait, since the stand-by is cut off. Then `synchronous_standby_names` is emptied, so
/// that these and further ones are answered. Then the stand-by, which has none of them, takes over.
pub(super) async fn names_emptied(setup: &Setup) -> anyhow::Result<String> {
    let postgres = Postgres::start(setup.postgres.as_deref(), &setup.folder).await?;
    let mut cluster = Cluster::start_over(postgres, setup, &[]).await?;
    if knows(&cluster, "require_synchronous").await? {
        for node in &mut cluster.nodes {
            node.door.command_line.set("RESCIND_DATABASE__REQUIRE_SYNCHRONOUS", "true");
            node.stop().await?;
            node.start(0).await?;
        }
    }
    let recording = Recording::start(&cluster, Scenario::NamesEmptied)?;
    cluster.serves(&recording.recorder, RECOVERY).await?;
    let clients = cluster.clients(24).await?;
    let mut held = vec![];
    for (i, client) in clients.iter().enumerate() {
        held.push(recording.callers[i % 3].login(client).await.given().context("login")?);
    }

    cluster.postgres.cut_off_standby();
    let mut tasks = JoinSet::new();
    for (i, (client, tokens)) in clients.iter().zip(&held).enumerate() {
        let (caller, client, tokens) = (recording.callers[i % 3].clone(), client.clone(), Arc::clone(tokens));
        // From before the setting is emptied until long after.
        tasks.spawn(out_and_in(caller, client, tokens, Duration::from_millis(100 * i as u64)));
    }
    sleep(Duration::from_millis(800)).await;
    cluster.postgres.empty_names()?;
    sleep(Duration::from_millis(LEASE)).await;
    cluster.postgres.kill().await?;
    cluster.postgres.promote().await?;
    cluster.lead_nodes_to_the_primary()?;
    cluster.postgres.add_standby().await?;
    let given = tasks.join_all().await;
    cluster.serves(&recording.recorder, RECOVERY).await?;
    for tokens in held.iter().chain(given.iter().flatten()) {
        for verifier in &recording.verifiers {
            verifier.verify(tokens).await;
        }
    }
    let report = recording.judged().await?;
    drop(cluster);
    let count = |kind| report.verdicts.get(&kind).copied().unwrap_or_default();
    Ok(format!(
        "{} logouts and {} logins were answered 200 meanwhile, and none of them was lost",
        count(Kind::Logout).accepted,
        given.iter().flatten().count()
    ))
}

async fn out_and_in(
    caller: Caller,
    client: Credential,
    held: Arc<Tokens>,
    after: Duration,
) -> Option<Arc<Tokens>> {
    sleep(after).await;
    caller.logout(&held).await;
    caller.login(&client).await.given()
}

/// Whether the nodes' program has a setting of this name.
async fn knows(cluster: &Cluster, setting: &str) -> anyhow::Result<bool> {
    let command_line = &cluster.nodes[0].door.command_line;
    let output = command_line.command().args(["config", "print", "--defaults"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(setting))
}

/// Upgrades a database on its second timeline to the next version, on its first timeline.
pub(super) async fn upgraded(setup: &Setup) -> anyhow::Result<String> {
    let older = Installed::unpack(&archive(setup, "postgresql-17")?, &setup.folder.join("17"))?;
    let newer = Installed::unpack(&archive(setup, "postgresql-18")?, &setup.folder.join("18"))?;
    let postgres = Postgres::start_with(older, &setup.folder).await?;
    let mut cluster = Cluster::start_over(postgres, setup, &[]).await?;
    let recording = Recording::start(&cluster, Scenario::Upgraded)?;
    Fault::Promotion.strike(&mut cluster).await?;
    cluster.serves(&recording.recorder, RECOVERY).await?;
    let before = cluster.postgres.timeline()?;

    let clients = cluster.clients(LOAD.clients).await?;
    let workload =
        Workload::start((&recording.callers, &recording.verifiers), clients, LOAD, &mut cluster.rng);
    sleep(Duration::from_secs(3)).await;
    cluster.postgres.upgrade(newer).await?;
    cluster.lead_nodes_to_the_primary()?;
    cluster.postgres.add_standby().await?;
    let back = cluster.serves(&recording.recorder, RECOVERY).await?;
    sleep(Duration::from_secs(2)).await;
    workload.stop().await;
    let report = recording.judged().await?;
    let after = cluster.postgres.timeline()?;
    drop(cluster);
    Ok(format!(
        "from timeline {before} to {after}; all served {:.2} s later, and none of {} logins and {} logouts is lost",
        back.as_secs_f64(),
        report.verdicts[&Kind::Login].accepted,
        report.verdicts[&Kind::Logout].accepted
    ))
}

/// The archive with this prefix.
fn archive(setup: &Setup, name: &str) -> anyhow::Result<PathBuf> {
    let files = fs::read_dir(&setup.archives).into_iter().flatten().flatten().map(|file| file.path());
    let named =
        |file: &PathBuf| file.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    files.filter(named).max().with_context(|| {
        format!("no {name}* in {}: scripts/postgresql-archives fetches it", setup.archives.display())
    })
}
