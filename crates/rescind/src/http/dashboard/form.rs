//! Forms. Each asks for one operation of the admin API: its fields are the operation's input, read by the schema that the
//! document has of it. So every operation that changes something has a form, and none can do what the operation cannot.

use std::{collections::HashMap, sync::Arc};

use axum::{Router, extract::Request, response::Response, routing::post};
use data_encoding::HEXLOWER;
use hyper::{
    HeaderMap, Method,
    header::{HeaderName, HeaderValue},
};
use ipnet::IpNet;
use maud::{Markup, html};
use rescind_admin::parse_networks;
use serde_json::{Map, Value};

use super::{
    Dashboard, page, shown_once,
    visit::{Answered, Of, Visit},
};
use crate::http::{
    admin::{Answer, Beside, Known, Refused, suffices},
    body::{self, MAX_ADMIN_LENGTH},
    error::{ApiError, Class},
};

/// Operations whose form asks for the client's name, so that nobody asks for them by mistake.
const NAMED: [&str; 2] = ["logOutClient", "deleteClient"];

/// Inputs that are lists of networks, which are read as the command line reads them.
const NETWORKS: [(&str, &str); 6] = [
    ("createClient", "allow"),
    ("ensureClient", "allow"),
    ("updateClient", "allow"),
    ("changeAllowlist", "add"),
    ("changeAllowlist", "remove"),
    ("changeAllowlist", "replace"),
];

/// The most fields of a form, and of one that is answered without a sign-in, which is also short.
const MAX_FIELDS: usize = 100;
const MAX_FIELDS_OF_STRANGER: usize = 16;
const MAX_LENGTH_OF_STRANGER: usize = 8 * 1024;

/// Names of a form's own fields. No operation's input has them.
const VERSION: &str = "_version";
const ONCE: &str = "_once";
const THEN: &str = "_then";
const NAME: &str = "_name";
const DONE: &str = "_done";

/// A form for an operation. It is shown only to whom the operation's role permits.
#[derive(Default)]
pub(super) struct Form<'a> {
    /// The operation's id.
    pub(super) operation: &'a str,
    /// The parameter of the operation's path.
    pub(super) parameter: &'a str,
    /// The fields, by the names of the operation's input.
    pub(super) fields: Markup,
    /// What its button says.
    pub(super) button: &'a str,
    /// What the next page says.
    pub(super) done: &'a str,
    /// It destroys something.
    pub(super) dangerous: bool,
    /// The version of the client that the form was made from. A client that has changed meanwhile is not changed.
    pub(super) version: Option<&'a str>,
    /// The page that is shown after it. Empty: the present one.
    pub(super) then: &'a str,
}

impl Form<'_> {
    /// The form, or nothing for whom it would be refused.
    pub(super) fn show(self, visit: &Visit) -> Markup {
        let Form { operation, parameter, fields, button, done, dangerous, version, then } = self;
        let known = visit.dashboard.inside.operation(operation);
        let Some(known) = known.filter(|known| visit.may(known.role)) else { return Markup::default() };
        let action = match parameter {
            "" => format!("/dashboard/do/{operation}"),
            parameter => format!("/dashboard/do/{operation}/{parameter}"),
        };
        let id = match parameter {
            "" => format!("form-{operation}"),
            parameter => format!("form-{operation}-{parameter}"),
        };
        let then = if then.is_empty() { &visit.path } else { then };
        let once = known.creates.then(|| HEXLOWER.encode(&*visit.dashboard.app.random.bytes::<16>()));
        html! {
            form #(id) method="post" action=(action) hx-post=(action)
                hx-target="main" hx-select="main" hx-swap="outerHTML" {
                (fields)
                @if NAMED.contains(&operation) {
                    (page::field(
                        &format!("{id}-name"), "The client's name", "Type it, so that no other client is meant.",
                        &html! { input #{ (id) "-name" } name=(NAME) required autocomplete="off"; },
                    ))
                }
                @if let Some(version) = version { input type="hidden" name=(VERSION) value=(version); }
                @if let Some(once) = once { input type="hidden" name=(ONCE) value=(once); }
                input type="hidden" name=(THEN) value=(then);
                @if !done.is_empty() { input type="hidden" name=(DONE) value=(done); }
                div.outcome aria-live="assertive" {}
                button.danger[dangerous] { (button) }
            }
        }
    }
}

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/do/{operation}", post(ask)).route("/do/{operation}/{parameter}", post(ask))
}

async fn ask(mut visit: Visit, Of(path): Of<HashMap<String, String>>, request: Request) -> Response {
    let (headers, dashboard) = (request.headers().clone(), Arc::clone(&visit.dashboard));
    let operation = path.get("operation").map(String::as_str).unwrap_or_default();
    let parameter = path.get("parameter").map(String::as_str).unwrap_or_default();
    let known = dashboard.inside.operation(operation).filter(|known| known.method != Method::GET);
    let mut then = page::FIRST.to_owned();
    let answered = async {
        let known = known.ok_or_else(crate::http::not_found)?;
        let fields = visit.form(request, known.role).await?;
        then = Some(fields.text(THEN)).filter(|then| page::is_ours(then)).unwrap_or(page::FIRST).to_owned();
        carry_out(&visit, known, parameter, &fields, &then).await
    };
    match answered.await {
        Ok(response) => response,
        Err(refused) => refused_form(&headers, refused, &then),
    }
}

async fn carry_out(visit: &Visit, known: &Known, parameter: &str, fields: &Fields, then: &str) -> Answered {
    let input = input(known, fields)?;
    if NAMED.contains(&known.id) {
        let id: u64 = parameter.parse().map_err(|_| crate::http::not_found())?;
        let client: Value = visit.api.get(&format!("/clients/{id}")).await?;
        if client["name"].as_str() != Some(fields.text(NAME)) {
            let problem = "That is not the client's name. Nothing was changed";
            return Err(ApiError::new(Class::Validation, problem).into());
        }
    }
    let text = |name| Some(fields.text(name).to_owned()).filter(|text| !text.is_empty());
    let beside = Beside { version: text(VERSION), once: text(ONCE) };
    let answer = visit.api.call(known, parameter, &input, beside).await?;
    if let Some(page) = shown_once::page(visit, &answer.value, then) {
        return Ok(page);
    }
    let Answer { receipt, .. } = answer;
    let done = text(DONE).unwrap_or_else(|| "Done.".into());
    Ok(visit.go(then, done, receipt))
}

/// Shows why a form was refused: beside the form, whose fields stay as they are, or without scripts on a page of its own.
pub(super) fn refused_form(headers: &HeaderMap, refused: Refused, then: &str) -> Response {
    let body = html! {
        h1 { "That was refused" }
        p #refused role="alert" { (refused.detail) }
        p { a href=(then) { "Back" } }
    };
    let mut response = page::answered(refused, page::whole("Refused", None, None, body));
    let source = headers.get("hx-source").and_then(|source| source.to_str().ok());
    let id = source.and_then(|source| source.strip_prefix("form#"));
    let is_plain = |id: &&str| id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if let Some(id) = id.filter(is_plain) {
        for (name, value) in [
            ("hx-retarget", format!("#{id} .outcome")),
            ("hx-reselect", "#refused".into()),
            ("hx-reswap", "innerHTML".into()),
        ] {
            let value = HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value));
            response.headers_mut().extend(value);
        }
    }
    response
}

impl Visit {
    /// Reads the form of the request, for which this role is needed. The sign-in is read again when the form has arrived,
    /// for it may have ended meanwhile.
    pub(super) async fn form(
        &mut self,
        request: Request,
        needed: rescind_base::model::Role,
    ) -> Result<Fields, ApiError> {
        suffices(needed, self.administrator().role, "your role")?;
        let fields = Fields::read(request).await?;
        self.still().await?;
        suffices(needed, self.administrator().role, "your role")?;
        Ok(fields)
    }
}

/// The fields of a form, as the browser sends them.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads the form of an administrator.
    pub(super) async fn read(request: Request) -> Result<Fields, ApiError> {
        Fields::read_up_to(request, MAX_ADMIN_LENGTH, MAX_FIELDS).await
    }

    /// Reads the form of somebody who has not signed in.
    pub(super) async fn read_of_stranger(request: Request) -> Result<Fields, ApiError> {
        Fields::read_up_to(request, MAX_LENGTH_OF_STRANGER, MAX_FIELDS_OF_STRANGER).await
    }

    async fn read_up_to(request: Request, bytes: usize, most: usize) -> Result<Fields, ApiError> {
        let (head, body) = request.into_parts();
        let body = body::read_up_to(&head.headers, body, "application/x-www-form-urlencoded", bytes).await?;
        let fields: Vec<_> = form_urlencoded::parse(&body).into_owned().take(most + 1).collect();
        if fields.len() > most {
            let problem = format!("This form has at most {most} fields");
            return Err(ApiError::new(Class::Validation, problem));
        }
        Ok(Fields(fields))
    }

    /// A field's text. Empty if it is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default().trim()
    }

    /// Like [`Fields::text`], with the white space around it.
    pub(super) fn exact(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// The input of an operation, from the fields of a form. An empty text is none.
fn input(known: &Known, fields: &Fields) -> Result<Map<String, Value>, ApiError> {
    let mut input = Map::new();
    for (name, schema) in &known.members {
        let is_given = fields.all(name).next().is_some();
        let value = match NETWORKS.contains(&(known.id, name)) {
            true => Some(networks(name, fields)?.iter().map(ToString::to_string).collect()),
            false => member(name, schema, fields)?,
        };
        if let Some(value) = value.filter(|_| is_given) {
            input.insert(name.clone(), value);
        }
    }
    Ok(input)
}

/// The networks of a field. An empty text is an empty list.
pub(super) fn networks(name: &str, fields: &Fields) -> Result<Vec<IpNet>, ApiError> {
    let text = fields.text(name);
    if text.is_empty() {
        return Ok(vec![]);
    }
    parse_networks(text).map_err(|problems| {
        let named = problems.iter().map(|problem| format!("line {}: {}", problem.line, problem.text));
        ApiError::new(Class::Validation, format!("{name}: {}", named.collect::<Vec<_>>().join("; ")))
    })
}

fn member(name: &str, schema: &Value, fields: &Fields) -> Result<Option<Value>, ApiError> {
    let has_type = |wanted: &str| match &schema["type"] {
        Value::Array(types) => types.iter().any(|kind| kind == wanted),
        kind => kind == wanted,
    };
    let may_be_null = has_type("null")
        || schema["oneOf"].as_array().is_some_and(|these| these.iter().any(|one| one["type"] == "null"));
    let number = |text: &str| {
        text.parse::<u64>().map(Value::from).map_err(|_| {
            ApiError::new(Class::Validation, format!("{name}: expected a whole number, 0 or more"))
        })
    };
    let of_numbers = schema["items"]["type"] == "integer";
    let text = fields.text(name);
    Ok(match () {
        // A line each, or numbers between blanks and commas.
        () if has_type("array") && of_numbers => {
            let words = fields.all(name).flat_map(|text| text.split([' ', ',', '\n', '\r']));
            let numbers = words.map(str::trim).filter(|word| !word.is_empty()).map(number);
            Some(Value::Array(numbers.collect::<Result<_, _>>()?))
        }
        () if has_type("array") => {
            let lines = fields.all(name).flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty());
            Some(lines.map(Value::from).collect())
        }
        () if has_type("boolean") => Some(matches!(text, "true" | "on").into()),
        () if text.is_empty() => may_be_null.then_some(Value::Null),
        () if has_type("integer") => Some(number(text)?),
        () => Some(text.into()),
    })
}
