//! A request's steps as spans. A build with the feature `otel` sends them to a collector by OTLP, configured
//! by OpenTelemetry's variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and others).

use hyper::{Request, StatusCode};
use rescind_base::telemetry::metrics::Route;
use tracing::Span;

#[cfg(not(feature = "otel"))]
mod otlp {
    use tracing_subscriber::layer::Identity;

    use super::{Request, Route, Span, StatusCode};

    /// A build without the feature has no traces.
    #[derive(Debug)]
    pub enum Traces {}

    impl Traces {
        /// # Errors
        ///
        /// Always fails in this build.
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

    /// The spans that are not sent yet. They are sent on drop.
    #[derive(Debug)]
    pub struct Traces(SdkTracerProvider);

    impl Traces {
        /// Starts the exporter.
        ///
        /// # Errors
        ///
        /// Fails if the OpenTelemetry variables cannot be used.
        pub fn start() -> Result<Traces, String> {
            // The reason is left out: the collector's address may contain a password.
            let exporter = SpanExporter::builder().with_http().build().map_err(|_| {
                "OTEL_EXPORTER_OTLP_ENDPOINT or another of OTEL_EXPORTER_OTLP_… cannot be used: expected an address such \
                 as http://127.0.0.1:4318"
            })?;
            // OTEL_SERVICE_NAME overrides this.
            let resource = Resource::builder()
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
            let provider = SdkTracerProvider::builder()
                .with_resource(resource.build())
                .with_batch_exporter(exporter)
                .build();
            Ok(Traces(provider))
        }

        /// The layer that passes spans to the exporter.
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

    /// Puts a request's span into the trace that its headers name (W3C Trace Context). No other text of the
    /// caller is sent.
    pub fn asked<B>(span: &Span, request: &Request<B>, route: Route) {
        // A disabled span has no parent to set.
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

    /// Records the answer's status.
    pub fn answered(span: &Span, status: StatusCode) {
        span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
    }
}

pub use otlp::*;
