//! TLS to a server whose certificate the machine's authorities have not signed.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;
use crate::StoreError;

/// Gives the server a certificate of its own, and returns it.
async fn set_up(db: &tokio_postgres::Client) -> String {
    set_up_with(db, CertificateParams::new(["127.0.0.1".to_owned()]).unwrap()).await
}

async fn set_up_with(db: &tokio_postgres::Client, parameters: CertificateParams) -> String {
    let key = KeyPair::generate().unwrap();
    let made = parameters.self_signed(&key).unwrap();
    for (file, pem) in [("server.key", key.serialize_pem()), ("server.crt", made.pem())] {
        db.batch_execute(&format!(
            "COPY (SELECT unnest(string_to_array('{pem}', E'\n'))) TO PROGRAM 'umask 077; cat > {file}'"
        ))
        .await
        .unwrap();
    }
    db.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    db.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    made.pem()
}

/// Connects as soon as the server has loaded its new settings.
async fn soon(options: &PostgresOptions) -> Store {
    for _ in 0..1000 {
        if let Ok(store) = Store::connect(options).await {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Store::connect(options).await.unwrap()
}

#[tokio::test]
async fn the_password_is_bound_to_the_certificate() {
    let server = Server::start();
    let url = server.database().await;
    let db = connect(&url).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    db.batch_execute(
        "CREATE ROLE bound LOGIN SUPERUSER PASSWORD 'right';
         COPY (SELECT 'hostssl all bound 127.0.0.1/32 scram-sha-256' UNION ALL
               SELECT 'host all postgres 127.0.0.1/32 trust') TO PROGRAM 'cat > pg_hba.conf'",
    )
    .await
    .unwrap();
    fs::write(&ca, set_up(&db).await).unwrap();
    let as_bound = |password| {
        let url = url.replace("postgres@", &format!("bound:{password}@"));
        // The driver then fails without channel binding.
        PostgresOptions {
            tls_ca: Some(ca.clone()),
            ..options(&format!("{url}?sslmode=require&channel_binding=require"))
        }
    };
    soon(&as_bound("right")).await.clients().await.unwrap();
    assert!(matches!(Store::connect(&as_bound("wrong")).await, Err(StoreError::Unsuitable(_))));
}

#[tokio::test]
async fn a_certificate_is_verified_and_its_authority_can_be_named() {
    let server = Server::start();
    let url = server.database().await;
    let db = connect(&url).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, set_up(&db).await).unwrap();
    let required = options(&format!("{url}?sslmode=require"));
    let trusting = PostgresOptions { tls_ca: Some(ca.clone()), ..required.clone() };
    let store = soon(&trusting).await;
    store.clients().await.unwrap();
    let in_the_clear = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                        WHERE application_name = 'rescind' AND NOT ssl";
    assert_eq!(db.query_one(in_the_clear, &[]).await.unwrap().get::<_, i64>(0), 0);

    for doubtful in [&required, &options(&url)] {
        match Store::connect(doubtful).await {
            Err(StoreError::Unsuitable(why)) => assert!(why.contains("database.tls_ca"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    // The certificate is for another name.
    let elsewhere = PostgresOptions {
        url: required.url.to_string().replace("127.0.0.1", "localhost").parse().unwrap(),
        ..trusting.clone()
    };
    match Store::connect(&elsewhere).await {
        Err(StoreError::Unsuitable(why)) => assert!(why.contains("certificate is for another host"), "{why}"),
        other => panic!("{other:?}"),
    }
    Store::connect(&options(&format!("{url}?sslmode=disable"))).await.unwrap();

    fs::write(&ca, "no certificate").unwrap();
    assert!(
        matches!(Store::connect(&trusting).await, Err(StoreError::Unsuitable(why)) if why.contains("ca.pem"))
    );
}

// PostgreSQL's manual makes one by `openssl req -new -x509`.
#[tokio::test]
async fn a_self_signed_certificate_of_an_authority_is_told_as_what_it_is() {
    let server = Server::start();
    let url = server.database().await;
    let db = connect(&url).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let mut parameters = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(&ca, set_up_with(&db, parameters).await).unwrap();
    let trusting = PostgresOptions { tls_ca: Some(ca), ..options(&format!("{url}?sslmode=require")) };
    let refused = async {
        loop {
            match Store::connect(&trusting).await {
                Err(StoreError::Unsuitable(why)) if !why.contains("does not support TLS") => break why,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(_) => panic!("it is accepted"),
            }
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap();
    assert!(why.contains("CA:TRUE") && why.contains("basicConstraints=critical,CA:FALSE"), "{why}");
}
