//! `rescind dev`

use std::net::Ipv4Addr;

use super::{Failure, log, output::Output, runtime, serve::stop_signal};
use crate::{
    admin::{self, NewClient},
    app::App,
    auth::{self, Caller},
    clock::Clock,
    config::{Config, Environment, Flags, LogLevel},
    random::Random,
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
    let _traces = log::start(&config.log, &Environment::default());

    runtime()?.block_on(async {
        let stop = stop_signal()?;
        let app = App::open(&config, None, Clock::System, Random::System).await?;
        let server = Server::bind(app.clone(), &config).await?;
        let client = admin::create_client(&app, NewClient { name: "demo".into(), ..NewClient::default() }).await?;
        let caller = Caller::direct(Ipv4Addr::LOCALHOST.into());
        let grant = auth::login(&app, &client.api_key, &client.api_secret, &caller).await?;

        let url = format!("http://{}", server.address()?);
        let folder = folder.path().display();
        let (key, secret, token) = (&client.api_key, &client.api_secret, &grant.pair.access_token);
        output.text(&format!(
            r#"
  Rescind {version} at {url}

  NOT FOR PRODUCTION: its data is in {folder} and is deleted when you stop it.

  Client 1 "demo"
    API key       {key}
    API secret    {secret}
    access token  {token}

  Paste these into another terminal, one after the other.

  The token stands (200, and who it belongs to):

    curl -si {url}/verify -H "Authorization: Bearer {token}"

  Log out: every token of the client is taken back, at once:

    curl -s -X POST {url}/auth/logout -H "Authorization: Bearer {token}"

  The same token again (401):

    curl -si {url}/verify -H "Authorization: Bearer {token}"

  Log in for new tokens:

    curl -s {url}/auth/login -H "Content-Type: application/json" -d '{{"username":"{key}","password":"{secret}"}}'

  Operate it:  rescind client list --data-dir {folder}
  Stop it:     Ctrl-C
"#,
            version = env!("CARGO_PKG_VERSION"),
        ))?;
        Ok(server.run(stop).await?)
    })
}
