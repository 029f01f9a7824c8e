//! The values of labels: a fixed set of words, so that no text of a caller becomes a label.

use std::{fmt, marker::PhantomData, ops::Index, sync::Arc};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric},
};
use rescind_verifier::Denied;

/// The values of one label.
pub(super) trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of declaration.
    const ALL: &'static [Self];
    /// The value's position in that order.
    fn index(self) -> usize;
    /// The value's text.
    fn text(self) -> &'static str;
}

/// One item for each value of a label. Clones share the items.
#[derive(Debug)]
pub(super) struct Each<L, T> {
    things: Arc<[T]>,
    label: PhantomData<fn(L)>,
}

impl<L, T> Clone for Each<L, T> {
    fn clone(&self) -> Self {
        Each { things: Arc::clone(&self.things), label: PhantomData }
    }
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

/// The items are reported in the order of the label's values.
impl<L: Label, M: EncodeMetric + TypedMetric> EncodeMetric for Each<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        L::ALL
            .iter()
            .try_for_each(|&value| self[value].encode(encoder.encode_family(&[(L::NAME, value.text())])?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// One metric for each pair of values of two labels.
#[derive(Debug)]
pub(super) struct EachOfTwo<K, L, M>(pub(super) Each<K, Each<L, M>>);

impl<K: Label, L: Label, M: EncodeMetric + TypedMetric> EncodeMetric for EachOfTwo<K, L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut pairs = K::ALL.iter().flat_map(|&first| L::ALL.iter().map(move |&second| (first, second)));
        pairs.try_for_each(|(first, second)| {
            let labels = [(K::NAME, first.text()), (L::NAME, second.text())];
            self.0[first][second].encode(encoder.encode_family(&labels)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// Defines labels by their names, values and the values' texts.
macro_rules! labels {
    ($($(#[$about:meta])* $access:vis enum $label:ident $name:literal { $($(#[$of_value:meta])* $value:ident $text:literal,)+ })+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $access enum $label {
            $($(#[$of_value])* $value,)+
        }

        impl $label {
            /// The text in labels, traces and the log.
            $access fn name(self) -> &'static str {
                match self {
                    $($label::$value => $text,)+
                }
            }
        }

        impl Label for $label {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$($label::$value,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                self.name()
            }
        }
    )+};
}

labels! {
    /// The kind of a request.
    pub enum Route "route" {
        Verify "verify",
        Login "login",
        Refresh "refresh",
        Logout "logout",
        Leaked "leaked",
        Token "token",
        Introspect "introspect",
        Revoke "revoke",
        Authorize "authorize",
        Metadata "metadata",
        Feed "feed",
        Admin "admin",
        Dashboard "dashboard",
        Probe "probe",
        /// Every unknown path.
        Other "other",
    }

    /// How a request was answered, by its status.
    pub(super) enum Answer "status" {
        Done "2xx",
        Refused "4xx",
        Failed "5xx",
    }

    /// The result of a login or a refresh.
    pub enum Outcome "outcome" {
        Granted "granted",
        Invalid "invalid",
        Reused "reused",
        Expired "expired",
        AddressNotAllowed "address_not_allowed",
        ScopeMissing "scope_missing",
        ResourceMissing "resource_missing",
        Throttled "throttled",
        OverQuota "over_quota",
        Unavailable "unavailable",
    }

    /// Where connections arrive.
    pub enum Listener "listener" {
        Public "public",
        Management "management",
        Local "local",
    }
}

impl Route {
    /// Whether it is for clients, proxies and APIs, who are told why they are refused by nobody but an operator.
    pub fn is_for_callers(self) -> bool {
        match self {
            Route::Verify
            | Route::Login
            | Route::Refresh
            | Route::Logout
            | Route::Token
            | Route::Introspect
            | Route::Revoke
            | Route::Leaked => true,
            Route::Authorize
            | Route::Metadata
            | Route::Feed
            | Route::Admin
            | Route::Dashboard
            | Route::Probe
            | Route::Other => false,
        }
    }
}

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

impl Label for Denied {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = Denied::ALL;

    fn index(self) -> usize {
        // `ALL` has every value. It is short, and a refusal costs more than the search.
        Self::ALL.iter().position(|&denied| denied == self).unwrap_or_default()
    }

    fn text(self) -> &'static str {
        self.name()
    }
}

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
