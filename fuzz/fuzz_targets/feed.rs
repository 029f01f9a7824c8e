//! Any bytes as a feed: nothing panics, however they are cut they make the same events, and what is
//! read as one of the feed's own comes back the same from its own text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rescind_verifier::follow::{
    sse::{Event, Parser},
    wire::{Change, Client, EndedSession, Hello, Position, What, event_id},
};
use serde::{Serialize, de::DeserializeOwned};

/// The events of these pieces, and whether all of it was a feed.
fn events<'d>(pieces: impl Iterator<Item = &'d [u8]>) -> (Vec<Event>, bool) {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    for piece in pieces {
        match parser.feed(piece) {
            Ok(more) => events.extend(more),
            Err(_) => return (events, false),
        }
    }
    (events, true)
}

fn read<T: Serialize + DeserializeOwned>(text: &str) -> Option<T> {
    let value: T = serde_json::from_str(text).ok()?;
    let written = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&written).expect("and read again");
    assert_eq!(serde_json::to_string(&again).expect("and written"), written);
    Some(value)
}

fn read_all(text: &str) {
    for key in read::<Hello>(text).into_iter().flat_map(|hello| hello.keys) {
        let _ = key.read();
    }
    let clients = read::<Vec<Client>>(text).unwrap_or_default();
    let changed = read::<Change>(text).map(|change| change.what);
    let (mut clients, mut keys) = (clients, Vec::new());
    match changed {
        Some(What::Client(client)) => clients.push(client),
        Some(What::Keys(changed)) => keys = changed,
        Some(What::Session(_)) | None => {}
    }
    for key in keys {
        let _ = key.read();
    }
    for client in clients {
        let id = client.client_id;
        let Some(policy) = client.policy() else { continue };
        assert_eq!(Client::new(id, &policy).policy(), Some(policy), "a policy survives the wire");
    }
    let _ = read::<Vec<EndedSession>>(text);
    if let Some(position) = read::<Position>(text) {
        assert_eq!(event_id(&position).parse(), Ok(position));
    }
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(event_id(&position).parse(), Ok(position));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, data)) = data.split_first() else { return };
    let (one_by_one, is_feed) = events(data.chunks(1));
    for size in [usize::from(size).max(1), data.len().max(1)] {
        let (cut, is_feed_too) = events(data.chunks(size));
        assert_eq!(is_feed, is_feed_too);
        // What came in one piece with the fault is lost with it.
        assert!(one_by_one.starts_with(&cut) && (!is_feed || one_by_one == cut));
    }
    for event in &one_by_one {
        assert!(!event.name.is_empty() && !event.name.contains('\n'));
        read_all(&event.data);
    }
    if let Ok(text) = str::from_utf8(data) {
        read_all(text);
    }
});
