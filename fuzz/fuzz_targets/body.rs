//! Request bodies: whatever is accepted is one JSON object of the members that were asked for.

#![no_main]

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use libfuzzer_sys::fuzz_target;
use otpost::api::body::{BODY_BYTES, Members};
use otpost::otp::address::EmailAddress;
use otpost::otp::code::Code;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fuzz_target!(|bytes: &[u8]| {
    let request = Request::post("/otp/verify")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(bytes.to_vec()))
        .expect("a request");
    let members = RUNTIME.with(|runtime| runtime.block_on(Members::from_request(request, &())));
    let Ok(mut members) = members else {
        return;
    };
    assert!(bytes.len() <= BODY_BYTES);
    let email = members.required("#/email", EmailAddress::parse);
    let otp = members.required("#/otp", |text| Code::parse(text, &[6, 8]));
    let context = members.optional("#/context", |text| Ok::<_, Infallible>(text.to_owned()));
    match members.finish(email.zip(otp)) {
        Ok((email, otp)) => {
            let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
            let object = value.as_object().expect("an object");
            assert_eq!(object.len(), 2 + usize::from(context.is_some()));
            assert_eq!(
                object.get("context").and_then(|value| value.as_str()),
                context.as_deref()
            );
            let typed = object["email"].as_str().expect("a text");
            assert_eq!(EmailAddress::parse(typed).expect("an address"), email);
            assert!(otp.reveal().len() == 6 || otp.reveal().len() == 8);
        }
        Err(problem) => {
            // What a problem says is made of fixed words.
            let text = serde_json::to_string(&problem.document("urn:x")).expect("a document");
            assert!(text.is_ascii() && text.len() < 2048);
        }
    }
});
