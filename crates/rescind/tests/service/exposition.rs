//! How the metrics are written, and those that are read when they are asked for.

use rescind_admin::{self as admin, NewCredential, Rotation};
use rescind_base::clock::Clock;

use crate::{
    app::{HOUR, TestApp},
    metrics::{MINUTE, Samples, scrape},
};

#[tokio::test]
async fn who_does_not_name_openmetrics_gets_the_same_samples_in_the_format_that_everybody_reads() {
    let app = TestApp::start().await;
    let open = Samples::of(&app).await;
    let (kind, text) = scrape(&app, "*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE rescind_requests_total counter",
        "# TYPE rescind_build_info gauge",
        "# TYPE rescind_ready gauge",
        "# TYPE rescind_request_duration_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("# EOF"));
    assert!(Samples::read(text).values.keys().eq(open.values.keys()));
}

#[tokio::test]
async fn every_process_reports_in_the_same_order() {
    let (one, other) = (TestApp::start().await, TestApp::start().await);
    let names = |samples: &Samples| {
        let names = samples.text.lines().map(|line| line.rsplit_once(' ').unwrap_or((line, "")).0.to_owned());
        names.collect::<Vec<_>>()
    };
    let order = names(&Samples::of(&one).await);
    assert_eq!(names(&Samples::of(&other).await), order);
    let labels = |route: &str| format!("rescind_requests_total{{route=\"{route}\",status=\"2xx\"}}");
    let place = |route: &str| order.iter().position(|name| *name == labels(route)).unwrap();
    assert_eq!((place("login") - place("verify"), place("refresh") - place("login")), (3, 3));
}

#[tokio::test]
async fn what_the_process_uses_is_reported_under_the_names_that_all_use() {
    let app = TestApp::start().await;
    let samples = Samples::of(&app).await;
    assert!(samples.get("process_resident_memory_bytes") > 1e6);
    assert!(samples.get("process_virtual_memory_bytes") > samples.get("process_resident_memory_bytes"));
    assert!(samples.get("process_open_fds") > 3.0 && samples.get("process_threads") >= 1.0);
    assert!(samples.get("process_max_fds") >= samples.get("process_open_fds"));
    let now = Clock::System.now() as f64;
    let started = samples.get("process_start_time_seconds");
    // Whole seconds, of two clocks.
    assert!(started < now + 2.0 && now - started < 86_400.0, "{started} of {now}");
    let used = samples.get("process_cpu_seconds_total");
    assert!((0.0..now - started + 3600.0).contains(&used), "{used}");
}

#[tokio::test]
async fn the_ages_of_credentials_and_of_the_newest_backup_are_told_after_a_restart_too() {
    let app = TestApp::start().await;
    let ages = async |app: &TestApp| {
        let samples = Samples::of(app).await;
        [
            "rescind_credential_oldest_timestamp_seconds",
            "rescind_credential_next_expiry_timestamp_seconds",
            "rescind_backup_timestamp_seconds",
            "rescind_certificate_expires_timestamp_seconds",
        ]
        .map(|name| samples.get(name) as u64)
    };
    assert_eq!(ages(&app).await, [0; 4]);
    let start = app.clock.now();
    let client = app.client().await;
    app.advance(MINUTE);
    for expires_in in ["1h", "2h"] {
        let wanted = NewCredential { expires_in: Some(expires_in.parse().unwrap()) };
        admin::create_credential(&app.app, client.id, wanted).await.unwrap();
    }
    drop(admin::backup(&app.app).await.unwrap());
    let minute = start + MINUTE.unsigned_abs();
    let told = [start, minute + HOUR.unsigned_abs(), minute, 0];
    assert_eq!(ages(&app).await, told);
    let app = app.restart().await;
    assert_eq!(ages(&app).await, told);
    // One that was rotated ends as it should.
    let rotated = admin::create_credential(&app.app, client.id, NewCredential::default()).await.unwrap();
    let overlap = Some("10m".parse().unwrap());
    admin::rotate_credential(&app.app, &rotated.api_key, Rotation { overlap }).await.unwrap();
    assert_eq!(ages(&app).await, told);
    // One that has expired or was revoked may stay for ever.
    admin::revoke_credential(&app.app, &client.key).await.unwrap();
    app.advance(HOUR + MINUTE);
    assert_eq!(ages(&app).await[..2], [minute, minute + 2 * HOUR.unsigned_abs()]);
}
