//! A browser: it keeps cookies as RFC 6265bis has them, says where it comes from, and sends forms.

use std::{cell::RefCell, collections::BTreeMap};

use hmac::{Hmac, KeyInit, Mac};
use regex::Regex;
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{HeaderMap, SET_COOKIE},
    redirect::Policy,
};
use rescind::{admin, model::Role};
use sha1::Sha1;

use crate::app::TestApp;

pub(crate) const PASSWORD: &str = "correct horse battery";

/// The page after a sign-in.
pub(crate) const FIRST: &str = "/dashboard/overview";

pub(crate) struct Browser<'a> {
    app: &'a TestApp,
    http: reqwest::Client,
    pub(crate) cookies: RefCell<BTreeMap<String, String>>,
}

/// A page, after all redirections.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Page {
    /// The text of the first match's first group.
    #[track_caller]
    pub(crate) fn find(&self, pattern: &str) -> String {
        let found = Regex::new(pattern).unwrap().captures(&self.body);
        found.unwrap_or_else(|| panic!("{pattern} is not in {}", self.body))[1].replace("&amp;", "&")
    }

    #[track_caller]
    pub(crate) fn has(&self, text: &str) -> &Page {
        assert!(self.body.contains(text), "{text:?} is not in {} {}", self.status, self.body);
        self
    }

    #[track_caller]
    pub(crate) fn lacks(&self, text: &str) -> &Page {
        assert!(!self.body.contains(text), "{text:?} is in {}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16, text: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        self.has("id=\"refused\"").has(text);
    }
}

impl<'a> Browser<'a> {
    pub(crate) fn of(app: &'a TestApp) -> Browser<'a> {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Browser { app, http, cookies: RefCell::default() }
    }

    /// The browser of a new administrator who has signed in.
    pub(crate) async fn signed_in(app: &'a TestApp, role: Role) -> Browser<'a> {
        let name = role.name();
        let new = admin::NewAdministrator { name: name.into(), role };
        let invited = admin::create_administrator(&app.app, new).await.unwrap();
        let browser = Browser::of(app);
        let page = browser.enrol(&invited.link, None).await;
        assert_eq!(page.status, 200, "{}", page.body);
        browser
    }

    /// Enrols by a link, as the page of the link says.
    pub(crate) async fn enrol(&self, link: &str, name: Option<&str>) -> Page {
        let page = self.get(link).await;
        self.enrol_by(&page, name).await
    }

    /// Enrols by the page of a link.
    pub(crate) async fn enrol_by(&self, page: &Page, name: Option<&str>) -> Page {
        let (code, offered) = (self.code(&secret(page)), offered(page));
        let name = name.map_or_else(|| page.find(r#"name="name" value="([^"]*)""#), str::to_owned);
        let mut fields = vec![("name", name.as_str()), ("password", PASSWORD), ("again", PASSWORD)];
        fields.extend([("code", code.as_str()), ("offered", &offered)]);
        self.post(&page.path, &fields).await
    }

    /// The code that an authenticator shows now.
    pub(crate) fn code(&self, secret: &str) -> String {
        code(secret, self.app.clock.now())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.app.management);
        let request = self.http.request(method, url);
        let cookies = self.cookies.borrow();
        let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { request } else { request.header("cookie", pairs.join("; ")) }
    }

    pub(crate) async fn get(&self, path: &str) -> Page {
        let request = self.request(Method::GET, path).header("sec-fetch-site", "same-origin");
        self.follow(path, request).await
    }

    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.follow(path, self.form(path, fields)).await
    }

    /// A form of a page of the dashboard.
    pub(crate) fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.request(Method::POST, path)
            .header("origin", format!("http://{}", self.app.management))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }

    pub(crate) async fn follow(&self, path: &str, request: RequestBuilder) -> Page {
        let (mut path, mut request) = (path.to_owned(), request);
        for _ in 0..10 {
            let response = request.send().await.unwrap();
            for line in response.headers().get_all(SET_COOKIE) {
                self.keep(line.to_str().unwrap());
            }
            if response.status() != StatusCode::SEE_OTHER {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                return Page { status, path, headers, body: response.text().await.unwrap() };
            }
            path = response.headers()["location"].to_str().unwrap().to_owned();
            request = self.request(Method::GET, &path).header("sec-fetch-site", "same-origin");
        }
        panic!("it goes on and on: {path}");
    }

    fn keep(&self, line: &str) {
        let (pair, attributes) = line.split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        // check 81
        assert!(name.starts_with("__Host-"), "{line}");
        for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
            assert!(attributes.split("; ").any(|given| given == attribute), "{line}");
        }
        assert!(!attributes.contains("Domain"), "{line}");
        match attributes.contains("Max-Age=0") {
            true => _ = self.cookies.borrow_mut().remove(name),
            false => _ = self.cookies.borrow_mut().insert(name.into(), value.into()),
        }
    }
}

/// The secret for an authenticator that a page shows.
pub(crate) fn secret(page: &Page) -> String {
    page.find(r#"<code class="secret">([^<]*)<"#).replace(' ', "")
}

/// What a page has of that secret for the enrolment.
pub(crate) fn offered(page: &Page) -> String {
    page.find(r#"name="offered" value="([^"]*)""#)
}

/// RFC 6238, written once more.
fn code(secret: &str, now: u64) -> String {
    let key = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let hash = Hmac::<Sha1>::new_from_slice(&key).unwrap().chain_update((now / 30).to_be_bytes());
    let hash = hash.finalize().into_bytes();
    let at = usize::from(hash[19] & 15);
    let number = u32::from_be_bytes(hash[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}
