//! The client that a page shows.

use maud::Markup;
use rescind_admin::ClientView;

use super::{form::Form, visit::Visit};

/// A client, and the version of it that a page shows.
pub(super) struct ShownClient<'a> {
    pub(super) visit: &'a Visit,
    pub(super) client: &'a ClientView,
    /// The client's id, as text.
    pub(super) id: String,
    pub(super) version: Option<String>,
}

impl ShownClient<'_> {
    /// A form for an operation on this client as it is shown.
    pub(super) fn form(&self, operation: &str, button: &str, done: &str, fields: Markup) -> Markup {
        let version = self.version.as_deref();
        let form = Form { operation, parameter: &self.id, fields, button, done, version, ..Form::default() };
        form.show(self.visit)
    }
}
