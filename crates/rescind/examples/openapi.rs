//! Prints the description of the admin API: `cargo run --example openapi >docs/openapi.json`.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let document = serde_json::to_string_pretty(&rescind::http::document())?;
    writeln!(io::stdout(), "{document}")
}
