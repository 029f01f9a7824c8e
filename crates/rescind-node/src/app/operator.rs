//! An operator's request, and what it says beside the change that it asks for.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use rescind_base::model::{Actor, ChangeOrigin, ClientId};
use tokio::task::JoinHandle;

use super::App;
use crate::{audit, cluster::Receipt};

/// An operator's request.
#[derive(Debug, Default)]
pub struct Asked {
    /// The management token. `None`: a user of the socket.
    pub token: Option<u64>,
    /// The caller's address. `None`: the socket in the data folder.
    pub address: Option<IpAddr>,
    /// The only clients that the operator may see and change. `None`: every client.
    pub clients: Option<Vec<ClientId>>,
    /// The versions of which a client must have one for the change to be made (`If-Match`). `None`: it may have any.
    pub versions: Option<Vec<String>>,
    /// The receipt of the change, once it is known everywhere.
    pub receipt: OnceLock<Receipt>,
}

tokio::task_local! {
    /// The request that this task answers, if it is an operator's.
    pub static ASKED: Arc<Asked>;
}

/// Runs a future in a task of its own, which a disconnected caller does not cancel, as a part of the present request.
pub fn spawn_as_asked<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let future = audit::in_current_request(future);
    match ASKED.try_get() {
        Ok(asked) => tokio::spawn(ASKED.scope(asked, future)),
        Err(_) => tokio::spawn(future),
    }
}

/// Whether the present request may see and change this client.
pub fn may_see(client: ClientId) -> bool {
    only_clients().is_none_or(|only| only.contains(&client))
}

/// The only clients that the present request may see and change. `None`: every client.
pub fn only_clients() -> Option<Vec<ClientId>> {
    ASKED.try_with(|asked| asked.clients.clone()).ok().flatten()
}

/// Notes the receipt of the change that the present request asked for.
pub(super) fn note(receipt: Receipt) {
    // Only an operator's request is told it, and of several changes the first.
    let _ = ASKED.try_with(|asked| asked.receipt.set(receipt));
}

impl App {
    /// The origin of an operator's change.
    pub fn by_operator(&self) -> ChangeOrigin {
        self.audit.origin(Actor::Operator, ASKED.try_with(|asked| asked.address).ok().flatten())
    }
}
