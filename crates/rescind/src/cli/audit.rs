//! `rescind audit`

use std::{mem::replace, pin::pin, time::Duration};

use clap::{Args, Subcommand, builder::RangedU64ValueParser};
use tokio::time::sleep;

use super::{
    Failure,
    admin::with_backend,
    backend::Backend,
    output::{Output, table},
    runtime,
    serve::stop_signal,
};
use crate::{
    admin::{self, EventView, EventsView, EventsWanted},
    clock::Clock,
    config::{Config, Environment, Span},
    model::{ClientId, EventKind},
    store::Store,
};

/// The pause between two requests of `--follow`.
const PAUSE: Duration = Duration::from_secs(1);
/// The most events in one answer.
const PAGE: u64 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List who changed what, and who tried what, the newest last
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only events of this kind, such as client_suspended
    #[arg(long)]
    kind: Option<EventKind>,
    /// Only events of this client
    #[arg(long, value_name = "ID")]
    client: Option<ClientId>,
    /// Only events that are not older than this, such as 1h
    #[arg(long, value_name = "DURATION")]
    since: Option<Span>,
    /// The oldest events after this event, instead of the newest
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// At most this many events
    #[arg(long, value_name = "N", default_value = "100", value_parser = RangedU64ValueParser::<u64>::new().range(1..=PAGE))]
    limit: u64,
    /// Print new events too, until interrupted; with --json, one JSON object a line
    #[arg(long)]
    follow: bool,
}

pub(super) fn run(
    command: AuditCommand,
    config: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let AuditCommand::List(List { kind, client, since, after, limit, follow }) = command;
    let first = EventsWanted { after, limit: Some(limit), kind, client, since };
    let mut page = EventsView { events: vec![], last: 0 };
    with_backend(config, environment, false, async |backend| {
        page = backend.get(&path(&first)).await?;
        Ok(())
    })?;
    if !follow {
        return output.data(&page.events, |events| listing(events));
    }
    let next = EventsWanted { after: Some(page.last), limit: Some(PAGE), since: None, ..first };
    let text = if output.json { lines(&page.events)? } else { listing(&page.events) };
    if !text.is_empty() && !output.heard(&text)? {
        return Ok(());
    }
    runtime()?.block_on(go_on(next, config, output))
}

/// Prints page after page, until interrupted or until nobody reads the output. Waits while the server is unavailable.
async fn go_on(mut next: EventsWanted, config: &Config, output: &Output) -> Result<(), Failure> {
    let mut stop = pin!(stop_signal()?);
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
            Ok(EventsView { events, last }) => {
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
                    output.prose(&format!("waiting: {error:#}"));
                }
            }
        }
    }
}

/// Asks the running server, or else the database. Without either, returns no events. The data folder is not locked, so
/// that a server can start meanwhile.
async fn look(
    wanted: &EventsWanted,
    config: &Config,
    database: &mut Option<Store>,
) -> anyhow::Result<EventsView> {
    if let Some(mut server) = Backend::running(&config.server.data_dir).await? {
        return server.get(&path(wanted)).await;
    }
    let Some(options) = config.postgres() else {
        return Ok(EventsView { events: vec![], last: wanted.after.unwrap_or(0) });
    };
    let store = match database {
        Some(store) => store,
        None => database.insert(Store::connect(&options).await?),
    };
    Ok(admin::events(store, &Clock::System, wanted.clone()).await?)
}

fn path(wanted: &EventsWanted) -> String {
    let EventsWanted { after, limit, kind, client, since } = wanted;
    let parameters = [
        ("after", after.map(|id| id.to_string())),
        ("limit", limit.map(|limit| limit.to_string())),
        ("kind", kind.map(|kind| kind.name().to_owned())),
        ("client", client.map(|id| id.to_string())),
        ("since", since.map(|span| span.to_string())),
    ];
    let given = parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    format!("/admin/v1/audit?{}", given.collect::<Vec<_>>().join("&"))
}

/// One JSON object a line.
fn lines(events: &[EventView]) -> Result<String, Failure> {
    let lines: Result<Vec<_>, _> = events.iter().map(serde_json::to_string).collect();
    Ok(lines?.join("\n"))
}

/// A table with columns of fixed widths, so that the tables of all pages line up.
fn listing(events: &[EventView]) -> String {
    let rows = events.iter().map(|e| {
        let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
        let details = [
            e.api_key.clone(),
            e.session.map(|id| format!("session {id}")),
            e.detail.clone(),
            (e.count > 1).then(|| format!("{} times", e.count)),
        ];
        [
            format!("{:<7}", e.id),
            e.at.clone(),
            format!("{:<25}", e.kind),
            format!("{:<8}", e.by),
            number(e.client_id),
            format!("{:<15}", e.address.as_deref().unwrap_or("-")),
            details.into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]
    });
    table(["ID", "AT", "EVENT", "BY", "CLIENT", "ADDRESS", "DETAIL"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_fits_its_column() {
        assert!(EventKind::ALL.iter().all(|kind| kind.name().len() <= 25));
    }
}
