//! Forms do what operations of the admin API do, and no more.

use reqwest::Method;
use rescind_admin as admin;
use rescind_base::model::Role;
use serde_json::{Value, json};

use super::browser::{Browser, FIRST};
use crate::{app::TestApp, raw};

/// Every operation that changes something, by the document: its id, method, path and role.
fn changes() -> Vec<(String, String, String, String)> {
    let document = rescind::http::document();
    let all = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, operation)| {
            let text = |name: &str| operation[name].as_str().unwrap().to_owned();
            (
                text("operationId"),
                method.to_uppercase(),
                path.clone(),
                text("x-role"),
                operation["x-changes"] == true,
            )
        })
    });
    let changes = all.filter(|(.., changes)| *changes);
    changes.map(|(id, method, path, role, _)| (id, method, path, role)).collect()
}

/// What a viewer must not change.
async fn state(app: &TestApp) -> Value {
    let store = &app.app.store;
    let events = store.records(rescind_base::model::EventFilter::newest(1000)).await.unwrap().records;
    // An attempt that was refused is no change.
    let events: Vec<_> = events.iter().map(|record| (record.id, record.kind.clone())).collect();
    json!([
        format!("{:?}", store.clients().await.unwrap()),
        format!("{:?}", store.administrators().await.unwrap()),
        format!("{:?}", store.management_tokens().await.unwrap().iter().map(|t| t.id).collect::<Vec<_>>()),
        format!("{:?}", store.keys().await.unwrap()),
        events,
    ])
}

// check 88
#[tokio::test]
async fn a_viewer_changes_nothing_by_any_operation_or_form() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let browser = Browser::signed_in(&app, Role::Viewer).await;
    let new =
        admin::NewManagementToken { name: "v".into(), role: Role::Viewer, clients: vec![], expires_in: None };
    let token = admin::create_management_token(&app.app, new).await.unwrap().token;
    let kid = admin::keys(&app.app).await.unwrap()[0].kid.clone();
    let before = state(&app).await;
    // Ids that there are, so that a refusal is not for want of them.
    let parameter = |path: &str| match path {
        path if path.contains("{kid}") => kid.clone(),
        path if path.contains("{api_key}") => client.key.clone(),
        path if path.contains('{') => "1".into(),
        _ => String::new(),
    };
    let all = changes();
    assert!(all.len() > 30, "{all:?}");
    for (id, method, path, _) in all {
        let parameter = parameter(&path);
        let name = path.split(['{', '}']).nth(1).unwrap_or("none");
        let url = format!("http://{}{}", app.management, path.replace(&format!("{{{name}}}"), &parameter));
        let method: Method = method.parse().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = json!({"name": "x", "role": "admin", "api_key": client.key, "api_secret": client.secret});
        let mut request = http.request(method.clone(), url).bearer_auth(&token);
        if method != Method::DELETE {
            request = request.json(&body);
        }
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 403, "{id}: {}", refused.text().await.unwrap());
        let form = match parameter.as_str() {
            "" => format!("/dashboard/do/{id}"),
            parameter => format!("/dashboard/do/{id}/{parameter}"),
        };
        let fields = [
            ("name", "x"),
            ("_name", "test"),
            ("role", "admin"),
            ("api_key", client.key.as_str()),
            ("api_secret", client.secret.as_str()),
            ("enforces_allowlist", "true"),
            ("in", "1d"),
            ("share_hs256", "true"),
        ];
        let page = browser.post(&form, &fields).await;
        page.is_refused(403, "This needs the role");
    }
    // The list is not even read.
    browser.post("/dashboard/clients/1/allow", &[("list", "x")]).await.is_refused(403, "This needs the role");
    browser
        .post("/dashboard/do/changeAllowlist/1", &[("add", "x")])
        .await
        .is_refused(403, "This needs the role");
    app.app.audit.write(&app.app.store).await;
    assert_eq!(state(&app).await, before);
    assert!(app.stands(&pair.access).await);
}

#[tokio::test]
async fn a_viewer_sees_no_form_but_filters_and_its_own_account() {
    let app = TestApp::start().await;
    app.client().await;
    let browser = Browser::signed_in(&app, Role::Viewer).await;
    for path in ["/dashboard/clients", "/dashboard/clients/1", "/dashboard/clients/new"] {
        browser.get(path).await.lacks("/dashboard/do/");
    }
    browser
        .get("/dashboard/administrators")
        .await
        .is_refused(403, "This needs the role admin, and your role is viewer");
}

#[tokio::test]
async fn an_operation_leaves_the_same_row_by_a_form_the_api_and_the_socket() {
    let app = TestApp::start().await;
    let browser = Browser::signed_in(&app, Role::Admin).await;
    let new =
        admin::NewManagementToken { name: "t".into(), role: Role::Admin, clients: vec![], expires_in: None };
    let token = admin::create_management_token(&app.app, new).await.unwrap().token;
    let mut refused = vec![];
    for id in 1..=3 {
        let client = app.client().await;
        let pair = app.grant(&client).await;
        let path = format!("/admin/v1/clients/{id}/logout");
        match id {
            1 => {
                let fields = [
                    ("_name", "test"),
                    ("_then", "/dashboard/clients/1"),
                    ("_done", "All tokens are revoked."),
                ];
                let page = browser.post("/dashboard/do/logOutClient/1", &fields).await;
                assert_eq!(page.path, "/dashboard/clients/1");
                page.has("All tokens are revoked.").has("1 of 1 acknowledged");
                // It is told once.
                browser.get("/dashboard/clients/1").await.lacks("1 of 1 acknowledged");
            }
            2 => {
                let http = reqwest::Client::builder().no_proxy().build().unwrap();
                let url = format!("http://{}{path}", app.management);
                assert_eq!(http.post(url).bearer_auth(&token).send().await.unwrap().status(), 200);
            }
            _ => assert_eq!(raw::local(&app.socket(), "POST", &path, "").await.status, 200),
        }
        refused.push(app.stands(&pair.access).await);
    }
    assert_eq!(refused, [false, false, false]);
    let newest = rescind_base::model::EventFilter::newest(100);
    let records = app.app.store.records(newest).await.unwrap().records;
    let rows: Vec<_> = records.iter().filter(|r| r.kind == "client_logged_out").collect();
    let same: Vec<_> = rows.iter().map(|r| (r.by.as_str(), r.client, r.detail.clone(), r.count)).collect();
    assert_eq!(
        same,
        [("operator", Some(1), None, 1), ("operator", Some(2), None, 1), ("operator", Some(3), None, 1)]
    );
    assert_eq!(rows[0].operator.as_deref(), Some("administrator 1 (admin)"));
    assert!(rows.iter().all(|row| row.request.is_some()));
}

#[tokio::test]
async fn a_form_with_what_is_wrong_says_so_and_changes_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let browser = Browser::signed_in(&app, Role::Admin).await;
    for (path, fields, status, says) in [
        ("logOutClient/1", &[("_name", "another")][..], 400, "not the client's name"),
        ("logOutClient/1", &[], 400, "not the client's name"),
        ("deleteClient/1", &[], 400, "not the client's name"),
        ("logOutClient/7", &[("_name", "test")], 404, "no such client"),
        ("suspendClient/1", &[("for", "soon")], 400, "for: expected a duration such as 30s"),
        ("updateClient/1", &[("allow", "10.0.0.1/8")], 400, "allow: line 1: 10.0.0.1/8 has host bits set"),
        ("renameClient/1", &[("name", "x"), ("_version", "00")], 412, "has changed meanwhile"),
        (
            "createManagementToken",
            &[("name", "x"), ("role", "admin"), ("clients", "one")],
            400,
            "clients: expected a whole number",
        ),
        ("noSuchOperation", &[], 404, "No such path"),
        ("listClients", &[], 404, "No such path"),
    ] {
        let page = browser.post(&format!("/dashboard/do/{path}"), fields).await;
        page.is_refused(status, says);
    }
    // Next to the form, if a script has sent it.
    let form =
        browser.form("/dashboard/do/logOutClient/1", &[]).header("hx-source", "form#form-logOutClient-1");
    let page = browser.follow("", form).await;
    assert_eq!(page.headers["hx-retarget"], "#form-logOutClient-1 .outcome");
    assert!(app.stands(&pair.access).await);
    // A creation that is sent twice, as by a reload, creates once.
    let fields = [("name", "new"), ("_once", "0123456789abcdef")];
    browser.post("/dashboard/do/createClient", &fields).await.has("rs_");
    let page = browser.post("/dashboard/do/createClient", &fields).await;
    page.is_refused(409, "Its secret is not shown again");
    assert_eq!(app.app.store.clients().await.unwrap().len(), 2);
}

#[tokio::test]
async fn after_a_form_no_page_of_another_origin_is_shown() {
    let app = TestApp::start().await;
    app.client().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    for then in [
        "//evil.example",
        "https://evil.example",
        "/dashboard//evil.example",
        "/dashboard/../x",
        "/elsewhere",
        "/dashboard\r\nx: y",
    ] {
        let page = browser.post("/dashboard/do/resumeClient/1", &[("_then", then)]).await;
        assert_eq!(page.path, FIRST, "{then:?}");
    }
}

#[tokio::test]
async fn a_script_is_told_to_load_a_page_that_is_another_one_than_it_is_on() {
    let app = TestApp::start().await;
    app.client().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let ask = async |then: &str| {
        let form = browser.form("/dashboard/do/resumeClient/1", &[("_then", then)]);
        let here = format!("http://{}/dashboard/clients/1?address=x", app.management);
        browser.follow("", form.header("hx-request", "true").header("hx-current-url", here)).await
    };
    let page = ask("/dashboard/clients/1").await;
    assert_eq!((page.status, page.path.as_str()), (200, "/dashboard/clients/1"));
    page.has("Done.");
    let page = ask("/dashboard/clients").await;
    assert_eq!((page.status, page.body.as_str()), (200, ""));
    assert_eq!(page.headers["hx-redirect"], "/dashboard/clients");
    browser.get("/dashboard/clients").await.has("Done.");
}

#[tokio::test]
async fn a_list_of_numbers_is_read_as_numbers() {
    let app = TestApp::start().await;
    for _ in 0..2 {
        app.client().await;
    }
    let browser = Browser::signed_in(&app, Role::Admin).await;
    let fields = [("name", "ci"), ("role", "operator"), ("clients", "1, 2"), ("expires_in", "")];
    browser.post("/dashboard/do/createManagementToken", &fields).await.has("rm_");
    let tokens = app.app.store.management_tokens().await.unwrap();
    assert_eq!((tokens[0].clients.clone(), tokens[0].expires_at), (Some(vec![1, 2]), None));
}
