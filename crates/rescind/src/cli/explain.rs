//! `rescind explain`

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use rescind_admin::{DenialQuery, DenialView, ExplainedDenial};
use rescind_base::{
    clock::rfc3339,
    model::{Check, Hop, PresentedKind, PresentedToken, Revoked},
};
use rescind_node::config::Past;

use super::{
    Context, Failure,
    backend::percent_encoded,
    lookup::{ClientRef, at_least},
    output::{facts, prose, table},
};

const WIDTH: usize = 13;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind explain 3DMTB0v9cXh5r4sTqJm2uVw8yZa
  rescind explain --client billing --since 1h")]
pub(super) struct Explain {
    /// The X-Request-Id of the answer. Without it, refused requests are listed, the newest first
    #[arg(value_name = "REQUEST_ID", conflicts_with_all = ["client", "address", "reason", "since", "until", "limit"])]
    request_id: Option<String>,
    /// Only requests of this client; a deleted client has only its id
    #[arg(long)]
    client: Option<ClientRef>,
    /// Only requests from this address
    #[arg(long)]
    address: Option<String>,
    /// Only requests that failed this check, such as address_not_allowed
    #[arg(long, hide_possible_values = true, value_parser = reason())]
    reason: Option<String>,
    /// Only requests from this time on: 1h or 7d ago, 2026-10-01, or 2026-10-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Past>,
    /// Only requests before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Past>,
    /// At most this many
    #[arg(long, value_name = "N", default_value = "100", value_parser = at_least(1_u64))]
    limit: u64,
}

/// Reads the name of a check, and gives completions all of them.
fn reason() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(Check::all().map(Check::name))
}

pub(super) fn run(wanted: Explain, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    let Explain { request_id, client, address, reason, since, until, limit } = wanted;
    context.with_backend(false, async |backend| {
        if let Some(id) = &request_id {
            let found: ExplainedDenial = backend.get(&format!("/denials/{}", percent_encoded(id))).await?;
            return output.data(&found, explained);
        }
        let client = match client {
            None => None,
            Some(client) => Some(client.id(backend).await?),
        };
        let wanted = DenialQuery {
            limit: Some(limit),
            client,
            address,
            reason,
            since,
            until,
            ..DenialQuery::default()
        };
        let found: Vec<DenialView> = backend.get(&format!("/denials?{}", query(&wanted))).await?;
        output.data(&found, |found| listing(found))?;
        if found.len() as u64 == limit {
            prose("There may be older ones: --limit shows more, --since and --until pick some.");
        }
        Ok(())
    })
}

fn query(wanted: &DenialQuery) -> String {
    let parameters = [
        ("limit", wanted.limit.map(|limit| limit.to_string())),
        ("client", wanted.client.map(|id| id.to_string())),
        ("address", wanted.address.clone()),
        ("reason", wanted.reason.clone()),
        ("since", wanted.since.map(|since| since.to_string())),
        ("until", wanted.until.map(|until| until.to_string())),
    ];
    let given = parameters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", percent_encoded(&value?))));
    given.collect::<Vec<_>>().join("&")
}

fn listing(found: &[DenialView]) -> String {
    let rows = found.iter().map(|denial| {
        [
            denial.at.clone(),
            denial.status.to_string(),
            denial.operation.clone(),
            denial.reason.clone(),
            denial.client_id.map_or("-".into(), |id| id.to_string()),
            denial.address.clone().unwrap_or("-".into()),
            denial.request_id.clone(),
        ]
    });
    table(["AT", "STATUS", "FOR", "REASON", "CLIENT", "ADDRESS", "REQUEST ID"], rows)
}

fn explained(found: &ExplainedDenial) -> String {
    let ExplainedDenial { denial, client, credential, event, others } = found;
    let details = &denial.details;
    let mut said = vec![
        ("request", denial.request_id.clone()),
        ("refused", format!("{}, {} for {}, by {}", denial.at, denial.status, denial.operation, denial.node)),
        ("reason", denial.reason.clone()),
        ("", denial.what.clone()),
        ("to do", denial.advice.clone()),
    ];
    let mut say = |name, text: Option<String>| said.extend(text.map(|text| (name, text)));
    say(
        "client",
        denial.client_id.map(|id| {
            let now = client.as_ref().map(|client| {
                format!(" \"{}\", {} now, generation {}", client.name, client.status, client.generation)
            });
            let claimed = if denial.proven { "" } else { ", by its API key alone" };
            format!("{id}{}{claimed}", now.unwrap_or_default())
        }),
    );
    let state = credential.as_ref().map(|credential| {
        let end = credential.revoked_at.as_ref().or(credential.expires_at.as_ref());
        format!(", {} now{}", credential.status, end.map(|at| format!(", ends {at}")).unwrap_or_default())
    });
    say("API key", details.api_key.as_ref().map(|key| format!("{key}{}", state.unwrap_or_default())));
    say("token", details.token.as_ref().map(|token| numbers(token, details.client_generation)));
    let last = client.as_ref().and_then(|client| client.tokens_revoked_at.as_ref());
    let last = last.map(|at| format!(", the last time at {at}")).unwrap_or_default();
    say("revoked", details.revoked.map(|what| {
        let (what, by_whom) = match what {
            Revoked::EveryToken => (
                "every token of the client",
                format!("No operator's event is on record: the client logged out itself{last}."),
            ),
            Revoked::Credential => {
                ("the token's credential", "It has ended, or the event is no longer on record.".to_owned())
            }
            Revoked::Session => (
                "the token's session",
                "No operator's event is on record: the client ended the session itself, or refreshed with a used token."
                    .to_owned(),
            ),
        };
        if event.is_some() { what.to_owned() } else { format!("{what}. {by_whom}") }
    }));
    say(
        "event",
        event.as_ref().map(|event| {
            let by = event.operator.as_ref().unwrap_or(&event.by);
            let detail = event.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{} {} by {by}{detail}", event.at, event.kind)
        }),
    );
    say(
        "address",
        Some(denial.address.clone().unwrap_or("unknown: no hop names one that can be read".into())),
    );
    for (n, hop) in details.hops.iter().enumerate() {
        say(if n == 0 { "way" } else { "" }, Some(named(hop)));
    }
    say(
        "allowlist",
        details.allowlist.as_ref().map(|list| {
            format!(
                "none of its {} entries has the address; nearest: {}",
                list.entries,
                nearest(&list.nearest)
            )
        }),
    );
    say(
        "asked for",
        details.asked.as_ref().map(|asked| {
            let audience = asked.audience.as_ref().map(|audience| format!("audience {audience}"));
            let scopes = (!asked.scopes.is_empty()).then(|| format!("scope {}", asked.scopes.join(" ")));
            [audience, scopes].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }),
    );
    say(
        "proxy's",
        details
            .forwarded
            .as_ref()
            .map(|forwarded| {
                let parts = [&forwarded.method, &forwarded.host, &forwarded.path];
                parts.into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
            })
            .filter(|text| !text.is_empty()),
    );
    say("retry", details.retry_after.map(|seconds| format!("after {seconds} s")));
    say(
        "not kept",
        (details.not_kept > 0).then(|| format!("{} more like it, in the same seconds", details.not_kept)),
    );
    say(
        "others",
        (*others > 0)
            .then(|| format!("{others} older with this request id: the admin API lists them (request_id)")),
    );
    facts(WIDTH, said)
}

fn numbers(token: &PresentedToken, present: Option<u64>) -> String {
    let generation = present.map(|present| format!(" (the client's was {present})")).unwrap_or_default();
    let key = token.kid.as_ref().map(|kid| format!(", key {kid}")).unwrap_or_default();
    let kind = match token.kind {
        PresentedKind::Access => "access",
        PresentedKind::Refresh => "refresh",
    };
    format!(
        "{kind}, session {}, pair {}, generation {}{generation}, issued {}, expires {}{key}",
        token.session,
        token.pair,
        token.generation,
        rfc3339(token.iat),
        rfc3339(token.exp),
    )
}

fn named(Hop { address, named_by, role }: &Hop) -> String {
    format!("{address} ({named_by}): {}", role.explained())
}

fn nearest(entries: &[String]) -> String {
    if entries.is_empty() { "none of its kind".to_owned() } else { entries.join(", ") }
}
