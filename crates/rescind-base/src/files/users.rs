//! The names of this machine's users.

use std::{fs, path::Path};

/// Where the machine's own users are. Users of a directory service are known by their numbers only.
const USERS: &str = "/etc/passwd";

/// The longest name that is believed.
const NAME_LENGTH: usize = 64;

/// Returns a user as the audit log names it: `alice (uid 1000)`, and behind it whoever has become that user by sudo.
pub fn named(uid: u32, sudo_user: Option<&str>) -> String {
    let name = name_of(uid, Path::new(USERS));
    let user = name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"));
    match sudo_user.filter(|name| is_name(name)) {
        Some(name) => format!("{user}, by sudo from {name}"),
        None => user,
    }
}

fn name_of(uid: u32, users: &Path) -> Option<String> {
    let users = fs::read_to_string(users).ok()?;
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then_some(name)
    });
    name.filter(|name| is_name(name)).map(str::to_owned)
}

fn is_name(name: &str) -> bool {
    (1..=NAME_LENGTH).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_if_the_machine_knows_one() {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("passwd");
        fs::write(&users, "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/:/bin/sh\n").unwrap();
        assert_eq!(name_of(1000, &users).as_deref(), Some("alice"));
        assert_eq!(name_of(0, &users).as_deref(), Some("root"));
        assert_eq!(name_of(7, &users), None);
        assert_eq!(name_of(7, &folder.path().join("none")), None);
        assert_eq!(named(4_000_000_000, None), "uid 4000000000");
        assert_eq!(named(4_000_000_000, Some("bob")), "uid 4000000000, by sudo from bob");
        assert_eq!(named(4_000_000_000, Some("b\nob")), "uid 4000000000");
    }
}
