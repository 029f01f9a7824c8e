//! From a template to a configuration: its blocks, and what is filled in.

use rescind_verifier::Scopes;

use super::origin::Origin;

/// Paths that programs read in different ways: two slashes, dots, a backslash, `;`, `#`, and those of them, letters and
/// digits in percent-encoding. A client could ask for the scopes of one location and reach another.
pub(super) const ODD: &str = r"^[^?]*(//|/[.][.]?(/|[?]|$)|[\x5c;#]|%(2[def]|3[0-9b]|[4-7][0-9a-f]))";

/// Where a path begins, and the scopes that a token must have there.
pub(super) struct Location {
    path: String,
    scopes: Vec<String>,
}

impl Location {
    /// The query of `/verify`, in characters without a special meaning in any of the configurations.
    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
        query.finish()
    }
}

/// The locations below `/`, the longest path first, and `/`, whose scopes all the others require too.
pub(super) struct Locations {
    below: Vec<Location>,
    root: Location,
}

impl Locations {
    pub(super) fn new(everywhere: &[Scopes], some: &[(String, Scopes)]) -> Locations {
        let location = |path: &str| {
            let here =
                some.iter().filter(|(whose, _)| whose == path || whose == "/").map(|(_, scopes)| scopes);
            let scopes = everywhere.iter().chain(here).flat_map(Scopes::iter).map(str::to_owned).collect();
            Location { path: path.to_owned(), scopes }
        };
        let mut paths: Vec<&str> = some.iter().map(|(path, _)| path.as_str()).filter(|p| *p != "/").collect();
        paths.sort_by_key(|path| (std::cmp::Reverse(path.len()), *path));
        paths.dedup();
        Locations { below: paths.into_iter().map(location).collect(), root: location("/") }
    }
}

/// Who the proxy talks to.
pub(super) struct Ends {
    pub(super) rescind: Origin,
    pub(super) rescind_ca: String,
    pub(super) upstream: Origin,
    pub(super) listen: Origin,
}

impl Ends {
    pub(super) fn fill(&self, template: &str, locations: &Locations) -> String {
        let lines: Vec<&str> = template.lines().collect();
        let mut text = self.with_blocks(&lines, locations, &locations.root, 0);
        for (name, origin) in
            [("RESCIND", &self.rescind), ("UPSTREAM", &self.upstream), ("LISTEN", &self.listen)]
        {
            text = text
                .replace(&format!("@{name}@"), &origin.to_string())
                .replace(&format!("@{name}_HOST@"), &origin.host)
                .replace(&format!("@{name}_PORT@"), &origin.port.to_string());
        }
        text.replace("@SCHEME@", if self.rescind.tls { "https" } else { "http" })
            .replace("@CA@", &self.rescind_ca)
            .replace("@TRUSTED@", self.rescind.trusted_proxies())
            .replace("@ODD@", ODD)
            .replace("@BASE_QUERY@", &with_mark(&locations.root.query()))
    }

    /// The lines, each `#@ BLOCK` to `#@ end BLOCK` as often as the block applies.
    fn with_blocks(&self, lines: &[&str], locations: &Locations, here: &Location, number: usize) -> String {
        let mut text = String::new();
        let mut rest = lines.iter();
        while let Some(line) = rest.next() {
            let Some(block) = line.trim().strip_prefix("#@ ") else {
                let (query, value) = (here.query(), here.scopes.join(" "));
                let (name, value) = if value.is_empty() { ("path", "any") } else { ("scope", &*value) };
                let suffix = if here.path == "/" { String::new() } else { format!("-{number}") };
                let line = line
                    .replace("@PATTERN@", if here.path == "/" { "" } else { &here.path })
                    .replace("@PATH@", &here.path)
                    .replace("@PAIRS@", &query)
                    .replace("@QUERY@", &with_mark(&query))
                    .replace("@SUFFIX@", &suffix)
                    .replace("@NAME@", name)
                    .replace("@VALUE@", value);
                text += &line;
                text.push('\n');
                continue;
            };
            let end = format!("#@ end {block}");
            let body: Vec<&str> = rest.by_ref().take_while(|line| line.trim() != end).copied().collect();
            let applies = match block {
                "tls" => self.rescind.tls,
                "plain" => !self.rescind.tls,
                "several" => !locations.below.is_empty(),
                "below" => here.path != "/",
                _ => {
                    for (number, location) in (1..).zip(locations.below.iter().chain([&locations.root])) {
                        text += &self.with_blocks(&body, locations, location, number);
                    }
                    false
                }
            };
            if applies {
                text += &self.with_blocks(&body, locations, here, number);
            }
        }
        text
    }
}

fn with_mark(query: &str) -> String {
    if query.is_empty() { String::new() } else { format!("?{query}") }
}
