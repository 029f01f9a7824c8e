//! The order of a change: the store, memory, propagation, and then the log and the answer.

use std::{convert::Infallible, sync::Arc};

use tracing::{Instrument, info};

use super::App;
use crate::{
    cluster::Receipt,
    memory::KeyringError,
    model::{ChangeOrigin, Client, ClientId, Event, Session, SessionId, SigningKeyRecord, VerifierRecord},
    store::StoreError,
    telemetry::traces::step,
};

impl App {
    /// Adds a client, in the store and in memory.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn create_client(&self, client: Client, origin: ChangeOrigin) -> Result<Client, StoreError> {
        let _changing = self.memory.changing().await;
        let client = self.store.create_client(client, origin).await?;
        self.memory.registry.apply(&client);
        Ok(client)
    }

    /// Lets `rule` change a client, in the store and in memory. `None`: no such client.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable; the inner result fails as `rule` does.
    pub async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>, StoreError> {
        let _changing = self.memory.changing().await;
        let changed = self.store.change_client(id, origin, rule).await?;
        if let Some(Ok((_, client))) = &changed {
            self.memory.registry.apply(client);
        }
        Ok(changed)
    }

    /// Lets `rule` change a session, in the store and in memory. `None`: no such client or session.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>, StoreError> {
        let _changing = self.memory.changing().await;
        let stamp = self.memory.registry.stamp();
        let changed = self.store.change_session(client, session, rule).await?;
        if let Some((_, session)) = &changed {
            self.memory.registry.fill(session, stamp);
        }
        Ok(changed)
    }

    /// Lets `rule` end a session, in the store and in memory.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn end_session(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<Session> + Send + 'static,
    ) -> Result<(), StoreError> {
        let _changing = self.memory.changing().await;
        let stamp = self.memory.registry.stamp();
        if let Some(session) = self.store.end_session(client, session, rule).await? {
            self.memory.registry.fill(&session, stamp);
        }
        Ok(())
    }

    /// Lets `change` change the store and memory, waits for the propagation, and lets `log` report it. A
    /// caller that disconnects cancels none of these steps. A change that its rule refuses needs no
    /// propagation.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable or the propagation is not confirmed; inside, as the rule does.
    pub async fn commit<F, T, E>(
        self: &Arc<App>,
        change: impl FnOnce(Arc<App>) -> F + Send + 'static,
        log: impl FnOnce(&App, &T, Receipt) + Send + 'static,
    ) -> Result<Result<(T, Receipt), E>, StoreError>
    where
        F: Future<Output = Result<Result<T, E>, StoreError>> + Send,
        T: Send + 'static,
        E: Send + 'static,
    {
        let app = Arc::clone(self);
        run_to_completion(async move {
            let changed = match change(Arc::clone(&app)).await? {
                Ok(changed) => changed,
                Err(refused) => return Ok(Err(refused)),
            };
            let committed_at = app.clock.elapsed();
            let receipt = app.cluster.propagate().instrument(step!("settle")).await?;
            app.metrics.settled.took(app.clock.elapsed().saturating_sub(committed_at));
            log(&app, &changed, receipt);
            Ok(Ok((changed, receipt)))
        })
        .await
    }

    /// Changes the signing keys in the store, and takes the result over into memory.
    ///
    /// # Errors
    ///
    /// Fails like [`App::commit`]. The inner result fails if the new keys cannot be used.
    pub async fn change_keys<F>(
        self: &Arc<App>,
        change: impl FnOnce(Arc<App>) -> F + Send + 'static,
    ) -> Result<Result<Vec<SigningKeyRecord>, KeyringError>, StoreError>
    where
        F: Future<Output = Result<Vec<SigningKeyRecord>, StoreError>> + Send,
    {
        let take = async |app: Arc<App>| {
            let _changing = app.memory.changing().await;
            app.memory.take_keys(change(Arc::clone(&app))).await.map(Ok::<_, Infallible>)
        };
        let log = |_: &App, _: &_, Receipt { nodes, acknowledged, milliseconds }| {
            info!(nodes, acknowledged, milliseconds, "signing keys changed");
        };
        let Ok((keys, _)) = self.commit(take, log).await?;
        Ok(keys)
    }

    /// Changes the verifiers in the store, and takes the result over into memory.
    ///
    /// # Errors
    ///
    /// Fails like [`App::commit`].
    pub async fn change_verifiers<F>(
        self: &Arc<App>,
        change: impl FnOnce(Arc<App>) -> F + Send + 'static,
    ) -> Result<Vec<VerifierRecord>, StoreError>
    where
        F: Future<Output = Result<Vec<VerifierRecord>, StoreError>> + Send,
    {
        let take = async |app: Arc<App>| {
            let _changing = app.memory.changing().await;
            app.memory.take_verifiers(change(Arc::clone(&app))).await.map(Ok::<_, Infallible>)
        };
        let log = |_: &App, _: &_, Receipt { nodes, acknowledged, milliseconds }| {
            info!(nodes, acknowledged, milliseconds, "verifiers changed");
        };
        let Ok((verifiers, _)) = self.commit(take, log).await?;
        Ok(verifiers)
    }

    /// Revokes every token, in the store and in memory. `key` replaces all signing keys.
    ///
    /// # Errors
    ///
    /// Fails like [`App::commit`]. The inner result fails if `key` cannot be used.
    pub async fn end_tokens(
        self: &Arc<App>,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Result<Receipt, KeyringError>, StoreError> {
        let take = async |app: Arc<App>| {
            let _changing = app.memory.changing().await;
            app.memory.take_end(app.store.end_tokens(key, origin)).await.map(Ok::<_, Infallible>)
        };
        let Ok((taken_over, receipt)) = self.commit(take, |_, _, _| {}).await?;
        Ok(taken_over.map(|()| receipt))
    }
}

/// Runs `change` in a task of its own, which starts at once. So a client that disconnects cannot cancel the
/// change between the commit and the registry's update.
///
/// # Errors
///
/// Fails as `change` does, or if the runtime stops.
pub fn run_to_completion<T: Send + 'static>(
    change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> impl Future<Output = Result<T, StoreError>> + Send {
    let running = tokio::spawn(change.in_current_span());
    async move {
        match running.await {
            Ok(outcome) => outcome,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(e) => Err(StoreError::Unavailable(e.into())),
            },
        }
    }
}
