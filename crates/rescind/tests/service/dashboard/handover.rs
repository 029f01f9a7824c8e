//! A secret that is handed to somebody by a link.

use rescind_base::model::{EventFilter, Role};

use super::browser::Browser;
use crate::app::TestApp;

/// The link of a page.
async fn link(browser: &Browser, key: &str, secret: &str) -> String {
    let page =
        browser.post("/dashboard/do/handOverSecret", &[("api_key", key), ("api_secret", secret)]).await;
    page.find(r"http://127\.0\.0\.1:\d+(/dashboard/handover/rh_[a-z2-7]+)")
}

#[tokio::test]
async fn a_secret_is_read_once_by_whoever_has_the_link() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let link = link(&browser, &client.key, &client.secret).await;
    let stranger = Browser::of(&app);
    // Programs that look at links ahead do not use it up.
    for _ in 0..2 {
        stranger.get(&link).await.has("It can be read once").lacks(&client.secret);
    }
    let page = stranger.post(&link, &[]).await;
    page.has(&client.secret).has(&client.key);
    for page in [stranger.post(&link, &[]).await, stranger.get(&link).await] {
        page.has("somebody else has the secret").has("2025-01-15 12:00").lacks(&client.secret);
    }
    let records = app.app.store.records(EventFilter::newest(100)).await.unwrap().records;
    let of = |kind: &str| records.iter().find(|r| r.kind == kind).unwrap();
    assert_eq!(of("secret_handed_over").operator.as_deref(), Some("administrator 1 (operator)"));
    let read = of("handed_over_secret_read");
    assert_eq!(
        (read.by.as_str(), read.client, read.api_key.as_ref()),
        ("caller", Some(1), Some(&client.key))
    );
}

#[tokio::test]
async fn a_link_ends_after_a_day_and_is_good_on_every_start() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let one = link(&browser, &client.key, &client.secret).await;
    let two = link(&browser, &client.key, &client.secret).await;
    let app = app.restart().await;
    app.clock.advance(86_399);
    Browser::of(&app).post(&one, &[]).await.has(&client.secret);
    app.clock.advance(1);
    for _ in 0..2 {
        Browser::of(&app).post(&two, &[]).await.has("or has ended").lacks(&client.secret);
        app.app.sweep().await.unwrap();
    }
    Browser::of(&app).get("/dashboard/handover/rh_aaaa").await.has("It is unknown");
}

#[tokio::test]
async fn only_the_secret_of_a_good_credential_is_handed_over() {
    let app = TestApp::start().await;
    let (client, other) = (app.client().await, app.client().await);
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let ask = async |key: &str, secret: &str| {
        browser.post("/dashboard/do/handOverSecret", &[("api_key", key), ("api_secret", secret)]).await
    };
    ask(&client.key, &other.secret)
        .await
        .is_refused(400, "api_secret: expected the secret of this credential");
    ask(&client.key, "x").await.is_refused(400, "api_secret: expected");
    ask("rk_x", &client.secret).await.is_refused(400, "api_key: there is no such credential");
}
