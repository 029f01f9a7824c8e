use std::fs;

use super::*;

pub(in crate::config) fn with(variables: &[(&str, &str)]) -> Result<Config, String> {
    let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Config::load(&environment, &Flags::default()).map_err(|e| e.to_string())
}

pub(in crate::config) fn with_file(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rescind.toml");
    fs::write(&path, text).unwrap();
    let flags = Flags { config: Some(path), ..Flags::default() };
    Config::load(&Environment::default(), &flags)
        .map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), ""))
}

#[test]
fn nothing_set_is_the_defaults() {
    let config = with(&[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.tokens.access_ttl.seconds(), 3600);
    assert_eq!(config.profile().unwrap().audience(), "http://127.0.0.1:8080");
}

#[test]
fn what_is_printed_is_read_again() {
    let config = with(&[
        ("RESCIND_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
        ("RESCIND_SERVER__CLIENT_ADDRESS_HEADER", "X-Forwarded-For"),
        ("RESCIND_TOKENS__REFRESH_GRACE", "10s"),
        ("RESCIND_TOKENS__ON_REUSE", "end-session"),
        ("RESCIND_LIMITS__LOGINS_PER_MINUTE", "10"),
        ("RESCIND_TLS__CERTIFICATE", "/etc/c.pem"),
        ("RESCIND_TLS__KEY", "/etc/k.pem"),
        ("RESCIND_TLS__MANAGEMENT", "true"),
    ])
    .unwrap();
    assert_eq!(with_file(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn flags_go_before_variables_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    fs::write(&path, "[server]\nlisten='127.0.0.1:1'\nmanagement_listen='127.0.0.1:1'\ndrain_timeout='1s'")
        .unwrap();
    let environment =
        [("RESCIND_SERVER__LISTEN", "127.0.0.1:2"), ("RESCIND_SERVER__MANAGEMENT_LISTEN", "127.0.0.1:2")];
    let environment = environment.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter().collect();
    let flags = Flags { config: Some(path), listen: Some("127.0.0.1:3".into()), ..Flags::default() };
    let server = Config::load(&environment, &flags).unwrap().server;
    assert_eq!((server.listen.port(), server.management_listen.port()), (3, 2));
    assert_eq!(server.drain_timeout.seconds(), 1);
}

// check 106
#[test]
fn a_bad_key_or_value_is_named_with_what_would_be_right() {
    for (text, expected) in [
        (
            "[tokens]\naccess_ttl = 'soon'",
            "tokens.access_ttl = \"soon\" (/rescind.toml): expected a duration such as 30s, 10m, 1h or 7d, up to 3650d",
        ),
        (
            "[tokens]\naccess_ttl = 60",
            "tokens.access_ttl = 60 (/rescind.toml): expected a text such as \"1h\"",
        ),
        (
            "[tokens]\naccess_ttl = '8d'",
            "tokens.access_ttl = \"8d\" (/rescind.toml): expected no more than tokens.refresh_ttl (7d)",
        ),
        (
            "[tokens]\nrefresh_grace = '0s'",
            "tokens.refresh_grace = \"0s\" (/rescind.toml): expected at least 1s",
        ),
        (
            "[limits]\nfailed_logins_per_minute = 99999999999999999999",
            "limits.failed_logins_per_minute (/rescind.toml): expected a whole number of 64 bits",
        ),
        (
            "[tokens]\non_reuse = 'explode'",
            "tokens.on_reuse = \"explode\" (/rescind.toml): expected `end-refresh` or `end-session`",
        ),
        (
            "[tokens]\nresources = ['https://api.example', 'orders']",
            "tokens.resources = [\"https://api.example\", \"orders\"] (/rescind.toml): \"orders\": expected a URL such as https://api.example.com/orders, without a query",
        ),
        (
            "[server]\nlisten = 'localhost'",
            "server.listen = \"localhost\" (/rescind.toml): expected an IP address and a port such as 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            "[tokens]\nscopes_supported = ['orders:read', 'a b']",
            "tokens.scopes_supported = [\"orders:read\", \"a b\"] (/rescind.toml): expected scopes, each of visible ASCII characters other than \" and \\",
        ),
        (
            "[server]\ntrusted_proxies = ['10.0.0.1/8']",
            "server.trusted_proxies = [\"10.0.0.1/8\"] (/rescind.toml): 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
        ),
        (
            "[server]\nclient_address_header = 'X-Real-IP'",
            "server.client_address_header = \"X-Real-IP\" (/rescind.toml): expected server.trusted_proxies to name the proxies that write it",
        ),
        (
            "[server]\ntrusted_proxies = ['10.0.0.1']",
            "server.client_address_header = \"\" (default): expected the one header in which the proxies of server.trusted_proxies write the caller's address, such as \"X-Forwarded-For\", or server.proxy_protocol = true",
        ),
        (
            "[server]\nproxy_protocol = true",
            "server.proxy_protocol = true (/rescind.toml): expected server.trusted_proxies to name the balancers that speak it",
        ),
        (
            "[server]\nproxy_protocol = true\nclient_address_header = 'X-Real-IP'\ntrusted_proxies = ['10.0.0.1']",
            "server.proxy_protocol = true (/rescind.toml): expected no server.client_address_header beside it: a balancer passes on a header that the caller wrote",
        ),
        (
            "[server]\nclient_address_header = 'X-Real-IP'\ntrusted_proxies = ['10.0.0.1', '::/0']",
            "server.trusted_proxies = [\"10.0.0.1\", \"::/0\"] (/rescind.toml): ::/0 lets every address of its kind say who the caller is: say so with server.trust_any_proxy = true",
        ),
        (
            "[server]\nclient_address_header = 'X-Real-IP'\ntrusted_proxies = ['::ffff:0:0/96']",
            "server.trusted_proxies = [\"::ffff:0:0/96\"] (/rescind.toml): 0.0.0.0/0 lets every address of its kind say who the caller is: say so with server.trust_any_proxy = true",
        ),
        (
            "[database]\naccept_lost_commits = true\nrequire_synchronous = true",
            "database.require_synchronous = true (/rescind.toml): expected false beside database.accept_lost_commits = true",
        ),
        (
            "[server]\nrequest_timeout = '0s'",
            "server.request_timeout = \"0s\" (/rescind.toml): expected at least 1s",
        ),
        (
            "[server]\nmax_connections = 0",
            "server.max_connections = 0 (/rescind.toml): expected between 1 and 1000000",
        ),
        (
            "[server]\nmax_requests = 0",
            "server.max_requests = 0 (/rescind.toml): expected between 1 and 1000000",
        ),
        (
            "[server]\nmax_requests_per_address = 1000001",
            "server.max_requests_per_address = 1000001 (/rescind.toml): expected between 1 and 1000000",
        ),
        ("[database]\npool_size = 0", "database.pool_size = 0 (/rescind.toml): expected between 1 and 10000"),
        (
            "[database]\npool_size = 1000000000000",
            "database.pool_size = 1000000000000 (/rescind.toml): expected between 1 and 10000",
        ),
        (
            "[database]\nstatement_timeout = '25d'",
            "database.statement_timeout = \"25d\" (/rescind.toml): expected between 1s and 1d",
        ),
        (
            "[tls]\ncertificate = 'c.pem'",
            "tls.key = \"\" (default): expected the file of the certificate's key",
        ),
        (
            "[tls]\nclient_ca = 'ca.pem'",
            "tls.certificate = \"\" (default): expected the file of a certificate: TLS needs one",
        ),
        (
            "[tls]\nclient_certificates = 'optional'",
            "tls.client_ca = \"\" (default): expected the file of the authorities that sign what tls.client_certificates asks for",
        ),
        (
            "[tls]\nclient_certificates = 'maybe'",
            "tls.client_certificates = \"maybe\" (/rescind.toml): expected `required` or `optional`",
        ),
        (
            "[limits]\nfailed_logins = 3",
            "limits.failed_logins (/rescind.toml): no such setting: expected one of failed_logins_per_minute, logins_per_minute, refreshes_per_minute",
        ),
        (
            "[limits]\nlogins_per_minute = 10001",
            "limits.logins_per_minute = 10001 (/rescind.toml): expected between 1 and 10000, or 0 for no quota",
        ),
        (
            "[limits]\nrefreshes_per_minute = -1",
            "limits.refreshes_per_minute = -1 (/rescind.toml): expected a whole number, 0 or more",
        ),
        (
            "listen = '127.0.0.1:1'",
            "listen (/rescind.toml): expected a key within a section such as [server]",
        ),
    ] {
        assert_eq!(with_file(text).unwrap_err(), expected);
    }
    assert!(with_file("[server").unwrap_err().contains("line 1: "));
    let any = "[server]\nclient_address_header = 'X-Real-IP'\ntrusted_proxies = ['0.0.0.0/0']";
    assert!(with_file(&format!("{any}\ntrust_any_proxy = true")).is_ok());
}

#[test]
fn a_bad_variable_is_named() {
    assert_eq!(
        with(&[("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "many")]).unwrap_err(),
        "limits.failed_logins_per_minute = \"many\" (environment variable RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE): expected a whole number such as 30"
    );
    // A container platform sets these for a service named "rescind".
    assert!(with(&[("RESCIND_SERVICE_HOST", "10.0.0.1"), ("RESCIND_PORT", "tcp://10.0.0.1:80")]).is_ok());
}

#[test]
fn secrets_may_stand_in_files_and_are_not_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "abc\n").unwrap();
    let environment = |name: &str, value: &str| Environment::from_iter([(name.to_owned(), value.to_owned())]);
    let from_file = environment("RESCIND_MASTER_KEY_FILE", file.path().to_str().unwrap());
    assert_eq!(from_file.master_key().unwrap().unwrap().as_str(), "abc");
    assert!(environment("RESCIND_MASTER_KEY_FILE", "/nowhere").master_key().is_err());

    let error = with(&[("RESCIND_DATABASE__URL", "mysql://u:canary@db/x")]).unwrap_err();
    assert!(
        error.starts_with("database.url (environment variable RESCIND_DATABASE__URL): expected postgres://"),
        "{error}"
    );
    assert!(!error.contains("canary"), "{error}");
    fs::write(&file, "postgres://u:canary@db/x\n").unwrap();
    let config = with(&[("RESCIND_DATABASE__URL_FILE", file.path().to_str().unwrap())]).unwrap();
    assert_eq!(config.database.url.as_ref().unwrap().to_string(), "postgres://u:***@db/x?sslmode=require");
    let shown = format!("{config:?} {}", toml::to_string(&config).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
    // The value is hidden even if the file is not TOML at that place.
    for url in ["\"postgres://u:canary@db/x", "postgres://u:canary@db/x", "'postgres://u:'canary@db/x'"] {
        let error = with_file(&format!("[database]\nurl = {url}")).unwrap_err();
        assert!(error.contains("line 2") && !error.contains("canary"), "{error}");
    }
}

#[test]
fn every_setting_is_told_with_its_source_and_without_a_password() {
    let variables = [
        ("RESCIND_DATABASE__URL", "postgres://u:canary@localhost/x"),
        ("RESCIND_LIMITS__LOGINS_PER_MINUTE", "7"),
    ];
    let environment =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let flags = Flags { listen: Some("127.0.0.1:1".into()), ..Flags::default() };
    let settings = Config::load(&environment, &flags).unwrap().settings();
    let told = |name: &str| {
        let setting = settings.iter().find(|setting| setting.name == name).unwrap();
        format!("{} ({})", setting.value, setting.source)
    };
    assert_eq!(told("server.listen"), "\"127.0.0.1:1\" (flag --listen)");
    assert_eq!(
        told("limits.logins_per_minute"),
        "7 (environment variable RESCIND_LIMITS__LOGINS_PER_MINUTE)"
    );
    assert_eq!(told("tokens.access_ttl"), "\"1h\" (default)");
    assert_eq!(
        told("database.url"),
        "\"postgres://u:***@localhost/x\" (environment variable RESCIND_DATABASE__URL)"
    );
}
