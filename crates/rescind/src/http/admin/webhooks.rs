//! Operations on webhooks.

use std::sync::Arc;

use hyper::Method;
use rescind_base::model::Role::{Operator, Viewer};
use rescind_node::app::App;

use super::operation::{Nothing, Operation, Reach::Everything};
use crate::webhooks;

pub(super) fn operations() -> Vec<Operation> {
    let reads = |path, says| Operation::new(Method::GET, path, says, Viewer, Everything);
    let posts = |path, says| Operation::new(Method::POST, path, says, Operator, Everything);
    let list = |app: Arc<App>, (), _: Nothing| async move { webhooks::webhooks(&app).await };
    let dead = |app: Arc<App>, name: String, query| async move { webhooks::dead(&app, &name, query).await };
    let replay =
        |app: Arc<App>, name: String, input| async move { webhooks::replay(&app, &name, input).await };
    let test = |app: Arc<App>, name: String, _: Nothing| async move { webhooks::test(&app, &name).await };
    vec![
        reads("/webhooks", ("listWebhooks", "Lists the webhooks of the configuration")).acts(list),
        reads(
            "/webhooks/{name}/dead",
            (
                "listDeadEvents",
                "Lists events that a receiver has not accepted, and that are not sent any more",
            ),
        )
        .acts(dead),
        posts("/webhooks/{name}/replay", ("replayEvents", "Sends events anew that are not sent any more"))
            .acts(replay),
        posts("/webhooks/{name}/test", ("testWebhook", "Sends an event of the kind webhook_test")).acts(test),
    ]
}
