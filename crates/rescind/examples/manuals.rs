//! Writes the manual pages of the command line into a folder, for the packages. They are made from the same definitions as
//! the command line itself, and this program keeps what makes them out of the shipped one.

use std::{io, path::PathBuf};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: manuals FOLDER"))?;
    clap_mangen::generate_to(rescind::cli::definition(), folder)
}
