use super::*;

// check 108
#[test]
fn a_secret_or_token_of_ours_is_found_within_a_text() {
    let random = Random::seeded(6);
    let secret = ApiSecret::generate(&random);
    let [secret, key] = [secret.expose().to_owned(), generate_api_key(&random)];
    let token = format!("eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiIx.{}", "x".repeat(43));
    for text in [&secret, &token, &secret[..40], &format!("billing ({secret})"), &format!("x={token}")] {
        assert!(is_within(text), "{text}");
    }
    for text in [&key, "rs_", "rs_is_the_prefix", "key_rotation", "", "/home/rs_1/eyJ", &format!("x{secret}")]
    {
        assert!(!is_within(text), "{text}");
    }
}

// check 108
#[test]
fn what_might_be_a_secret_is_not_shown() {
    let random = Random::seeded(5);
    let secret = ApiSecret::generate(&random);
    let key = MasterKey::generate(&random).to_text();
    for (text, expected) in [
        ("10.0.0.1/8 has host bits set: the network is 10.0.0.0/8", None),
        ("limits.failed_logins_per_minute", None),
        ("/var/lib/rescind/with/a/path/that/is/longer/than/that", None),
        ("2001:0db8:0000:0000:0000:0000:0000:0000/128", None),
        ("", None),
        ("ä", None),
        (secret.expose(), Some("…")),
        (&key, Some("…")),
        (&format!("/auth/logout/{}", secret.expose()), Some("/auth/logout/…")),
        (&format!("\"{}\"", *key), Some("\"…\"")),
        (&"ab/+".repeat(10), Some("…")),
        ("postgres://u:canary@db/x", Some("postgres://…@db/x")),
        ("\"postgres://u:can@ary@db/x\"", Some("\"postgres://…@db/x\"")),
        ("-----BEGIN PRIVATE KEY-----\nAA", Some("…")),
    ] {
        assert_eq!(shown(text), expected.unwrap_or(text));
    }
}

// check 73
#[test]
fn keys_and_secrets_are_told_apart_and_checked() {
    let random = Random::seeded(1);
    let key = generate_api_key(&random);
    let secret = ApiSecret::generate(&random);
    assert!(is_well_formed(KEY_PREFIX, &key), "{key}");
    assert!(is_well_formed(SECRET_PREFIX, secret.expose()));
    assert_eq!((key.len(), secret.expose().len()), (61, 61));
    assert!(!is_well_formed(KEY_PREFIX, secret.expose()));
    assert!(!is_well_formed(KEY_PREFIX, &key.replacen("rk_", "rs_", 1)));
    assert!(
        !is_well_formed(KEY_PREFIX, &key.to_uppercase())
            && !is_well_formed(KEY_PREFIX, &key[..60])
            && !is_well_formed(KEY_PREFIX, "")
    );
    for i in 3..key.len() {
        let mut typo = key.clone().into_bytes();
        typo[i] = if typo[i] == b'a' { b'b' } else { b'a' };
        assert!(!is_well_formed(KEY_PREFIX, std::str::from_utf8(&typo).unwrap()), "position {i}");
    }
}

// check 73
#[test]
fn a_secret_is_the_next_256_bits_of_randomness_and_nothing_else() {
    let (random, same) = (Random::seeded(1), Random::seeded(1));
    for _ in 0..100 {
        for text in [generate_api_key(&random), ApiSecret::generate(&random).expose().to_owned()] {
            let body = BASE32_NOPAD.decode(text[3..].to_ascii_uppercase().as_bytes()).unwrap();
            assert_eq!(body[..32], *same.bytes::<32>());
        }
    }
    // Each bit of the system's randomness is set in about 500 of 1000 secrets. Less than one run in 10^20 would
    // leave this range.
    let mut set = [0; 256];
    for _ in 0..1000 {
        let secret = ApiSecret::generate(&Random::System);
        let body = BASE32_NOPAD.decode(secret.expose()[3..].to_ascii_uppercase().as_bytes()).unwrap();
        set.iter_mut().enumerate().for_each(|(i, set)| *set += usize::from(body[i / 8] >> (i % 8) & 1));
    }
    assert!(set.iter().all(|set| (350..=650).contains(set)), "{set:?}");
}

#[test]
fn sealed_secrets_open_under_the_same_key_and_name_only() {
    let random = Random::seeded(2);
    let master = MasterKey::generate(&random);
    let mut sealed = master.seal("pepper", &[7; 32], &random).unwrap();
    assert_eq!(*master.open("pepper", &sealed).unwrap(), [7; 32]);
    assert_eq!(master.open("key", &sealed).unwrap_err(), SealError::CannotOpen);
    assert_eq!(MasterKey::generate(&random).open("pepper", &sealed).unwrap_err(), SealError::CannotOpen);
    assert_eq!(master.open("pepper", &sealed[..20]).unwrap_err(), SealError::CannotOpen);
    sealed[30] ^= 1;
    assert_eq!(master.open("pepper", &sealed).unwrap_err(), SealError::CannotOpen);
}

#[test]
fn master_keys_are_64_hexadecimal_digits() {
    let master = MasterKey::generate(&Random::seeded(3));
    let again = MasterKey::parse(&format!(" {}\n", master.to_text().to_uppercase())).unwrap();
    assert_eq!(*again.to_text(), *master.to_text());
    for bad in ["", "ab", &"g".repeat(64), &"a".repeat(65)] {
        assert_eq!(MasterKey::parse(bad).unwrap_err(), SealError::BadKey);
    }
}

// check 79
#[test]
fn debug_shows_nothing() {
    let secret = ApiSecret::generate(&Random::seeded(4));
    assert_eq!(format!("{secret:?}"), "ApiSecret(…)");
}

#[test]
fn a_value_that_cannot_be_read_is_answered_with_what_would_be_right() {
    let number = |text: &str| without_value(&text.parse::<u64>().unwrap_err().to_string());
    assert_eq!(number("abc"), "expected a whole number, 0 or more");
    assert_eq!(number(""), "expected a whole number, 0 or more");
    assert_eq!(number(&"9".repeat(30)), "expected a smaller number");
    assert_eq!(without_value(&"1".parse::<bool>().unwrap_err().to_string()), "expected true or false");
    assert_eq!(without_value("invalid type: string \"x\", expected a boolean"), "expected true or false");
}
