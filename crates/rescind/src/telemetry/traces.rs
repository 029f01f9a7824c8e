//! A request's steps, each a span, and in a build with the feature `otel` where they are sent: to a
//! collector, by OTLP, as OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT` and others).

use hyper::{Request, StatusCode};
use tracing::Span;

use crate::telemetry::metrics::Route;

/// The target of spans that are for traces alone: a line of the log has its request's span.
pub const STEP: &str = "rescind::step";

/// A span for a part of a request.
macro_rules! step {
    ($name:literal $(, $field:ident = $value:expr)*) => {
        tracing::info_span!(target: $crate::telemetry::traces::STEP, $name $(, $field = $value)*)
    };
}
pub(crate) use step;

#[cfg(not(feature = "otel"))]
mod otlp {
    use tracing_subscriber::layer::Identity;

    use super::{Request, Route, Span, StatusCode};

    /// There are none in this build.
    #[derive(Debug)]
    pub enum Traces {}

    impl Traces {
        pub fn start() -> Result<Traces, String> {
            Err("this build is without the feature otel".into())
        }

        pub fn layer(&self) -> Identity {
            match *self {}
        }
    }

    pub fn asked<B>(_: &Span, _: &Request<B>, _: Route) {}
    pub fn answered(_: &Span, _: StatusCode) {}
}

#[cfg(feature = "otel")]
mod otlp {
    use hyper::{HeaderMap, Method};
    use opentelemetry::{
        KeyValue,
        propagation::{Extractor, TextMapPropagator},
        trace::{Status, TracerProvider},
    };
    use opentelemetry_otlp::SpanExporter;
    use opentelemetry_sdk::{
        Resource,
        propagation::TraceContextPropagator,
        trace::{SdkTracer, SdkTracerProvider},
    };
    use tracing::{Subscriber, warn};
    use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
    use tracing_subscriber::registry::LookupSpan;

    use super::{Request, Route, Span, StatusCode};

    /// What is on its way to the collector. Sent when dropped.
    #[derive(Debug)]
    pub struct Traces(SdkTracerProvider);

    impl Traces {
        /// Begins to send.
        pub fn start() -> Result<Traces, String> {
            // Why is not told: the collector's address may hold a password.
            let exporter = SpanExporter::builder().with_http().build().map_err(|_| {
                "OTEL_EXPORTER_OTLP_ENDPOINT or another of OTEL_EXPORTER_OTLP_… cannot be used: expected an address such \
                 as http://127.0.0.1:4318"
            })?;
            // OTEL_SERVICE_NAME comes before this.
            let resource = Resource::builder()
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
            let provider = SdkTracerProvider::builder()
                .with_resource(resource.build())
                .with_batch_exporter(exporter)
                .build();
            Ok(Traces(provider))
        }

        /// What hands it the spans.
        pub fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(
            &self,
        ) -> OpenTelemetryLayer<S, SdkTracer> {
            tracing_opentelemetry::layer().with_tracer(self.0.tracer("rescind")).with_location(false)
        }
    }

    impl Drop for Traces {
        fn drop(&mut self) {
            if let Err(error) = self.0.shutdown() {
                warn!(%error, "the last traces were not sent");
            }
        }
    }

    struct Headers<'h>(&'h HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, name: &str) -> Option<&str> {
            self.0.get(name)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(|name| name.as_str()).collect()
        }
    }

    /// A request begins, in the trace that it says it is of (W3C Trace Context). Of what the caller wrote,
    /// nothing else is sent.
    pub fn asked<B>(span: &Span, request: &Request<B>, route: Route) {
        // One that is not enabled has no parent to be set.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Headers(request.headers())));
        let method = match *request.method() {
            Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD => {
                request.method().as_str()
            }
            _ => "_OTHER",
        };
        span.set_attribute("http.request.method", method.to_owned());
        span.set_attribute("http.route", route.name());
    }

    /// It was answered so.
    pub fn answered(span: &Span, status: StatusCode) {
        span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
    }
}

pub use otlp::*;
