//! `rescind audit`

mod verify;

use std::{mem::replace, path::PathBuf, time::Duration};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use rescind_admin::{self as admin, EventQuery, EventView, EventsView};
use rescind_base::{clock::Clock, model::EventKind};
use rescind_node::config::{Config, Past};
use rescind_store::Store;
use tokio::{signal::unix::SignalKind, time::sleep};

use super::{
    Context, Failure,
    backend::Backend,
    lookup::{ClientRef, id},
    output::{Output, prose, table, terminal_width, wrapped},
    runtime, signals,
};

/// The pause between two requests of `--follow`.
const PAUSE: Duration = Duration::from_secs(1);
/// The most events in one answer.
const PAGE: u64 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List who changed what, and who tried what, the newest last
    #[command(after_help = "Examples:
  rescind audit list --kind allowlist_changed --client billing
  rescind audit list --since 2026-10-01 --until 2026-11-01 --limit all
  rescind audit list --follow --json")]
    List {
        #[command(flatten)]
        which: Which,
        /// The oldest events after this event, instead of the newest
        #[arg(long, value_name = "ID", value_parser = id("audit list"))]
        after: Option<u64>,
        /// At most this many events, or all
        #[arg(long, value_name = "N|all", default_value = "100", value_parser = limit)]
        limit: Limit,
        /// Print new events too, until interrupted; with --json, one JSON object a line
        #[arg(long, conflicts_with = "until")]
        follow: bool,
    },
    /// Print every event, the oldest first, as CSV or as one JSON array
    #[command(after_help = "Example:
  rescind audit export --csv --since 2026-10-01 --until 2026-11-01 > october.csv")]
    Export {
        #[command(flatten)]
        which: Which,
        /// Comma-separated values (RFC 4180). A value that a spreadsheet would take for a formula gets a ' before it
        #[arg(long)]
        csv: bool,
    },
    /// Find rows that were changed, removed or moved after they were written
    #[command(after_help = "Example:
  rescind audit checkpoint > checkpoint.json
  rescind audit verify --checkpoint checkpoint.json")]
    Verify {
        /// What `rescind audit checkpoint` has printed earlier: all rows up to there must be as they were
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
    },
    /// Print the newest row of each chain, signed with all rows before it, as JSON: keep it elsewhere
    Checkpoint,
}

/// Which events are wanted.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only events of this kind, such as client_suspended
    #[arg(long, hide_possible_values = true, value_parser = kind())]
    kind: Option<EventKind>,
    /// Only events of this client; a deleted client has only its id
    #[arg(long)]
    client: Option<ClientRef>,
    /// Only events from this time on: 1h or 7d ago, 2026-10-01, or 2026-10-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Past>,
    /// Only events before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Past>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    At(u64),
    All,
}

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "all" => Ok(Limit::All),
        text => match text.parse() {
            Ok(limit @ 1..=PAGE) => Ok(Limit::At(limit)),
            _ => Err(format!("expected between 1 and {PAGE}, or all")),
        },
    }
}

/// Reads the name of a kind, and gives completions all of them.
fn kind() -> impl TypedValueParser<Value = EventKind> {
    let names = EventKind::ALL.iter().map(|kind| kind.name());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<EventKind>())
}

pub(super) fn run(command: AuditCommand, context: &Context) -> Result<(), Failure> {
    let Context { config, output, .. } = context;
    match command {
        AuditCommand::List { which, after, limit, follow } => {
            let (after, most) = match limit {
                Limit::At(most) => (after, most),
                Limit::All => (after.or(Some(0)), PAGE),
            };
            let mut first = EventQuery { after, limit: Some(most), ..EventQuery::default() };
            let mut page = EventsView::default();
            context.with_backend(false, async |backend| {
                first = which.query(first.clone(), backend).await?;
                if let Limit::At(_) = limit {
                    page = backend.get(&path(&first)).await?;
                    return Ok(());
                }
                page.last = every(first.clone(), backend, |events| {
                    page.events.extend(events);
                    Ok(true)
                })
                .await?;
                Ok(())
            })?;
            if follow {
                return follow_on(&page, first, config, output);
            }
            output.data(&page.events, |events| listing(events))?;
            if page.more {
                prose("There are older events: --limit all shows them, --since and --until pick some.");
            }
            Ok(())
        }
        AuditCommand::Verify { checkpoint } => verify::verify(checkpoint.as_deref(), context),
        AuditCommand::Checkpoint => verify::checkpoint(context),
        AuditCommand::Export { which, csv } => context.with_backend(false, async |backend| {
            if csv == output.json {
                return Err(Failure::Usage("name the form: --csv or --json".into()));
            }
            let first = EventQuery { after: Some(0), limit: Some(PAGE), ..EventQuery::default() };
            let first = which.query(first, backend).await?;
            let mut begun = false;
            let mut goes_on = output.heard(if csv { admin::CSV_HEADING } else { "[" })?;
            every(first, backend, |events| {
                for event in &events {
                    if !goes_on {
                        break;
                    }
                    let line = match csv {
                        true => admin::csv(event),
                        false => format!("{}{}", if begun { "," } else { "" }, serde_json::to_string(event)?),
                    };
                    begun = true;
                    goes_on = output.heard(&line)?;
                }
                Ok(goes_on)
            })
            .await?;
            if csv || !goes_on { Ok(()) } else { output.text("]") }
        }),
    }
}

impl Which {
    async fn query(self, first: EventQuery, backend: &mut Backend) -> Result<EventQuery, Failure> {
        let Which { kind, client, since, until } = self;
        let client = match client {
            None => None,
            Some(client) => Some(client.id(backend).await?),
        };
        Ok(EventQuery { kind, client, since, until, ..first })
    }
}

/// Passes page after page on, the oldest events first, until there are no more or nobody wants them. Returns the last id.
async fn every(
    mut next: EventQuery,
    backend: &mut Backend,
    mut each: impl FnMut(Vec<EventView>) -> Result<bool, Failure>,
) -> Result<u64, Failure> {
    loop {
        let EventsView { events, last, .. } = backend.get(&path(&next)).await?;
        next.after = Some(last);
        let is_full = events.len() as u64 == PAGE;
        if !each(events)? || !is_full {
            return Ok(last);
        }
    }
}

fn follow_on(page: &EventsView, first: EventQuery, config: &Config, output: &Output) -> Result<(), Failure> {
    let next = EventQuery { after: Some(page.last), limit: Some(PAGE), since: None, ..first };
    let text = if output.json { lines(&page.events)? } else { listing(&page.events) };
    if !text.is_empty() && !output.heard(&text)? {
        return Ok(());
    }
    runtime()?.block_on(go_on(next, config, output))
}

/// Prints page after page, until interrupted or until nobody reads the output. Waits while the server is unavailable.
async fn go_on(mut next: EventQuery, config: &Config, output: &Output) -> Result<(), Failure> {
    let mut stop = signals::first_of(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let mut database = None;
    let (mut pause, mut away) = (PAUSE, false);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = sleep(pause) => {}
        }
        let page = tokio::select! {
            () = &mut stop => return Ok(()),
            page = look(&next, config, &mut database) => page,
        };
        match page {
            Ok(EventsView { events, last, .. }) => {
                let text = if output.json {
                    lines(&events)?
                } else {
                    listing(&events).split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default()
                };
                if !text.is_empty() && !output.heard(&text)? {
                    return Ok(());
                }
                // After a full page, more events may exist already.
                pause = if events.len() as u64 == PAGE { Duration::ZERO } else { PAUSE };
                next.after = Some(last);
                away = false;
            }
            Err(error) => {
                pause = PAUSE;
                if !replace(&mut away, true) {
                    prose(&format!("waiting: {error:#}"));
                }
            }
        }
    }
}

/// Asks the running server, or else the database. Without either, returns no events. The data folder is not locked, so
/// that a server can start meanwhile.
async fn look(
    wanted: &EventQuery,
    config: &Config,
    database: &mut Option<Store>,
) -> anyhow::Result<EventsView> {
    if let Some(mut server) = Backend::running(&config.server.data_dir).await? {
        return server.get(&path(wanted)).await;
    }
    let Some(options) = config.postgres() else {
        return Ok(EventsView { last: wanted.after.unwrap_or(0), ..EventsView::default() });
    };
    let store = match database {
        Some(store) => store,
        None => database.insert(Store::connect(&options).await?),
    };
    Ok(admin::events(store, &Clock::System, wanted.clone()).await?)
}

fn path(wanted: &EventQuery) -> String {
    let EventQuery { after, before, limit, kind, client, since, until } = wanted;
    let parameters = [
        ("after", after.map(|id| id.to_string())),
        ("before", before.map(|id| id.to_string())),
        ("limit", limit.map(|limit| limit.to_string())),
        ("kind", kind.map(|kind| kind.name().to_owned())),
        ("client", client.map(|id| id.to_string())),
        ("since", since.map(|since| since.to_string())),
        ("until", until.map(|until| until.to_string())),
    ];
    let given = parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    format!("/audit?{}", given.collect::<Vec<_>>().join("&"))
}

/// One JSON object a line.
fn lines(events: &[EventView]) -> Result<String, Failure> {
    let lines: Result<Vec<_>, _> = events.iter().map(serde_json::to_string).collect();
    Ok(lines?.join("\n"))
}

/// A table with columns of fixed widths, so that the tables of all pages line up.
fn listing(events: &[EventView]) -> String {
    match terminal_width() {
        Some(width) if width < WIDE => narrow_listing(events, width),
        _ => wide_listing(events),
    }
}

/// The columns of a terminal in which a line has room for the details of most events.
const WIDE: usize = 130;

fn wide_listing(events: &[EventView]) -> String {
    let rows = events.iter().map(|e| {
        let [id, at, kind, by] = what(e);
        let client = e.client_id.map_or("-".into(), |id| id.to_string());
        [id, at, kind, by, client, format!("{:<15}", e.address.as_deref().unwrap_or("-")), details(e)]
    });
    table(["ID", "AT", "EVENT", "BY", "CLIENT", "ADDRESS", "DETAIL"], rows)
}

/// For a terminal in which an event needs several lines.
fn narrow_listing(events: &[EventView], width: usize) -> String {
    let mut text = format!("{:<7}  {:<20}  {:<25}  BY\n", "ID", "AT", "EVENT");
    for event in events {
        text.push_str(what(event).join("  ").trim_end());
        text.push('\n');
        let client = event.client_id.map(|id| format!("client {id}"));
        let address = event.address.as_ref().map(|address| format!("from {address}"));
        let more = [client, address, Some(details(event)).filter(|details| !details.is_empty())];
        let more = more.into_iter().flatten().collect::<Vec<_>>().join(", ");
        for line in wrapped(&more, width.saturating_sub(INDENT.len())).iter().filter(|line| !line.is_empty())
        {
            text.push_str(&format!("{INDENT}{line}\n"));
        }
    }
    text
}

const INDENT: &str = "         ";

/// The number, the time, the kind and who did it, each as wide as its column.
fn what(event: &EventView) -> [String; 4] {
    [format!("{:<7}", event.id), event.at.clone(), format!("{:<25}", event.kind), format!("{:<8}", by(event))]
}

fn details(event: &EventView) -> String {
    let details = [
        event.api_key.clone(),
        event.session.map(|id| format!("session {id}")),
        event.detail.clone(),
        (event.count > 1).then(|| format!("{} times", event.count)),
    ];
    details.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Who did it, in few words: the user, where that is known.
fn by(event: &EventView) -> String {
    let Some(operator) = &event.operator else { return event.by.clone() };
    let (user, sudo) = operator.split_once(", by sudo from ").unwrap_or((operator, ""));
    let user = user.split_once(" (").map_or(user, |(name, _)| name);
    if sudo.is_empty() { user.to_owned() } else { format!("{sudo} as {user}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_narrow_terminal_every_event_is_shown_whole() {
        let event = EventView {
            id: 41,
            at: "2026-03-01T09:12:44Z".into(),
            kind: "allowlist_changed".into(),
            by: "operator".into(),
            operator: Some("alice (1000)".into()),
            client_id: Some(7),
            api_key: Some(format!("rk_{}", "a".repeat(58))),
            session: None,
            address: Some("203.0.113.7".into()),
            node: "n".into(),
            request_id: None,
            detail: Some(format!("+{} -10.0.0.0/8", "2001:db8::/32 +".repeat(20))),
            count: 3,
            number: None,
            hash: None,
        };
        let text = narrow_listing(std::slice::from_ref(&event), 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let key = event.api_key.clone().unwrap();
        let expected = format!(
            "ID AT EVENT BY 41 2026-03-01T09:12:44Z allowlist_changed alice client 7, from 203.0.113.7, {key}, {}, 3 times",
            event.detail.clone().unwrap()
        );
        assert_eq!(words, expected);
        let nothing_more =
            EventView { client_id: None, api_key: None, address: None, detail: None, count: 1, ..event };
        assert_eq!(narrow_listing(&[nothing_more], 80).lines().count(), 2);
    }

    #[test]
    fn every_kind_fits_its_column() {
        assert!(EventKind::ALL.iter().all(|kind| kind.name().len() <= 25));
    }
}
