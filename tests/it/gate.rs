//! Who gets into the built program: callers with an API key, pages of listed origins, and nobody
//! through what a log, a metric or an error tells about a key.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::process::{Process, Setup};
use crate::support::smtp_server::SmtpServer;

/// A fresh key, and the hash that the settings list.
async fn fresh_key() -> (String, String) {
    let output = Setup::bare().run(&["apikey"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let (key, line) = text.split_once('\n').unwrap();
    let hash = line.split('"').nth(1).unwrap();
    (key.to_owned(), hash.to_owned())
}

async fn post(process: &Process, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
    let request = process.request(Method::POST, path).bearer_auth(key);
    let answer = request.json(body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_code_is_mailed_and_verified_with_a_key_and_nothing_that_is_written_holds_the_key() {
    let smtp = SmtpServer::start().await;
    let (key, hash) = fresh_key().await;
    let (other_key, _) = fresh_key().await;
    let mut setup = Setup::mailing_to(&smtp.url())
        .with("http.api_keys", &hash)
        .with("log.level", "trace");
    let process = setup.start().await;

    let email = json!({ "email": "ada@example.org" });
    let (status, body) = post(&process, "/otp/generate", &key, &email).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let mail = smtp.next_mail().await;
    let code = json!({ "email": "ada@example.org", "otp": mail.code() });
    for wrong in [&other_key, &key[..58], &hash] {
        let (status, body) = post(&process, "/otp/verify", wrong, &code).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(body["code"], "unauthorized");
    }
    let keyless = process.post("/otp/verify", &code).await;
    assert_eq!(keyless.status(), StatusCode::UNAUTHORIZED);
    let challenge = keyless.headers().get("www-authenticate").unwrap();
    assert_eq!(challenge, "Bearer realm=\"otpost\"");
    let (status, _) = post(&process, "/otp/verify", &key, &code).await;
    assert_eq!(status, StatusCode::OK);

    let path = format!("/otp/requests/{}", body["id"].as_str().unwrap());
    let keyless = process.get(&path).await;
    assert_eq!(keyless.status(), StatusCode::UNAUTHORIZED);
    let request = process.request(Method::GET, &path).bearer_auth(&key);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(process.get("/openapi.json").await.status(), StatusCode::OK);

    let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
    let (ended, written) = process.stop().await;
    assert!(ended.success(), "{ended}");
    assert!(written.contains("request answered"), "the log was written");
    assert!(!written.contains("No API key is configured"), "{written}");
    for output in [written, metrics] {
        for secret in [&key[7..], &other_key[7..], &hash[7..]] {
            assert!(!output.contains(secret), "{secret} is in\n{output}");
        }
    }
}

#[tokio::test]
async fn a_service_without_keys_says_at_start_that_it_is_open() {
    let mut setup = Setup::mailing_to("smtp://127.0.0.1:1");
    let process = setup.start().await;
    let (_, written) = process.stop().await;
    assert!(written.contains("No API key is configured"), "{written}");
}

#[tokio::test]
async fn pages_of_listed_origins_are_told_that_they_may_call() {
    let mut setup = Setup::mailing_to("smtp://127.0.0.1:1")
        .with("http.cors_origins", "https://app.example.com")
        .with("http.public_url", "https://otp.example.com")
        .with("http.trusted_proxies", "127.0.0.1");
    let process = setup.start().await;
    for (origin, expected) in [
        ("https://app.example.com", Some("https://app.example.com")),
        ("https://app.example.com.evil.example", None),
        ("null", None),
    ] {
        let answer = process
            .request(Method::OPTIONS, "/otp/generate")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let headers = answer.headers();
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("access-control-allow-origin"), expected, "{origin}");
        assert_eq!(header("vary"), Some("origin"));
        assert_eq!(header("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            header("strict-transport-security"),
            Some("max-age=31536000")
        );
    }
}
