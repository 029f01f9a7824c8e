//! The values of labels: a fixed set of words, so that no text of a caller becomes a label.

use std::{marker::PhantomData, ops::Index};

use rescind_verifier::Denied;

/// The values of one label.
pub(super) trait Label: Copy + 'static {
    /// All values, in the order of declaration.
    const ALL: &'static [Self];
    /// The value's position in that order.
    fn index(self) -> usize;
    /// The label's text.
    fn text(self) -> &'static str;
}

/// One item for each value of a label.
#[derive(Debug)]
pub(super) struct Each<L, T> {
    things: Box<[T]>,
    label: PhantomData<L>,
}

impl<L: Label, T> Each<L, T> {
    /// Calls `make` once for each value.
    pub(super) fn new(make: impl FnMut(L) -> T) -> Each<L, T> {
        Each { things: L::ALL.iter().copied().map(make).collect(), label: PhantomData }
    }
}

impl<L: Label, T> Index<L> for Each<L, T> {
    type Output = T;

    fn index(&self, value: L) -> &T {
        &self.things[value.index()]
    }
}

macro_rules! label {
    ($label:ident { $($value:ident: $text:literal),+ $(,)? }) => {
        impl Label for $label {
            const ALL: &'static [Self] = &[$($label::$value),+];

            fn index(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                match self {
                    $($label::$value => $text),+
                }
            }
        }
    };
}

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Verify,
    Login,
    Refresh,
    Logout,
    Token,
    Introspect,
    Revoke,
    Metadata,
    Feed,
    Admin,
    Probe,
    /// Every unknown path.
    Other,
}

impl Route {
    /// The route's name in labels and traces.
    pub fn name(self) -> &'static str {
        self.text()
    }
}

label!(Route {
    Verify: "verify",
    Login: "login",
    Refresh: "refresh",
    Logout: "logout",
    Token: "token",
    Introspect: "introspect",
    Revoke: "revoke",
    Metadata: "metadata",
    Feed: "feed",
    Admin: "admin",
    Probe: "probe",
    Other: "other",
});

/// How a request was answered, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Refused,
    Failed,
}

label!(Answer { Done: "2xx", Refused: "4xx", Failed: "5xx" });

impl Answer {
    /// The class of a status.
    pub(super) fn of(status: u16) -> Answer {
        match status {
            ..400 => Answer::Done,
            400..500 => Answer::Refused,
            500.. => Answer::Failed,
        }
    }
}

/// The result of a login or a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Granted,
    Invalid,
    Reused,
    Expired,
    AddressNotAllowed,
    ScopeMissing,
    Throttled,
    OverQuota,
    Unavailable,
}

label!(Outcome {
    Granted: "granted",
    Invalid: "invalid",
    Reused: "reused",
    Expired: "expired",
    AddressNotAllowed: "address_not_allowed",
    ScopeMissing: "scope_missing",
    Throttled: "throttled",
    OverQuota: "over_quota",
    Unavailable: "unavailable",
});

impl Label for Denied {
    const ALL: &'static [Self] = Denied::ALL;

    fn index(self) -> usize {
        // `ALL` has every value. It is short, and a refusal costs more than the search.
        Self::ALL.iter().position(|&denied| denied == self).unwrap_or_default()
    }

    fn text(self) -> &'static str {
        self.name()
    }
}

/// Where connections arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Public,
    Management,
    Local,
}

impl Listener {
    /// The listener's name in labels and the log.
    pub fn name(self) -> &'static str {
        self.text()
    }
}

label!(Listener { Public: "public", Management: "management", Local: "local" });

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_sound<L: Label>() {
        for (i, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), i, "{}", value.text());
            assert!(value.text().bytes().all(|b| matches!(b, b'a'..=b'z' | b'_' | b'2'..=b'5')));
        }
    }

    #[test]
    fn every_value_has_its_place() {
        is_sound::<Route>();
        is_sound::<Answer>();
        is_sound::<Outcome>();
        is_sound::<Denied>();
        is_sound::<Listener>();
    }
}
