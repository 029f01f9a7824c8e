//! Chromium, driven by WebDriver, and what of Chromium's own protocol WebDriver has no words for.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use fantoccini::{
    Client, ClientBuilder, Locator,
    elements::Element,
    key::Key,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

/// What keeps Chromium from asking anything by itself. What it asks in spite of these goes to a proxy that is not there.
const QUIET: [&str; 12] = [
    "--headless=new",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>;127.0.0.1;localhost",
];

pub(crate) struct Browser {
    client: Client,
    /// The dashboard's origin.
    origin: String,
    axe: String,
    /// Where pictures are kept.
    pictures: PathBuf,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with a profile of its own. `axe` is axe-core's script.
    pub(crate) async fn start(origin: &str, axe: &Path, pictures: &Path) -> Result<Browser> {
        let profile = tempfile::tempdir()?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("chromedriver (Debian: chromium-driver)")?;
        let mut lines = BufReader::new(driver.stdout.take().context("its output")?).lines();
        let port = loop {
            let line = lines.next_line().await?.context("chromedriver ended")?;
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let mut arguments: Vec<String> = QUIET.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let Value::Object(capabilities) = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "performance": "ALL", "browser": "ALL" },
            "acceptInsecureCerts": true,
        }) else {
            bail!("an object")
        };
        let capabilities: Capabilities = capabilities;
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await?;
        tokio::fs::create_dir_all(pictures).await?;
        Ok(Browser {
            client,
            origin: origin.to_owned(),
            axe: tokio::fs::read_to_string(axe).await.context("axe-core")?,
            pictures: pictures.to_owned(),
            driver,
            _profile: profile,
        })
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        self.client.close().await?;
        self.driver.kill().await?;
        Ok(())
    }

    pub(crate) async fn open(&self, path: &str) -> Result<()> {
        self.go_to(&format!("{}{path}", self.origin)).await
    }

    pub(crate) async fn go_to(&self, url: &str) -> Result<()> {
        Ok(self.client.goto(url).await?)
    }

    pub(crate) async fn path(&self) -> Result<String> {
        Ok(self.client.current_url().await?.path().to_owned())
    }

    async fn find(&self, path: &str) -> Result<Element> {
        let found = self.client.wait().at_most(PATIENCE).every(POLL).for_element(Locator::XPath(path)).await;
        match found {
            Ok(element) => Ok(element),
            Err(error) => bail!("{path}: {error}, on the page:\n{}", self.text().await?),
        }
    }

    /// What the page shows.
    pub(crate) async fn text(&self) -> Result<String> {
        let text = self.client.execute("return document.body.innerText", vec![]).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page shows a text.
    pub(crate) async fn sees(&self, text: &str) -> Result<()> {
        self.until(text, |shown| shown.contains(text)).await
    }

    /// Waits until the page's text is as it should be.
    pub(crate) async fn until(&self, what: &str, good: impl Fn(&str) -> bool) -> Result<()> {
        let seen = async {
            // A page may be on its way.
            while !self.text().await.is_ok_and(|text| good(&text)) {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            bail!(
                "{what}: not seen on the page {}:\n{}",
                self.client.current_url().await?,
                self.text().await?
            );
        }
        Ok(())
    }

    /// Loads the page again and again, until it shows a text.
    pub(crate) async fn reload_until(&self, text: &str) -> Result<()> {
        let shown = async {
            while !self.text().await?.contains(text) {
                tokio::time::sleep(POLL).await;
                self.client.refresh().await?;
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, shown).await {
            Ok(shown) => shown,
            Err(_) => bail!("{text}: does not come on the page:\n{}", self.text().await?),
        }
    }

    /// The page's markup.
    pub(crate) async fn source(&self) -> Result<String> {
        Ok(self.client.source().await?)
    }

    /// The field with this label.
    pub(crate) async fn field(&self, label: &str) -> Result<Element> {
        let labels = format!("//label[starts-with(normalize-space(.), {})]", quoted(label));
        self.find(&format!(
            "//*[@id = {labels}/@for] | {labels}//*[self::input or self::select or self::textarea]"
        ))
        .await
    }

    /// Writes into the field with this label, in place of what it has.
    pub(crate) async fn fill(&self, label: &str, text: &str) -> Result<()> {
        let field = self.field(label).await?;
        field.clear().await?;
        Ok(field.send_keys(text).await?)
    }

    pub(crate) async fn press(&self, button: &str) -> Result<()> {
        Ok(self.find(&format!("//button[normalize-space(.) = {}]", quoted(button))).await?.click().await?)
    }

    /// Opens a part of the page that is folded.
    pub(crate) async fn unfold(&self, summary: &str) -> Result<()> {
        Ok(self.find(&format!("//summary[normalize-space(.) = {}]", quoted(summary))).await?.click().await?)
    }

    pub(crate) async fn follow(&self, link: &str) -> Result<()> {
        Ok(self.find(&format!("//a[normalize-space(.) = {}]", quoted(link))).await?.click().await?)
    }

    /// The text of the first element that a CSS selector finds.
    pub(crate) async fn text_of(&self, selector: &str) -> Result<String> {
        let wait = self.client.wait().at_most(PATIENCE).every(POLL);
        Ok(wait
            .for_element(Locator::Css(selector))
            .await
            .with_context(|| selector.to_owned())?
            .text()
            .await?)
    }

    /// Presses a key, as who has no mouse does.
    pub(crate) async fn key(&self, key: Key) -> Result<()> {
        let focused = self.client.active_element().await?;
        Ok(focused.send_keys(&key).await?)
    }

    /// Presses Tab until the focus is on an element with this text or label, and returns how often.
    pub(crate) async fn tab_to(&self, name: &str) -> Result<usize> {
        const NAME: &str = "const e = document.activeElement;
            return ((e.labels && e.labels.length ? e.labels[0].innerText : '') || e.getAttribute('aria-label') || e.innerText || '').trim();";
        for pressed in 1..200 {
            self.key(Key::Tab).await?;
            let focused = self.client.execute(NAME, vec![]).await?;
            if focused.as_str().is_some_and(|text| text.starts_with(name)) {
                return Ok(pressed);
            }
        }
        bail!("{name}: the Tab key does not come to it, on the page:\n{}", self.text().await?)
    }

    /// Types into what has the focus.
    pub(crate) async fn type_in(&self, text: &str) -> Result<()> {
        Ok(self.client.active_element().await?.send_keys(text).await?)
    }

    /// Looks at the page in light and dark, wide and narrow: keeps a picture of each, and fails on what axe-core finds
    /// serious, on a page that is wider than its window, and on what the browser complains of.
    pub(crate) async fn look(&self, name: &str) -> Result<()> {
        for scheme in ["light", "dark"] {
            let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
            self.chromium("Emulation.setEmulatedMedia", json!({ "features": features })).await?;
            for width in [1280, 390] {
                let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
                self.chromium("Emulation.setDeviceMetricsOverride", size).await?;
                self.keep_picture(&format!("{name}-{scheme}-{width}.png")).await?;
                let wide =
                    "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                let wide = self.client.execute(wide, vec![]).await?;
                ensure!(wide.as_f64().is_some_and(|by| by <= 0.0), "{name}: wider than {width} by {wide}");
                self.check_accessibility(&format!("{name}, {scheme}, {width} wide")).await?;
            }
        }
        self.chromium("Emulation.clearDeviceMetricsOverride", json!({})).await?;
        Ok(())
    }

    pub(crate) async fn keep_picture(&self, file: &str) -> Result<()> {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.chromium("Page.captureScreenshot", whole).await?;
        let text = picture["data"].as_str().context("a picture")?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes())?;
        Ok(tokio::fs::write(self.pictures.join(file), bytes).await?)
    }

    async fn check_accessibility(&self, what: &str) -> Result<()> {
        self.client.execute(&self.axe, vec![]).await?;
        let run = "const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then(found => done(found.violations), error => done(String(error)));";
        let found = self.client.execute_async(run, vec![]).await?;
        let found = found.as_array().with_context(|| format!("axe-core: {found}"))?;
        let serious = |rule: &&Value| matches!(rule["impact"].as_str(), Some("serious" | "critical"));
        let told: Vec<_> = found
            .iter()
            .filter(serious)
            .map(|rule| {
                let nodes = rule["nodes"].as_array().into_iter().flatten();
                let nodes: Vec<_> = nodes
                    .map(|node| format!("\n  {}\n    {}", node["html"], node["failureSummary"]))
                    .collect();
                format!("{}: {}{}", rule["id"], rule["help"], nodes.concat())
            })
            .collect();
        ensure!(told.is_empty(), "{what}: axe-core:\n{}", told.join("\n"));
        Ok(())
    }

    /// Every URL that the pages have asked for since the last call.
    pub(crate) async fn requested(&self) -> Result<Vec<String>> {
        let entries = self.log("performance").await?;
        let urls = entries.iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let event = &message["message"];
            let is_request = event["method"] == "Network.requestWillBeSent";
            is_request.then(|| event["params"]["request"]["url"].as_str().map(str::to_owned)).flatten()
        });
        Ok(urls.collect())
    }

    /// What the browser has complained of since the last call: a breach of the content policy, a script's error.
    pub(crate) async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.log("browser").await?;
        let entries =
            entries.iter().filter(|entry| matches!(entry["level"].as_str(), Some("WARNING" | "SEVERE")));
        Ok(entries.filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect())
    }

    async fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let answer = self.client.issue_cmd(Beyond { path: "se/log", body: json!({ "type": kind }) }).await?;
        Ok(answer.as_array().cloned().unwrap_or_default())
    }

    async fn chromium(&self, command: &str, parameters: Value) -> Result<Value> {
        let body = json!({ "cmd": command, "params": parameters });
        Ok(self.client.issue_cmd(Beyond { path: "goog/cdp/execute", body }).await?)
    }
}

/// A command of Chromium's driver that WebDriver does not have.
#[derive(Debug)]
struct Beyond {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Beyond {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// A text in an XPath expression, which has no escapes.
fn quoted(text: &str) -> String {
    let parts: Vec<_> = text.split('\'').map(|part| format!("'{part}'")).collect();
    match parts.as_slice() {
        [one] => one.clone(),
        _ => format!("concat({})", parts.join(", \"'\", ")),
    }
}
