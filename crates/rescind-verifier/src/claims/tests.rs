use super::*;

fn profile() -> Profile {
    Profile::new("https://id.example", "https://api.example").unwrap()
}

fn claims(scope: &str) -> Claims {
    Claims {
        client: 42,
        issued_at: 1_736_942_400,
        expires_at: 1_736_946_000,
        session: 7,
        credential: 3,
        generation: 0,
        pair: 1,
        scopes: scope.parse().unwrap(),
        resources: Resources::default(),
    }
}

fn read(text: &str) -> Result<Claims, Denied> {
    Claims::read(text.as_bytes(), &profile())
}

#[test]
fn the_payload_is_one_exact_text() {
    let text = claims("b a").write(&profile(), Some("rk_one"));
    assert_eq!(
        text,
        r#"{"iss":"https://id.example","aud":"https://api.example","sub":"42","iat":1736942400,"exp":1736946000,"sid":"7","cred":3,"gen":0,"pair":1,"client_id":"rk_one","jti":"7-1","scope":"a b"}"#
    );
    assert_eq!(read(&text), Ok(claims("a b")));
    let bare = claims("").write(&profile(), Some("rk_one"));
    assert!(bare.ends_with(r#""jti":"7-1"}"#));
    assert_eq!(read(&bare), Ok(claims("")));
}

#[test]
fn a_payload_of_earlier_versions_has_no_client_id_and_no_jti() {
    let text = claims("b a").write(&profile(), None);
    assert_eq!(
        text,
        r#"{"iss":"https://id.example","aud":"https://api.example","sub":"42","iat":1736942400,"exp":1736946000,"sid":"7","cred":3,"gen":0,"pair":1,"scope":"a b"}"#
    );
    assert_eq!(read(&text), Ok(claims("a b")));
    assert_eq!(read(&claims("").write(&profile(), None)), Ok(claims("")));
}

// check 46
#[test]
fn a_token_is_for_each_of_its_resources() {
    let of = |resources: &str| Claims { resources: resources.parse().unwrap(), ..claims("") };
    let written = |resources: &str| of(resources).write(&profile(), None);
    let any = profile().any_audience();
    let read_by_any = |text: &str| Claims::read(text.as_bytes(), &any);

    let (one, two) = (written("urn:b"), written("urn:b https://api.example"));
    assert!(
        one.contains(r#","aud":"urn:b","sub""#)
            && two.contains(r#","aud":["https://api.example","urn:b"],"sub""#)
    );
    assert_eq!((read(&one), read_by_any(&one)), (Err(Denied::WrongAudience), Ok(of("urn:b"))));
    assert_eq!(read(&two), Ok(of("urn:b https://api.example")));
    assert_eq!(read(&written("urn:b urn:c")), Err(Denied::WrongAudience));
    // The profile's own audience needs no room in memory.
    assert_eq!(read(&written("https://api.example")), Ok(of("")));

    for (token, resource, is_for) in [
        (of(""), "https://api.example", true),
        (of(""), "urn:b", false),
        (of("urn:b urn:c"), "urn:c", true),
        (of("urn:b urn:c"), "https://api.example", false),
    ] {
        assert_eq!(token.is_for(resource, &any), is_for, "{resource}");
    }
}

// check 46
#[test]
fn an_audience_has_one_text() {
    let good = claims("").write(&profile(), None);
    for aud in [
        "[]",
        r#"[""]"#,
        r#"["https://api.example"]"#,
        r#"["urn:b","https://api.example"]"#,
        r#"["https://api.example","https://api.example"]"#,
        r#"["https://api.example", "urn:b"]"#,
        r#"["https://api.example","urn:b",]"#,
        r#"["https://api.example","orders"]"#,
        r#"["https://api.example",7]"#,
        r#"["https://api.example","urn:b""#,
        r#"{"https://api.example":1}"#,
        "null",
        r#""""#,
        r#""urn: b""#,
    ] {
        let text = good.replacen(r#""https://api.example""#, aud, 1);
        for profile in [profile(), profile().any_audience()] {
            assert_eq!(Claims::read(text.as_bytes(), &profile), Err(Denied::Malformed), "{text}");
        }
    }
}

// check 40, 44, 45, 47: one exact text leaves no room for any of them
#[test]
fn anything_else_is_malformed() {
    let good = claims("a").write(&profile(), Some("rk_one"));
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    for exp in [
        "\"1736946000\"",
        "1.0",
        "1e3",
        "-1",
        "9007199254740992",
        "9223372036854775808",
        "1e400",
        "null",
        "01",
        "",
    ] {
        let text = with("1736946000", exp);
        assert_eq!(Claims::read(text.as_bytes(), &profile()), Err(Denied::Malformed), "{text}");
    }
    for text in [
        with(r#","exp":1736946000"#, ""),
        with(r#""exp""#, r#""exp":1,"exp""#),
        with(r#","gen""#, r#","cnf":{"jkt":"x"},"gen""#),
        with(r#","gen""#, r#","nbf":99999999999,"gen""#),
        with(r#""scope":"a""#, r#""scope":"""#),
        with(r#""scope":"a""#, r#""scope":"a a""#),
        with(r#""scope":"a""#, r#""scope":"b a""#),
        with(r#""scope":"a""#, r#""scope":["a"]"#),
        with(r#""client_id":"rk_one","#, ""),
        with(r#","jti":"7-1""#, ""),
        with(r#""rk_one""#, r#""""#),
        with(r#""rk_one""#, r#""rk one""#),
        with(r#""rk_one""#, "7"),
        with(r#""rk_one""#, r#""rk_one","client_id":"rk_two""#),
        with(r#""7-1""#, r#""7-2""#),
        with(r#""7-1""#, r#""8-1""#),
        with(r#""7-1""#, r#""7-01""#),
        with(r#""7-1""#, r#""7-1-1""#),
        with("{", "{ "),
        with("https://id", "https:\\u002f/id"),
        format!("{good} "),
        format!("{good}{good}"),
        String::new(),
    ] {
        assert_eq!(Claims::read(text.as_bytes(), &profile()), Err(Denied::Malformed), "{text}");
    }
    for cut in 0..good.len() {
        assert_eq!(Claims::read(&good.as_bytes()[..cut], &profile()), Err(Denied::Malformed));
    }
}

// check 46
#[test]
fn issuer_and_audience_are_exact() {
    let read = |text: String| Claims::read(text.as_bytes(), &profile()).unwrap_err();
    let other = |iss, aud| claims("").write(&Profile::new(iss, aud).unwrap(), None);
    assert_eq!(read(other("https://id.example/", "https://api.example")), Denied::WrongIssuer);
    assert_eq!(read(other("https://id.example", "https://API.example")), Denied::WrongAudience);
    assert!(Profile::new("a\"b", "c").is_none());
    assert!(Profile::new("", "c").is_none());
}
