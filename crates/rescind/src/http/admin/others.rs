//! Operations on what is no client's: keys, verifiers, management tokens, the audit log, the store, the process.

use std::{
    io::{self, Read},
    sync::Arc,
};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::Method;
use rescind_admin::{self as admin, CreatedManagementToken, CreatedVerifier};
use rescind_base::{
    files::delete_gently,
    model::Role::{Admin, Viewer},
};
use rescind_node::app::App;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, task::spawn_blocking};
use tracing::warn;
use utoipa::ToSchema;

use super::{
    clients::act,
    operation::{
        Nothing, Operation,
        Reach::{Clients, Everything},
    },
    problem::Problem,
};

/// A token to look into.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

const BACKUP: &str = "application/vnd.sqlite3";

pub(super) fn operations() -> Vec<Operation> {
    let reads = |path, says| Operation::new(Method::GET, path, says, Viewer, Everything);
    let of_clients = |path, says| Operation::new(Method::GET, path, says, Viewer, Clients);
    let changes = |method, path, says| Operation::new(method, path, says, Admin, Everything);
    let posts = |path, says| changes(Method::POST, path, says);
    let verifier = |created: &CreatedVerifier| format!("{}/verifiers/{}", super::PREFIX, created.verifier_id);
    let token = |created: &CreatedManagementToken| {
        format!("{}/management-tokens/{}", super::PREFIX, created.management_token_id)
    };
    let status = |app: Arc<App>, (), _: Nothing| async move { Ok(admin::status(&app)) };
    let nodes = |app: Arc<App>, (), _: Nothing| async move {
        Ok(admin::status(&app).cluster.map(|cluster| cluster.nodes).unwrap_or_default())
    };
    let trends = |app: Arc<App>, (), query| async move { Ok(admin::trends(&app, query)) };
    let settings = |app: Arc<App>, (), _: Nothing| async move { Ok(admin::settings(&app)) };
    let verifiers = |app: Arc<App>, (), _: Nothing| async move { Ok(admin::verifiers(&app)) };
    let events = |app: Arc<App>, (), query| async move { admin::events(&app.store, &app.clock, query).await };
    let proof = |app: Arc<App>, (), question| async move { admin::verify(&app, question).await };
    let checkpoint = |app: Arc<App>, (), _: Nothing| async move { admin::checkpoint(&app).await };
    let inspect =
        |app: Arc<App>, (), Token { token }: Token| async move { admin::inspect(&app, &token).await };
    vec![
        reads("/status", ("showStatus", "Shows the status of this process, and of its cluster")).acts(status),
        reads("/nodes", ("listNodes", "Lists the nodes of the cluster; none with an embedded store"))
            .acts(nodes),
        reads("/settings", ("listSettings", "Lists the settings of this process, without secrets"))
            .acts(settings),
        reads("/trends", ("showTrends", "Shows what this process did of late, for charts")).acts(trends),
        reads("/usage", ("showTotalUsage", "Shows how often all clients together were used, by hours"))
            .acts(act!(total_usage(input))),
        of_clients(
            "/audit",
            ("listEvents", "Lists the audit log: the oldest events after `after`, or else the newest"),
        )
        .acts(events),
        of_clients(
            "/denials",
            ("listDenials", "Lists refused requests, with why they were refused; the newest first"),
        )
        .pages(|app: Arc<App>, query| async move { admin::denials(&app, query).await }),
        of_clients(
            "/denials/{request_id}",
            ("explainDenial", "Says why a request was refused, by the `X-Request-Id` of its answer"),
        )
        .acts(act!(denial(&name))),
        Operation::new(
            Method::POST,
            "/audit/verify",
            ("verifyAudit", "Verifies the next part of the audit log. Changes nothing"),
            Viewer,
            Everything,
        )
        .acts(proof),
        reads(
            "/audit/checkpoint",
            (
                "showCheckpoint",
                "Shows the newest row of each chain of the audit log, signed with all rows before it",
            ),
        )
        .acts(checkpoint),
        Operation::new(
            Method::POST,
            "/tokens/inspect",
            ("inspectToken", "Shows the claims of a token, and whether the token is valid. Changes nothing"),
            Viewer,
            Clients,
        )
        .acts(inspect),
        reads("/keys", ("listKeys", "Lists the signing keys")).acts(act!(keys())),
        posts("/keys/rotate", ("rotateKey", "Adds a signing key, which replaces the newest one"))
            .acts(act!(rotate_key(input))),
        posts(
            "/keys/{kid}/retire",
            ("retireKey", "Removes a signing key, so that every token that it signed is refused"),
        )
        .acts(act!(retire_key(&name))),
        changes(
            Method::GET,
            "/pepper",
            ("showPepper", "Shows which peppers are valid, and what is still under the former one"),
        )
        .acts(act!(pepper())),
        posts(
            "/pepper/rotate",
            ("rotatePepper", "Adds a pepper. The former one stays valid until it is retired"),
        )
        .acts(act!(rotate_pepper())),
        posts("/pepper/retire", ("retirePepper", "Ends the former pepper")).acts(act!(retire_pepper(input))),
        reads("/verifiers", ("listVerifiers", "Lists the verifiers")).acts(verifiers),
        posts("/verifiers", ("createVerifier", "Creates a verifier, which may follow the feed"))
            .creates(act!(create_verifier(input)), verifier),
        changes(Method::DELETE, "/verifiers/{id}", ("revokeVerifier", "Revokes a verifier"))
            .acts(act!(revoke_verifier(id))),
        changes(Method::GET, "/management-tokens", ("listManagementTokens", "Lists the management tokens"))
            .acts(act!(management_tokens())),
        posts("/management-tokens", ("createManagementToken", "Creates a management token"))
            .creates(act!(create_management_token(input)), token),
        changes(
            Method::DELETE,
            "/management-tokens/{id}",
            ("revokeManagementToken", "Revokes a management token"),
        )
        .acts(act!(revoke_management_token(id))),
        changes(
            Method::GET,
            "/backup",
            ("backUp", "Returns a backup of an embedded store, without the sessions"),
        )
        .sends(BACKUP, backup),
        posts("/restored", ("endEveryToken", "Ends every token, after the database was restored"))
            .acts(act!(restored())),
    ]
}

/// In bytes: the part of a backup that is read at once.
const CHUNK: usize = 64 * 1024;

/// Streams the file of a new backup.
async fn backup(app: Arc<App>) -> Result<Body, Problem> {
    let mut file = admin::backup(&app).await?;
    let (sender, body) = Channel::<Bytes, io::Error>::new(1);
    let runtime = Handle::current();
    spawn_blocking(move || {
        send(&mut file, sender, &runtime);
        if let Err(error) = delete_gently(file) {
            warn!(%error, "the copy of a backup could not be deleted");
        }
    });
    Ok(Body::new(body))
}

/// Sends a file, until its end or until the caller disconnects.
fn send(file: &mut impl Read, mut sender: Sender<Bytes, io::Error>, runtime: &Handle) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let sent = match file.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => {
                chunk.truncate(read);
                runtime.block_on(sender.send_data(chunk.into()))
            }
            Err(error) => return sender.abort(error),
        };
        if sent.is_err() {
            return;
        }
    }
}
