//! Addresses: the identities of an address that is accepted agree with each other.

#![no_main]

use libfuzzer_sys::fuzz_target;
use otpost::otp::address::EmailAddress;

fuzz_target!(|text: &str| {
    let Ok(address) = EmailAddress::parse_internationalized(text) else {
        assert!(EmailAddress::parse(text).is_err());
        return;
    };
    let is_taken_everywhere = EmailAddress::parse(text).is_ok_and(|same| same == address);
    assert_eq!(is_taken_everywhere, !address.is_internationalized());
    let (recipient, canonical, limit) = (address.recipient(), address.canonical(), address.limit());
    for form in [&recipient, &canonical, &limit] {
        assert!(form.is_ascii() || address.is_internationalized());
        assert!(form.len() <= 254);
        assert!(!form.bytes().any(|byte| byte <= b' ' || byte == 0x7f));
        assert_eq!(form.matches('@').count(), 1);
    }
    // Whoever shares a canonical address shares the mailbox but for the case of ASCII letters.
    assert!(recipient.eq_ignore_ascii_case(&canonical));
    assert!(canonical.ends_with(&format!("@{}", address.domain())));
    // Every form is an address that has the same identities.
    let again = EmailAddress::parse_internationalized(&recipient).expect("a recipient is an address");
    assert_eq!(again.recipient(), recipient);
    let again = EmailAddress::parse_internationalized(&canonical).expect("a canonical address is an address");
    assert_eq!(again.canonical(), canonical);
    assert_eq!(again.limit(), limit);
    // A limit address names a budget and need not be mailable (`ada.+tag` leaves `ada.`), but folding
    // it once more changes nothing.
    if let Ok(again) = EmailAddress::parse_internationalized(&limit) {
        assert_eq!(again.limit(), limit);
    }
});
