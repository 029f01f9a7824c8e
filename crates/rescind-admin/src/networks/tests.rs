use super::*;

mod published;

/// The networks that a text is read as, or its problems.
fn read_text(text: &str) -> Result<Vec<String>, Vec<String>> {
    let networks = parse_networks(text).map_err(|problems| {
        problems.into_iter().map(|Problem { line, text }| format!("{line}: {text}")).collect::<Vec<_>>()
    })?;
    Ok(networks.iter().map(ToString::to_string).collect())
}

fn taken(text: &str, expected: &[&str]) {
    assert_eq!(read_text(text).unwrap(), expected, "{text:?}");
}

fn refused(text: &str, expected: &str) {
    let problems = read_text(text).unwrap_err();
    assert!(problems[0].starts_with(expected), "{text:?}: {problems:?}");
}

#[test]
fn networks_stand_between_commas_blanks_and_lines() {
    let two = ["203.0.113.0/24", "2001:db8::/32"];
    for text in [
        "203.0.113.0/24,2001:db8::/32",
        "203.0.113.0/24, 2001:db8::/32,",
        "203.0.113.0/24\t2001:db8::/32",
        "\u{feff}203.0.113.0/24\r\n2001:db8::/32\r\n",
        "# ours\n\n203.0.113.0/24   # the office\n2001:DB8::/32 ; SBL1\n",
        "\"203.0.113.0/24\"\n\"2001:db8::/32\"\n",
        "[\"203.0.113.0/24\", \"2001:db8::/32\"]",
        " [\n  \"203.0.113.0/24\",\n  \"2001:db8::/32\"\n]\n",
    ] {
        taken(text, &two);
    }
    taken("203.0.113.7", &["203.0.113.7/32"]);
}

#[test]
fn ranges_are_the_networks_that_make_them_up() {
    taken("192.0.2.0-192.0.2.255", &["192.0.2.0/24"]);
    taken("192.0.2.1 - 192.0.2.4", &["192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/32"]);
    taken("2001:db8::-2001:db8::1", &["2001:db8::/127"]);
    taken("0.0.0.0-255.255.255.255", &["0.0.0.0/0"]);
    refused("192.0.2.9-192.0.2.1", "1: the range 192.0.2.9-192.0.2.1 ends before it begins");
    refused("192.0.2.9-2001:db8::", "1: the range 192.0.2.9-2001:db8:: has an IPv4 and an IPv6 address");
}

#[test]
fn a_geofeed_is_read_by_its_first_column() {
    let feed =
        "# geofeed\n192.0.2.0/25,US,US-AL,,\n192.0.2.128/25,PL,PL-MZ,Warsaw,00-001\n2001:db8::/48,,,,\n";
    taken(feed, &["192.0.2.0/25", "192.0.2.128/25", "2001:db8::/48"]);
    // It is none if a network would be left out.
    taken("198.51.100.0/24,,192.0.2.0/24", &["198.51.100.0/24", "192.0.2.0/24"]);
    refused("198.51.100.0/24,US,192.0.2.0/24", "1: \"US\" is not an address");
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_would_be_right() {
    refused("203.0.113.0/24\n\n10.0.0.1/8\n", "3: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8");
    refused("203.0.113.0/24\nexample.com", "2: \"example.com\" is not an address or a network");
    refused("10.0.0.0 255.0.0.0", "1: 255.0.0.0 is the mask of a network: write 10.0.0.0/8");
    refused("10.0.0.0 255.255.254.0", "1: 255.255.254.0 is the mask of a network: write 10.0.0.0/23");
    refused("10.1.2.0 0.0.0.255", "1: 0.0.0.255 is the mask of a network: write 10.1.2.0/24");
    refused("prefix,country\n", "1: \"prefix\" is not an address");
    refused("allow 10.0.0.0/8;", "1: \"allow\" is not an address");
    refused("", "1: there is no network in this list");
    refused("# nothing\n# yet\n", "2: there is no network in this list");
    refused("[]", "1: there is no network in this list");
    refused("[\"192.0.2.0/24\",\n\"10.0.0.1/8\"]", "2: 10.0.0.1/8 has host bits set");
    refused(
        "{\"cidr\":\"192.0.2.0/24\"}\n{\"cidr\":\"198.51.100.0/24\"}\n",
        "2: one JSON value was expected",
    );
    refused("[\"192.0.2.0/24\",]", "1: one JSON value was expected");
    refused("{\"a\": [1, true, \"x\"]}", "1: this is no array of networks, and there are none in it");
    // Every line with a problem is told.
    assert_eq!(read_text("10.0.0.1/8\n192.0.2.0/24\nx\n").unwrap_err().len(), 2);
}

/// So many networks, no two of which touch.
fn some(of: u32) -> Vec<String> {
    (0..of).map(|n| format!("{}/24", Ipv4Addr::from(0x0b00_0000 + (n << 9)))).collect()
}

fn quoted(networks: &[String], between: &str) -> String {
    networks.iter().map(|net| format!("\"{net}\"")).collect::<Vec<_>>().join(between)
}

/// The shapes and sizes of lists that providers publish. Each is taken, or the message says how to pick from it.
#[test]
fn published_lists_are_taken_or_the_message_says_how_to_pick_from_them() {
    let (few, many) = (some(15), some(5314));
    // One network a line: content delivery networks, monitors, search engines, block lists.
    for networks in [&few, &many] {
        let lines = networks.join("\n");
        for text in [
            lines.clone(),
            format!("{lines}\n"),
            networks.join("\r\n"),
            networks.join(" "),
            networks.join(","),
            networks.join(", "),
            format!("# Last updated 2026-11-01\n{lines}\n# end\n"),
            networks.iter().map(|net| format!("{net} ; SBL12345\n")).collect(),
            networks.iter().map(|net| format!("{net}\t# eu-west\n")).collect(),
            networks.iter().map(|net| format!("{net},DE,DE-BE,Berlin,10115\n")).collect(),
            networks.iter().map(|net| format!("{net},DE,,,\n")).collect(),
            format!("[{}]", quoted(networks, ",")),
            format!("[\n  {}\n]\n", quoted(networks, ",\n  ")),
            // What jq prints of a document.
            quoted(networks, "\n"),
        ] {
            assert_eq!(read_text(&text).unwrap().len(), networks.len());
        }
    }
    let list = quoted(&many, ",");
    let objects = |name: &str| {
        many.iter()
            .map(|net| format!("{{\"{name}\":\"{net}\",\"region\":\"eu\"}}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    for (text, place) in [
        // A token and prefixes in two families, each an object.
        (
            format!(
                "{{\"syncToken\":\"1\",\"prefixes\":[{}],\"ipv6_prefixes\":[{{\"ipv6_prefix\":\"2001:db8::/32\"}}]}}",
                objects("ip_prefix")
            ),
            ".prefixes[].ip_prefix (5314), .ipv6_prefixes[].ipv6_prefix (1): pick what is meant, as with jq '.prefixes[].ip_prefix' FILE",
        ),
        // Services by name, with their networks below.
        (
            format!(
                "{{\"values\":[{{\"name\":\"Storage\",\"properties\":{{\"addressPrefixes\":[{list}]}}}}]}}"
            ),
            ".values[].properties.addressPrefixes[] (5314): pick what is meant",
        ),
        // One list for each use.
        (
            format!(
                "{{\"domains\":{{\"website\":[\"*.example.com\"]}},\"hooks\":[\"192.0.2.0/24\"],\"actions\":[{list}]}}"
            ),
            ".actions[] (5314), .hooks[] (1): pick what is meant, as with jq '.actions[]' FILE",
        ),
        // Regions, with networks that have tags.
        (
            format!("{{\"regions\":[{{\"region\":\"eu\",\"cidrs\":[{}]}}]}}", objects("cidr")),
            ".regions[].cidrs[].cidr (5314): pick what is meant",
        ),
        // An answer of an API.
        (
            format!(
                "{{\"result\":{{\"ipv4_cidrs\":[{list}],\"ipv6_cidrs\":[\"2001:db8::/32\"]}},\"success\":true}}"
            ),
            ".result.ipv4_cidrs[] (5314), .result.ipv6_cidrs[] (1): pick what is meant",
        ),
        // An array of objects.
        (format!("[{}]", objects("cidr")), ".[].cidr (5314): pick what is meant, as with jq '.[].cidr' FILE"),
        // Names that jq wants in quotes.
        (format!("{{\"us-east-1\":[{list}]}}"), ".[\"us-east-1\"][] (5314): pick what is meant"),
    ] {
        let problems = read_text(&text).unwrap_err();
        assert!(problems[0].contains(place), "{}", problems[0]);
        assert!(
            problems[0].starts_with("1: this is no array of networks, but a document"),
            "{}",
            problems[0]
        );
    }
}

#[test]
fn a_list_that_is_too_long_or_has_many_problems_is_read_no_further() {
    let lines = "x\n".repeat(100);
    let json = format!("[{}]", vec!["\"x\""; 100].join(",\n"));
    for text in [lines, json] {
        assert_eq!(read_text(&text).unwrap_err().len(), MAX_PROBLEMS);
    }
    // 254 networks each.
    let range = "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
    let mut networks = vec![];
    for _ in 0..39 {
        add(range, &mut networks).unwrap();
    }
    assert!(add(range, &mut networks).unwrap_err().contains("at most 10000 entries"));
    assert_eq!(networks.len(), MAX_ALLOWLIST_ENTRIES + 1);
    refused(&[range; 100].join(" "), "1: an allowlist has at most 10000 entries");
    let json = format!("[{}, \"x\"]", quoted(&some(12_000), ",\n"));
    let problems = read_text(&json).unwrap_err();
    assert!(problems.len() == 1 && problems[0].starts_with("10001: an allowlist"), "{problems:?}");
}

#[test]
fn a_name_of_a_document_is_kept_once_whatever_is_below_it() {
    let name = "a".repeat(1000);
    let json = serde_json::json!({name.as_str(): vec![serde_json::json!({"b": "192.0.2.0/24"}); 100]});
    let mut places = Places::default();
    places.look_through(&json, None);
    assert_eq!(places.all.len(), 3);
    assert_eq!((places.path(2), places.all[2].networks), (format!(".{name}[].b"), 100));
}
