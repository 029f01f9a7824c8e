//! The peppers, and what is hashed under them.

use rescind_base::{
    model::{EventFilter, ManagementToken, VerifierRecord},
    random::Random,
    secret::{MasterKey, Peppers, SealedSecrets},
};

use super::*;

pub(super) fn secrets<const N: usize>(named: [(&str, u8); N]) -> SealedSecrets {
    named.into_iter().map(|(name, byte)| (name.to_owned(), vec![byte])).collect()
}

pub(super) async fn the_first_pepper_stands(home: &Home) {
    let store = home.open().await;
    let first = secrets([("pepper", 1)]);
    assert_eq!(store.first_pepper(first.clone()).await.unwrap(), first);
    assert_eq!(store.first_pepper(secrets([("pepper", 2)])).await.unwrap(), first);
    // Also where it was replaced since.
    let both = store.rotate_pepper(secrets([("pepper 2", 2)]), origin()).await.unwrap();
    store.retire_pepper("pepper".into(), origin()).await.unwrap();
    let second = secrets([("pepper 2", 2)]);
    assert_eq!(store.first_pepper(first.clone()).await.unwrap(), second);
    assert_eq!((both.len(), store.load().await.unwrap().secrets), (2, second));
}

pub(super) async fn a_pepper_is_added_once_and_retired_once(home: &Home) {
    let store = home.open().await;
    store.first_pepper(secrets([("pepper", 1)])).await.unwrap();
    let both = secrets([("pepper", 1), ("pepper 2", 2), ("installation", 3)]);
    let new = secrets([("pepper 2", 2), ("installation", 3)]);
    assert_eq!(store.rotate_pepper(new, origin()).await.unwrap(), both);
    assert_eq!(store.rotate_pepper(secrets([("pepper 2", 4)]), origin()).await.unwrap(), both);
    // What seals them replaces each of them.
    let sealed_anew = secrets([("pepper", 5), ("pepper 2", 6), ("installation", 7)]);
    store.reseal(sealed_anew.clone(), vec![], vec![], origin()).await.unwrap();
    assert_eq!(store.load().await.unwrap().secrets, sealed_anew);
    for _ in 0..2 {
        let left = store.retire_pepper("pepper".into(), origin()).await.unwrap();
        assert_eq!(left, secrets([("pepper 2", 6), ("installation", 7)]));
    }
    let kinds: Vec<_> = store
        .records(EventFilter::newest(10))
        .await
        .unwrap()
        .records
        .into_iter()
        .map(|record| record.kind)
        .collect();
    assert_eq!(kinds, ["pepper_rotated", "master_key_rotated", "pepper_retired"]);
}

pub(super) async fn a_secret_is_found_by_each_hash_and_kept_under_the_present_pepper(home: &Home) {
    let store = home.open().await;
    let random = Random::seeded(1);
    let master = MasterKey::generate(&random);
    let mut sealed = Peppers::first(&master, &random).unwrap();
    let first = Peppers::open(&sealed, &master).unwrap().unwrap();
    sealed.extend(first.next(&master, &random).unwrap());
    let both = Peppers::open(&sealed, &master).unwrap().unwrap();
    let present = both.hash("s");

    let token = ManagementToken { token_hash: first.hash("s"), ..token(1) };
    let token = store.create_management_token(token, origin()).await.unwrap();
    for (found_by, kept) in [(first.hashes("s"), first.hash("s")), (both.hashes("s"), present)] {
        let used = store.use_management_token(found_by, 2000).await.unwrap();
        assert_eq!(used.map(|used| used.id), Some(token.id));
        assert_eq!(store.management_tokens().await.unwrap()[0].token_hash, kept);
    }
    assert_eq!(store.use_management_token(first.hashes("s"), 2000).await.unwrap(), None);

    let verifier = VerifierRecord {
        id: 0,
        name: "v".into(),
        token_hash: first.hash("s"),
        shares_hs256: false,
        created_at: 1,
    };
    let [verifier] = &store.create_verifier(verifier, origin()).await.unwrap()[..] else { panic!() };
    for hash in [present, first.hash("s")] {
        let verifiers = store.rehash_verifier(verifier.id, hash, origin()).await.unwrap();
        assert_eq!(verifiers[0].token_hash, present);
    }

    let mut saved = create(&store, "rk_1").await;
    change(&store, &saved, move |client| client.credentials[0].secret_hash = present).await;
    saved = store.find(saved.id, 0).await.unwrap().client.unwrap();
    assert_eq!(saved.credentials[0].secret_hash, present);
}
