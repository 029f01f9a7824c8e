//! What the admin API says of the metrics of late.

use serde_json::{Value, json};

use crate::{
    app::{Client, TestApp},
    raw,
};

async fn trends(app: &TestApp, query: &str) -> Value {
    let reply = raw::local(&app.socket(), "GET", &format!("/admin/v1/trends{query}"), "").await;
    assert_eq!(reply.status, 200, "{query}: {reply:?}");
    reply.json()
}

#[tokio::test]
async fn what_was_done_between_two_readings_is_told() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.clock.advance(10);
    app.app.note_trends();
    let pair = app.grant(&client).await;
    app.login(&Client { secret: "rs_guess".into(), ..client.clone() }).await;
    assert!(app.stands(&pair.access).await);
    app.logout(&pair.access).await.is_logged_out();
    app.verify(&pair.access).await.is_error(401, "Invalid token");
    app.app.sweep().await.unwrap();
    app.clock.advance(10);
    app.app.note_trends();

    let hour = trends(&app, "").await;
    assert_eq!(hour["range"], "1h");
    assert_eq!(
        (&hour["since"], &hour["until"]),
        (&json!("2025-01-15T11:00:20Z"), &json!("2025-01-15T12:00:20Z"))
    );
    let mut last = hour["intervals"].as_array().unwrap().last().unwrap().clone();
    // The store's commits take as long as they take.
    let median = last["commit_p50_ms"].take().as_f64().unwrap();
    let slow = last["commit_p99_ms"].take().as_f64().unwrap();
    assert!(0.0 < median && median <= slow, "{median} {slow}");
    let expected = json!({
        "until": "2025-01-15T12:00:20Z", "lasts_seconds": 10.0, "sessions": 0, "logins": 1, "logins_refused": 1,
        "verifications": 2, "denials": {"revoked": 1}, "commit_p50_ms": null, "commit_p99_ms": null, "nodes": 1,
        "node_lag": 0, "followers": 0, "follower_lag": 0,
    });
    assert_eq!(last, expected);
    // The longer ranges go to the present too.
    for (range, step) in [("24h", 300), ("7d", 3600)] {
        let trends = trends(&app, &format!("?range={range}")).await;
        assert_eq!((&trends["range"], &trends["step_seconds"]), (&json!(range), &json!(step)));
        let last = trends["intervals"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(
            (&last["until"], &last["denials"]),
            (&json!("2025-01-15T12:00:20Z"), &json!({"revoked": 1}))
        );
    }
    let wrong = raw::local(&app.socket(), "GET", "/admin/v1/trends?range=2h", "").await;
    wrong.is_error(400, "range: expected one of `1h`, `24h`, `7d`");
}
