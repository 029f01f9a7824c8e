//! The command line.
//!
//! Output: data goes to standard output (as one JSON value with `--json`), prose and questions to
//! standard error. Exit codes: 0 done, 1 failed, 2 bad usage; `status`: 0 ready, 1 error, 2 not ready.

mod admin;
mod audit;
mod backend;
mod client;
mod config;
mod db;
mod dev;
mod log;
mod output;
mod proxy_config;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use crate::{
    config::{Config, Environment, Flags},
    files::permissions,
    secret,
};
use output::Output;

/// A token service for APIs whose callers are machines: one logout revokes every token, at once.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
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
    Credential(admin::CredentialCommand),
    /// Signing keys
    #[command(subcommand)]
    Key(admin::KeyCommand),
    /// Verifiers in other processes, which follow this service
    #[command(subcommand)]
    Verifier(admin::VerifierCommand),
    /// Tokens
    #[command(subcommand)]
    Token(admin::TokenCommand),
    /// The audit log: who changed what, and who tried what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// The store: its tables, backing it up, moving it
    #[command(subcommand)]
    Db(db::DbCommand),
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
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

/// Runs the command line and returns its exit code.
pub fn run() -> ExitCode {
    if let Err(error) = permissions::keep_to_ourselves() {
        Output { json: false, yes: false }.prose(&format!("warning: core dumps stay on: {error}"));
    }
    let Cli { command, global } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let output = Output { json: global.json, yes: global.yes };
    match execute(command, &global, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, text) = match failure {
                Failure::Failed(error) => (1, format!("error: {error:#}")),
                Failure::Usage(text) => (2, format!("error: {text}")),
                Failure::NotReady(text) => (2, text),
            };
            output.prose(&text);
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
        error.exit();
    }
    let text = hidden.iter().fold(error.to_string(), |text, given| text.replace(given, "…"));
    Output { json: false, yes: false }.prose(text.trim_end());
    ExitCode::from(2)
}

fn execute(command: Command, global: &Global, output: &Output) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let flags =
        Flags { config: global.config.clone(), data_dir: global.data_dir.clone(), ..Flags::default() };
    let load = |flags: &Flags| Config::load(&environment, flags);
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
            serve::run(&load(&flags)?, &environment)
        }
        Command::Client(command) => client::run(command, &load(&flags)?, &environment, output),
        Command::Credential(command) => admin::credential(command, &load(&flags)?, &environment, output),
        Command::Key(command) => admin::key(command, &load(&flags)?, &environment, output),
        Command::Verifier(command) => admin::verifier(command, &load(&flags)?, &environment, output),
        Command::Token(command) => admin::token(command, &load(&flags)?, &environment, output),
        Command::Audit(command) => audit::run(command, &load(&flags)?, &environment, output),
        Command::Config(command) => config::run(command, || load(&flags), output),
        Command::Db(command) => db::run(command, load(&flags)?, &environment, output),
        Command::ProxyConfig(command) => proxy_config::run(command, || load(&flags), output),
        Command::Status => admin::status(&load(&flags)?, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rescind", &mut script);
            output.text(&String::from_utf8_lossy(&script))
        }
    }
}

/// A runtime for one command.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
