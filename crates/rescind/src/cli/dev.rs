//! `rescind dev`

use std::net::Ipv4Addr;

use rescind_admin::{self as admin, NewClient};
use rescind_base::{clock::Clock, random::Random};
use rescind_node::{
    app::App,
    config::{Config, Environment, Flags, LogLevel},
};
use tokio::signal::unix::SignalKind;

use super::{Failure, log, output::Output, runtime, signals};
use crate::{
    auth::{self, Caller},
    server::Server,
};

pub(super) fn run(listen: &str, output: &Output) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("rescind-dev-").tempdir()?;
    let flags = Flags {
        data_dir: Some(folder.path().to_owned()),
        listen: Some(listen.to_owned()),
        management_listen: Some("127.0.0.1:0".into()),
        ..Flags::default()
    };
    let mut config = Config::load(&Environment::default(), &flags)?;
    config.log.level = LogLevel::Warn;
    config.tokens.issuer = format!("http://{listen}");
    let _log = log::start(&config.log, &Environment::default())?;

    runtime()?.block_on(async {
        signals::ignore(&[SignalKind::user_defined1(), SignalKind::user_defined2()])?;
        // The last is for a terminal that is closed.
        let stop =
            signals::first_of(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])?;
        let app = App::open(&config, None, Clock::System, Random::System).await?;
        let server = Server::bind(app.clone(), &config).await?;
        let client =
            admin::create_client(&app, NewClient { name: "demo".into(), ..NewClient::default() }).await?;
        let caller = Caller::direct(Ipv4Addr::LOCALHOST.into());
        let grant = auth::login(&app, &client.api_key, &client.api_secret, &caller).await?;

        let (url, management) = (server.address()?, server.management_address()?);
        let folder = folder.path().display();
        let (key, secret) = (&client.api_key, &client.api_secret);
        let (token, refresh) = (folded(&grant.pair.access_token), folded(&grant.pair.refresh_token));
        output.text(&format!(
            r#"
  Rescind {version} at http://{url}

  NOT FOR PRODUCTION: its data is deleted when you stop it.

  Client 1 "demo" has an API key, its secret, and a pair of tokens. Paste this
  into another terminal, and then the commands below, one after the other.

    URL=http://{url}
    KEY={key}
    SECRET={secret}
    TOKEN={token}
    REFRESH={refresh}

  The token stands (200, and who it belongs to):

    curl -si $URL/verify -H "Authorization: Bearer $TOKEN"

  Refresh: the refresh token is traded for a new pair, once:

    curl -s $URL/auth/refresh -H "Content-Type: application/json" \
      -d "{{\"refresh_token\":\"$REFRESH\"}}"

  Log out: every token of the client is taken back, at once:

    curl -s -X POST $URL/auth/logout -H "Authorization: Bearer $TOKEN"

  The same token again (401):

    curl -si $URL/verify -H "Authorization: Bearer $TOKEN"

  Log in for new tokens:

    curl -s $URL/auth/login -H "Content-Type: application/json" \
      -d "{{\"username\":\"$KEY\",\"password\":\"$SECRET\"}}"

  Watch it:    curl -s http://{management}/metrics
  Operate it:  rescind client list --data-dir {folder}
  Stop it:     Ctrl-C
"#,
            version = env!("CARGO_PKG_VERSION"),
        ))?;
        Ok(server.run(stop).await?)
    })
}

/// A long word in lines that a shell joins again, of no more than a terminal's usual width.
fn folded(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(60));
    let rest = rest.as_bytes().chunks(78).map(String::from_utf8_lossy);
    [first.into()].into_iter().chain(rest).collect::<Vec<_>>().join("\\\n")
}
