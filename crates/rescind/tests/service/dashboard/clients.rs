//! What operators do with clients by the pages.

use rescind_base::model::Role;

use super::browser::{Browser, Page};
use crate::app::{Client, HOUR, TestApp};

/// The credential that a page shows once.
fn shown(page: &Page, id: u64) -> Client {
    let key = page.find(r#"<pre id="key"[^>]*>(rk_[a-z2-7]+)<"#);
    Client { id, key, secret: page.find(r#"<pre id="secret"[^>]*>(rs_[a-z2-7]+)<"#) }
}

#[tokio::test]
async fn a_client_from_its_creation_to_its_deletion() {
    let app = TestApp::start().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let fields = [
        ("name", "billing"),
        ("allow", "127.0.0.0/8, 10.0.0.0-10.0.0.255 # the office"),
        ("scopes", "read\nwrite"),
    ];
    let page = browser.post("/dashboard/do/createClient", &fields).await;
    let client = shown(&page, 1);
    page.has(&format!("RESCIND_API_SECRET={}", client.secret)).has("I have stored it").has("/auth/login");
    let first = app.grant(&client).await;
    let page = browser.get("/dashboard/clients/1").await;
    page.has("billing")
        .has("10.0.0.0/24")
        .has("1 live sessions")
        .has("<code>read</code>")
        .lacks(&client.secret);

    // Rotation: both secrets are good, and the old one is seen where it is used.
    let rotate = format!("/dashboard/do/rotateCredential/{}", client.key);
    let new = shown(&browser.post(&rotate, &[("overlap", "7d")]).await, 1);
    app.grant(&new).await;
    app.clock.advance(25 * 60);
    app.grant(&client).await;
    let page = browser.get("/dashboard/clients/1").await;
    page.has("replaced")
        .has("2025-01-15 12:25")
        .has("from 127.0.0.1")
        .has("2025-01-22 12:00")
        .has("End it now");
    let note = format!("/dashboard/do/noteCredential/{}", new.key);
    let then = ("_then", "/dashboard/clients/1");
    browser.post(&note, &[("note", "vault: kv/billing"), then]).await.has("vault: kv/billing");
    browser.post(&note, &[("note", &new.secret)]).await.is_refused(400, "note: expected the place");
    browser
        .post(&format!("/dashboard/do/revokeCredential/{}", client.key), &[then])
        .await
        .has("1 that have ended");
    app.login(&client).await.is_error(401, "Invalid credentials");
    assert!(!app.stands(&first.access).await);

    // Sessions, suspension and the danger zone.
    let pair = app.grant(&new).await;
    let page = browser.get("/dashboard/clients/1").await;
    let end = page.find(r#"action="(/dashboard/do/revokeSession/\d+)""#);
    browser.post(&end, &[then]).await.has("acknowledged");
    assert!(!app.stands(&pair.access).await);
    browser
        .post("/dashboard/do/suspendClient/1", &[("for", "2h"), ("reason", "a leak"), then])
        .await
        .has("a leak");
    app.login(&new).await.is_error(401, "Invalid credentials");
    browser.post("/dashboard/do/resumeClient/1", &[then]).await.has("active");
    let pair = app.grant(&new).await;
    browser
        .post("/dashboard/do/logOutClient/1", &[("_name", "billing"), then])
        .await
        .has("1 of 1 acknowledged");
    assert!(!app.stands(&pair.access).await);
    let then = ("_then", "/dashboard/clients");
    browser.post("/dashboard/do/deleteClient/1", &[("_name", "billing"), then]).await.lacks("billing</a>");
}

#[tokio::test]
async fn a_pasted_list_is_read_compared_and_saved() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    app.at("203.0.113.9").login(&client).await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let review = async |list: &str| browser.post("/dashboard/clients/1/allow", &[("list", list)]).await;
    let page = review("10.0.0.1/8\n10.0.0.0/33\nbanana").await;
    page.is_refused(400, "list: line 1: 10.0.0.1/8 has host bits set");
    page.has("line 2:").has("line 3:");
    let page = review("198.51.100.0/25\n198.51.100.128/25\n198.51.100.7 # inside\n").await;
    page.has("1 network, from 3 entries").has("+ 198.51.100.0/24").has("- 203.0.113.0/24");
    page.has("This shuts out addresses").has("203.0.113.9");
    let (list, version) =
        (page.find(r#"name="replace" value="([^"]*)""#), page.find(r#"name="_version" value="([^"]*)""#));
    let save = async |list: &str| {
        let fields = [("replace", list), ("_version", version.as_str()), ("_then", "/dashboard/clients/1")];
        browser.post("/dashboard/do/changeAllowlist/1", &fields).await
    };
    save(&list).await.has("198.51.100.0/24").has("acknowledged");
    app.at("203.0.113.9").login(&client).await.is_error(403, "IP address not authorized");
    let page = browser.get("/dashboard/clients/1").await;
    page.has("Refused in the last 24 hours").has("<code>203.0.113.9</code>");
    let offered = page.find(r#"name="list" value="([^"]*)""#);
    review(&offered).await.has("+ 203.0.113.9/32");
    // The page is of the list before.
    save("203.0.113.0/24").await.is_refused(412, "has changed meanwhile");
    review("").await.has("An empty list lets every address call").has("Every address may call");
    review("198.51.100.0/24").await.has("It is the present list").lacks("This shuts out");
    for (address, says) in [
        ("198.51.100.7", "is on 198.51.100.0/24"),
        ("203.0.113.9", "is on no entry"),
        ("x", "is no IP address"),
    ] {
        browser.get(&format!("/dashboard/clients/1?address={address}")).await.has(says);
    }
}

#[tokio::test]
async fn the_list_is_searched_filtered_and_read_in_pages() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for _ in 1..60 {
        app.client().await;
    }
    let browser = Browser::signed_in(&app, Role::Viewer).await;
    let page = browser.get("/dashboard/clients").await;
    page.has("/dashboard/clients/50\"").lacks("/dashboard/clients/51\"");
    let next = page.find(r#"href="([^"]*after=[^"]*)""#);
    browser.get(&next).await.has("/dashboard/clients/60\"").lacks("/dashboard/clients/50\"").lacks("after=");
    browser.get("/dashboard/clients?name=no-such").await.has("There is no such client");
    browser.get("/dashboard/clients?status=suspended").await.has("There is no such client");
    app.clock.advance(8 * 24 * HOUR);
    app.login(&client).await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    browser
        .get("/dashboard/clients?stale=7d")
        .await
        .has("/dashboard/clients/2\"")
        .lacks("/dashboard/clients/1\"");
}
