//! Webhooks.

use rescind_base::model::{Delivery, EventFilter, Retention};

use super::{
    audit::{audit_key, noted},
    *,
};

fn delivery(event: u64, next_at: Option<u64>) -> Delivery {
    Delivery {
        webhook: "a".into(),
        event,
        tries: 1,
        next_at,
        tried_at: 1000,
        error: "the receiver answered 500".into(),
    }
}

pub(super) async fn one_node_has_a_webhook_until_its_claim_ends(home: &Home) {
    let store = home.open().await;
    store.record(vec![noted(1, 1000), noted(1, 1000)]).await.unwrap();
    let claim = async |node, now| store.claim_webhook("a", node, now, now + 60).await.unwrap();
    // A new webhook begins behind the newest record.
    assert_eq!(claim("one", 1000).await, Some(2));
    assert_eq!(claim("two", 1000).await, None);
    assert_eq!(claim("one", 1030).await, Some(2));
    assert_eq!(claim("two", 1089).await, None);
    assert!(store.webhook_seen("a", "one", 7).await.unwrap());
    assert_eq!(claim("two", 1090).await, Some(7));
    // Whoever had it before changes nothing.
    assert!(!store.webhook_seen("a", "one", 3).await.unwrap());
    assert_eq!(store.claim_webhook("b", "one", 1090, 2000).await.unwrap(), Some(2));
    let states = store.webhooks().await.unwrap();
    let told: Vec<_> =
        states.iter().map(|state| (state.name.as_str(), state.cursor, state.claimed_by.as_str())).collect();
    assert_eq!(told, [("a", 7, "two"), ("b", 2, "one")]);
    // A node that stops has none any more.
    store.release_webhooks("two").await.unwrap();
    assert_eq!(store.claim_webhook("a", "one", 1091, 2000).await.unwrap(), Some(7));
    assert_eq!(store.claim_webhook("b", "two", 1091, 2000).await.unwrap(), None);
    // Of many that claim at once, one gets it.
    let store = Arc::new(store);
    let mut claims = JoinSet::new();
    for node in 0..10 {
        let store = Arc::clone(&store);
        claims.spawn(async move { store.claim_webhook("c", &node.to_string(), 1, 2).await.unwrap() });
    }
    assert_eq!(claims.join_all().await.into_iter().flatten().count(), 1);
}

pub(super) async fn what_a_receiver_has_not_accepted_is_kept_until_it_has(home: &Home) {
    let store = home.open().await;
    store.record((0..3).map(|i| noted(1, 1000 + i)).collect()).await.unwrap();
    store.claim_webhook("a", "one", 1000, 1060).await.unwrap();
    for delivery in [delivery(1, Some(1010)), delivery(2, Some(1005)), delivery(3, None)] {
        store.save_delivery(delivery).await.unwrap();
    }
    let due = async |now| store.due_deliveries("a", now, 10).await.unwrap();
    assert_eq!(due(1004).await, []);
    assert_eq!(due(1010).await, [delivery(2, Some(1005)), delivery(1, Some(1010))]);
    assert_eq!(store.due_deliveries("b", 1010, 10).await.unwrap(), []);
    assert_eq!(store.dead_deliveries("a", 0, 10).await.unwrap(), [delivery(3, None)]);
    assert_eq!(store.dead_deliveries("a", 3, 10).await.unwrap(), []);
    let state = &store.webhooks().await.unwrap()[0];
    assert_eq!((state.waiting, state.dead), (2, 1));
    store.save_delivery(Delivery { tries: 2, ..delivery(2, Some(2000)) }).await.unwrap();
    store.forget_delivery("a", 1).await.unwrap();
    assert_eq!(due(1999).await, []);
    let replay = async |event| {
        let origin = ChangeOrigin { at: 1020, ..origin() };
        let events = store.replay_deliveries("a", event, origin).await.unwrap();
        let newest = store.records(EventFilter::newest(1)).await.unwrap().records.pop().unwrap();
        (events, Some(newest.kind).filter(|kind| kind == "webhook_replayed"), newest.detail, newest.operator)
    };
    assert_eq!(replay(Some(2)).await.0, 0);
    assert_eq!(replay(Some(2)).await.1, None);
    let (kind, detail, by) = ("webhook_replayed".into(), "a, 1 events".into(), "alice".into());
    assert_eq!(replay(None).await, (1, Some(kind), Some(detail), Some(by)));
    assert_eq!(due(1020).await, [Delivery { tries: 0, ..delivery(3, Some(1020)) }]);
    // With its record, a delivery goes.
    let retention = Retention { keep: 0, max_rows: 1000 };
    store.sweep_deliveries().await.unwrap();
    assert_eq!(due(9999).await.len(), 2);
    assert!(store.sweep_records(retention, 9999, audit_key()).await.unwrap());
    store.sweep_deliveries().await.unwrap();
    assert_eq!(due(9999).await, []);
}
