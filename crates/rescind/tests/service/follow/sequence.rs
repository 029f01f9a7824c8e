//! A feed with errors: a follower no longer trusts its state, and starts with a new snapshot.

use std::time::Duration;

use rescind_verifier::follow::{FeedError, Follower};
use tokio::time::timeout;

use crate::follow::{
    PATIENCE,
    fake::{Fake, Feed},
    follow, now, until,
};

const BOUND: Duration = Duration::from_secs(1);
/// For tests that send much data, which takes long on a busy machine.
const LONG_BOUND: Duration = Duration::from_secs(5);
const AT_5: &str = r#"{"epoch":"e","seq":5}"#;
const AT_6: &str = r#"{"epoch":"e","seq":6}"#;
const CHANGE_6: &str =
    "event: change\nid: e:6\ndata: {\"seq\":6,\"session\":{\"session\":1,\"until\":2}}\n\n";

/// A follower at change 5 of epoch `e`, and its feed.
async fn at_5(bound: Duration) -> (Fake, Follower, Feed) {
    let mut fake = Fake::start().await;
    fake.answer(AT_5);
    let follower = follow(fake.address, "rv_test", bound);
    let feed = fake.feed().await;
    assert_eq!(feed.last_event_id, None);
    let mut feed = feed.begin().await;
    feed.snapshot("e", 5).await;
    ready(&follower).await;
    (fake, follower, feed)
}

async fn ready(follower: &Follower) {
    timeout(PATIENCE, follower.ready()).await.expect("readiness");
}

/// Waits until the follower is stale, which must happen within the bound.
async fn stale_in_time(follower: &Follower, since: Duration, bound: Duration) {
    until("stale", || {
        let begun = now();
        let ready = follower.is_ready();
        assert!(!ready || begun < since + bound, "ready {:?} later", begun - since);
        !ready
    })
    .await;
}

async fn broke_off(follower: &Follower, error: &FeedError) {
    let mut status = follower.status();
    let told = timeout(PATIENCE, status.wait_for(|status| status.as_ref() == Some(error))).await;
    assert!(told.is_ok(), "{:?} instead of {error:?}", *follower.status().borrow());
}

/// Asserts that after this event the follower does not trust its state, even if the head says that it is the newest.
async fn distrusts(bad: impl AsRef<[u8]>, error: FeedError) {
    distrusts_within(BOUND, bad, error).await;
}

async fn distrusts_within(bound: Duration, bad: impl AsRef<[u8]>, error: FeedError) {
    let (mut fake, follower, mut feed) = at_5(bound).await;
    feed.send(bad).await;
    broke_off(&follower, &error).await;
    let since = now();
    let mut feed = fake.feed().await;
    let questions = fake.questions();
    assert_eq!(feed.last_event_id, None, "a new snapshot");
    feed = feed.begin().await;
    stale_in_time(&follower, since, bound).await;
    for _ in 0..2 {
        drop(feed);
        feed = fake.feed().await;
        assert_eq!(feed.last_event_id, None);
        feed = feed.begin().await;
        assert!(!follower.is_ready());
    }
    assert_eq!(fake.questions(), questions, "there is nothing to ask about");
    feed.snapshot("e", 5).await;
    ready(&follower).await;
    feed.send(CHANGE_6).await;
    fake.answer(AT_6);
    fake.answered(3).await;
    assert!(follower.status().borrow().is_none());
}

fn gap(got: u64) -> FeedError {
    FeedError::Gap { have: 5, got }
}

#[tokio::test]
async fn a_number_skipped() {
    distrusts("event: change\ndata: {\"seq\":7,\"keys\":[]}\n\n", gap(7)).await;
}

#[tokio::test]
async fn a_number_repeated() {
    distrusts("event: change\ndata: {\"seq\":5,\"keys\":[]}\n\n", gap(5)).await;
}

#[tokio::test]
async fn a_number_from_before() {
    distrusts("event: change\ndata: {\"seq\":4,\"keys\":[]}\n\n", gap(4)).await;
}

#[tokio::test]
async fn a_heartbeat_that_is_further() {
    distrusts(format!("event: heartbeat\ndata: {AT_6}\n\n"), gap(6)).await;
}

#[tokio::test]
async fn a_snapshot_older_than_what_is_known() {
    let older = "event: snapshot\ndata: {\"epoch\":\"e\",\"seq\":4,\"issuer\":\"i\",\"audience\":\"a\",\"keys\":[]}\n\n\
                 event: complete\ndata: {\"epoch\":\"e\",\"seq\":4}\n\n";
    distrusts(older, gap(4)).await;
}

#[tokio::test]
async fn a_heartbeat_of_another_epoch() {
    distrusts("event: heartbeat\ndata: {\"epoch\":\"f\",\"seq\":5}\n\n", FeedError::Unreadable).await;
}

#[tokio::test]
async fn parts_of_a_snapshot_without_its_beginning() {
    for part in ["clients\ndata: []", "sessions\ndata: []", "complete\ndata: {\"epoch\":\"e\",\"seq\":6}"] {
        distrusts(format!("event: {part}\n\n"), FeedError::Unreadable).await;
    }
}

#[tokio::test]
async fn a_change_within_a_snapshot() {
    let begun = "event: snapshot\ndata: {\"epoch\":\"e\",\"seq\":5,\"issuer\":\"i\",\"audience\":\"a\",\"keys\":[]}\n\n";
    distrusts(format!("{begun}{CHANGE_6}"), FeedError::Unreadable).await;
}

#[tokio::test]
async fn a_snapshot_that_ends_elsewhere_than_it_began() {
    let text = "event: snapshot\ndata: {\"epoch\":\"e\",\"seq\":5,\"issuer\":\"i\",\"audience\":\"a\",\"keys\":[]}\n\n\
                event: complete\ndata: {\"epoch\":\"e\",\"seq\":6}\n\n";
    distrusts(text, FeedError::Unreadable).await;
}

#[tokio::test]
async fn a_resumption_in_the_middle() {
    distrusts(format!("event: resumed\ndata: {AT_5}\n\n"), FeedError::Unreadable).await;
}

#[tokio::test]
async fn what_cannot_be_read() {
    let bad: [&[u8]; 4] = [
        b"\xff\xfe\n",
        b"event: change\ndata: {\"seq\":6}\n\n",
        b"event: change\ndata: {\"seq\":6,\"keys\":[{\"kid\":\"k\",\"alg\":\"none\",\"key\":\"\"}]}\n\n",
        b"event: change\ndata: nonsense\n\n",
    ];
    for bad in bad {
        distrusts(bad, FeedError::Unreadable).await;
    }
}

#[tokio::test]
async fn a_line_without_an_end() {
    distrusts_within(LONG_BOUND, vec![b'x'; 17 << 20], FeedError::Unreadable).await;
}

#[tokio::test]
async fn an_event_without_an_end() {
    distrusts_within(
        LONG_BOUND,
        [b"data: ".repeat(2), vec![b'x'; 1 << 20], vec![b'\n']].concat().repeat(17),
        FeedError::Unreadable,
    )
    .await;
}

#[tokio::test]
async fn changes_before_any_snapshot() {
    let mut fake = Fake::start().await;
    fake.answer(AT_6);
    let follower = follow(fake.address, "rv_test", BOUND);
    for first in [CHANGE_6.to_owned(), format!("event: resumed\ndata: {AT_5}\n\n{CHANGE_6}")] {
        let mut feed = fake.feed().await.begin().await;
        feed.send(first).await;
        broke_off(&follower, &FeedError::Unreadable).await;
        assert!(!follower.is_ready());
    }
    assert_eq!(fake.questions(), 0);
}

// The server says that it resumes elsewhere, or does not say that it resumes at all.
#[tokio::test]
async fn a_resumption_that_is_none() {
    for first in [
        CHANGE_6,
        "event: resumed\ndata: {\"epoch\":\"e\",\"seq\":4}\n\n",
        "event: resumed\ndata: {\"epoch\":\"f\",\"seq\":5}\n\n",
    ] {
        let (mut fake, follower, feed) = at_5(BOUND).await;
        drop(feed);
        let feed = fake.feed().await;
        assert_eq!(feed.last_event_id.as_deref(), Some("e:5"));
        let mut feed = feed.begin().await;
        feed.send(first).await;
        broke_off(&follower, &FeedError::Unreadable).await;
        assert_eq!(fake.feed().await.last_event_id, None);
    }
}

#[tokio::test]
async fn a_resumption() {
    let (mut fake, follower, feed) = at_5(BOUND).await;
    drop(feed);
    let mut feed = fake.feed().await.begin().await;
    fake.answer(AT_6);
    feed.send(format!("event: resumed\ndata: {AT_5}\n\n{CHANGE_6}event: heartbeat\ndata: {AT_6}\n\n")).await;
    ready(&follower).await;
    fake.answered(3).await;
    ready(&follower).await;
    drop(feed);
    assert_eq!(fake.feed().await.last_event_id.as_deref(), Some("e:6"));
}

#[tokio::test]
async fn answers_of_another_epoch() {
    let (mut fake, follower, mut feed) = at_5(BOUND).await;
    fake.answer(r#"{"epoch":"f","seq":5}"#);
    let since = now();
    stale_in_time(&follower, since, BOUND).await;
    for _ in 0..5 {
        fake.answered(1).await;
        assert!(!follower.is_ready());
    }
    fake.answer(r#"{"epoch":"f","seq":2}"#);
    feed.snapshot("f", 2).await;
    ready(&follower).await;
}

#[tokio::test]
async fn a_head_that_is_never_reached() {
    let (mut fake, follower, feed) = at_5(BOUND).await;
    fake.answer(AT_6);
    stale_in_time(&follower, now(), BOUND).await;
    broke_off(&follower, &FeedError::Silent).await;
    feed.closed().await;
    let feed = fake.feed().await;
    assert_eq!(feed.last_event_id.as_deref(), Some("e:5"), "nothing says that what is known is wrong");
    let mut feed = feed.begin().await;
    fake.answered(1).await;
    assert!(!follower.is_ready());
    feed.send(format!("event: resumed\ndata: {AT_5}\n\n{CHANGE_6}")).await;
    ready(&follower).await;
}

#[tokio::test]
async fn answers_that_are_none() {
    let padded = format!("{}{AT_5}", " ".repeat(1 << 20));
    for bad in ["", "[]", "{\"epoch\":\"e\",\"seq\":-1}", &padded] {
        let (fake, follower, _feed) = at_5(BOUND).await;
        fake.answer(bad);
        let since = now();
        until("a break", || {
            matches!(*follower.status().borrow(), Some(FeedError::Unreadable | FeedError::Connection(_)))
        })
        .await;
        stale_in_time(&follower, since, BOUND).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let mut fake = Fake::start().await;
    fake.answer(AT_5);
    let follower = follow(fake.address, "rv_test", BOUND);
    let silent = fake.feed().await;
    broke_off(&follower, &FeedError::Silent).await;
    silent.closed().await;
    let mut feed = fake.feed().await.begin().await;
    feed.snapshot("e", 5).await;
    ready(&follower).await;
}

// Not only at the next event, which may never come.
#[tokio::test]
async fn the_last_clone_takes_the_connections_with_it() {
    let (_fake, follower, feed) = at_5(BOUND).await;
    let clone = follower.clone();
    drop(follower);
    ready(&clone).await;
    drop(clone);
    feed.closed().await;
}

#[tokio::test]
async fn no_bound_is_too_long() {
    let mut fake = Fake::start().await;
    fake.answer(AT_5);
    let follower = follow(fake.address, "rv_test", Duration::MAX);
    let mut feed = fake.feed().await.begin().await;
    feed.snapshot("e", 5).await;
    ready(&follower).await;
}
