//! One line for each event, as text or JSON.

use std::{
    cell::Cell,
    fmt::{self, Debug, Display, Write},
};

use rescind_node::audit;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::Context,
};

thread_local! {
    /// The memory of this thread's last line, which the next one uses.
    static MEMORY: Cell<String> = const { Cell::new(String::new()) };
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Level, message and fields.
    Brief,
    /// The same after the time.
    Text { colours: bool },
    /// One object.
    Json,
}

/// Whether the journal reads the lines: then each begins with its priority, as in `<6>` (sd-daemon(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Priorities(pub(super) bool);

/// Makes a line of each event, and passes it on.
pub(super) struct Lines<W> {
    form: Form,
    priorities: Priorities,
    write: W,
}

impl<W: Fn(&[u8])> Lines<W> {
    pub(super) fn new(form: Form, priorities: Priorities, write: W) -> Lines<W> {
        Lines { form, priorities, write }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber,
    W: Fn(&[u8]) + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // While this line is made, a value's own `Debug` may make another. That one gets memory of its own.
        let mut text = MEMORY.try_with(Cell::take).unwrap_or_default();
        text.clear();
        if self.priorities == Priorities(true) {
            text.push_str(priority(*event.metadata().level()));
        }
        let mut line = Line { text, form: self.form };
        line.begin(*event.metadata().level());
        if self.form == Form::Json {
            event.record(&mut line);
            line.request();
            line.text.push('}');
        } else {
            line.request();
            event.record(&mut line);
        }
        line.text.push('\n');
        (self.write)(line.text.as_bytes());
        let _ = MEMORY.try_with(|memory| memory.set(line.text));
    }
}

struct Line {
    text: String,
    form: Form,
}

impl Line {
    fn begin(&mut self, level: Level) {
        let Line { text, form } = self;
        match form {
            Form::Brief => self.add(format_args!("{level:>5}")),
            Form::Text { colours: false } => {
                now(text);
                self.add(format_args!(" {level:>5}"));
            }
            Form::Text { colours: true } => {
                text.push_str("\u{1b}[2m");
                now(text);
                self.add(format_args!("\u{1b}[0m \u{1b}[{}m{level:>5}\u{1b}[0m", colour(level)));
            }
            Form::Json => {
                text.push_str("{\"timestamp\":\"");
                now(text);
                self.add(format_args!("\",\"level\":\"{level}\""));
            }
        }
    }

    /// Adds the id of the request that this task answers, if it answers one.
    fn request(&mut self) {
        let _ = audit::REQUEST.try_with(|request| {
            let id = request.id.to_str().unwrap_or_default();
            if self.form == Form::Json {
                self.text.push_str(",\"span\":{\"id\":");
                self.quoted(format_args!("{id}"));
                self.text.push_str(",\"name\":\"request\"}");
            } else {
                self.add(format_args!(" request{{id={id:?}}}:"));
            }
        });
    }

    /// Adds what comes before a field's value.
    fn name(&mut self, field: &Field) {
        let name = field.name();
        match self.form {
            Form::Json => self.add(format_args!(",\"{name}\":")),
            _ if name == "message" => self.text.push(' '),
            _ => self.add(format_args!(" {name}=")),
        }
    }

    fn add(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(text);
    }

    /// Adds a text that may have any characters.
    fn escaped(&mut self, text: fmt::Arguments<'_>) {
        let quotes = self.form == Form::Json;
        // A value's own formatting may fail. Then the part that it wrote is in the line.
        let _ = Escaped { text: &mut self.text, quotes }.write_fmt(text);
    }

    fn quoted(&mut self, text: fmt::Arguments<'_>) {
        self.text.push('"');
        self.escaped(text);
        self.text.push('"');
    }

    fn number(&mut self, field: &Field, value: impl Display) {
        self.name(field);
        self.add(format_args!("{value}"));
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no other numbers.
        if value.is_finite() { self.number(field, value) } else { self.record_debug(field, &value) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.number(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.form == Form::Json || field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field);
        match self.form {
            Form::Json => self.quoted(format_args!("{value:?}")),
            Form::Brief | Form::Text { .. } => self.escaped(format_args!("{value:?}")),
        }
    }
}

fn now(text: &mut String) {
    let _ = SystemTime.format_time(&mut Writer::new(text));
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Writes control characters as JSON does, so that a line is one line. For JSON also quotes.
struct Escaped<'l> {
    text: &'l mut String,
    quotes: bool,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, char) in text.char_indices() {
            let is_quote = self.quotes && matches!(char, '"' | '\\');
            if !is_quote && !char.is_control() {
                continue;
            }
            self.text.push_str(&text[plain..at]);
            plain = at + char.len_utf8();
            match char {
                '\n' => self.text.push_str("\\n"),
                _ if is_quote => self.text.extend(['\\', char]),
                _ => write!(self.text, "\\u{:04x}", u32::from(char))?,
            }
        }
        self.text.push_str(&text[plain..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use hyper::header::HeaderValue;
    use serde_json::{Value, json};
    use tracing::{debug, error, info, subscriber::with_default, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The lines that this makes the log write.
    fn lines(form: Form, log: impl FnOnce()) -> Vec<String> {
        lines_with(form, Priorities(false), log)
    }

    fn lines_with(form: Form, priorities: Priorities, log: impl FnOnce()) -> Vec<String> {
        let written = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&written);
        let lines = Lines::new(form, priorities, move |line: &[u8]| {
            to.lock().unwrap().push_str(str::from_utf8(line).unwrap());
        });
        with_default(tracing_subscriber::registry().with(lines), log);
        let written = written.lock().unwrap();
        assert!(written.ends_with('\n'));
        written.lines().map(str::to_owned).collect()
    }

    fn everything() {
        let no_number = f64::NAN;
        warn!(
            text = "a \"b\"\n", shown = %"c\u{1b}[2K\\", debug = ?Some("d"), number = -1_i64, much = u128::MAX,
            float = 1.5, no_number, yes = true, nothing = None::<u64>, "what\nhappened to {}", "\u{7f}é"
        );
    }

    #[test]
    fn text_is_one_line_however_its_values_are() {
        let [line] = &*lines(Form::Brief, everything) else { panic!() };
        let expected =
            r#" WARN what\nhappened to \u007fé text="a \"b\"\n" shown=c\u001b[2K\ debug=Some("d") number=-1"#;
        let (line, rest) = line.split_at(expected.len());
        assert_eq!(line, expected);
        assert_eq!(rest, format!(" much={} float=1.5 no_number=NaN yes=true", u128::MAX));
    }

    #[test]
    fn json_has_the_values_as_they_are() {
        let [line] = &*lines(Form::Json, everything) else { panic!() };
        let mut object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let time = object["timestamp"].take();
        assert!(time.as_str().is_some_and(|time| time.len() == 27 && time.ends_with('Z')), "{time}");
        let much = object["much"].take();
        assert!(much.is_number(), "{much}");
        let expected = json!({
            "timestamp": null, "level": "WARN", "message": "what\nhappened to \u{7f}é", "text": "a \"b\"\n",
            "shown": "c\u{1b}[2K\\", "debug": "Some(\"d\")", "number": -1, "much": null, "float": 1.5,
            "no_number": "NaN", "yes": true
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn the_journal_gets_each_lines_priority() {
        let log = || {
            error!("a");
            warn!("b");
            info!("c");
            debug!("d");
        };
        let expected = ["<3>ERROR a", "<4> WARN b", "<6> INFO c", "<7>DEBUG d"];
        assert_eq!(lines_with(Form::Brief, Priorities(true), log), expected);
    }

    #[test]
    fn a_line_names_the_request_of_its_task() {
        let log = || {
            info!("none");
            audit::REQUEST
                .sync_scope(audit::Request::new(HeaderValue::from_static("a\"b")), || info!(a = 1, "one"));
        };
        let expected = [" INFO none", r#" INFO request{id="a\"b"}: one a=1"#];
        assert_eq!(lines(Form::Brief, log), expected);
        let spans = lines(Form::Json, log).into_iter().map(|line| {
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            line["span"].clone()
        });
        let expected = [Value::Null, json!({ "id": "a\"b", "name": "request" })];
        assert_eq!(spans.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_line_has_its_time_and_a_terminal_shows_the_level_in_colour() {
        let [plain] = &*lines(Form::Text { colours: false }, || info!("x")) else { panic!() };
        assert!(plain.ends_with("Z  INFO x") && !plain.contains('\u{1b}'), "{plain}");
        let [coloured] = &*lines(Form::Text { colours: true }, || info!("x")) else { panic!() };
        assert!(coloured.ends_with("Z\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m x"), "{coloured}");
    }
}
