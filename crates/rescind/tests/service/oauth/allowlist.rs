//! Allowlists at introspection: to which callers a token with an allowlist is active.

use rescind_admin::{self as admin, AllowChange, EnforcementChange, NewClient, NewVerifier};
use serde_json::json;

use crate::{
    app::{Client, TestApp},
    oauth::{INTROSPECTION, Who, access_token, ask, introspect, introspect_refresh, introspector},
    reply::Reply,
};

/// A service, and tokens of a client with an allowlist.
struct Allowlisted {
    app: TestApp,
    access: String,
    refresh: String,
    client: Client,
}

impl Allowlisted {
    async fn start() -> Allowlisted {
        let app = TestApp::start().await;
        let new = NewClient {
            name: "c".into(),
            allow: ["127.0.0.1", "2001:db8::/32", "10.0.0.0/8"].map(str::to_owned).into(),
            scopes: vec!["introspect".into()],
            ..NewClient::default()
        };
        let client = app.client_of(new).await;
        let pair = app.grant(&client).await;
        Allowlisted { app, access: pair.access, refresh: pair.refresh, client }
    }

    async fn told(&self, who: Who<'_>, client_ip: Option<&str>) -> Reply {
        let mut parameters = vec![("token", self.access.as_str())];
        parameters.extend(client_ip.map(|address| ("client_ip", address)));
        ask(&self.app, INTROSPECTION, who, &parameters).await
    }
}

async fn enforcing(app: &TestApp) -> Client {
    let scopes = vec!["introspect".into()];
    app.client_of(NewClient { name: "e".into(), scopes, enforces_allowlist: true, ..NewClient::default() })
        .await
}

// check 93
#[tokio::test]
async fn a_token_with_an_allowlist_is_active_to_those_alone_who_enforce_it() {
    let a = Allowlisted::start().await;
    let (asking, enforcing) = (introspector(&a.app).await, enforcing(&a.app).await);
    let (plain, bearer) = (access_token(&a.app, &asking).await, access_token(&a.app, &enforcing).await);
    let verifier = NewVerifier { name: "v".into(), share_hs256: false };
    let verifier = admin::create_verifier(&a.app.app, verifier).await.unwrap();
    // Its own client is no exception.
    for who in [
        Who::Basic(&asking),
        Who::Body(&asking),
        Who::Bearer(&plain),
        Who::Bearer(&verifier.token),
        Who::Basic(&a.client),
    ] {
        a.told(who, None).await.is_inactive();
    }
    introspect_refresh(&a.app, &a.client, &a.refresh).await.is_inactive();
    let expected = json!(["10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32"]);
    for who in [Who::Basic(&enforcing), Who::Body(&enforcing), Who::Bearer(&bearer)] {
        assert_eq!(a.told(who, None).await.json()["allow"], expected);
    }
    // What has no allowlist is told to all.
    let anywhere = a.app.grant(&a.app.client().await).await;
    assert_eq!(introspect(&a.app, Who::Basic(&asking), &anywhere.access).await.json()["active"], true);

    // It is a promise that can be given and taken back, and is heard of at once.
    for enforces_allowlist in [true, false] {
        let change = EnforcementChange { enforces_allowlist };
        let view = admin::change_enforcement(&a.app.app, asking.id, change).await.unwrap();
        assert_eq!(view.enforces_allowlist, enforces_allowlist);
        for who in [Who::Basic(&asking), Who::Bearer(&plain)] {
            assert_eq!(a.told(who, None).await.json()["active"], enforces_allowlist);
        }
    }
    let change = AllowChange { remove: vec!["127.0.0.1".into()], ..AllowChange::default() };
    admin::change_allowlist(&a.app.app, a.client.id, change).await.unwrap();
    let told = a.told(Who::Basic(&enforcing), None).await.json();
    assert_eq!(told["allow"], json!(["10.0.0.0/8", "2001:db8::/32"]));
}

// check 66, 68, 93
#[tokio::test]
async fn a_callers_address_that_is_told_is_matched_whoever_asks() {
    let a = Allowlisted::start().await;
    let (asking, enforcing) = (introspector(&a.app).await, enforcing(&a.app).await);
    let verifier = NewVerifier { name: "v".into(), share_hs256: false };
    let verifier = admin::create_verifier(&a.app.app, verifier).await.unwrap();
    for who in [Who::Basic(&asking), Who::Basic(&enforcing), Who::Bearer(&verifier.token)] {
        for good in
            ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7", "[2001:db8::7]:443", "10.1.2.3:80", "127.0.0.1"]
        {
            assert_eq!(a.told(who, Some(good)).await.json()["active"], true, "{good}");
        }
        for elsewhere in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db9::7", "::10.1.2.3", "11.0.0.0"] {
            a.told(who, Some(elsewhere)).await.is_inactive();
        }
        for unreadable in [
            "x",
            "10.1.2",
            "010.1.2.3",
            "0x0a.1.2.3",
            "10.1.2.3, 10.1.2.4",
            "10.0.0.0/8",
            "fe80::1%eth0",
            "unknown",
        ] {
            let reply = a.told(who, Some(unreadable)).await;
            reply.is_oauth_error(400, "invalid_request");
            assert!(reply.body.contains("client_ip must be one IP address"), "{reply:?}");
        }
    }
    // Empty, it is not there.
    a.told(Who::Basic(&asking), Some("")).await.is_inactive();
    let twice = [("token", a.access.as_str()), ("client_ip", "10.1.2.3"), ("client_ip", "10.1.2.3")];
    ask(&a.app, INTROSPECTION, Who::Basic(&asking), &twice).await.is_oauth_error(400, "invalid_request");
    // Where there is no allowlist, every address will do, but it must be one.
    let anywhere = a.app.grant(&a.app.client().await).await.access;
    for (address, status) in [("192.0.2.1", 200), ("x", 400)] {
        let parameters = [("token", anywhere.as_str()), ("client_ip", address)];
        assert_eq!(ask(&a.app, INTROSPECTION, Who::Basic(&asking), &parameters).await.status, status);
    }
}
