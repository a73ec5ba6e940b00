//! The OpenAPI document: up to date, complete, and with examples that hold.

use otpost::api::client::Gate;
use otpost::api::openapi::{Callers, USUAL_DIGITS, document};
use otpost::config::{self, Sources};
use otpost::otp::api_key::ApiKeyHash;
use otpost::store::Verdict;
use rstest::rstest;
use serde_json::Value;

use super::Bench;
use crate::support::fakes::{FakeQueue, FakeStore};

fn parsed() -> Value {
    serde_json::from_str(&document(USUAL_DIGITS, Callers::Everybody)).unwrap()
}

#[test]
fn the_committed_document_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == document(USUAL_DIGITS, Callers::Everybody),
        "openapi.json is out of date; write it anew with `cargo run -- openapi > openapi.json`"
    );
}

#[tokio::test]
async fn the_service_hands_out_its_document() {
    let answer = Bench::new().get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.text(), document(USUAL_DIGITS, Callers::Everybody));
    assert!(answer.text().ends_with("}\n"));
}

#[rstest]
#[case(
    6,
    "^[0-9]{6}([0-9]{2})?$",
    "012345",
    "6 ASCII digits, 8 after many failures."
)]
#[case(
    7,
    "^[0-9]{7}([0-9]{1})?$",
    "0123456",
    "7 ASCII digits, 8 after many failures."
)]
#[case(8, "^[0-9]{8}$", "01234567", "8 ASCII digits.")]
#[tokio::test]
async fn the_form_of_a_code_is_that_of_the_settings(
    #[case] digits: u8,
    #[case] pattern: &str,
    #[case] example: &str,
    #[case] lengths: &str,
) {
    let store = FakeStore::new(Verdict::Correct);
    let bench = Bench::build(store, FakeQueue::new(), |api| api.policy.digits = digits);
    let document = bench.get("/openapi.json").await.json();
    let otp = &document["components"]["schemas"]["VerifyRequest"]["properties"]["otp"];
    assert_eq!(otp["pattern"], pattern);
    assert_eq!(otp["example"], example);
    let described = otp["description"].as_str().unwrap();
    assert!(described.contains(lengths), "{described}");
    let body = format!(r#"{{"email":"ada@example.org","otp":"{example}"}}"#);
    assert_eq!(bench.post("/otp/verify", body).await.status, 200);
}

#[test]
fn the_usual_digits_are_those_of_the_defaults() {
    let defaults = config::load(&Sources::default()).unwrap();
    assert_eq!(defaults.settings.otp.digits, USUAL_DIGITS);
}

#[test]
fn every_status_of_every_endpoint_is_described() {
    let document = parsed();
    assert_eq!(document["openapi"], "3.1.0");
    let post = [
        "400", "401", "405", "408", "413", "414", "415", "422", "429", "431", "500", "503",
    ];
    let cases = [
        (
            "/otp/generate",
            "post",
            [&["202", "409"], &post[..]].concat(),
        ),
        ("/otp/verify", "post", [&["200"], &post[..]].concat()),
        (
            "/otp/requests/{id}",
            "get",
            vec![
                "200", "400", "401", "404", "405", "414", "431", "500", "503",
            ],
        ),
    ];
    for (path, method, mut expected) in cases {
        expected.sort_unstable();
        let responses = document["paths"][path][method]["responses"]
            .as_object()
            .unwrap();
        let mut found: Vec<&str> = responses.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn every_error_is_a_problem_with_an_example_of_its_status() {
    let document = parsed();
    let mut examples_seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                if !status.starts_with(['4', '5']) {
                    continue;
                }
                let content = &response["content"]["application/problem+json"];
                assert_eq!(
                    content["schema"]["$ref"], "#/components/schemas/Problem",
                    "{path}"
                );
                for (code, example) in content["examples"].as_object().unwrap() {
                    let example = &example["value"];
                    assert_eq!(example["status"].to_string(), *status, "{path} {code}");
                    assert_eq!(example["code"], *code);
                    assert_eq!(example["message"], example["title"]);
                    examples_seen += 1;
                }
            }
        }
    }
    assert!(examples_seen >= 25, "{examples_seen} examples");
}

#[test]
fn requests_are_closed_and_optional_members_are_never_null() {
    let document = parsed();
    let schemas = &document["components"]["schemas"];
    for (name, required) in [
        ("GenerateRequest", vec!["email"]),
        ("VerifyRequest", vec!["email", "otp"]),
    ] {
        let schema = &schemas[name];
        assert_eq!(schema["additionalProperties"], false, "{name}");
        assert_eq!(schema["required"], serde_json::json!(required), "{name}");
        for (member, description) in schema["properties"].as_object().unwrap() {
            assert_eq!(description["type"], "string", "{name}.{member}");
        }
    }
    let required = serde_json::json!(["type", "title", "status", "code", "message", "instance"]);
    assert_eq!(schemas["Problem"]["required"], required);
    assert!(schemas["Problem"]["properties"].get("parts").is_none());
}

#[test]
fn no_answer_has_a_member_for_a_code() {
    let document = parsed();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if name.ends_with("Request") {
            continue;
        }
        let has_code = schema.to_string().contains("\"otp\"");
        assert!(!has_code, "{name}");
    }
}

#[test]
fn every_endpoint_takes_an_api_key_and_tells_how_to_ask_for_one() {
    let document = parsed();
    let scheme = &document["components"]["securitySchemes"]["api_key"];
    assert_eq!(
        (&scheme["type"], &scheme["scheme"]),
        (&"http".into(), &"bearer".into())
    );
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            let security = serde_json::json!([{}, { "api_key": [] }]);
            assert_eq!(operation["security"], security, "{path}");
            let headers = &operation["responses"]["401"]["headers"];
            let challenge = &headers["www-authenticate"]["example"];
            assert_eq!(challenge, "Bearer realm=\"otpost\"", "{path}");
            let parameters = operation["parameters"].as_array().unwrap();
            let header = serde_json::json!({ "$ref": "#/components/parameters/client_ip" });
            assert!(parameters.contains(&header), "{path}");
            let key = serde_json::json!({ "$ref": "#/components/parameters/idempotency_key" });
            let is_post = operation.get("requestBody").is_some();
            assert_eq!(parameters.contains(&key), is_post, "{path}");
        }
    }
}

#[tokio::test]
async fn a_service_that_asks_for_keys_says_that_it_does() {
    let bench = Bench::refusing_but(|api| {
        api.gate = Gate {
            api_keys: vec![ApiKeyHash::of(b"otpost_abc")],
            ..Gate::default()
        };
    });
    let document = bench.get("/openapi.json").await.json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            let security = serde_json::json!([{ "api_key": [] }]);
            assert_eq!(operation["security"], security, "{path}");
        }
    }
    let header = &document["components"]["parameters"]["client_ip"];
    let addresses = serde_json::json!([{ "format": "ipv4" }, { "format": "ipv6" }]);
    assert_eq!(
        header["schema"]["anyOf"], addresses,
        "no other text is taken"
    );
}
