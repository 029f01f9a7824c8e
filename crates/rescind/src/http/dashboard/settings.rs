//! The settings in force, which only the configuration changes.

use std::sync::Arc;

use axum::{Router, routing::get};
use maud::html;
use rescind_admin::{SettingView, StatusView};

use super::{
    Dashboard,
    visit::{Answered, Visit},
};

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/settings", get(show))
}

async fn show(visit: Visit) -> Answered {
    let settings: Vec<SettingView> = visit.api.get("/settings").await?;
    let status: StatusView = visit.api.get("/status").await?;
    let section = |setting: &SettingView| setting.name.split('.').next().unwrap_or_default().to_owned();
    let body = html! {
        h1 { "Settings" }
        p { "The configuration of this process, version " (status.version) ". It is read from a file, the environment and flags: change it there." }
        @for of_section in settings.chunk_by(|a, b| section(a) == section(b)) {
            @let name = of_section.first().map(section).unwrap_or_default();
            section aria-labelledby=(name) {
                h2 #(name) { (name) }
                table.cards {
                    thead { tr { th scope="col" { "Setting" } th scope="col" { "Value" } th scope="col" { "Set by" } } }
                    tbody {
                        @for SettingView { name, value, source } in of_section {
                            tr {
                                th scope="row" { code { (name) } }
                                td data-label="Value" { code { (value) } }
                                td data-label="Set by" { @if source == "default" { span.none { (source) } } @else { (source) } }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(visit.view("Settings", body))
}
