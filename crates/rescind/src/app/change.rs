//! Changes, in the store and in memory, and the looking at memory beside which there is none.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};

use super::{App, to_the_end};
use crate::{
    cluster::Receipt,
    memory::{KeyringError, generate_key},
    model::{ChangeOrigin, Client, ClientId, Event, Remembered, Session, SessionId, SigningKeyRecord},
    secret::SealError,
    store::StoreError,
};

impl App {
    /// Adds a client, in the store and in memory.
    pub async fn create_client(&self, client: Client, origin: ChangeOrigin) -> Result<Client, StoreError> {
        let _changing = self.changing().await;
        let client = self.store.create_client(client, origin).await?;
        self.registry.apply(&client);
        Ok(client)
    }

    /// Lets `rule` change a client, in the store and in memory.
    pub async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>, StoreError> {
        let _changing = self.changing().await;
        let changed = self.store.change_client(id, origin, rule).await?;
        if let Some(Ok((_, client))) = &changed {
            self.registry.apply(client);
        }
        Ok(changed)
    }

    /// Lets `rule` change a session, in the store and in memory.
    pub async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>, StoreError> {
        let _changing = self.changing().await;
        let asked = self.registry.asking();
        let changed = self.store.change_session(client, session, rule).await?;
        if let Some((_, session)) = &changed {
            self.registry.learn(session, asked);
        }
        Ok(changed)
    }

    /// Lets `rule` end a session, in the store and in memory.
    pub async fn end_session(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<Session> + Send + 'static,
    ) -> Result<(), StoreError> {
        let _changing = self.changing().await;
        let asked = self.registry.asking();
        if let Some(session) = self.store.end_session(client, session, rule).await? {
            self.registry.learn(&session, asked);
        }
        Ok(())
    }

    /// Held from before the store is changed, or asked for what memory is to hold, until memory has that.
    pub async fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.changing.read().await
    }

    /// Held while memory is looked at as a whole, or replaced: nothing is on its way from the store to it.
    pub async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.changing.write().await
    }

    /// All that memory holds, in case that the database has lost it.
    pub fn memory(&self) -> Remembered {
        let mut memory = self.registry.memory();
        memory.keys = self.issuer.keyring().ids();
        memory.verifiers = self.verifiers.load().iter().map(|verifier| verifier.id).collect();
        memory.highest.key = self.highest_key.load(Ordering::Relaxed);
        memory.highest.verifier = self.highest_verifier.load(Ordering::Relaxed);
        memory
    }

    /// A key to sign with from now on, as the newest does.
    pub fn new_key(&self) -> Result<SigningKeyRecord, SealError> {
        let now = self.clock.now();
        generate_key(self.issuer.algorithm(), &self.master, &self.random, now, now)
    }

    /// Ends every token, in the store and in memory.
    pub async fn end_tokens(
        self: &Arc<App>,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Result<Receipt, KeyringError>, StoreError> {
        let app = Arc::clone(self);
        to_the_end(async move {
            let taken_over = {
                let _all = app.changing().await;
                let (_keys, _verifiers) =
                    (app.changing_keys.lock().await, app.changing_verifiers.lock().await);
                let keys = app.store.end_tokens(key, origin).await?;
                app.set_verifiers(vec![]);
                app.set_keys(&keys)
            };
            let receipt = app.settle().await?;
            Ok(taken_over.map(|()| receipt))
        })
        .await
    }
}
