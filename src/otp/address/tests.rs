//! Which texts are addresses, and which addresses are the same.

mod beyond_ascii;

use proptest::prelude::*;

use super::*;

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

#[test]
fn ordinary_addresses_are_accepted_as_they_are() {
    for text in [
        "ada@example.org",
        "Ada.Lovelace@example.org",
        "a@b.co",
        "!#$%&'*+-/=?^_`{|}~@example.org",
        "ada+tag@sub.domain.example.org",
        "1@2.example",
        "a-b_c=d@example.org",
        "-@example.org",
        "{}@example.org",
        "a@1.2.3.example",
        "ada@xn--bcher-kva.example",
        "ada@xn--fa-hia.example",
        "ada@xn--p1ai.xn--p1ai",
        "ada@a-b--c.example",
    ] {
        assert_eq!(address(text).recipient(), text, "{text}");
    }
}

#[test]
fn domains_become_lower_case_a_labels() {
    assert_eq!(address("Ada@EXAMPLE.org").recipient(), "Ada@example.org");
    assert_eq!(
        address("ada@bücher.example").recipient(),
        "ada@xn--bcher-kva.example"
    );
    assert_eq!(
        address("ada@BÜCHER.example"),
        address("ada@xn--bcher-kva.example")
    );
    assert_eq!(address("ada@faß.example").domain(), "xn--fa-hia.example");
}

const REFUSED: &[(&str, AddressError)] = &[
    ("", AddressError::Form),
    ("ada", AddressError::Form),
    ("@example.org", AddressError::Form),
    ("ada@", AddressError::Form),
    (" ada@example.org", AddressError::Local),
    ("ada@example.org ", AddressError::Domain),
    ("ada@example.org.", AddressError::Domain),
    (".ada@example.org", AddressError::Local),
    ("ada.@example.org", AddressError::Local),
    ("a..b@example.org", AddressError::Local),
    ("\"ada\"@example.org", AddressError::Local),
    ("ada(x)@example.org", AddressError::Local),
    ("a@b@example.org", AddressError::Local),
    ("ada\r\n@example.org", AddressError::Local),
    ("ada\0@example.org", AddressError::Local),
    ("ädä@example.org", AddressError::NotSupported),
    ("\u{212a}@example.org", AddressError::NotSupported),
    ("ada\u{a0}@example.org", AddressError::NotSupported),
    ("ada\u{200b}@example.org", AddressError::NotSupported),
    ("\u{ff41}da@example.org", AddressError::NotSupported),
    ("@", AddressError::Form),
    ("@@", AddressError::Form),
    ("ada@@example.org", AddressError::Local),
    ("ada example@example.org", AddressError::Local),
    ("ada\t@example.org", AddressError::Local),
    ("\tada@example.org", AddressError::Local),
    ("ada\u{7f}@example.org", AddressError::Local),
    ("\u{1b}ada@example.org", AddressError::Local),
    (".@example.org", AddressError::Local),
    ("..@example.org", AddressError::Local),
    ("<ada@example.org>", AddressError::Local),
    ("Ada <ada@example.org>", AddressError::Local),
    ("ada;eve@example.org", AddressError::Local),
    ("ada,eve@example.org", AddressError::Local),
    ("ada:eve@example.org", AddressError::Local),
    ("ada\\@example.org", AddressError::Local),
    ("ada[1]@example.org", AddressError::Local),
    ("\"a b\"@example.org", AddressError::Local),
    ("ada.\"b\"@example.org", AddressError::Local),
    ("ada@example.org,eve@example.org", AddressError::Local),
    ("ada@example.org\r\nBcc: eve", AddressError::Domain),
    ("ada@example.org\0", AddressError::Domain),
    ("ada@.example.org", AddressError::Domain),
    ("ada@.", AddressError::Domain),
    ("ada@org.", AddressError::Domain),
    ("ada@example-.org", AddressError::Domain),
    ("ada@example.org-", AddressError::Domain),
    ("ada@example.123", AddressError::Domain),
    ("ada@[IPv6:::1]", AddressError::Domain),
    ("ada@example.org:25", AddressError::Domain),
    ("ada@example.org/x", AddressError::Domain),
    ("ada@(x)example.org", AddressError::Domain),
    ("ada@exam%70le.org", AddressError::Domain),
    ("ada@ex\u{200b}\u{200d}ample.org", AddressError::Domain),
    ("ada@\u{202e}example.org", AddressError::Domain),
    // Punycode that says another name than its own, or none.
    ("ada@xn--a.example", AddressError::Domain),
    ("ada@xn--.example", AddressError::Domain),
    ("ada@xn--abc-.example", AddressError::Domain),
    ("ada@xn--\u{fc}.example", AddressError::Domain),
    ("ada@xn--bcher-2pa.example", AddressError::Domain),
    ("ada@xn--ab-zb1n.example", AddressError::Domain),
    ("ada@xn--ex-8tb.example", AddressError::Domain),
    ("ada@localhost", AddressError::Domain),
    ("ada@[192.0.2.1]", AddressError::Domain),
    ("ada@192.0.2.1", AddressError::Domain),
    ("ada@example..org", AddressError::Domain),
    ("ada@-example.org", AddressError::Domain),
    ("ada@exam_ple.org", AddressError::Domain),
    ("ada@exa mple.org", AddressError::Domain),
    ("ada@xn--zz.example", AddressError::Domain),
];

#[test]
fn whatever_is_no_dot_atom_at_a_domain_is_refused() {
    for (text, expected) in REFUSED {
        assert_eq!(EmailAddress::parse(text), Err(*expected), "{text:?}");
    }
}

#[test]
fn lengths_end_where_smtp_ends() {
    let local = "a".repeat(64);
    assert!(EmailAddress::parse(&format!("{local}@example.org")).is_ok());
    assert_eq!(
        EmailAddress::parse(&format!("a{local}@example.org")),
        Err(AddressError::Length)
    );
    let label = "b".repeat(63);
    let domain = |last| format!("{label}.{label}.{}.org", "c".repeat(last));
    assert_eq!(64 + 1 + domain(57).len(), 254);
    assert!(EmailAddress::parse(&format!("{local}@{}", domain(57))).is_ok());
    let longer = format!("{local}@{}", domain(58));
    assert_eq!(EmailAddress::parse(&longer), Err(AddressError::Length));
    assert_eq!(
        EmailAddress::parse(&format!("a@b{label}.org")),
        Err(AddressError::Domain)
    );
}

#[test]
fn case_does_not_tell_addresses_apart_but_tags_and_dots_do() {
    assert_eq!(
        address("Ada@Example.org").canonical(),
        address("ada@example.org").canonical()
    );
    assert_ne!(
        address("ada+x@example.org").canonical(),
        address("ada@example.org").canonical()
    );
    assert_ne!(
        address("a.da@gmail.com").canonical(),
        address("ada@gmail.com").canonical()
    );
}

#[test]
fn the_spellings_of_one_mailbox_share_one_limit_address() {
    for text in [
        "ada@gmail.com",
        "A.d.a@gmail.com",
        "ada+x@googlemail.com",
        "a.da+y@gmail.com",
    ] {
        assert_eq!(address(text).limit(), "ada@gmail.com", "{text}");
    }
    for text in ["ada-l@proton.me", "a.d_al+x@pm.me", "ADAL@protonmail.com"] {
        assert_eq!(address(text).limit(), "adal@proton.me", "{text}");
    }
    assert_eq!(address("ada+x@me.com").limit(), "ada@icloud.com");
    assert_eq!(address("a.da+x@example.org").limit(), "a.da@example.org");
    assert_eq!(address("+x@example.org").limit(), "+x@example.org");
    assert_eq!(address("_-@pm.me").limit(), "_-@proton.me");
}

#[test]
fn debug_output_shows_nothing_of_an_address() {
    assert_eq!(
        format!("{:?}", address("ada@example.org")),
        "EmailAddress(..)"
    );
}

#[test]
fn a_pseudonym_is_the_same_for_one_mailbox_and_one_key_only() {
    let pseudonym = |text, key| address(text).pseudonym(&KeyRing::new(&[1; 32], &[], &[key; 32]));
    let ada = pseudonym("Ada+x@example.org", 2);
    assert_eq!(ada, pseudonym("ada@EXAMPLE.org", 2));
    assert_ne!(ada, pseudonym("ada@example.org", 3));
    assert_ne!(ada, pseudonym("bob@example.org", 2));
    assert!(
        ada.len() == 12 && ada.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{ada}"
    );
}

#[test]
fn a_challenge_depends_on_address_and_context_and_not_on_where_they_meet() {
    let keys = KeyRing::new(&[1; 32], &[], &[2; 32]);
    let challenge = |text, context| ChallengeId::of(&keys, &address(text), context);
    assert_eq!(
        challenge("Ada@example.org", "login"),
        challenge("ada@example.org", "login")
    );
    assert_ne!(
        challenge("ada@example.org", "login"),
        challenge("ada@example.org", "")
    );
    assert_ne!(
        challenge("ada@example.org", "x"),
        challenge("ada@example.orgx", "")
    );
    let known = challenge("ada@example.org", "login");
    assert_eq!(ChallengeId::parse(&known.to_string()), Some(known));
    assert_eq!(ChallengeId::parse("0123"), None);
}

proptest! {
    #[test]
    fn equal_canonical_addresses_have_recipients_that_differ_in_ascii_case_only(
        left in "[a-cA-C.+]{1,4}@[a-bA-BüÜ]{1,2}\\.(org|ORG)",
        right in "[a-cA-C.+]{1,4}@[a-bA-BüÜ]{1,2}\\.(org|ORG)",
    ) {
        if let (Ok(left), Ok(right)) = (EmailAddress::parse(&left), EmailAddress::parse(&right)) {
            let equal = left.canonical() == right.canonical();
            prop_assert_eq!(equal, left.recipient().eq_ignore_ascii_case(&right.recipient()));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic_and_what_it_accepts_it_accepts_again(text in "\\PC*") {
        if let Ok(parsed) = EmailAddress::parse(&text) {
            prop_assert_eq!(EmailAddress::parse(&parsed.recipient()), Ok(parsed));
        }
    }
}
