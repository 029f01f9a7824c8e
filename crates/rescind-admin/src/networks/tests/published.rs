//! Lists of networks in the shapes and sizes in which they are published. Each is taken, or refused with a message that names
//! the line or the places in the document. They are made here: no network is one of theirs.

use std::net::Ipv6Addr;

use super::{super::*, read_text, some};
use Outcome::{Refused, Taken};

enum Outcome {
    /// So many networks are read.
    Taken(usize),
    /// The first message begins like this.
    Refused(&'static str),
}

fn v6(of: u32) -> Vec<String> {
    (0..of).map(|n| format!("{}/48", Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n) << 81))).collect()
}

fn addresses(of: u32) -> Vec<String> {
    (0..of).map(|n| Ipv4Addr::from(0x0b00_0001 + 2 * n).to_string()).collect()
}

/// One of each, made of these.
fn each(networks: &[String], one: impl Fn(&str) -> String, between: &str) -> String {
    networks.iter().map(|net| one(net)).collect::<Vec<_>>().join(between)
}

fn lines(networks: &[String]) -> String {
    networks.join("\n") + "\n"
}

/// A JSON array of strings.
fn array(networks: &[String]) -> String {
    format!("[{}]", each(networks, |net| format!("\"{net}\""), ","))
}

/// A JSON array of objects with one member that is a network, and these others.
fn objects(networks: &[String], name: &str, others: &str) -> String {
    format!("[{}]", each(networks, |net| format!("{{\"{name}\":\"{net}\"{others}}}"), ","))
}

/// The shapes, by who publishes or reads them.
fn shapes() -> Vec<(&'static str, String, Outcome)> {
    let both = [some(200), v6(100)].concat();
    let actions = [some(4000), v6(1314)].concat();
    vec![
        // Content delivery networks.
        ("Cloudflare, v4", some(15).join("\n"), Taken(15)),
        ("Cloudflare, v6", v6(7).join("\n"), Taken(7)),
        (
            "Cloudflare, API",
            format!("{{\"result\":{{\"ipv4_cidrs\":{},\"ipv6_cidrs\":{},\"etag\":\"38f79d050aa027e3\"}},\"success\":true,\"errors\":[]}}", array(&some(15)), array(&v6(7))),
            Refused("1: this is no array of networks, but a document with networks at .result.ipv4_cidrs[] (15), .result.ipv6_cidrs[] (7)"),
        ),
        (
            "Fastly",
            format!("{{\"addresses\":{},\"ipv6_addresses\":{}}}", array(&some(19)), array(&v6(2))),
            Refused("1: this is no array of networks, but a document with networks at .addresses[] (19), .ipv6_addresses[] (2)"),
        ),
        ("Akamai", each(&both, str::to_owned, "\r\n"), Taken(300)),
        ("Imperva, text", lines(&some(12)), Taken(12)),
        (
            "Imperva, API",
            format!("{{\"ipRanges\":{},\"ipv6Ranges\":{},\"res\":0,\"res_message\":\"OK\",\"debug_info\":{{\"id-info\":\"13007\"}}}}", array(&some(12)), array(&v6(1))),
            Refused("1: this is no array of networks, but a document with networks at .ipRanges[] (12), .ipv6Ranges[] (1)"),
        ),
        // Clouds and hosts.
        (
            "AWS, ip-ranges.json",
            format!(
                "{{\n  \"syncToken\": \"1764374400\",\n  \"createDate\": \"2026-11-29-00-00-00\",\n  \"prefixes\": {},\n  \"ipv6_prefixes\": {}\n}}",
                objects(&some(7000), "ip_prefix", ",\"region\":\"eu-west-3\",\"service\":\"EC2\",\"network_border_group\":\"eu-west-3\""),
                objects(&v6(2500), "ipv6_prefix", ",\"region\":\"eu-west-3\",\"service\":\"AMAZON\"")
            ),
            Refused("1: this is no array of networks, but a document with networks at .prefixes[].ip_prefix (7000), .ipv6_prefixes[].ipv6_prefix (2500): pick what is meant, as with jq '.prefixes[].ip_prefix' FILE"),
        ),
        ("AWS, by jq", each(&some(7000), |net| format!("\"{net}\""), "\n"), Taken(7000)),
        (
            "Azure, service tags",
            format!("{{\"changeNumber\":341,\"cloud\":\"Public\",\"values\":[{{\"name\":\"Storage\",\"id\":\"Storage\",\"properties\":{{\"changeNumber\":2,\"region\":\"\",\"platform\":\"Azure\",\"addressPrefixes\":{}}}}}]}}", array(&actions)),
            Refused("1: this is no array of networks, but a document with networks at .values[].properties.addressPrefixes[] (5314)"),
        ),
        (
            "Google, cloud.json",
            format!("{{\"syncToken\":\"1764374400\",\"creationTime\":\"2026-11-29T00:00:00\",\"prefixes\":[{},{}]}}", objects(&some(700), "ipv4Prefix", ",\"service\":\"Google Cloud\",\"scope\":\"europe-west9\"").trim_matches(['[', ']']), objects(&v6(50), "ipv6Prefix", ",\"service\":\"Google Cloud\",\"scope\":\"global\"").trim_matches(['[', ']'])),
            Refused("1: this is no array of networks, but a document with networks at .prefixes[].ipv4Prefix (700), .prefixes[].ipv6Prefix (50)"),
        ),
        (
            "Oracle",
            format!("{{\"last_updated_timestamp\":\"2026-11-29T00:00:00.000000\",\"regions\":[{{\"region\":\"eu-paris-1\",\"cidrs\":{}}}]}}", objects(&some(900), "cidr", ",\"tags\":[\"OCI\",\"OSN\"]")),
            Refused("1: this is no array of networks, but a document with networks at .regions[].cidrs[].cidr (900)"),
        ),
        ("DigitalOcean, geofeed", each(&both, |net| format!("{net},NL,NL-NH,Amsterdam,1105 AT"), "\n"), Taken(300)),
        (
            "Linode, geofeed",
            format!("# Linode geofeed\n# Prefix, country, region, city, postcode\n{}", each(&both, |net| format!("{net},US,US-TX,Richardson,\n"), "")),
            Taken(300),
        ),
        ("Vultr, geofeed", each(&both, |net| format!("{net},FR,FR-IDF,Paris,"), "\r\n"), Taken(300)),
        (
            "Vultr, JSON",
            format!("{{\"description\":\"ranges\",\"asn\":20473,\"subnets\":{}}}", objects(&both, "ip_prefix", ",\"alpha2code\":\"FR\",\"city\":\"Paris\"")),
            Refused("1: this is no array of networks, but a document with networks at .subnets[].ip_prefix (300)"),
        ),
        ("Hetzner, whois", "inetnum:        11.0.0.0 - 11.0.255.255\nnetname:        DE\n".into(), Refused("1: \"inetnum:\" is not an address or a network")),
        ("a registry, statistics", "2|ripencc|20261129|1|19830705|20261128|+0100\nripencc|FR|ipv4|11.0.0.0|1048576|20100712|allocated\n".into(), Refused("1: \"2|ripencc|20261129|1|19830705|20261128|+0100\" is not an address")),
        // What runs builds, and who hosts code.
        (
            "GitHub, meta",
            format!(
                "{{\"verifiable_password_authentication\":false,\"ssh_keys\":[\"ssh-ed25519 AAAAC3\"],\"hooks\":{hooks},\"web\":{hooks},\"git\":{hooks},\"actions\":{},\"domains\":{{\"website\":[\"*.example.com\"]}}}}",
                array(&actions),
                hooks = array(&some(6))
            ),
            Refused("1: this is no array of networks, but a document with networks at .actions[] (5314), .git[] (6), .hooks[] (6), .web[] (6): pick what is meant, as with jq '.actions[]' FILE"),
        ),
        ("GitHub, by jq", array(&actions).replace(',', ",\n  "), Taken(5314)),
        ("GitLab", "11.0.0.0/28\n11.0.1.0/24\n".into(), Taken(2)),
        (
            "CircleCI",
            format!("{{\"IPRanges\":{{\"jobs\":{},\"core\":{}}}}}", array(&addresses(60)), array(&addresses(20))),
            Refused("1: this is no array of networks, but a document with networks at .IPRanges.jobs[] (60), .IPRanges.core[] (20)"),
        ),
        (
            "Atlassian",
            format!("{{\"creationDate\":\"2026-11-29T00:00:00\",\"syncToken\":1764374400,\"items\":{}}}", objects(&some(400), "cidr", ",\"network\":\"11.0.0.0\",\"mask_len\":24,\"mask\":\"255.255.255.0\",\"region\":[\"global\"],\"product\":[\"jira\"],\"direction\":[\"egress\"]")),
            Refused("1: this is no array of networks, but a document with networks at .items[].cidr (400), .items[].mask (400), .items[].network (400): pick what is meant, as with jq '.items[].cidr' FILE"),
        ),
        // Who takes payments and sends messages.
        ("Stripe, text", lines(&addresses(12)), Taken(12)),
        ("Stripe, JSON", format!("{{\"WEBHOOKS\":{}}}", array(&addresses(12))), Refused("1: this is no array of networks, but a document with networks at .WEBHOOKS[] (12)")),
        ("PayPal, a page's table", "11.0.0.1\tipn.example.com\n".into(), Refused("1: \"ipn.example.com\" is not an address or a network")),
        ("SendGrid, SPF", "v=spf1 ip4:11.0.0.0/17 ip4:11.1.0.0/20 ~all\n".into(), Refused("1: \"v=spf1\" is not an address or a network")),
        ("Slack, a page's list", each(&addresses(9), str::to_owned, ", "), Taken(9)),
        ("Zoom", each(&some(150), str::to_owned, "\r\n"), Taken(150)),
        // Offices and identities.
        (
            "Microsoft 365",
            format!("[{{\"id\":1,\"serviceArea\":\"Exchange\",\"urls\":[\"outlook.example.com\"],\"ips\":{},\"tcpPorts\":\"80,443\",\"required\":true}}]", array(&both)),
            Refused("1: this is no array of networks, but a document with networks at .[].ips[] (300)"),
        ),
        (
            "Okta",
            format!("{{\"us_cell_1\":{{\"ip_ranges\":{}}},\"eu_cell_1\":{{\"ip_ranges\":{}}}}}", array(&some(90)), array(&some(20))),
            Refused("1: this is no array of networks, but a document with networks at .us_cell_1.ip_ranges[] (90), .eu_cell_1.ip_ranges[] (20)"),
        ),
        (
            "Zscaler",
            format!("{{\"example.net\":{{\"continent : EMEA\":{{\"city : Paris\":{}}}}}}}", objects(&some(40), "range", ",\"vpn\":\"par.example.net\",\"gre\":\"\",\"latitude\":\"48.85\"")),
            Refused("1: this is no array of networks, but a document with networks at .[\"example.net\"][\"continent : EMEA\"][\"city : Paris\"][].range (40)"),
        ),
        ("Cisco Umbrella", "11.0.0.0/19, 11.1.0.0/16, 2001:db8::/32".into(), Taken(3)),
        (
            "Salesforce",
            format!("{{\"syncToken\":\"1\",\"createDate\":\"2026-11-29\",\"prefixes\":[{{\"region\":\"eu\",\"provider\":\"aws\",\"ip_prefix\":{}}}]}}", array(&some(60))),
            Refused("1: this is no array of networks, but a document with networks at .prefixes[].ip_prefix[] (60)"),
        ),
        (
            "Tailscale, DERP",
            format!("{{\"Regions\":{{\"1\":{{\"RegionID\":1,\"Nodes\":{}}}}}}}", objects(&addresses(3), "IPv4", ",\"Name\":\"1f\",\"HostName\":\"derp1f.example.com\"")),
            Refused("1: this is no array of networks, but a document with networks at .Regions[\"1\"].Nodes[].IPv4 (3)"),
        ),
        // Monitors.
        (
            "Datadog",
            format!("{{\"version\":90,\"modified\":\"2026-11-29-00-00-00\",\"agents\":{{\"prefixes_ipv4\":{},\"prefixes_ipv6\":{}}},\"synthetics\":{{\"prefixes_ipv4_by_location\":{{\"aws:eu-west-3\":{}}}}}}}", array(&some(30)), array(&v6(4)), array(&addresses(2))),
            Refused("1: this is no array of networks, but a document with networks at .agents.prefixes_ipv4[] (30), .agents.prefixes_ipv6[] (4), .synthetics.prefixes_ipv4_by_location[\"aws:eu-west-3\"][] (2)"),
        ),
        ("Pingdom, text", lines(&addresses(120)), Taken(120)),
        ("Pingdom, feed", "<?xml version=\"1.0\"?>\n<rss><item><ip>11.0.0.1</ip></item></rss>\n".into(), Refused("1: \"<?xml\" is not an address or a network")),
        ("UptimeRobot", each(&[addresses(100), vec!["2001:db8::1".into()]].concat(), str::to_owned, "\r\n"), Taken(101)),
        (
            "StatusCake",
            format!("{{\"1\":{{\"title\":\"Paris\",\"ip\":\"{}\",\"ipv6\":\"\",\"status\":\"Up\"}}}}", addresses(1)[0]),
            Refused("1: this is no array of networks, but a document with networks at .[\"1\"].ip (1)"),
        ),
        // Who reads pages.
        (
            "Googlebot",
            format!("{{\n  \"creationTime\": \"2026-11-29T00:00:00.000000\",\n  \"prefixes\": [{}]\n}}", objects(&some(100), "ipv4Prefix", "").trim_matches(['[', ']'])),
            Refused("1: this is no array of networks, but a document with networks at .prefixes[].ipv4Prefix (100)"),
        ),
        (
            "a crawler of a language model",
            format!("{{\"creationTime\":\"2026-11-29T00:00:00\",\"prefixes\":[{{\"ipv4Prefix\":\"{}\"}}]}}", some(1)[0]),
            Refused("1: this is no array of networks, but a document with networks at .prefixes[].ipv4Prefix (1)"),
        ),
        (
            "Apple, private relay",
            each(&some(12_000), |net| format!("{net},FR,FR-IDF,Paris,"), "\n"),
            Refused("10001: an allowlist has at most 10000 entries, and this list has more: use wider networks"),
        ),
        // Lists of attackers, and of where addresses are.
        ("Spamhaus DROP, text", format!("; Spamhaus DROP List 2026/11/29\n; Expires: never\n{}", each(&some(900), |net| format!("{net} ; SBL256894\n"), "")), Taken(900)),
        ("Spamhaus DROP, JSON lines", each(&some(2), |net| format!("{{\"cidr\":\"{net}\",\"sblid\":\"SBL256894\",\"rir\":\"ripencc\"}}\n"), ""), Refused("2: one JSON value was expected")),
        ("FireHOL, netset", format!("#\n# firehol_level1\n#\n# Maintainer : ours\n{}", lines(&[some(4500), addresses(20)].concat())), Taken(4520)),
        ("Team Cymru, bogons", format!("# last updated 1764374400 (Sun Nov 29 00:00:00 2026 GMT)\n{}", lines(&v6(3000))), Taken(3000)),
        ("MaxMind, CSV", "network,geoname_id,registered_country_geoname_id,is_anonymous_proxy\n11.0.0.0/24,2077456,2077456,0\n".into(), Refused("1: \"network\" is not an address or a network")),
        ("a file of hosts", "127.0.0.1 localhost\n".into(), Refused("1: \"localhost\" is not an address or a network")),
        // Configurations of other programs.
        ("nginx", each(&some(20), |net| format!("allow {net};"), "\n"), Refused("1: \"allow\" is not an address or a network")),
        ("Apache", each(&some(20), |net| format!("Require ip {net}"), "\n"), Refused("1: \"Require\" is not an address or a network")),
        ("HAProxy, a file of patterns", lines(&both), Taken(300)),
        ("ipset", "create partners hash:net family inet\nadd partners 11.0.0.0/24\n".into(), Refused("1: \"create\" is not an address or a network")),
        ("Terraform", "[\n  \"11.0.0.0/24\",\n]\n".into(), Refused("3: one JSON value was expected")),
        ("YAML", "- 11.0.0.0/24\n- 11.0.1.0/24\n".into(), Refused("1: \"-\" is not an address or a network")),
        ("a spreadsheet", "\u{feff}\"11.0.0.0/24\";\"Paris\"\r\n\"11.0.1.0/24\";\"Lyon\"\r\n".into(), Taken(2)),
    ]
}

#[test]
fn published_shapes_are_taken_or_the_message_says_where_what_is_meant_stands() {
    let shapes = shapes();
    assert!(shapes.len() >= 40, "{}", shapes.len());
    for (who, text, outcome) in shapes {
        match (read_text(&text), outcome) {
            (Ok(networks), Taken(expected)) => assert_eq!(networks.len(), expected, "{who}"),
            (Err(problems), Refused(expected)) => {
                assert!(problems[0].starts_with(expected), "{who}: {}", problems[0]);
            }
            (Ok(networks), Refused(_)) => panic!("{who}: {} networks were taken", networks.len()),
            (Err(problems), Taken(_)) => panic!("{who}: {}", problems[0]),
        }
    }
}
