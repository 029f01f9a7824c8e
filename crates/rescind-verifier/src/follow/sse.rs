//! Server-sent events (WHATWG HTML §9.2.6), as far as the feed uses them.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's type.
    pub name: String,
    /// The event's data, its lines joined by line feeds.
    pub data: String,
}

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    name: String,
    data: String,
}

/// The longest line and event, in bytes. A server writes none as long, so a longer one shows that the stream is
/// no feed.
const MAX_LENGTH: usize = 16 << 20;

/// Why a stream is no feed: it is not UTF-8, or has a line or event that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAFeed;

impl Parser {
    /// Reads more bytes, and returns the events that they complete.
    ///
    /// # Errors
    ///
    /// [`NotAFeed`]: the bytes are not UTF-8, or a line or an event is too long.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, NotAFeed> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > MAX_LENGTH {
                return Err(NotAFeed);
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                events.extend(self.line(std::str::from_utf8(&line).map_err(|_| NotAFeed)?));
            }
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (!name.is_empty()).then_some(Event { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // The feed needs no comments, ids and retry times: its data has everything.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let text = b": hello\nevent: change\nid: a:1\ndata: {\"seq\":1}\n\r\nevent:heartbeat\r\ndata:x\r\ndata: y\n\r\ndata: lost\n\n";
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        let expected = vec![event("change", "{\"seq\":1}"), event("heartbeat", "x\ny")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events = text.chunks(size).flat_map(|chunk| parser.feed(chunk).unwrap());
            assert_eq!(events.collect::<Vec<_>>(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_feed_is_refused_in_bounded_memory() {
        assert_eq!(Parser::default().feed(b"event: \xff\n"), Err(NotAFeed));
        let piece = [b"data: ", [b'x'; 65_536].as_slice()].concat();
        for end in ["", "\n"] {
            let piece = [&piece, end.as_bytes()].concat();
            let mut parser = Parser::default();
            let endless = (0..=MAX_LENGTH / 65_536).map(|_| parser.feed(&piece)).find(Result::is_err);
            assert_eq!(endless, Some(Err(NotAFeed)));
        }
    }
}
