//! One fault after the other, under load.

use std::time::Duration;

use rand::RngExt;
use tokio::time::sleep;

use super::{
    clock::{between, now},
    cluster::Cluster,
    fault::{Fault, Struck},
    figures::{Episode, Figures},
    scenarios::{Plan, Recording},
    workload::{Load, Workload},
};

/// The time within which all servers serve again after a fault. Much longer than needed, because the machine
/// may be busy.
const RECOVERY: Duration = Duration::from_secs(30);

/// The time without a fault, to measure normal operation.
const PEACE: Duration = Duration::from_secs(1);

const LOAD: Load = Load { clients: 24, pause: Duration::from_millis(300), apis: 4, verifications: 40.0 };

/// Runs the planned faults. `tell` gets the result of each as it ends.
pub(super) async fn run(
    cluster: &mut Cluster,
    recording: &Recording,
    plan: &Plan,
    mut tell: impl FnMut(&str),
) -> anyhow::Result<String> {
    let clients = cluster.clients(LOAD.clients).await?;
    let workload =
        Workload::start((&recording.callers, &recording.verifiers), clients, LOAD, &mut cluster.rng);

    let mut episodes = vec![];
    for (i, fault) in (1..).zip(Fault::draw(plan.episodes, &plan.kinds, &mut cluster.rng)) {
        sleep(PEACE).await;
        let from = now();
        let still = (!fault.signals_nodes() && cluster.rng.random_ratio(1, 4))
            .then(|| cluster.rng.random_range(0..cluster.nodes.len()));
        if let Some(still) = still {
            cluster.nodes[still].pause()?;
        }
        let Struck { mut particulars, lost_since } = fault.strike(cluster).await?;
        if let Some(since) = lost_since {
            recording.recorder.lost(since);
        }
        if let Some(still) = still {
            cluster.nodes[still].go_on()?;
            particulars += &format!(", and node {} standing still", cluster.nodes[still].door.name);
        }
        let over = now();
        cluster.serves(&recording.recorder, RECOVERY).await?;
        let to = now();
        let silence = still.is_some() || fault.silences_somebody();
        episodes.push(Episode { fault, silence, from, over, to });
        let recovery = between(over, to).as_secs_f64();
        tell(&format!("{i}/{} {fault}: {particulars}; all served {recovery:.2} s later", plan.episodes));
    }
    sleep(PEACE).await;
    workload.stop().await;
    recording.recorder.finish().await?;
    let figures = Figures::read(&recording.path, &episodes)?;
    figures.judge()?;
    Ok(figures.to_string())
}
