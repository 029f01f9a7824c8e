//! Reads lists of networks from arguments, files and standard input.

use std::{
    fs,
    io::{Read, stdin},
};

use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use rescind_admin::{NetworkProblem, parse_networks};

use super::Failure;

/// The most problems that a message names.
const NAMED: usize = 8;

/// Reads arguments: `@FILE` and `-`, for standard input, are lists, and the others together are one.
pub(super) fn read(arguments: &[String]) -> Result<Vec<IpNet>, Failure> {
    let (mut networks, mut plain) = (Vec::new(), Vec::new());
    for argument in arguments {
        let (source, text) = match (argument.as_str(), argument.strip_prefix('@')) {
            ("-", _) => {
                let mut text = String::new();
                stdin().read_to_string(&mut text).context("standard input")?;
                ("standard input", text)
            }
            (_, Some(path)) => (path, fs::read_to_string(path).with_context(|| path.to_owned())?),
            (argument, None) => {
                plain.push(argument);
                continue;
            }
        };
        networks.extend(
            parse_networks(&text)
                .map_err(|problems| told(&problems, |line| format!("{source}, line {line}: ")))?,
        );
    }
    if !plain.is_empty() {
        networks
            .extend(parse_networks(&plain.join(" ")).map_err(|problems| told(&problems, |_| String::new()))?);
    }
    Ok(networks)
}

/// The first problems, a line each.
fn told(problems: &[NetworkProblem], place: impl Fn(usize) -> String) -> Failure {
    let named =
        problems.iter().take(NAMED).map(|NetworkProblem { line, text }| format!("{}{text}", place(*line)));
    // A list with many problems is not read to its end.
    let more = (problems.len() > NAMED).then(|| "and more".to_owned());
    let all: Vec<_> = named.chain(more).collect();
    Failure::Failed(anyhow!(all.join("\n")))
}
