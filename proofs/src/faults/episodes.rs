//! One fault after the other, while clients come and go.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    clock::{between, now},
    cluster::Cluster,
    fault::Fault,
    figures::{Episode, Figures},
    recorder::Recorder,
    workload::{Load, Workload},
};

/// Within this time everything serves again after whatever happened. Far longer than it should be: the
/// machine may be busy.
const RECOVERY: Duration = Duration::from_secs(30);

/// A peace, to see how things are when nothing is wrong.
const PEACE: Duration = Duration::from_millis(700);

const LOAD: Load = Load { clients: 24, pause: Duration::from_millis(300), verifiers: 4, verifications: 40.0 };

/// So many, told as they happen.
pub async fn run(cluster: &mut Cluster, count: usize, mut tell: impl FnMut(&str)) -> anyhow::Result<Figures> {
    let history = cluster.folder.join("episodes.jsonl");
    let recorder = Arc::new(Recorder::create(&history)?);
    let callers = cluster.callers(&recorder)?;
    let clients = cluster.clients(LOAD.clients).await?;
    let workload = Workload::start(&callers, clients, LOAD, &mut cluster.rng);

    let mut episodes = vec![];
    for (i, fault) in (1..).zip(Fault::draw(count, &mut cluster.rng)) {
        sleep(PEACE).await;
        let from = now();
        let particulars = fault.strike(cluster).await?;
        let over = now();
        cluster.serves(&callers, RECOVERY).await?;
        let to = now();
        episodes.push(Episode { fault, from, over, to });
        let recovery = between(over, to).as_secs_f64();
        tell(&format!("{i}/{count} {fault:21} {particulars}; served {recovery:.2} s later"));
    }
    sleep(PEACE).await;
    workload.stop().await;
    recorder.finish().await?;
    Figures::read(&history, &episodes)
}
