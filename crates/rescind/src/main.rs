//! The `rescind` program.

fn main() -> std::process::ExitCode {
    rescind::cli::run()
}
