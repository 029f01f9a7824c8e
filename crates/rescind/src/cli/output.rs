//! The output of commands, and questions to the operator.

use std::{
    array,
    io::{BufRead, ErrorKind, IsTerminal, Write, stderr, stdin, stdout},
};

use anyhow::anyhow;
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

use super::Failure;

/// What is between two columns of a table, and the width that no column falls below: that of a time.
const GAP: &str = "  ";
const NARROWEST: usize = 20;

/// The operator's flags for output and questions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) yes: bool,
}

/// Prints a message to standard error. Nobody can be told if that fails.
pub(super) fn prose(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

impl Output {
    /// Prints data: with `--json` as JSON, else as `text` formats it.
    pub(super) fn data<T: Serialize>(
        &self,
        data: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json { self.text(&serde_json::to_string(data)?) } else { self.text(&text(data)) }
    }

    /// Prints the result of a change. If it cannot be printed, the failure says what was `done` all the same.
    pub(super) fn done<T: Serialize>(
        &self,
        done: &str,
        data: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        self.data(data, text).map_err(|failure| failure.after(done))
    }

    /// Like [`Output::done`], for a secret that is shown only here: it is lost too if nobody reads the output.
    pub(super) fn secret<T: Serialize>(
        &self,
        done: &str,
        data: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json { serde_json::to_string(data)? } else { text(data) };
        match self.heard(&text).map_err(|failure| failure.after(done))? {
            true => Ok(()),
            false => Err(Failure::Failed(anyhow!("{done}: nobody reads the output"))),
        }
    }

    /// Prints the result of a command.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        self.heard(text).map(|_| ())
    }

    /// Prints one of several texts. Returns whether anybody still reads the output.
    pub(super) fn heard(&self, text: &str) -> Result<bool, Failure> {
        let mut out = stdout();
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            // The reader of the pipe has closed it, which is no failure.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }

    /// Asks for confirmation, after it has said what will happen.
    pub(super) fn confirm(&self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !stdin().is_terminal() {
            return Err(Failure::Usage(format!("{what} If that is meant, say --yes")));
        }
        let mut out = stderr();
        write!(out, "{what} Go on? [y/N] ")?;
        out.flush()?;
        let mut answer = String::new();
        stdin().lock().read_line(&mut answer)?;
        if answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes") {
            Ok(())
        } else {
            Err(Failure::Failed(anyhow!("not done")))
        }
    }
}

/// The columns of the terminal that reads the output. `None`: it is no terminal.
pub(super) fn terminal_width() -> Option<usize> {
    terminal_size_of(stdout()).map(|(Width(columns), _)| usize::from(columns))
}

/// Formats rows under headings, in columns that fit the terminal.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    table_within(terminal_width(), headings, rows)
}

/// Formats rows under headings. The widest columns are cut until all of them fit, and then the ends of lines.
fn table_within<const N: usize>(
    most: Option<usize>,
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![headings.map(str::to_owned)];
    lines.extend(rows);
    let mut widths: [usize; N] =
        array::from_fn(|i| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or(0));
    while most.is_some_and(|most| widths.iter().sum::<usize>() + GAP.len() * N.saturating_sub(1) > most) {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => break,
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| {
            let cell = cut(cell, width);
            // A formatter pads to 65,535 characters at most, and a list may be longer.
            let gap = width.saturating_sub(cell.chars().count());
            cell + &" ".repeat(gap)
        });
        let line = cells.collect::<Vec<_>>().join(GAP);
        text.push_str(&cut(line.trim_end(), most.unwrap_or(usize::MAX)));
        text.push('\n');
    }
    text
}

/// Breaks a text into lines of at most this many characters: between words, or else within one.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let pieces = text.split(' ').flat_map(|word| {
        let chars: Vec<char> = word.chars().collect();
        let pieces: Vec<String> = chars.chunks(most.max(1)).map(|piece| piece.iter().collect()).collect();
        pieces.into_iter().enumerate().map(|(i, piece)| (i == 0, piece))
    });
    for (begins_word, piece) in pieces {
        let last = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(line) if last == 0 => *line = piece,
            Some(line) if begins_word && last + 1 + piece.chars().count() <= most => {
                line.push(' ');
                line.push_str(&piece);
            }
            _ => lines.push(piece),
        }
    }
    lines
}

/// Cuts a text that is longer than a number of characters.
fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Formats values one below the other, each after its name.
pub(super) fn facts<'n>(width: usize, facts: impl IntoIterator<Item = (&'n str, String)>) -> String {
    facts.into_iter().map(|(name, value)| format!("{name:width$}{value}\n")).collect()
}

/// Formats a list for one cell.
pub(super) fn list(items: &[String], none: &str) -> String {
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

/// Formats the first items of a list that may be long.
pub(super) fn first(items: &[String], most: usize, none: &str) -> String {
    match items.len().checked_sub(most) {
        Some(more @ 1..) => format!("{} and {more} more", items[..most].join(", ")),
        _ => list(items, none),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["1".to_owned(), "Büro".to_owned()], ["1000".to_owned(), "x".to_owned()]];
        assert_eq!(table_within(None, ["ID", "NAME"], rows), "ID    NAME\n1     Büro\n1000  x\n");
    }

    #[test]
    fn a_cell_may_be_as_long_as_a_list_is() {
        let long = "x".repeat(70_000);
        let rows = [[long.clone(), "1".to_owned()], ["y".to_owned(), "2".to_owned()]];
        assert!(table_within(None, ["A", "B"], rows).contains(&format!("{long}  1\n")));
    }

    #[test]
    fn a_text_is_broken_between_words_or_else_within_one() {
        for (text, expected) in [
            ("", &[""][..]),
            ("one two three", &["one two", "three"]),
            ("abcdefghijkl mn", &["abcdefgh", "ijkl mn"]),
            ("eight888 x", &["eight888", "x"]),
        ] {
            assert_eq!(wrapped(text, 8), expected, "{text}");
        }
    }

    #[test]
    fn the_widest_columns_are_cut_until_the_table_fits() {
        let rows = || [["1", "a client with a long name", "10.0.0.0/8, 192.0.2.0/24"].map(str::to_owned)];
        let headings = ["ID", "NAME", "ALLOW"];
        for most in [30, 40, 50] {
            let table = table_within(Some(most), headings, rows());
            assert!(table.lines().all(|line| line.chars().count() <= most), "{table}");
        }
        assert_eq!(
            table_within(Some(50), headings, rows()),
            "ID  NAME                    ALLOW\n1   a client with a long …  10.0.0.0/8, 192.0.2.0…\n"
        );
        let whole = table_within(None, headings, rows());
        assert_eq!(table_within(Some(200), headings, rows()), whole);
    }

    #[test]
    fn a_long_list_is_its_first_items_and_how_many_more() {
        let items: Vec<_> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(first(&items, 2, "-"), "a, b and 1 more");
        assert_eq!((first(&items, 3, "-").as_str(), first(&[], 2, "-").as_str()), ("a, b, c", "-"));
    }
}
