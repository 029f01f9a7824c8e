//! The order of a change: the store, memory, propagation, and then the log and the answer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rescind_base::{
    model::{ChangeOrigin, Client, ClientId, Event, Session, SessionId, SigningKeyRecord, VerifierRecord},
    secret::{SealError, SealedSecrets},
    telemetry::step,
};
use rescind_store::StoreError;
use tokio::runtime::Handle;
use tracing::{Instrument, info};

use super::{App, operator};
use crate::{audit, cluster::Receipt, memory::KeyringError};

impl App {
    /// Adds a client, in the store and in memory. With `if_absent`, nothing is added if there is a client of this name:
    /// then its id is the inner error.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn create_client(
        &self,
        client: Client,
        if_absent: bool,
        origin: ChangeOrigin,
    ) -> Result<Result<Client, ClientId>, StoreError> {
        let _changing = self.memory.changing().await;
        let created = self.store.create_client(client, if_absent, origin).await?;
        if let Ok(client) = &created {
            self.memory.registry.apply(client);
        }
        Ok(created)
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

    /// Lets `rule` end a session, in the store and in memory. Returns whether it did.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable.
    pub async fn end_session(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<(Session, Option<Event>)> + Send + 'static,
    ) -> Result<bool, StoreError> {
        let _changing = self.memory.changing().await;
        let stamp = self.memory.registry.stamp();
        let ended = self.store.end_session(client, session, rule).await?;
        if let Some(session) = &ended {
            self.memory.registry.fill(session, stamp);
        }
        Ok(ended.is_some())
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
            operator::note(receipt);
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
        let take = async |app: Arc<App>| app.memory.take_keys(change(Arc::clone(&app))).await;
        Ok(self.take_over(take, Some("signing keys changed")).await?.0)
    }

    /// Changes the peppers in the store, and takes the result over into memory.
    ///
    /// # Errors
    ///
    /// Fails like [`App::commit`]. The inner result fails if the new peppers cannot be used.
    pub async fn change_peppers<F>(
        self: &Arc<App>,
        change: impl FnOnce(Arc<App>) -> F + Send + 'static,
    ) -> Result<Result<(), SealError>, StoreError>
    where
        F: Future<Output = Result<SealedSecrets, StoreError>> + Send,
    {
        let take = async |app: Arc<App>| app.memory.take_peppers(change(Arc::clone(&app))).await;
        Ok(self.take_over(take, Some("peppers changed")).await?.0)
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
        let take = async |app: Arc<App>| app.memory.take_verifiers(change(Arc::clone(&app))).await;
        Ok(self.take_over(take, Some("verifiers changed")).await?.0)
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
        let take = async |app: Arc<App>| app.memory.take_end(app.store.end_tokens(key, origin)).await;
        let (taken_over, receipt) = self.take_over(take, None).await?;
        Ok(taken_over.map(|()| receipt))
    }

    /// Commits a change of keys, peppers or verifiers, which `take` makes in the store and takes over into memory.
    async fn take_over<F, T>(
        self: &Arc<App>,
        take: impl FnOnce(Arc<App>) -> F + Send + 'static,
        changed: Option<&'static str>,
    ) -> Result<(T, Receipt), StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
        T: Send + 'static,
    {
        let take = async |app: Arc<App>| {
            let _changing = app.memory.changing().await;
            take(Arc::clone(&app)).await.map(Ok::<_, Infallible>)
        };
        let log = move |_: &App, _: &_, Receipt { nodes, acknowledged, milliseconds }| {
            if let Some(changed) = changed {
                info!(nodes, acknowledged, milliseconds, "{changed}");
            }
        };
        let Ok(taken_over) = self.commit(take, log).await?;
        Ok(taken_over)
    }
}

/// Runs `change` to its end. If the caller drops the future, because its client has disconnected, a task of its own
/// runs the rest. So nobody can cancel the change between the commit and the registry's update.
///
/// # Errors
///
/// Fails as `change` does.
pub fn run_to_completion<T: Send + 'static>(
    change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> impl Future<Output = Result<T, StoreError>> + Send {
    ToCompletion(Some(Box::pin(audit::in_current_request(change))))
}

/// A change that has not ended.
struct ToCompletion<T: Send + 'static>(Option<Change<T>>);

type Change<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

impl<T: Send + 'static> Future for ToCompletion<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Taken out, so that a change that panics is not run again when this is dropped.
        let Some(mut change) = self.0.take() else { return Poll::Pending };
        let polled = change.as_mut().poll(cx);
        if polled.is_pending() {
            self.0 = Some(change);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToCompletion<T> {
    fn drop(&mut self) {
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_change_whose_caller_has_gone_ends_all_the_same() {
        for polled in [false, true] {
            let (begin, begun) = oneshot::channel();
            let (end, ended) = oneshot::channel();
            let mut change = Box::pin(run_to_completion(async move {
                begun.await.unwrap();
                end.send(()).unwrap();
                Ok(())
            }));
            if polled {
                let context = &mut Context::from_waker(Waker::noop());
                assert!(change.as_mut().poll(context).is_pending());
            }
            drop(change);
            begin.send(()).unwrap();
            ended.await.unwrap();
        }
    }
}
