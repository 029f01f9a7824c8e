//! `rescind webhook`

use anyhow::anyhow;
use clap::Subcommand;

use super::{
    Context, Failure,
    backend::percent_encoded,
    lookup::id,
    output::{list, table},
};
use crate::webhooks::{DeadView, DeliveryView, ReplayQuestion, Replayed, Tested, WebhookView};

/// The most events in one answer.
const PAGE: u64 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum WebhookCommand {
    /// List the webhooks of the configuration, and how far each has come
    List,
    /// List events that a receiver has not accepted, and that are not sent any more
    Dead { name: String },
    /// Send events anew that are not sent any more
    Replay {
        name: String,
        /// Only this event [default: all]
        #[arg(long, value_name = "ID", value_parser = id("webhook dead NAME"))]
        event: Option<u64>,
    },
    /// Send an event of the kind webhook_test, now
    Test { name: String },
}

pub(super) fn run(command: WebhookCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    let path = |name: &str, what: &str| format!("/webhooks/{}/{what}", percent_encoded(name));
    context.with_backend(false, async |backend| match command {
        WebhookCommand::List => {
            let webhooks: Vec<WebhookView> = backend.get("/webhooks").await?;
            output.data(&webhooks, |webhooks| {
                let rows = webhooks.iter().map(|hook| {
                    [
                        hook.name.clone(),
                        hook.url.clone(),
                        list(&hook.events, "all"),
                        hook.lag.to_string(),
                        hook.waiting.to_string(),
                        hook.dead.to_string(),
                        hook.node.clone().unwrap_or("-".into()),
                    ]
                });
                table(["NAME", "URL", "EVENTS", "LAG", "WAITING", "DEAD", "NODE"], rows)
            })
        }
        WebhookCommand::Dead { name } => {
            let mut all: Vec<DeliveryView> = vec![];
            loop {
                let after = all.last().map_or(0, |delivery| delivery.event);
                let dead = path(&name, &format!("dead?after={after}&limit={PAGE}"));
                let DeadView { deliveries, more } = backend.get(&dead).await?;
                all.extend(deliveries);
                if !more {
                    break;
                }
            }
            output.data(&all, |all| {
                let rows = all.iter().map(|delivery| {
                    let DeliveryView { event, tries, tried_at, error } = delivery;
                    [event.to_string(), tries.to_string(), tried_at.clone(), error.clone()]
                });
                table(["EVENT", "TRIES", "LAST TRY", "ERROR"], rows)
            })
        }
        WebhookCommand::Replay { name, event } => {
            let question = ReplayQuestion { event };
            let replayed: Replayed = backend.post(&path(&name, "replay"), &question).await?;
            output.done(&format!("{} events are sent anew", replayed.events), &replayed, |replayed| {
                format!("{} events are sent anew", replayed.events)
            })
        }
        WebhookCommand::Test { name } => {
            let tested: Tested = backend.inquire(&path(&name, "test"), &serde_json::json!({})).await?;
            if output.json || tested.accepted {
                output.done("the event was sent", &tested, |_| "The receiver has accepted it".into())?;
            }
            match (tested.error, output.json) {
                (None, _) => Ok(()),
                (Some(_), true) => Err(Failure::No),
                (Some(error), false) => Err(Failure::Failed(anyhow!("{error}"))),
            }
        }
    })
}
