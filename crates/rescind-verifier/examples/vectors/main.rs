//! Writes the test vectors: `cargo run -p rescind-verifier --example vectors > vectors/tokens.json`,
//! from the root of the repository. Every run writes the same bytes.

#![expect(
    clippy::unwrap_used,
    reason = "a tool for the tests: what cannot be written has no use for an error"
)]
#![expect(clippy::print_stdout, reason = "what it writes is its output")]

mod generate;

fn main() {
    print!("{}", generate::vectors().to_json());
}
