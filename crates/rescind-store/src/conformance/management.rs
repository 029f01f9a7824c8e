//! Management tokens and idempotency keys.

use rescind_base::model::{Creation, CreationKey, EventFilter, ManagementToken, Role};

use super::*;

pub(super) fn token(hash: u8) -> ManagementToken {
    ManagementToken {
        id: 0,
        name: "ci".into(),
        role: Role::Operator,
        clients: Some(vec![3, 7]),
        token_hash: SecretHash { bytes: [hash; 32], pepper: 1 },
        created_at: 1000,
        expires_at: Some(5000),
        last_used_at: None,
    }
}

async fn kinds(store: &Store) -> Vec<String> {
    store
        .records(EventFilter::newest(100))
        .await
        .unwrap()
        .records
        .into_iter()
        .map(|record| record.kind)
        .collect()
}

pub(super) async fn a_management_token_is_found_until_it_ends(home: &Home) {
    let store = home.open().await;
    let one = store.create_management_token(token(1), origin()).await.unwrap();
    let all = ManagementToken { clients: None, expires_at: None, ..token(2) };
    let two = store.create_management_token(all.clone(), origin()).await.unwrap();
    assert_eq!(store.management_tokens().await.unwrap(), [one.clone(), two.clone()]);
    assert_eq!((two.id, ManagementToken { id: 0, ..two.clone() }), (one.id + 1, all));
    let used = async |hash, now| {
        let hash = SecretHash { bytes: [hash; 32], pepper: 1 };
        store.use_management_token(hash.into(), now).await.unwrap()
    };
    assert_eq!(used(1, 4999).await.map(|token| token.id), Some(one.id));
    assert_eq!(used(1, 5000).await, None);
    assert_eq!(used(3, 1000).await, None);
    // The time of the last use is written once a minute.
    used(2, 2000).await;
    used(2, 2059).await;
    assert_eq!(store.management_tokens().await.unwrap()[1].last_used_at, Some(2000));
    used(2, 2060).await;
    assert_eq!(store.management_tokens().await.unwrap()[1].last_used_at, Some(2060));
    assert!(store.delete_management_token(two.id, origin()).await.unwrap().is_some());
    assert_eq!(store.delete_management_token(two.id, origin()).await.unwrap(), None);
    assert_eq!(used(2, 2100).await, None);
    let created = "management_token_created";
    assert_eq!(kinds(&store).await, [created, created, "management_token_revoked"]);
}

pub(super) async fn management_tokens_end_with_every_token(home: &Home) {
    let store = home.open().await;
    store.create_management_token(token(1), origin()).await.unwrap();
    store.end_tokens(key("k"), origin()).await.unwrap();
    assert!(store.management_tokens().await.unwrap().is_empty());
    assert!(kinds(&store).await.contains(&"management_token_revoked".to_owned()));
}

pub(super) async fn an_idempotency_key_is_reserved_once(home: &Home) {
    let store = home.open().await;
    let key = |token| CreationKey { token, key: "k".into() };
    let reserve = async |token, now| store.reserve_creation(key(token), [7; 32], now).await.unwrap();
    let known =
        |created: Option<&str>| Some(Creation { request: [7; 32], created: created.map(str::to_owned) });
    assert_eq!(reserve(1, 1000).await, None);
    assert_eq!(reserve(1, 1000).await, known(None));
    assert_eq!(reserve(2, 1000).await, None);
    store.settle_creation(key(1), Some("/clients/1".into())).await.unwrap();
    store.settle_creation(key(2), None).await.unwrap();
    assert_eq!(reserve(1, 1000 + 86_399).await, known(Some("/clients/1")));
    assert_eq!(reserve(2, 1000).await, None);
    assert_eq!(reserve(1, 1000 + 86_400).await, None);
}
