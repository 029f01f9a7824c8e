//! Events as comma-separated values (RFC 4180), in lines that end as lines of this machine do.

use super::EventView;

/// The first line.
pub const CSV_HEADING: &str =
    "id,at,event,by,operator,client,api_key,session,address,node,request,detail,count,number,hash";

/// One event as a line.
pub fn csv(event: &EventView) -> String {
    let EventView {
        id,
        at,
        kind,
        by,
        operator,
        client_id,
        api_key,
        session,
        address,
        node,
        request_id,
        detail,
        count,
        number: place,
        hash,
    } = event;
    let number = |number: &Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let values = [
        id.to_string(),
        at.clone(),
        kind.clone(),
        by.clone(),
        text(operator),
        number(client_id),
        text(api_key),
        number(session),
        text(address),
        node.clone(),
        text(request_id),
        text(detail),
        count.to_string(),
        number(place),
        text(hash),
    ];
    values.map(|value| quoted(&value)).join(",")
}

fn quoted(value: &str) -> String {
    // A spreadsheet would run such a text as a formula.
    let formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let value = if formula { format!("'{value}") } else { value.to_owned() };
    match value.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 86
    #[test]
    fn a_value_is_text_whatever_is_in_it() {
        for (value, expected) in [
            ("plain", "plain"),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("a,b", "\"a,b\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1", "'=1+1"),
            ("+10.0.0.0/8 -192.0.2.0/24", "'+10.0.0.0/8 -192.0.2.0/24"),
            ("@a,b", "\"'@a,b\""),
            ("", ""),
        ] {
            assert_eq!(quoted(value), expected);
        }
    }
}
