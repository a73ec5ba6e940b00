//! Job data: what any producer may have written becomes a job that is written and read back alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use otpost::otp::keys::KeyRing;
use otpost::queue::job::JobData;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return;
    };
    let keys = KeyRing::new(&[1; 32], &[], &[2; 32]);
    let Ok(job) = JobData::parse(&value, &keys) else {
        return;
    };
    let again = JobData::parse(&job.to_json(), &keys).expect("a job that we wrote");
    assert_eq!(again.email, job.email);
    assert_eq!(again.locale, job.locale);
    assert_eq!(again.challenge.to_string(), job.challenge.to_string());
});
