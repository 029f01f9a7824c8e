//! `rescind master-key`

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use rescind_admin::{self as admin, KeptKey};
use rescind_base::{
    clock::Clock,
    files::{permissions, users},
    model::{Actor, ChangeOrigin},
    random::Random,
    secret::{self, MasterKey},
};
use rustix::process::getuid;
use serde_json::json;

use super::{
    Context, Failure,
    backend::{Backend, require_data},
    runtime,
};

#[derive(Debug, Subcommand)]
pub(super) enum MasterKeyCommand {
    /// Seal the store's secrets under another master key. No server may run meanwhile. Tokens and API secrets stay valid
    #[command(after_help = "Examples:
  rescind master-key rotate
  openssl rand -hex 32 > new.key
  RESCIND_MASTER_KEY_FILE=old.key rescind master-key rotate --new new.key")]
    Rotate {
        /// With a key of your own (RESCIND_MASTER_KEY): the file of the next one [default: a new master.key in the data
        /// folder]
        #[arg(long, value_name = "FILE")]
        new: Option<PathBuf>,
    },
}

pub(super) fn run(command: MasterKeyCommand, context: &Context) -> Result<(), Failure> {
    let Context { config, environment, output } = context;
    let MasterKeyCommand::Rotate { new } = command;
    let kept = match (environment.master_key()?, new) {
        (None, None) => KeptKey::Folder,
        (Some(present), Some(file)) => {
            let text = secret::read(&file).with_context(|| file.display().to_string())?;
            KeptKey::Operator(
                MasterKey::parse(&present).context("RESCIND_MASTER_KEY")?,
                MasterKey::parse(&text).with_context(|| file.display().to_string())?,
            )
        }
        (Some(_), None) => {
            let problem = "--new: expected the file of the next key, since the present one is your own (RESCIND_MASTER_KEY)";
            return Err(Failure::Usage(problem.into()));
        }
        (None, Some(_)) => {
            let problem = "--new: only with a key of your own (RESCIND_MASTER_KEY); the one in the data folder is made anew there";
            return Err(Failure::Usage(problem.into()));
        }
    };
    let is_own = matches!(kept, KeptKey::Operator(..));
    output.confirm("The store's secrets will be sealed under another master key. Backups made before still need the present one: keep it as long as them.")?;
    if config.database.url.is_none() {
        require_data(&config.server.data_dir)?;
    }
    let operator = users::named(getuid().as_raw(), environment.sudo_user());
    // Like a restore: root has opened the keys, and leaves no file of root's in the folder. No thread has started yet.
    permissions::become_owner(&config.server.data_dir)?;
    runtime()?.block_on(async {
        if Backend::running(&config.server.data_dir).await?.is_some() {
            return Err(anyhow!("a server has {}: stop it first", config.server.data_dir.display()));
        }
        let mut origin = ChangeOrigin::new(Clock::System.now(), Actor::Operator, &config.node_name());
        origin.operator = Some(operator.into());
        Ok(admin::rotate_master_key(config, kept, origin, &Random::System).await?)
    })?;
    output.done("the master key was rotated", &json!({ "rotated": true }), |_| {
        let next = match is_own {
            true => "Every server needs the new key from now on".to_owned(),
            false => format!("It is in {}: keep a copy", config.server.data_dir.join("master.key").display()),
        };
        format!("The store is sealed under the new master key. {next}. Make a backup, which needs the new key alone.")
    })
}
