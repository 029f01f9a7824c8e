//! The sweep of sessions.

use super::*;

pub(super) async fn a_sweep_takes_what_is_over_and_nothing_else(home: &Home) {
    let store = home.open().await;
    let one = create(&store, "rk_1").await;
    let two = create(&store, "rk_2").await;
    assert_eq!(store.session_ids().await.unwrap(), None);
    for _ in 0..1500 {
        login(&store, &one, 1000).await;
    }
    let live = login(&store, &one, 9000).await;
    let loggedout = login(&store, &two, 9000).await;
    logout(&store, &two).await;
    assert_eq!(store.sweep(0, 8200).await.unwrap(), Swept { deleted: 0, kept: 1000, next: Some(1000) });
    assert_eq!(store.sweep(0, 8201).await.unwrap(), Swept { deleted: 1000, kept: 0, next: Some(1000) });
    assert_eq!(
        store.sweep(1000, 8201).await.unwrap(),
        Swept { deleted: 501, kept: 1, next: Some(loggedout.id) }
    );
    assert_eq!(store.sweep(loggedout.id, 8201).await.unwrap(), Swept { deleted: 0, kept: 0, next: None });
    assert_eq!(store.find(one.id, live.id).await.unwrap().session, Some(live.clone()));
    assert_eq!(store.session_ids().await.unwrap(), Some((live.id, live.id)));
    // A swept session's number is not given again.
    assert!(login(&store, &one, 9000).await.id > loggedout.id);
}
