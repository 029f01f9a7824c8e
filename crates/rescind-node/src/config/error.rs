//! What is wrong with a configuration, and where it was set.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rescind_base::files::{circumstances::circumstances, permissions::PermissionError};
use thiserror::Error;

/// Why a process cannot start: the key, its value, the value's source, and what is expected.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}: {}{}", .0, .1, circumstances(Path::new(.0), .1))]
    File(String, io::Error),
    /// The file is not TOML: the line number, and why. The line itself may hold a password.
    #[error("configuration file {0}: line {1}: {2}")]
    Syntax(PathBuf, usize, String),
    /// A secret's file cannot be read. The text in the place of its path may be the secret itself.
    #[error("{} names {}, which cannot be read: {}{}", .0, .1, .2, circumstances(Path::new(.1), .2))]
    SecretFile(String, String, io::Error),
    /// Other users may write a secret's file.
    #[error("{0}: {1}")]
    Permissions(String, PermissionError),
    /// A variable whose name differs from a setting's only in underscores.
    #[error("environment variable {0}: no such setting: its name is {1}")]
    Variable(String, String),
    /// A key or its value is wrong.
    #[error("{key}{shown} ({origin}): {problem}")]
    Key {
        /// `section.field`
        key: String,
        /// ` = value`, or nothing.
        shown: String,
        /// Where the key was set.
        origin: ValueSource,
        /// What is wrong and what is expected.
        problem: String,
    },
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    Default,
    File(PathBuf),
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueSource::Default => f.write_str("default"),
            ValueSource::File(path) => write!(f, "{}", path.display()),
            ValueSource::Variable(name) => write!(f, "environment variable {name}"),
            ValueSource::Flag(name) => write!(f, "flag {name}"),
        }
    }
}
