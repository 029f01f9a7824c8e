//! Reads lists of networks, in the forms in which they are published.
//!
//! A text has addresses, networks and ranges `a-b`, between commas, blanks and lines; `#` and `;` begin a comment. A line
//! whose second field is a country or empty (RFC 8805, geofeeds) has its network in the first, if no other field is one. A JSON text is one array of strings.
//! Other JSON is refused, with the places that have networks: a document with many lists must not be taken for one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use rescind_verifier::{Allowlist, parse_cidr};
use serde_json::Value;

use super::{MAX_ALLOWLIST_ENTRIES, UseView};

/// The most places of a document that a message names.
const NAMED: usize = 8;
/// A list with so many problems is read no further.
const MAX_PROBLEMS: usize = 20;

/// What is wrong in a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    pub line: usize,
    pub text: String,
}

/// Returns the uses from addresses that one list permits and the other does not.
pub fn shut_out(uses: Vec<UseView>, before: &Allowlist, after: &Allowlist) -> Vec<UseView> {
    let is_out = |used: &UseView| {
        used.address.is_some() && before.permits(used.address) && !after.permits(used.address)
    };
    uses.into_iter().filter(is_out).collect()
}

/// Reads a list. One that is longer than an allowlist may be is read no further.
///
/// # Errors
///
/// The first problems of the list, each with its line.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['[', '{']) {
        return parse_json(text);
    }
    let end = text.lines().count().max(1);
    all((1..).zip(text.lines()), end, |(line, content), networks| {
        parse_line(content, networks).map_err(|text| Problem { line, text })
    })
}

/// All networks, or the problems. A list without a network has a problem at its `end`.
fn all<P>(
    parts: impl Iterator<Item = P>,
    end: usize,
    read: impl Fn(P, &mut Vec<IpNet>) -> Result<(), Problem>,
) -> Result<Vec<IpNet>, Vec<Problem>> {
    let (mut networks, mut problems) = (Vec::new(), Vec::new());
    for part in parts {
        problems.extend(read(part, &mut networks).err());
        if networks.len() > MAX_ALLOWLIST_ENTRIES || problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    if networks.is_empty() && problems.is_empty() {
        problems.push(Problem { line: end, text: "there is no network in this list".into() });
    }
    if problems.is_empty() { Ok(networks) } else { Err(problems) }
}

/// Adds the networks of a word, of which a range may have many. Fails at the first that is too many.
fn add(word: &str, networks: &mut Vec<IpNet>) -> Result<(), String> {
    for network in parse_word(word)? {
        networks.push(network);
        if networks.len() > MAX_ALLOWLIST_ENTRIES {
            return Err(format!(
                "an allowlist has at most {MAX_ALLOWLIST_ENTRIES} entries, and this list has more: use wider networks"
            ));
        }
    }
    Ok(())
}

fn parse_line(line: &str, networks: &mut Vec<IpNet>) -> Result<(), String> {
    let content = line.split(['#', ';']).next().unwrap_or_default();
    let fields: Vec<_> = content.split(',').map(str::trim).collect();
    let is_country = |field: &&str| {
        field.is_empty() || (field.len() == 2 && field.bytes().all(|b| b.is_ascii_alphabetic()))
    };
    let is_geofeed =
        fields.get(1).is_some_and(is_country) && fields[1..].iter().all(|field| parse_word(field).is_err());
    let fields = match is_geofeed {
        true => &fields[..1],
        false => &fields[..],
    };
    for field in fields {
        let mut before = None;
        for word in field.replace(" - ", "-").split_whitespace() {
            let word = word.trim_matches(['"', '\'']);
            if let (Some(before), Ok(mask)) = (before, word.parse()) {
                refuse_mask(before, mask)?;
            }
            add(word, networks)?;
            before = word.parse().ok();
        }
    }
    Ok(())
}

/// Reads an address, a network or a range.
fn parse_word(word: &str) -> Result<IpSubnets, String> {
    // A dash alone, as before an entry of another language's list, is no range.
    let range = word.split_once('-').filter(|(first, last)| !first.is_empty() && !last.is_empty());
    let network = |text: &str| parse_cidr(text).map_err(|e| e.to_string());
    let (first, last) = match range {
        None => network(word).map(|net| (net.network(), net.broadcast()))?,
        Some((first, last)) => (network(first)?.addr(), network(last)?.addr()),
    };
    match (first, last) {
        (first, last) if first > last => Err(format!("the range {word} ends before it begins")),
        (IpAddr::V4(first), IpAddr::V4(last)) => Ok(Ipv4Subnets::new(first, last, 0).into()),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ok(Ipv6Subnets::new(first, last, 0).into()),
        _ => Err(format!("the range {word} has an IPv4 and an IPv6 address")),
    }
}

/// Refuses an address that is meant as the mask of the one before it.
fn refuse_mask(network: Ipv4Addr, mask: Ipv4Addr) -> Result<(), String> {
    let bits = u32::from(mask);
    let length = [bits, !bits]
        .into_iter()
        .find(|bits| *bits != 0 && bits.leading_ones() + bits.trailing_zeros() == 32);
    match length.filter(|bits| bits.leading_ones() >= 1 && (bits >> 24 == 255 || bits.leading_ones() < 8)) {
        Some(bits) => {
            Err(format!("{mask} is the mask of a network: write {network}/{}", bits.leading_ones()))
        }
        None => Ok(()),
    }
}

fn parse_json(text: &str) -> Result<Vec<IpNet>, Vec<Problem>> {
    let json: Value = serde_json::from_str(text).map_err(|e| {
        let text = format!("one JSON value was expected: {e}");
        vec![Problem { line: e.line(), text }]
    })?;
    let strings =
        json.as_array().and_then(|array| array.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(strings) = strings else { return Err(vec![Problem { line: 1, text: pick_one(&json) }]) };
    all(strings.into_iter(), 1, |string, networks| {
        add(string, networks).map_err(|problem| {
            let before = text.split(string).next().unwrap_or_default();
            Problem { line: before.lines().count().max(1), text: problem }
        })
    })
}

/// Names the places of a document that have networks, for `jq`.
fn pick_one(json: &Value) -> String {
    let mut places = Places::default();
    places.look_through(json, None);
    let mut found: Vec<_> = (0..places.all.len()).filter(|place| places.all[*place].networks > 0).collect();
    // The largest list is most likely the one that is meant.
    found.sort_by_key(|place| std::cmp::Reverse(places.all[*place].networks));
    let Some(largest) = found.first() else {
        return "this is no array of networks, and there are none in it".into();
    };
    let largest = places.path(*largest);
    let named = found.iter().take(NAMED);
    let named = named.map(|place| format!("{} ({})", places.path(*place), places.all[*place].networks));
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more places") } else { String::new() };
    format!(
        "this is no array of networks, but a document with networks at {}{more}: pick what is meant, as with jq '{largest}' FILE | rescind client allow add CLIENT -",
        named.collect::<Vec<_>>().join(", ")
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step<'a> {
    Member(&'a str),
    Items,
}

/// The places of a document. Each is one step from another, so that a long name is not copied for what is below it.
#[derive(Default)]
struct Places<'a> {
    all: Vec<Place<'a>>,
    known: HashMap<(Option<usize>, Step<'a>), usize>,
}

struct Place<'a> {
    /// `None`: the whole document.
    from: Option<usize>,
    step: Step<'a>,
    networks: usize,
}

impl<'a> Places<'a> {
    /// Counts the networks at each place.
    fn look_through(&mut self, json: &'a Value, place: Option<usize>) {
        match json {
            Value::String(text) if parse_word(text).is_ok() => {
                place.into_iter().for_each(|place| self.all[place].networks += 1);
            }
            Value::Array(items) => {
                let place = self.at(place, Step::Items);
                items.iter().for_each(|item| self.look_through(item, Some(place)));
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let place = self.at(place, Step::Member(name));
                    self.look_through(member, Some(place));
                }
            }
            _ => {}
        }
    }

    fn at(&mut self, from: Option<usize>, step: Step<'a>) -> usize {
        *self.known.entry((from, step)).or_insert_with(|| {
            self.all.push(Place { from, step, networks: 0 });
            self.all.len() - 1
        })
    }

    /// The place as jq reads it.
    fn path(&self, place: usize) -> String {
        let (mut steps, mut at) = (vec![], Some(place));
        while let Some(place) = at {
            steps.push(self.all[place].step);
            at = self.all[place].from;
        }
        let texts = steps.into_iter().rev().map(|step| match step {
            Step::Items => "[]".into(),
            Step::Member(name) if is_plain(name) => format!(".{name}"),
            Step::Member(name) => format!("[{}]", Value::from(name)),
        });
        let path: String = texts.collect();
        // jq's path begins with a dot, whatever comes after.
        if path.starts_with('.') { path } else { format!(".{path}") }
    }
}

/// Whether jq takes a name without quotation marks.
fn is_plain(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests;
