//! How administrators enrol, sign in and sign out.

use rescind_admin as admin;
use rescind_base::{model::Role, random::Random};

use super::browser::{Browser, FIRST, PASSWORD, Page, offered, secret};
use crate::app::TestApp;

/// A new administrator's browser, and the page of the link to enrol by.
async fn bob(app: &TestApp) -> (Browser, Page) {
    let new = admin::NewAdministrator { name: "bob".into(), role: Role::Viewer };
    let invited = admin::create_administrator(&app.app, new).await.unwrap();
    let browser = Browser::of(app);
    let page = browser.get(&invited.link).await;
    (browser, page)
}

async fn sign_in_as_bob(browser: &Browser, code: &str) -> Page {
    browser.post("/dashboard/sign-in", &[("name", "bob"), ("password", PASSWORD), ("code", code)]).await
}

async fn is_in(browser: &Browser) -> bool {
    browser.get("/dashboard/clients").await.path == "/dashboard/clients"
}

// check 80
#[tokio::test]
async fn the_first_administrator_enrols_by_a_link_that_is_good_once() {
    let app = TestApp::start().await;
    let browser = Browser::of(&app);
    let page = browser.get("/").await;
    assert!(page.path.starts_with("/dashboard/sign-in"), "{}", page.path);
    // Before the link is made, no link is good.
    let strange = format!("/dashboard/enrol/{}", "re_aaaaaaaa");
    browser.get(&strange).await.is_refused(404, "This link is unknown");
    let link = admin::first_link(&app.app).await.unwrap().unwrap();
    let page = browser.enrol(&link, Some("alice")).await;
    assert_eq!((page.status, page.path.as_str()), (200, FIRST));
    page.has("alice").has("admin");
    browser.get(&link).await.is_refused(404, "This link is unknown");
    assert_eq!(admin::first_link(&app.app).await.unwrap(), None);
    let all = app.app.store.administrators().await.unwrap();
    assert_eq!(all.len(), 1);
    let kept = format!("{:?}", all[0].proofs.as_ref().unwrap().password);
    assert!(kept.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !kept.contains(PASSWORD));
}

#[tokio::test]
async fn the_first_link_ends_after_an_hour_and_with_the_process() {
    let app = TestApp::start().await;
    let link = admin::first_link(&app.app).await.unwrap().unwrap();
    app.clock.advance(3599);
    assert_eq!(Browser::of(&app).get(&link).await.status, 200);
    app.clock.advance(1);
    Browser::of(&app).get(&link).await.is_refused(404, "has ended");
    let link = admin::first_link(&app.app).await.unwrap().unwrap();
    let app = app.restart().await;
    Browser::of(&app).get(&link).await.is_refused(404, "has ended");
}

#[tokio::test]
async fn a_wrong_name_password_or_code_has_one_answer_and_attempts_are_bounded() {
    let app = TestApp::start().await;
    Browser::signed_in(&app, Role::Viewer).await;
    let browser = Browser::of(&app);
    let attempt = async |name: &str, password: &str, code: &str| {
        browser.post("/dashboard/sign-in", &[("name", name), ("password", password), ("code", code)]).await
    };
    let refused = "The name, the password or the code is wrong, or the code was used before";
    for (name, password, code) in [
        ("nobody", PASSWORD, "000000"),
        ("viewer", "wrong password", "000000"),
        ("viewer", PASSWORD, "000000"),
    ] {
        attempt(name, password, code).await.is_refused(401, refused);
    }
    for _ in 0..8 {
        attempt("viewer", "wrong password", "000000").await.is_refused(401, refused);
    }
    let page = attempt("viewer", PASSWORD, "000000").await;
    page.is_refused(429, "too many attempts");
    assert_eq!(page.headers["retry-after"], "60");
    // Another name is not kept out.
    attempt("nobody", PASSWORD, "000000").await.is_refused(401, refused);
    app.app.audit.write(&app.app.store).await;
    let newest = rescind_base::model::EventFilter::newest(100);
    let records = app.app.store.records(newest).await.unwrap().records;
    let counted: u64 = records.iter().filter(|r| r.kind == "sign_in_refused").map(|r| r.count).sum();
    assert_eq!(counted, 13);
}

// check 82
#[tokio::test]
async fn a_sign_in_has_a_new_cookie_and_a_code_is_good_once() {
    let app = TestApp::start().await;
    let (browser, page) = bob(&app).await;
    let secret = secret(&page);
    assert_eq!(browser.enrol_by(&page, None).await.status, 200);
    let first = browser.cookies.borrow()["__Host-rescind"].clone();
    let sign_in = async || {
        let code = browser.code(&secret);
        sign_in_as_bob(&browser, &code).await
    };
    // The code of the enrolment was used.
    sign_in().await.is_refused(401, "was used before");
    app.clock.advance(30);
    assert_eq!(sign_in().await.path, FIRST);
    let second = browser.cookies.borrow()["__Host-rescind"].clone();
    assert_ne!(first, second);
    // A cookie that was set by somebody else does not become a sign-in.
    browser.cookies.borrow_mut().insert("__Host-rescind".into(), "chosen".into());
    app.clock.advance(30);
    sign_in().await;
    assert_ne!(browser.cookies.borrow()["__Host-rescind"], "chosen");
    assert_eq!(browser.post("/dashboard/sign-out", &[]).await.path, "/dashboard/sign-in");
    assert!(browser.cookies.borrow().is_empty());
    // The others are of other sign-ins.
    browser.cookies.borrow_mut().insert("__Host-rescind".into(), second);
    assert_eq!(browser.get("/dashboard/clients").await.path, "/dashboard/clients");
}

#[tokio::test]
async fn a_sign_in_ends_without_use_after_twelve_hours_and_with_the_administrators_role() {
    let app = TestApp::start().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    for _ in 0..23 {
        app.clock.advance(29 * 60);
        assert!(is_in(&browser).await);
    }
    // 11 h 7 min; without use for half an hour.
    app.clock.advance(31 * 60);
    assert!(!is_in(&browser).await);
    let browser = Browser::signed_in(&app, Role::Viewer).await;
    for _ in 0..26 {
        app.clock.advance(27 * 60);
        assert!(is_in(&browser).await);
    }
    // 11 h 42 min.
    app.clock.advance(18 * 60);
    assert!(!is_in(&browser).await);
    let browser = Browser::signed_in(&app, Role::Admin).await;
    let cookie = browser.cookies.borrow()["__Host-rescind"].clone();
    let id = app.app.store.administrators().await.unwrap().iter().find(|of| of.name == "admin").unwrap().id;
    assert!(is_in(&browser).await);
    admin::change_role(&app.app, id, admin::NewRole { role: Role::Viewer }).await.unwrap();
    assert!(!is_in(&browser).await);
    // What the store keeps of the cookie is no cookie, and it is swept.
    app.clock.advance(31 * 60);
    app.app.sweep().await.unwrap();
    assert_eq!(admin::signed_in(&app.app, &cookie).await.unwrap(), None);
}

#[tokio::test]
async fn an_administrator_changes_the_password_and_enrols_again() {
    let app = TestApp::start().await;
    let new = admin::NewAdministrator { name: "bob".into(), role: Role::Viewer };
    let invited = admin::create_administrator(&app.app, new).await.unwrap();
    let (browser, other) = (Browser::of(&app), Browser::of(&app));
    let page = browser.get(&invited.link).await;
    let first = secret(&page);
    browser.enrol_by(&page, None).await;
    app.clock.advance(30);
    let code = browser.code(&first);
    sign_in_as_bob(&other, &code).await;
    app.clock.advance(30);
    let change = async |password: &str, code: &str| {
        let new = "another good password";
        let fields = [("password", password), ("new", new), ("again", new), ("code", code)];
        browser.post("/dashboard/account/password", &fields).await
    };
    change("wrong password", &browser.code(&first)).await.is_refused(401, "is wrong");
    let page = change(PASSWORD, &browser.code(&first)).await;
    page.has("The password was changed");
    // This browser goes on, and the other one does not.
    assert_eq!(browser.get("/dashboard/account").await.path, "/dashboard/account");
    assert!(other.get("/dashboard/account").await.path.starts_with("/dashboard/sign-in"));
    app.clock.advance(30);
    let code = browser.code(&first);
    let fields = [("password", "another good password"), ("code", code.as_str())];
    let page = browser.post("/dashboard/account/enrolment", &fields).await;
    assert!(page.path.starts_with("/dashboard/enrol/re_"), "{}", page.path);
    let second = secret(&page);
    assert_ne!(first, second);
    assert_eq!(browser.enrol_by(&page, None).await.path, FIRST);
    app.clock.advance(30);
    let (old, new) = (browser.code(&first), browser.code(&second));
    for (code, status) in [(old, 401), (new, 200)] {
        assert_eq!(sign_in_as_bob(&Browser::of(&app), &code).await.status, status);
    }
}

#[tokio::test]
async fn a_removed_or_reset_administrator_is_out_at_once() {
    let app = TestApp::start().await;
    let admin = Browser::signed_in(&app, Role::Admin).await;
    for operation in ["resetAdministrator", "removeAdministrator"] {
        let role = if operation == "resetAdministrator" { Role::Viewer } else { Role::Operator };
        let browser = Browser::signed_in(&app, role).await;
        let all = app.app.store.administrators().await.unwrap();
        let id = all.iter().find(|of| of.name == role.name()).unwrap().id;
        let page = admin
            .post(&format!("/dashboard/do/{operation}/{id}"), &[("_then", "/dashboard/administrators")])
            .await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(browser.get("/dashboard/clients").await.path.starts_with("/dashboard/sign-in"));
        if operation == "resetAdministrator" {
            let link = page.find(r"(/dashboard/enrol/re_[a-z2-7]+)");
            assert_eq!(browser.enrol(&link, None).await.path, FIRST);
        }
    }
}

#[tokio::test]
async fn an_authenticator_is_good_under_the_next_master_key() {
    let app = TestApp::start().await;
    let (browser, page) = bob(&app).await;
    let secret = secret(&page);
    browser.enrol_by(&page, None).await;
    let origin = app.app.by_operator();
    let stopped = app.stop().await;
    let kept = admin::KeptKey::Folder;
    admin::rotate_master_key(stopped.config(), kept, origin, &Random::System).await.unwrap();
    let app = stopped.start_with(|_| {}).await;
    app.clock.advance(30);
    let browser = Browser::of(&app);
    assert_eq!(sign_in_as_bob(&browser, &browser.code(&secret)).await.path, FIRST);
}

#[tokio::test]
async fn who_looks_at_a_link_does_not_learn_the_authenticator_that_is_set_up_by_it() {
    let app = TestApp::start().await;
    let new = |name: &str| admin::NewAdministrator { name: name.into(), role: Role::Viewer };
    let invited = admin::create_administrator(&app.app, new("bob")).await.unwrap();
    let other = admin::create_administrator(&app.app, new("eve")).await.unwrap();
    let browser = Browser::of(&app);
    let (looked, page) = (browser.get(&invited.link).await, browser.get(&invited.link).await);
    assert_ne!(secret(&looked), secret(&page));
    // What is sealed for one link is of no use with another, nor is a text that nobody sealed.
    let code = browser.code(&secret(&page));
    let enrol = async |offered: &str| {
        let fields = [("password", PASSWORD), ("again", PASSWORD), ("code", &code), ("offered", offered)];
        browser.post(&other.link, &fields).await
    };
    for strange in [offered(&page).as_str(), "", "AAAA"] {
        enrol(strange).await.is_refused(400, "offered: expected what the page of the link has");
    }
    assert_eq!(browser.enrol_by(&page, None).await.path, FIRST);
    app.clock.advance(30);
    for (secret, status) in [(secret(&looked), 401), (secret(&page), 200)] {
        let code = browser.code(&secret);
        assert_eq!(sign_in_as_bob(&Browser::of(&app), &code).await.status, status);
    }
}

#[tokio::test]
async fn another_password_ends_a_link_that_was_asked_for_with_the_old_one() {
    let app = TestApp::start().await;
    let (browser, page) = bob(&app).await;
    browser.enrol_by(&page, None).await;
    let code = || {
        app.clock.advance(30);
        browser.code(&secret(&page))
    };
    let fields = [("password", PASSWORD), ("code", &code())];
    let link = browser.post("/dashboard/account/enrolment", &fields).await.path;
    assert_eq!(browser.get(&link).await.status, 200);
    let new = "another good password";
    let fields = [("password", PASSWORD), ("new", new), ("again", new), ("code", &code())];
    browser.post("/dashboard/account/password", &fields).await.has("The password was changed");
    browser.get(&link).await.is_refused(404, "This link is unknown");
}

#[tokio::test]
async fn codes_beside_the_right_password_are_bounded_for_a_name_whatever_the_network() {
    let app = TestApp::start().await;
    let (browser, page) = bob(&app).await;
    browser.enrol_by(&page, None).await;
    app.clock.advance(300);
    let attempt = async |network: u8, password: &str, code: &str| {
        let shown =
            admin::Shown { name: "bob".into(), password: password.to_owned().into(), code: code.to_owned() };
        admin::sign_in(&app.app, shown, [203, 0, 113, network].into()).await.is_ok()
    };
    // A stranger who does not know the password keeps nobody out.
    for network in 0..25 {
        assert!(!attempt(network, "wrong password", "x").await);
    }
    assert!(attempt(100, PASSWORD, &browser.code(&secret(&page))).await);
    for network in 0..25 {
        assert!(!attempt(network, PASSWORD, "x").await);
    }
    app.clock.advance(30);
    // 10 of 20 are forgiven by then.
    for network in 0..25 {
        attempt(network, PASSWORD, "x").await;
    }
    assert!(!attempt(101, PASSWORD, &browser.code(&secret(&page))).await);
    app.clock.advance(60);
    assert!(attempt(102, PASSWORD, &browser.code(&secret(&page))).await);
}
