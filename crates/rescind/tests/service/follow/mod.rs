//! A bounded follower in another process: it knows every change within its bound after the service has
//! answered the change.

mod ask;
mod cut;
pub(crate) mod exact;
mod fake;
pub(crate) mod feed;
mod flood;
mod keys;
mod proxy;
mod race;
mod sequence;
mod tls;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use rescind::auth;
use rescind_admin::{self as admin, AllowChange, KeyRotation, NewVerifier};
use rescind_base::{clock::Clock, model::OnReuse};
use rescind_verifier::{
    Denied,
    follow::{Follower, Mode, Options},
};
use tokio::{task::yield_now, time::timeout};

use crate::app::{Client, Pair, TestApp};

/// The time after which a test counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The address of every caller here.
pub(crate) const CALLER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
const BOUND: Duration = Duration::from_millis(500);

/// A service, its follower, and a pair whose access token is valid on both.
pub(crate) struct Followed {
    pub(crate) app: TestApp,
    pub(crate) follower: Follower,
    pub(crate) client: Client,
    pub(crate) pair: Pair,
}

/// The time since boot, by which followers measure.
pub(crate) fn now() -> Duration {
    Clock::System.elapsed()
}

/// Creates a verifier, and returns its token.
pub(crate) async fn verifier_token(app: &TestApp, share_hs256: bool) -> String {
    let new = NewVerifier { name: "test".into(), share_hs256 };
    admin::create_verifier(&app.app, new).await.unwrap().token
}

pub(crate) fn follow(address: SocketAddr, token: &str, bound: Duration) -> Follower {
    Follower::start(Options::new(address.to_string(), token).with_mode(Mode::Bounded(bound)))
}

/// Waits until the condition holds, by polling.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let come = async {
        while !condition() {
            yield_now().await;
        }
    };
    assert!(timeout(PATIENCE, come).await.is_ok(), "in vain: {what}");
}

pub(crate) fn verdict(follower: &Follower, token: &str) -> Result<(), Denied> {
    follower.verify(token, CALLER).map(drop)
}

/// Waits until a follower accepts a token.
pub(crate) async fn stands(follower: &Follower, token: &str) {
    until("the token stands", || verdict(follower, token) == Ok(())).await;
}

/// Waits for this verdict. No verification begun later than the bound after `since` may accept.
pub(crate) async fn refused_in_time(
    follower: &Follower,
    token: &str,
    since: Duration,
    bound: Duration,
    expected: Denied,
) {
    until(&format!("{expected:?}"), || {
        let begun = now();
        let verdict = verdict(follower, token);
        assert!(verdict.is_err() || begun < since + bound, "accepted {:?} later", begun - since);
        verdict == Err(expected)
    })
    .await;
}

impl Followed {
    /// Follows through another address, which `way` makes from the service's own.
    pub(crate) async fn through(
        bound: Duration,
        way: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
    ) -> Followed {
        Followed::at(TestApp::today(|_| {}).await, Mode::Bounded(bound), way).await
    }

    pub(crate) async fn at(
        app: TestApp,
        mode: Mode,
        way: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
    ) -> Followed {
        let client = app.client_allowed(&["127.0.0.0/8", "10.0.0.0/8"]).await;
        let pair = app.grant(&client).await;
        let options = Options::new(way(app.management).await.to_string(), verifier_token(&app, true).await);
        let follower = Follower::start(options.with_mode(mode));
        timeout(PATIENCE, follower.ready()).await.unwrap();
        stands(&follower, &pair.access).await;
        Followed { app, follower, client, pair }
    }

    pub(crate) async fn start() -> Followed {
        Followed::through(BOUND, async |address| address).await
    }

    /// Asserts that the follower knows the change that has just been answered within its bound.
    async fn soon(&self, expected: Denied) {
        refused_in_time(&self.follower, &self.pair.access, now(), BOUND, expected).await;
    }
}

// check 15: here and at every verifier
#[tokio::test]
async fn a_logout_is_known_within_the_bound_and_a_new_login_stands() {
    let f = Followed::start().await;
    f.app.logout(&f.pair.access).await.is_logged_out();
    f.soon(Denied::Revoked).await;
    stands(&f.follower, &f.app.grant(&f.client).await.access).await;
    assert_eq!(verdict(&f.follower, &f.pair.access), Err(Denied::Revoked));
}

#[tokio::test]
async fn what_a_follower_decides_is_what_the_service_decides() {
    let f = Followed::start().await;
    let token = f.follower.verify(&f.pair.access, CALLER).unwrap();
    assert_eq!((token.claims().client, token.client().name.as_str()), (f.client.id, "test"));
    // check 92: keys of refresh tokens are given to nobody, HS256 ones shared or not
    assert_eq!(verdict(&f.follower, &f.pair.refresh), Err(Denied::UnknownKey));
    assert_eq!(verdict(&f.follower, "x"), Err(Denied::Malformed));
    for elsewhere in [None, Some([192, 0, 2, 1].into())] {
        let verdict = f.follower.verify(&f.pair.access, elsewhere).map(drop);
        assert_eq!(verdict, Err(Denied::AddressNotAllowed));
    }
    let renewed = f.app.renew(&f.pair).await;
    assert_eq!(verdict(&f.follower, &renewed.access), Ok(()));
}

// check 17, CVE-2023-22492, CVE-2024-47000, CVE-2025-64521
#[tokio::test]
async fn a_suspension_and_a_deletion_are_known_within_the_bound() {
    let f = Followed::start().await;
    admin::suspend(&f.app.app, f.client.id, Default::default()).await.unwrap();
    f.soon(Denied::ClientInactive).await;
    admin::resume(&f.app.app, f.client.id).await.unwrap();
    f.soon(Denied::Revoked).await;
    let f = Followed { pair: f.app.grant(&f.client).await, ..f };
    stands(&f.follower, &f.pair.access).await;
    admin::delete(&f.app.app, f.client.id).await.unwrap();
    f.soon(Denied::ClientInactive).await;
}

// check 17
#[tokio::test]
async fn a_revoked_credential_is_known_within_the_bound() {
    let f = Followed::start().await;
    admin::revoke_credential(&f.app.app, &f.client.key).await.unwrap();
    f.soon(Denied::Revoked).await;
}

// check 72
#[tokio::test]
async fn a_narrowed_allowlist_is_known_within_the_bound() {
    let f = Followed::start().await;
    let narrow = AllowChange { remove: vec!["127.0.0.0/8".into()], ..AllowChange::default() };
    admin::change_allowlist(&f.app.app, f.client.id, narrow).await.unwrap();
    f.soon(Denied::AddressNotAllowed).await;
    assert!(f.follower.verify(&f.pair.access, Some([10, 0, 0, 1].into())).is_ok());
}

// check 31
#[tokio::test]
async fn a_revoked_session_is_known_within_the_bound_and_no_other_goes_with_it() {
    let f = Followed::start().await;
    let other = f.app.grant(&f.client).await;
    auth::revoke(&f.app.app, f.client.id, &f.pair.refresh).await.unwrap();
    f.soon(Denied::Revoked).await;
    assert_eq!(verdict(&f.follower, &other.access), Ok(()));
    // A follower that comes later knows it as well.
    let late = follow(f.app.management, &verifier_token(&f.app, true).await, BOUND);
    stands(&late, &other.access).await;
    assert_eq!(verdict(&late, &f.pair.access), Err(Denied::Revoked));
}

#[tokio::test]
async fn a_session_ended_by_a_refresh_token_used_again_is_known_within_the_bound() {
    let app = TestApp::today(|config| config.tokens.on_reuse = OnReuse::EndSession).await;
    let f = Followed::at(app, Mode::Bounded(BOUND), async |address| address).await;
    f.app.renew(&f.pair).await;
    f.app.refresh(&f.pair.refresh).await.is_error(401, "Invalid token");
    f.soon(Denied::Revoked).await;
}

// check 48
#[tokio::test]
async fn a_retired_key_is_known_within_the_bound() {
    let f = Followed::start().await;
    let keys = admin::rotate_key(&f.app.app, KeyRotation::default()).await.unwrap();
    let new = f.app.grant(&f.client).await;
    stands(&f.follower, &new.access).await;
    assert_eq!(verdict(&f.follower, &f.pair.access), Ok(()));
    admin::retire_key(&f.app.app, &keys[0].kid).await.unwrap();
    f.soon(Denied::UnknownKey).await;
    assert_eq!(verdict(&f.follower, &new.access), Ok(()));
}
