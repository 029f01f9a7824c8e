//! The dashboard in a real browser: `dashboard BINARY AXE [PICTURES]`, run by `run.py`.
//!
//! One walk through what an administrator does, from the first link to the reason of a refusal; one by keys alone. On every
//! page axe-core finds nothing serious, in light and dark, wide and narrow; pictures of each are kept. No page asks anything
//! of another origin, and the browser complains of nothing.

#![expect(clippy::print_stdout, reason = "what was done is what it tells")]

mod browser;
mod server;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fantoccini::key::Key;
use rustix::time::{ClockId, clock_gettime};

use browser::Browser;
use server::{Server, code};

const NAME: &str = "ada";
const PASSWORD: &str = "correct horse battery staple";
/// A name that would be a script if it were not text.
const HOSTILE: &str = "<script>alert(1)</script>\"'&";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let usage = "usage: dashboard BINARY AXE [PICTURES]";
    let (binary, axe) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let pictures = arguments.next().unwrap_or_else(|| "target/dashboard".into());
    let mut server = Server::start(&binary).await?;
    let browser = Browser::start(&server.management, &axe, &pictures).await?;
    let walked = walk(&mut server, &browser).await;
    if walked.is_err() {
        browser.keep_picture("failed.png").await?;
    }
    browser.close().await?;
    walked?;
    server.stop().await?;
    println!("pictures: {}", pictures.display());
    Ok(())
}

fn done(what: &str) {
    println!("ok     {what}");
}

async fn walk(server: &mut Server, browser: &Browser) -> Result<()> {
    let secret = enrol(server, browser).await?;
    clients(server, browser).await?;
    verifiers(browser).await?;
    pages(browser).await?;
    by_keys(browser, &secret).await?;
    quiet(server, browser).await
}

/// The first administrator comes by a link, and is signed in.
async fn enrol(server: &mut Server, browser: &Browser) -> Result<String> {
    browser.go_to(&server.first_link().await?).await?;
    browser.sees("Authenticator").await?;
    browser.look("enrolment").await?;
    let secret = browser.text_of(".secret").await?;
    browser.fill("Name", NAME).await?;
    browser.fill("New password", PASSWORD).await?;
    browser.fill("The password again", PASSWORD).await?;
    browser.fill("Code", &code(&secret, now())?).await?;
    browser.press("Set up and sign in").await?;
    browser.sees("Live sessions").await?;
    done("the first administrator enrols by a link");
    Ok(secret)
}

/// A client from its creation to the reason why its token is refused.
async fn clients(server: &Server, browser: &Browser) -> Result<()> {
    browser.follow("Clients").await?;
    browser.sees("There is no such client.").await?;
    browser.follow("New client").await?;
    browser.sees("Create").await?;
    browser.look("new-client").await?;
    browser.fill("Name", HOSTILE).await?;
    browser.press("Create").await?;
    browser.sees("never again").await?;
    browser.look("secret").await?;
    let old = (browser.text_of("#key").await?, browser.text_of("#secret").await?);
    browser.follow("I have stored it").await?;
    browser.sees("Danger zone").await?;
    let client = browser.path().await?;
    ensure!(!browser.source().await?.contains(&old.1), "the secret is shown again");
    done("a client is created, and its secret is shown once");

    browser.unfold("Rotate").await?;
    browser.press("Rotate").await?;
    browser.sees("never again").await?;
    let new = (browser.text_of("#key").await?, browser.text_of("#secret").await?);
    browser.follow("I have stored it").await?;
    browser.sees("It was never used.").await?;
    let (status, token) = server.login(&old.0, &old.1).await?;
    ensure!(status == 200 && server.login(&new.0, &new.1).await?.0 == 200, "both secrets are good");
    // Uses are written every few seconds.
    browser.reload_until("It was used last at").await?;
    browser.sees("from 127.0.0.1").await?;
    browser.look("client").await?;
    browser.press("End it now").await?;
    browser.sees("The old secret has ended").await?;
    ensure!(server.login(&old.0, &old.1).await?.0 == 401, "the old secret is still good");
    ensure!(server.verify(&token).await?.0 == 401, "a token of the old secret is still good");
    done("a secret is rotated; the old one is seen in use, and ended");

    browser.unfold("Change the allowlist").await?;
    browser.fill("Networks", "192.0.2.0/25, 192.0.2.128/25 # the office").await?;
    browser.press("Read the list").await?;
    browser.sees("This shuts out addresses that were seen in the last 24 hours").await?;
    browser.sees("127.0.0.1").await?;
    browser.sees("192.0.2.0/24").await?;
    browser.look("allowlist").await?;
    browser.follow("Leave it as it is").await?;
    browser.sees("Every address may call.").await?;
    done("an allowlist is read, merged, and warned of");

    let (_, token) = server.login(&new.0, &new.1).await?;
    ensure!(server.verify(&token).await?.0 == 200, "the token is good");
    browser.open(&client).await?;
    browser.fill("The client's name", HOSTILE).await?;
    browser.press("Revoke all tokens").await?;
    browser.sees("All tokens are revoked.").await?;
    browser.sees("1 of 1 acknowledged").await?;
    browser.look("revoked").await?;
    let (status, request) = server.verify(&token).await?;
    ensure!(status == 401, "the token is good after it was revoked");
    done("all tokens are revoked, with a receipt, and the token is refused");

    browser.follow("Why refused?").await?;
    browser.fill("Request id", &request).await?;
    browser.press("Explain").await?;
    browser.sees("client logged out").await?;
    browser.look("refused").await?;
    done("the reason is found by the id of the request");
    Ok(())
}

/// Every page is looked at.
async fn pages(browser: &Browser) -> Result<()> {
    for (link, name, text) in [
        ("Overview", "overview", "As a table"),
        ("Clients", "clients", HOSTILE),
        ("Audit", "audit", "Export as CSV"),
        ("Keys", "keys", "A new key"),
        ("Nodes and verifiers", "cluster", "A new verifier"),
        ("Settings", "settings", "server.listen"),
        ("Tokens", "tokens", "A new token"),
        ("Administrators", "administrators", NAME),
        (NAME, "account", "Your account"),
    ] {
        browser.follow(link).await?;
        // The charts begin some seconds after the start.
        browser.reload_until(text).await?;
        browser.look(name).await?;
        done(&format!("the page {name}"));
    }
    Ok(())
}

/// A verifier's token is shown once; a verifier is revoked.
async fn verifiers(browser: &Browser) -> Result<()> {
    browser.follow("Nodes and verifiers").await?;
    browser.fill("Name", HOSTILE).await?;
    browser.press("Create").await?;
    browser.sees("Shown once").await?;
    browser.look("shown-once").await?;
    browser.follow("I have stored it").await?;
    browser.sees("Nodes and verifiers").await?;
    browser.sees(HOSTILE).await?;
    browser.unfold(&format!("Revoke {HOSTILE}")).await?;
    browser.press("Revoke it").await?;
    browser.sees("The verifier is revoked.").await?;
    browser.sees("1 of 1 acknowledged").await?;
    done("a verifier is created and revoked");
    Ok(())
}

/// No page has asked anything of another origin, and the browser has complained of nothing.
async fn quiet(server: &Server, browser: &Browser) -> Result<()> {
    let requested = browser.requested().await?;
    ensure!(requested.len() > 20, "the browser's log is not read: {requested:?}");
    let ours = format!("{}/", server.management);
    // The browser's first page is a part of it, and not asked for over a network.
    let is_asked = |url: &&String| ["http", "ws", "ftp"].iter().any(|scheme| url.starts_with(scheme));
    let elsewhere: Vec<_> = requested.iter().filter(is_asked).filter(|url| !url.starts_with(&ours)).collect();
    ensure!(elsewhere.is_empty(), "asked elsewhere: {elsewhere:?}");
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "the browser complains: {complaints:?}");
    done("no request has left the machine, and the browser complains of nothing");
    Ok(())
}

/// What has a keyboard and no mouse.
async fn by_keys(browser: &Browser, secret: &str) -> Result<()> {
    browser.tab_to("Sign out").await?;
    browser.key(Key::Enter).await?;
    browser.sees("Sign in").await?;
    browser.look("sign-in").await?;
    // A code is good once: this is the next one.
    let next = now() + 30;
    browser.open("/dashboard/keys").await?;
    browser.sees("Password").await?;
    browser.type_in(NAME).await?;
    browser.tab_to("Password").await?;
    browser.type_in(PASSWORD).await?;
    browser.tab_to("Code").await?;
    browser.type_in(&code(secret, next)?).await?;
    browser.key(Key::Enter).await?;
    browser.sees("A new key").await?;
    browser.tab_to("Algorithm").await?;
    browser.type_in("ES").await?;
    browser.tab_to("Rotate").await?;
    browser.key(Key::Enter).await?;
    browser.sees("There is a new key.").await?;
    browser.sees("ES256").await?;
    browser.look("keys-rotated").await?;
    done("an administrator signs in and rotates a key by the keyboard alone");
    Ok(())
}

fn now() -> u64 {
    clock_gettime(ClockId::Realtime).tv_sec.cast_unsigned()
}
