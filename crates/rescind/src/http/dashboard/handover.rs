//! The pages of a link by which a secret is read once. They need no sign-in: whoever has the link has the secret.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use maud::html;
use rescind_admin::{self as admin, LinkState};
use rescind_base::clock::rfc3339;

use super::{
    Dashboard,
    page::{time, whole},
    shown_once,
    visit::{Answered, Of},
};
use crate::auth::Caller;

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/handover/{link}", get(ask).post(read))
}

/// Does not read the secret: programs that look at links ahead would use them up.
async fn ask(State(dashboard): State<Arc<Dashboard>>, Of(link): Of<String>) -> Answered {
    Ok(match admin::link_state(&dashboard.app, &link).await? {
        LinkState::Waiting => {
            let body = html! {
                h1 { "A secret for you" }
                section.narrow {
                    p { "It can be read once. Have a place ready to store it." }
                    form method="post" action={ "/dashboard/handover/" (link) } { button { "Show the secret" } }
                }
            };
            whole("A secret for you", None, None, body).into_response()
        }
        state => over(state),
    })
}

async fn read(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(caller): Extension<Caller>,
    Of(link): Of<String>,
) -> Answered {
    let app = &dashboard.app;
    Ok(match admin::read_handover(app, &link, caller.peer).await? {
        Some((key, secret)) => {
            let body = html! {
                h1 { "Shown once" }
                section.once {
                    p { strong { "This is shown now, and never again." } " Store it before you close this page." }
                    (shown_once::credential(app, &key, secret.expose()))
                }
            };
            whole("Shown once", None, None, body).into_response()
        }
        None => over(admin::link_state(app, &link).await?),
    })
}

fn over(state: LinkState) -> Response {
    let body = html! {
        h1 { "This link is used up" }
        section.narrow {
            @match state {
                LinkState::Read(at) => p {
                    "Its secret was read at " (time(&rfc3339(at))) ". "
                    strong { "If that was not you, tell whoever sent you the link: somebody else has the secret." }
                }
                _ => p { "It is unknown, or has ended. Ask for a new one." }
            }
        }
    };
    whole("This link is used up", None, None, body).into_response()
}
