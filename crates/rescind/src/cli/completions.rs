//! Completions. The shells ask this program what may come next, because it can ask the server which clients and keys there
//! are.

use std::time::Duration;

use clap::{Arg, Command};
use clap_complete::{
    Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::{CompleteEnv, Shells},
};
use rescind_admin::{ClientView, CredentialView, KeyView, ManagementTokenView, VerifierView};
use rescind_node::config::{Config, Environment, Flags, words};
use serde::Deserialize;
use tokio::time::timeout;

use super::{backend::Backend, definition, runtime};

/// The variable in which a shell's script names the shell that asks.
const ASKED_BY: &str = "_RESCIND_COMPLETE";
/// How long a shell waits for a server's answer. Without one there are no names.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most clients whose names are told, and the most whose keys are.
const CLIENTS: usize = 1000;
const CLIENTS_WITH_KEYS: usize = 50;

/// Answers a shell that asks what may come next, and ends the process then.
pub(super) fn answer() {
    CompleteEnv::with_factory(|| with_names(definition(), "")).var(ASKED_BY).complete();
}

/// Returns the script that a shell reads once.
pub(super) fn script(shell: Shell) -> std::io::Result<String> {
    let mut script = Vec::new();
    if let Some(shell) = Shells::builtins().completer(&shell.to_string()) {
        shell.write_registration(ASKED_BY, "rescind", "rescind", "rescind", &mut script)?;
    }
    if shell == Shell::Zsh {
        // A file of that name in zsh's path is read at the first question, which it has to answer too.
        script.extend(b"[[ $funcstack[1] = _rescind ]] && _clap_dynamic_completer_rescind \"$@\"\n");
    }
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Adds to each argument that names something what there is of it.
fn with_names(command: Command, parent: &'static str) -> Command {
    let group = ["key", "verifier", "token"].into_iter().find(|group| *group == command.get_name());
    let named = |arg: Arg| match names(parent, arg.get_id().as_str()) {
        Some(names) => arg.add(ArgValueCandidates::new(names)),
        None => arg,
    };
    command.mut_args(named).mut_subcommands(|child| with_names(child, group.unwrap_or_default()))
}

type Names = fn() -> Vec<CompletionCandidate>;

/// Returns what an argument of a command in this group may be.
fn names(group: &str, argument: &str) -> Option<Names> {
    match (group, argument) {
        (_, "client") => Some(clients),
        (_, "clients") => Some(client_ids),
        (_, "api_key") => Some(api_keys),
        (_, "role") => Some(|| plain(["viewer", "operator", "admin"])),
        ("key", "algorithm") => Some(|| plain(["HS256", "ES256", "Ed25519", "EdDSA"])),
        ("key", "kid") => Some(|| {
            let keys: Vec<KeyView> = asked("/keys");
            keys.into_iter().map(|key| candidate(key.kid, key.status)).collect()
        }),
        ("verifier", "id") => Some(|| {
            let verifiers: Vec<VerifierView> = asked("/verifiers");
            verifiers.into_iter().map(|v| candidate(v.verifier_id, v.name)).collect()
        }),
        ("token", "id") => Some(|| {
            let tokens: Vec<ManagementTokenView> = asked("/management-tokens");
            tokens.into_iter().map(|token| candidate(token.management_token_id, token.name)).collect()
        }),
        _ => None,
    }
}

fn plain<const N: usize>(names: [&str; N]) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn candidate(name: impl ToString, help: impl ToString) -> CompletionCandidate {
    CompletionCandidate::new(name.to_string()).help(Some(help.to_string().into()))
}

/// The clients by their names and their ids. A name that a shell would split is left out: its id stands.
fn clients() -> Vec<CompletionCandidate> {
    let found: Vec<ClientView> = asked(&format!("/clients?limit={CLIENTS}"));
    let is_word = |name: &str| name.chars().all(|c| c.is_alphanumeric() || "-_.@+".contains(c));
    let names = found.iter().filter(|client| is_word(&client.name));
    let names = names.map(|client| candidate(&client.name, format!("client {}", client.client_id)));
    names.chain(found.iter().map(|client| candidate(client.client_id, &client.name))).collect()
}

fn client_ids() -> Vec<CompletionCandidate> {
    let found: Vec<ClientView> = asked(&format!("/clients?limit={CLIENTS}"));
    found.into_iter().map(|client| candidate(client.client_id, client.name)).collect()
}

fn api_keys() -> Vec<CompletionCandidate> {
    let mut keys = Vec::new();
    ask(async |backend| {
        let path = format!("/clients?limit={CLIENTS_WITH_KEYS}");
        for client in backend.get::<Vec<ClientView>>(&path).await? {
            let path = format!("/clients/{}/credentials", client.client_id);
            let credentials: Vec<CredentialView> = backend.get(&path).await?;
            let active = credentials.into_iter().filter(|credential| credential.status == "active");
            keys.extend(active.map(|credential| candidate(credential.api_key, &client.name)));
        }
        Ok(())
    });
    keys
}

/// What the server answers; nothing, if it does not.
fn asked<T: for<'de> Deserialize<'de> + Default>(path: &str) -> T {
    let mut answer = T::default();
    ask(async |backend| {
        answer = backend.get(path).await?;
        Ok(())
    });
    answer
}

/// Asks the running server of the folder that the line names, for a moment. What fails is left out: a shell has no place for
/// it.
fn ask(questions: impl AsyncFnOnce(&mut Backend) -> anyhow::Result<()>) {
    let Ok(config) = Config::load(&Environment::of_process(), &flags(&words())) else { return };
    let Ok(runtime) = runtime() else { return };
    runtime.block_on(async {
        let answered = timeout(PATIENCE, async {
            if let Ok(Some(mut server)) = Backend::running(&config.server.data_dir).await {
                _ = questions(&mut server).await;
            }
        });
        _ = answered.await;
    });
}

/// The flags in a line that is not complete, by which the server is found.
fn flags(words: &[String]) -> Flags {
    let value = |flag: &str| {
        let at = words.iter().position(|word| word == flag);
        let next = at.and_then(|at| words.get(at + 1));
        let joined = || words.iter().find_map(|word| word.strip_prefix(flag)?.strip_prefix('='));
        next.map(String::as_str).or_else(joined).map(Into::into)
    };
    Flags { config: value("--config"), data_dir: value("--data-dir"), ..Flags::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_found_in_a_line_that_is_not_complete() {
        let found = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let Flags { config, data_dir, .. } = flags(&words);
            [config, data_dir].map(|path| path.map(|path| path.display().to_string()))
        };
        let [config, data] = [Some("c.toml".to_owned()), Some("data".to_owned())];
        assert_eq!(found("rescind -- rescind client show"), [None, None]);
        assert_eq!(found("rescind -- rescind --data-dir data client show"), [None, data.clone()]);
        assert_eq!(found("rescind client --config=c.toml --data-dir=data show"), [config, data]);
        assert_eq!(found("rescind client show --data-dir"), [None, None]);
    }
}
