//! The pages on what is no client's: the overview, the audit log, keys, verifiers, management tokens, settings.

use rescind_admin::{self as admin, NewClient};
use rescind_base::model::Role;

use super::browser::Browser;
use crate::app::TestApp;

const PAGES: [(&str, &str); 6] = [
    ("/dashboard/overview", "Live sessions"),
    ("/dashboard/audit", "Export as CSV"),
    ("/dashboard/refused", "Request id"),
    ("/dashboard/keys", "verifies"),
    ("/dashboard/cluster", "One process has the store"),
    ("/dashboard/settings", "tokens.access_ttl"),
];

async fn create(app: &TestApp, name: &str) -> u64 {
    let new = NewClient { name: name.into(), ..NewClient::default() };
    admin::create_client(&app.app, new).await.unwrap().client_id
}

// check 88
#[tokio::test]
async fn a_viewer_sees_every_page_and_no_form_that_changes_anything() {
    let app = TestApp::start().await;
    let (viewer, admin) =
        (Browser::signed_in(&app, Role::Viewer).await, Browser::signed_in(&app, Role::Admin).await);
    for (path, text) in PAGES {
        let page = viewer.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        page.has(text).lacks("/dashboard/do/").lacks("style=");
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    viewer.get("/dashboard/management-tokens").await.is_refused(403, "This needs the role admin");
    admin.get("/dashboard/management-tokens").await.has("/dashboard/do/createManagementToken");
    for path in ["/dashboard/overview", "/dashboard/audit.csv", "/dashboard/settings"] {
        let stranger = Browser::of(&app).get(path).await;
        assert!(stranger.path.starts_with("/dashboard/sign-in?then="), "{}", stranger.path);
    }
}

#[tokio::test]
async fn the_overview_draws_what_was_counted() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.clock.advance(10);
    app.app.note_trends();
    let pair = app.grant(&client).await;
    app.logout(&pair.access).await.is_logged_out();
    app.verify(&pair.access).await.is_error(401, "Invalid token");
    app.clock.advance(10);
    app.app.note_trends();
    let viewer = Browser::signed_in(&app, Role::Viewer).await;
    let page = viewer.get("/dashboard/overview").await;
    page.has("Denials by reason").has("revoked: 0.1/s now, 0.1/s at most.").has("granted: 0.1/s now");
    // Each chart is a picture with a name, and a table.
    assert_eq!(page.body.matches("role=\"img\"").count(), 8, "{}", page.body);
    assert_eq!(page.body.matches("As a table").count(), 8, "{}", page.body);
    // One login, and one verification that was refused, in this hour of the whole service.
    page.has("All nodes, 24 hours")
        .has("logins: 1 now, 1 at most. refreshes: 0 now, 0 at most. denials: 1 now, 1 at most.");
    viewer.get("/dashboard/overview?range=7d").await.has("in 7 days").has("All nodes, 7 days");
    viewer.get(&format!("/dashboard/clients/{}", client.id)).await.has("logins: 1 now, 1 at most.");
    viewer.get("/dashboard/overview?range=2h").await.is_refused(400, "range: expected one of");
}

// check 86
#[tokio::test]
async fn the_audit_log_is_filtered_read_in_pages_and_sent_as_a_file() {
    let app = TestApp::start().await;
    for i in 0..60 {
        create(&app, &format!("client {i}")).await;
    }
    let last = create(&app, "=1+1,<b>").await;
    let viewer = Browser::signed_in(&app, Role::Viewer).await;
    let newest = viewer.get("/dashboard/audit?kind=client_created").await;
    newest.has("=1+1,&lt;b&gt;").lacks("<b>").has("client 59").lacks("client 10");
    let older = newest.find(r#"rel="next" href="([^"]*)""#);
    assert!(older.contains("kind=client_created"), "{older}");
    let older = viewer.get(&older).await;
    older.has("client 10").has("client 0").lacks("client 59").lacks("rel=\"next\"").has("The newest");
    let of_client = viewer.get(&format!("/dashboard/audit?client={last}")).await;
    of_client.has("client created").has("credential created").lacks("client 59");
    viewer
        .get("/dashboard/audit?since=yesterday")
        .await
        .has("role=\"alert\"")
        .has("since: expected a duration");

    let file = viewer.get("/dashboard/audit.csv?kind=client_created").await;
    assert_eq!(file.headers["content-type"], "text/csv; charset=utf-8");
    let lines: Vec<_> = file.body.lines().collect();
    assert_eq!((lines.len(), lines[0]), (62, admin::CSV_HEADING));
    assert!(lines[1].contains("client 0") && lines[61].contains("\"'=1+1,<b>\""), "{}", lines[61]);
    viewer.get("/dashboard/audit.csv?kind=teleported").await.is_refused(400, "kind: ");
}

#[tokio::test]
async fn a_key_is_rotated_and_retired() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let admin = Browser::signed_in(&app, Role::Admin).await;
    let then = ("_then", "/dashboard/keys");
    // A key that others verify with is published first.
    let page =
        admin.post("/dashboard/do/rotateKey", &[("algorithm", "ES256"), ("publish_ahead", "2h"), then]).await;
    assert_eq!(page.path, "/dashboard/keys");
    page.has("ES256").has("stage published").lacks("/dashboard/do/retireKey");
    let page = admin.post("/dashboard/do/rotateKey", &[("algorithm", "HS256"), then]).await;
    let retire = page.has("stage verifies").find(r#"action="(/dashboard/do/retireKey/[^"]+)""#);
    let page = admin.post(&retire, &[then]).await;
    page.has("1 of 1 acknowledged").lacks(&retire);
    assert!(!app.stands(&pair.access).await);
    admin.post(&retire, &[then]).await.is_refused(404, "no such signing key");
}

// check 86
#[tokio::test]
async fn what_has_a_token_is_created_shown_once_and_revoked() {
    let app = TestApp::start().await;
    let admin = Browser::signed_in(&app, Role::Admin).await;
    for (page, create, prefix, revoke) in [
        ("/dashboard/cluster", "createVerifier", "rv_", "revokeVerifier"),
        ("/dashboard/management-tokens", "createManagementToken", "rm_", "revokeManagementToken"),
    ] {
        let then = ("_then", page);
        let created = admin
            .post(&format!("/dashboard/do/{create}"), &[("name", "<b>ci"), ("role", "viewer"), then])
            .await;
        let token = created.find(r#"<pre id="token"[^>]*>([^<]+)<"#);
        assert!(token.starts_with(prefix), "{token}");
        let listed = admin.get(page).await;
        listed.has("&lt;b&gt;ci").lacks("<b>ci").lacks(&token);
        let revoke = listed.find(&format!(r#"action="(/dashboard/do/{revoke}/\d+)""#));
        let page = admin.post(&revoke, &[then]).await;
        page.has("1 of 1 acknowledged").lacks("&lt;b&gt;ci");
    }
}

#[tokio::test]
async fn the_settings_say_where_each_was_set() {
    let app = TestApp::start().await;
    let viewer = Browser::signed_in(&app, Role::Viewer).await;
    let page = viewer.get("/dashboard/settings").await;
    page.has("<code>tokens.access_ttl</code>").has("<code>&quot;1h&quot;</code>").has("default");
}
