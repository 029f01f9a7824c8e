//! Configuration: what is accepted prints as something that is read as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rescind_node::config::{Config, Environment, Flags};

fuzz_target!(|settings: Vec<(u8, String)>| {
    const NAMES: [&str; 8] = [
        "RESCIND_SERVER__LISTEN",
        "RESCIND_SERVER__TRUSTED_PROXIES",
        "RESCIND_SERVER__CLIENT_ADDRESS_HEADER",
        "RESCIND_TOKENS__ISSUER",
        "RESCIND_TOKENS__ACCESS_TTL",
        "RESCIND_TOKENS__REFRESH_GRACE",
        "RESCIND_TOKENS__ON_REUSE",
        "RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE",
    ];
    let settings = settings.into_iter().map(|(name, value)| (NAMES[usize::from(name) % 8].to_owned(), value));
    let environment = Environment::from_iter(settings);
    let Ok(config) = Config::load(&environment, &Flags::default()) else { return };
    let text = toml::to_string(&config).expect("a configuration can be printed");
    assert_eq!(toml::from_str::<Config>(&text).expect("what is printed is read"), config);
});
