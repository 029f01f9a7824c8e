//! Operations on administrators.

use hyper::Method;
use rescind_admin::InvitedAdministrator;
use rescind_base::model::Role::Admin;

use super::{
    clients::act,
    operation::{Operation, Reach::Everything},
};

pub(super) fn operations() -> Vec<Operation> {
    let new = |method, path, says| Operation::new(method, path, says, Admin, Everything);
    let administrator = |invited: &InvitedAdministrator| {
        format!("{}/administrators/{}", super::PREFIX, invited.administrator_id)
    };
    vec![
        new(Method::GET, "/administrators", ("listAdministrators", "Lists the administrators"))
            .acts(act!(administrators())),
        new(
            Method::POST,
            "/administrators",
            ("createAdministrator", "Creates an administrator, who enrols by a link"),
        )
        .creates(act!(create_administrator(input)), administrator),
        new(
            Method::POST,
            "/administrators/{id}/reset",
            (
                "resetAdministrator",
                "Takes an administrator's password and sign-ins away, for a new enrolment",
            ),
        )
        .acts(act!(reset_administrator(id))),
        new(
            Method::POST,
            "/administrators/{id}/role",
            ("changeRole", "Gives an administrator another role, and ends the sign-ins"),
        )
        .acts(act!(change_role(id, input))),
        new(
            Method::DELETE,
            "/administrators/{id}",
            ("removeAdministrator", "Removes an administrator, whose sign-ins end"),
        )
        .acts(act!(remove_administrator(id))),
    ]
}
