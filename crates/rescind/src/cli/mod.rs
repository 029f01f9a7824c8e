//! The command line.
//!
//! Output: data goes to standard output (as one JSON value with `--json`), prose and questions to
//! standard error. Exit codes: 0 done, 1 failed, 2 bad usage; `status`: 0 ready, 1 error, 2 not ready.

mod admin;
mod administrator;
mod audit;
mod backend;
mod client;
mod completions;
mod config;
mod credential;
mod db;
mod dev;
mod explain;
mod log;
mod lookup;
mod management_token;
mod master_key;
mod networks;
mod output;
mod pepper;
mod proxy_config;
mod serve;
mod session;
mod signals;
mod webhook;

use std::{
    io::{ErrorKind, Write, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Id, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use rescind_base::{files::permissions, secret};
use rescind_node::config::{Config, Environment, Flags};

use backend::Backend;
use output::{Output, prose};

/// A token service for APIs whose callers are machines: one logout revokes every token, at once.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Args)]
struct Global {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the store, the master key and the management socket [default: ./rescind-data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print one JSON value and nothing else
    #[arg(long, global = true)]
    json: bool,
    /// Do not ask before destroying something
    #[arg(long, global = true)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try Rescind: run a temporary service with one client, and print commands to paste
    Dev {
        /// Address to listen on
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: String,
    },
    /// Run the service
    Serve {
        /// Address for clients, proxies and APIs [default: 127.0.0.1:8080]
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        /// Address for probes and verifiers [default: 127.0.0.1:8081]
        #[arg(long, value_name = "ADDR")]
        management_listen: Option<String>,
        /// PostgreSQL database of the store [default: SQLite in the data folder]
        #[arg(long, value_name = "URL")]
        database_url: Option<String>,
    },
    /// Clients and their allowlists
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// API keys and secrets
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Sessions: one login each, and the tokens that descend from it
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Signing keys
    #[command(subcommand)]
    Key(admin::KeyCommand),
    /// Verifiers in other processes, which follow this service
    #[command(subcommand)]
    Verifier(admin::VerifierCommand),
    /// Administrators of the dashboard, and tokens of the admin API
    #[command(subcommand)]
    Admin(administrator::AdminCommand),
    /// Tokens
    #[command(subcommand)]
    Token(admin::TokenCommand),
    /// The audit log: who changed what, and who tried what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Say why a request was refused, or list refused requests
    Explain(explain::Explain),
    /// Webhooks: events of the audit log, sent to other services
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// The store: its tables, backing it up, moving it
    #[command(subcommand)]
    Db(db::DbCommand),
    /// The master key, under which the store's secrets are sealed
    #[command(subcommand)]
    MasterKey(master_key::MasterKeyCommand),
    /// The pepper, under which secrets are hashed
    #[command(subcommand)]
    Pepper(pepper::PepperCommand),
    /// Show the status of the running service
    Status,
    /// Print the configuration of a reverse proxy that asks Rescind about every request
    ProxyConfig(proxy_config::ProxyConfig),
    /// Print a completion script
    Completions {
        /// The shell that the script is for
        shell: clap_complete::Shell,
    },
}

/// Why a command failed.
enum Failure {
    /// Exit code 1.
    Failed(anyhow::Error),
    /// Exit code 2.
    Usage(String),
    /// `status`: exit code 2.
    NotReady(String),
    /// The answer was printed, and is no: exit code 1.
    No,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

impl Failure {
    /// The failure of what comes after a change that was made.
    fn after(self, done: &str) -> Failure {
        match self {
            Failure::Failed(error) => {
                Failure::Failed(error.context(format!("{done}: its output could not be written")))
            }
            other => other,
        }
    }

    /// Its exit code, and its text for the operator.
    fn told(self) -> (u8, String) {
        match self {
            Failure::Failed(error) => (1, format!("error: {error:#}")),
            Failure::Usage(text) => (2, format!("error: {text}")),
            Failure::NotReady(text) => (2, text),
            Failure::No => (1, String::new()),
        }
    }
}

/// Returns the definition of the command line.
pub fn definition() -> clap::Command {
    Cli::command().name("rescind")
}

/// Runs the command line and returns its exit code.
pub fn run() -> ExitCode {
    if let Err(error) = permissions::keep_to_ourselves() {
        prose(&format!("warning: core dumps stay on: {error}"));
    }
    completions::answer();
    let given = definition().try_get_matches();
    if given.as_ref().is_ok_and(holds_secret) {
        prose(SECRET_GIVEN);
        return ExitCode::from(2);
    }
    let Cli { command, global } = match given.and_then(|given| Cli::from_arg_matches(&given)) {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let output = Output { json: global.json, yes: global.yes };
    match execute(command, &global, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, text) = failure.told();
            if !text.is_empty() {
                prose(&text);
            }
            ExitCode::from(code)
        }
    }
}

/// Prints what is wrong with the command line. Hides an argument in a wrong place that may be a token or a database's URL.
fn misused(error: &clap::Error) -> ExitCode {
    let hidden = |kind| {
        let Some(ContextValue::String(given)) = error.get(kind) else { return None };
        let given = match given.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') => value,
            _ => given,
        };
        (secret::shown(given) != *given).then(|| given.to_owned())
    };
    let kinds = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue];
    let hidden: Vec<String> = kinds.into_iter().filter_map(hidden).collect();
    if hidden.is_empty() {
        let printed = error.print().and_then(|()| stdout().flush());
        return match printed {
            // What was asked for, such as the help, was not printed.
            Err(e) if !error.use_stderr() && e.kind() != ErrorKind::BrokenPipe => {
                prose(&format!("error: {e}"));
                ExitCode::FAILURE
            }
            _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
        };
    }
    let text = hidden.iter().fold(error.to_string(), |text, given| text.replace(given, "…"));
    prose(text.trim_end());
    ExitCode::from(2)
}

/// The arguments that may be a token, or a URL with a password.
const MAY_BE_SECRET: [&str; 3] = ["token", "database_url", "to"];

const SECRET_GIVEN: &str = "error: an argument has a secret or token in it, and this command takes none there. Other users can see \
    command lines, and shells keep them: revoke it if it may have been seen";

/// Whether another argument contains a secret or token of ours, which questions and answers would repeat.
fn holds_secret(given: &ArgMatches) -> bool {
    let holds = |id: &str| {
        let mut values = given.try_get_raw(id).ok().flatten().into_iter().flatten();
        values.any(|value| secret::is_within(&value.to_string_lossy()))
    };
    given.ids().map(Id::as_str).filter(|id| !MAY_BE_SECRET.contains(id)).any(holds)
        || given.subcommand().is_some_and(|(_, given)| holds_secret(given))
}

fn execute(command: Command, global: &Global, output: &Output) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let flags =
        Flags { config: global.config.clone(), data_dir: global.data_dir.clone(), ..Flags::default() };
    let load = |flags: &Flags| Config::load(&environment, flags);
    let context = || anyhow::Ok(Context { config: load(&flags)?, environment: &environment, output });
    if !matches!(command, Command::Dev { .. } | Command::Serve { .. }) {
        log::warnings();
    }
    match command {
        Command::Dev { .. } if flags.config.is_some() || flags.data_dir.is_some() => {
            Err(Failure::Usage("dev takes neither --config nor --data-dir: its data is thrown away".into()))
        }
        Command::Dev { listen } => dev::run(&listen, output),
        Command::Serve { listen, management_listen, database_url } => {
            let flags = Flags { listen, management_listen, database_url, ..flags };
            serve::run(flags, environment)
        }
        Command::Client(command) => client::run(command, &context()?),
        Command::Credential(command) => credential::run(command, &context()?),
        Command::Session(command) => session::run(command, &context()?),
        Command::Key(command) => admin::key(command, &context()?),
        Command::Verifier(command) => admin::verifier(command, &context()?),
        Command::Admin(command) => administrator::run(command, &context()?),
        Command::Token(command) => admin::token(command, &context()?),
        Command::Audit(command) => audit::run(command, &context()?),
        Command::Explain(wanted) => explain::run(wanted, &context()?),
        Command::Webhook(command) => webhook::run(command, &context()?),
        Command::Config(command) => config::run(command, || load(&flags), &environment, output),
        Command::Db(command) => db::run(command, context()?),
        Command::MasterKey(command) => master_key::run(command, &context()?),
        Command::Pepper(command) => pepper::run(command, &context()?),
        Command::ProxyConfig(command) => proxy_config::run(command, || load(&flags), output),
        Command::Status => admin::status(&load(&flags)?, output),
        Command::Completions { shell } => output.text(&completions::script(shell)?),
    }
}

/// What the command of an operator is carried out with.
struct Context<'a> {
    config: Config,
    environment: &'a Environment,
    output: &'a Output,
}

impl Context<'_> {
    /// Runs a command against the server, or against the store. With `make`, a missing data folder is made.
    fn with_backend(
        &self,
        make: bool,
        command: impl AsyncFnOnce(&mut Backend) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        runtime()?.block_on(async {
            let mut backend = Backend::open(&self.config, self.environment, make).await?;
            command(&mut backend).await
        })
    }
}

/// A runtime for one command.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::TaskEnded;

    #[test]
    fn a_task_that_has_ended_fails_the_command_by_its_name() {
        let told = |panicked| Failure::from(TaskEnded { name: "sweep", panicked }).told();
        assert_eq!(told(true), (1, "error: the task \"sweep\" panicked".to_owned()));
        let ended = "error: the task \"sweep\" ended before the service was stopped";
        assert_eq!(told(false), (1, ended.to_owned()));
    }
}
