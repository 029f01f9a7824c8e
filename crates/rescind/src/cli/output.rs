//! The output of commands, and questions to the operator.

#![expect(clippy::print_stderr, reason = "this is where the command line prints")]

use std::io::{BufRead, ErrorKind, IsTerminal, Write, stderr, stdin, stdout};

use serde::Serialize;

use super::Failure;

/// The operator's flags for output and questions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) yes: bool,
}

/// Prints a message to standard error.
pub(super) fn prose(text: &str) {
    eprintln!("{text}");
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

    /// Prints the result of a command.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        self.heard(text).map(|_| ())
    }

    /// Prints one of several texts. Returns whether anybody still reads the output.
    pub(super) fn heard(&self, text: &str) -> Result<bool, Failure> {
        match writeln!(stdout(), "{}", text.trim_end()) {
            // The reader of the pipe has closed it, which is no failure.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }

    /// Prints a message to standard error.
    pub(super) fn prose(&self, text: &str) {
        prose(text);
    }

    /// Asks for confirmation before something is destroyed.
    pub(super) fn confirm(&self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !stdin().is_terminal() {
            return Err(Failure::Usage(format!("{what} This cannot be undone: say --yes")));
        }
        eprint!("{what} This cannot be undone. Go on? [y/N] ");
        stderr().flush()?;
        let mut answer = String::new();
        stdin().lock().read_line(&mut answer)?;
        if answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes") {
            Ok(())
        } else {
            Err(Failure::Failed(anyhow::anyhow!("not done")))
        }
    }
}

/// Formats rows under headings, in columns.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![headings.map(str::to_owned)];
    lines.extend(rows);
    let widths: [usize; N] =
        std::array::from_fn(|i| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Formats a list for one cell.
pub(super) fn list(items: &[String], none: &str) -> String {
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["1".to_owned(), "Büro".to_owned()], ["1000".to_owned(), "x".to_owned()]];
        assert_eq!(table(["ID", "NAME"], rows), "ID    NAME\n1     Büro\n1000  x\n");
    }
}
