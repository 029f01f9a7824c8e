//! Browsers of an app's dashboard.

#[path = "../../fixture/browser.rs"]
mod fixture;

use rescind_admin as admin;
use rescind_base::model::Role;

pub(crate) use fixture::{Browser, FIRST, PASSWORD, Page, offered, secret};

use crate::app::TestApp;

impl Browser {
    pub(crate) fn of(app: &TestApp) -> Browser {
        Browser::new(format!("http://{}", app.management), app.clock.clone())
    }

    /// The browser of a new administrator who has signed in.
    pub(crate) async fn signed_in(app: &TestApp, role: Role) -> Browser {
        let name = role.name();
        let new = admin::NewAdministrator { name: name.into(), role };
        let invited = admin::create_administrator(&app.app, new).await.unwrap();
        let browser = Browser::of(app);
        let page = browser.enrol(&invited.link, None).await;
        assert_eq!(page.status, 200, "{}", page.body);
        browser
    }
}
