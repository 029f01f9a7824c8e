//! The readings of the metrics that are kept for charts.

use rescind_base::telemetry::trends::{Levels, Reading};

use super::App;

impl App {
    /// Reads the metrics, and keeps them for charts.
    pub fn note_trends(&self) {
        let head = self.memory.registry.feed().head().seq;
        let followers = self.cluster.followers.attached();
        let levels = Levels {
            followers: followers.len() as u64,
            follower_lag: followers.iter().map(|follower| follower.lag(head)).max().unwrap_or_default(),
            ..match self.cluster.membership() {
                Some(roll) => Levels {
                    nodes: roll.nodes.len() as u64,
                    node_lag: roll.nodes.iter().map(|(node, _)| roll.lag(node)).max().unwrap_or_default(),
                    ..Levels::default()
                },
                // This process has the store to itself.
                None => Levels { nodes: 1, ..Levels::default() },
            }
        };
        self.trends.add(&Reading {
            at: self.clock.elapsed(),
            counted: self.metrics.counted(),
            levels,
            sessions: u64::try_from(self.metrics.sessions_live.get()).unwrap_or_default(),
        });
    }
}
