//! Local parts beyond ASCII: what is one letter, what is the same address, what is none.

use proptest::prelude::*;

use super::super::*;

fn wide(text: &str) -> EmailAddress {
    EmailAddress::parse_internationalized(text).unwrap()
}

#[test]
fn local_parts_beyond_ascii_are_taken_in_nfc_where_they_are_wanted() {
    for (typed, recipient) in [
        ("josé@example.org", "josé@example.org"),
        ("jose\u{301}@example.org", "jos\u{e9}@example.org"),
        ("用户@例え.example", "用户@xn--r8jz45g.example"),
        ("муж.1@example.org", "муж.1@example.org"),
        ("אבג@example.org", "אבג@example.org"),
        ("\u{131}\u{17f}@example.org", "\u{131}\u{17f}@example.org"),
        ("Ada@example.org", "Ada@example.org"),
    ] {
        assert_eq!(wide(typed).recipient(), recipient, "{typed}");
    }
    assert_eq!(wide("JosÉ+x@example.org").canonical(), "josÉ+x@example.org");
    assert_eq!(wide("JosÉ+x@example.org").limit(), "josÉ@example.org");
    assert_eq!(wide("é.a@gmail.com").limit(), "éa@gmail.com");
}

#[test]
fn what_nobody_sees_or_can_tell_apart_is_no_part_of_an_address() {
    for character in [
        '\u{80}',
        '\u{85}',
        '\u{a0}',
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{180e}',
        '\u{2000}',
        '\u{200b}',
        '\u{200c}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{202f}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{3000}',
        '\u{3164}',
        '\u{e000}',
        '\u{fe0f}',
        '\u{feff}',
        '\u{fff9}',
        '\u{ffff}',
        '\u{378}',
        '\u{e0001}',
        '\u{e0100}',
        '\u{f0000}',
        '\u{10ffff}',
        '\u{1d173}',
        // NFC makes them `K` and a backtick.
        '\u{212a}',
        '\u{1fef}',
    ] {
        let parsed = EmailAddress::parse_internationalized(&format!("é{character}é@example.org"));
        assert_eq!(parsed, Err(AddressError::Local), "{character:?}");
    }
    for local in [
        "\u{301}a",
        "é..é",
        ".é",
        "é.",
        "\"é\"",
        "é é",
        "é(x)",
        "é\r\n",
        "é>",
        "J\u{30c}",
        "eT\u{308}",
    ] {
        let parsed = EmailAddress::parse_internationalized(&format!("{local}@example.org"));
        assert_eq!(parsed, Err(AddressError::Local), "{local:?}");
    }
}

#[test]
fn folding_ends_where_ascii_ends() {
    for (left, right) in [
        ("\u{131}", "i"),
        ("\u{17f}", "s"),
        ("É", "é"),
        ("\u{ff41}", "a"),
        ("ß", "ss"),
    ] {
        let of = |local: &str| wide(&format!("{local}@example.org"));
        assert_ne!(
            of(left).canonical(),
            of(right).canonical(),
            "{left} {right}"
        );
        assert_ne!(of(left).limit(), of(right).limit(), "{left} {right}");
    }
}

#[test]
fn a_letter_and_its_mark_are_one_letter_in_any_case_and_across_dots_that_do_not_count() {
    assert_eq!(
        wide("j\u{30c}@example.org").canonical(),
        "\u{1f0}@example.org"
    );
    let composed = wide("\u{e1}@gmail.com");
    for typed in ["a.\u{301}@gmail.com", "A.\u{301}+x@googlemail.com"] {
        assert_eq!(wide(typed).limit(), composed.limit(), "{typed}");
        assert_ne!(wide(typed).canonical(), composed.canonical(), "{typed}");
    }
}

#[test]
fn lengths_are_octets_of_what_is_sent() {
    let parse =
        |local: String| EmailAddress::parse_internationalized(&format!("{local}@example.org"));
    assert!(parse("é".repeat(32)).is_ok());
    assert_eq!(parse("é".repeat(33)), Err(AddressError::Length));
    // As typed it is longer than as sent, and the other way round.
    assert!(parse("e\u{301}".repeat(32)).is_ok());
    assert!(parse("\u{958}".repeat(10)).is_ok());
    assert_eq!(parse("\u{958}".repeat(11)), Err(AddressError::Length));
}

proptest! {
    #[test]
    fn beyond_ascii_equal_canonical_addresses_have_recipients_that_differ_in_ascii_case_only(
        left in "[aKk\u{212a}iI\u{131}\u{130}sS\u{17f}eéÉjJ\u{301}\u{327}\u{30c}]{1,4}",
        right in "[aKk\u{212a}iI\u{131}\u{130}sS\u{17f}eéÉjJ\u{301}\u{327}\u{30c}]{1,4}",
    ) {
        let parse = |local: &str| EmailAddress::parse_internationalized(&format!("{local}@example.org"));
        if let (Ok(left), Ok(right)) = (parse(&left), parse(&right)) {
            let equal = left.canonical() == right.canonical();
            prop_assert_eq!(equal, left.recipient().eq_ignore_ascii_case(&right.recipient()));
        }
    }

    #[test]
    fn beyond_ascii_small_letters_are_the_same_address_and_provider_dots_the_same_mailbox(
        text in "[aAjJtT.+\u{301}\u{308}\u{30c}é]{1,5}",
    ) {
        let parse = |local: &str| EmailAddress::parse_internationalized(&format!("{local}@gmail.com"));
        if let Ok(parsed) = parse(&text) {
            // A letter that is composed is beyond ASCII, and its case counts.
            let small = parsed.local.to_ascii_lowercase();
            prop_assert_eq!(parse(&small).unwrap().canonical(), parsed.canonical());
            if let Ok(capital) = parse(&parsed.local.to_ascii_uppercase()) {
                prop_assert_eq!(capital.canonical(), parsed.canonical());
            }
            let base = small.split_once('+').map_or(small.as_str(), |(base, _tag)| base);
            if let Ok(dotless) = parse(&base.replace('.', "")) {
                prop_assert_eq!(dotless.limit(), parsed.limit());
            }
            if let Ok(folded) = EmailAddress::parse_internationalized(&parsed.limit()) {
                prop_assert_eq!(folded.limit(), parsed.limit());
            }
        }
    }

    #[test]
    fn beyond_ascii_what_is_accepted_is_accepted_again_and_stays_what_it_is(
        text in "[\\PC]{1,8}@example\\.org",
    ) {
        if let Ok(parsed) = EmailAddress::parse_internationalized(&text) {
            let again = |text: &str| EmailAddress::parse_internationalized(text);
            prop_assert_eq!(again(&parsed.recipient()), Ok(parsed.clone()));
            let canonical = again(&parsed.canonical()).unwrap();
            prop_assert_eq!(canonical.canonical(), parsed.canonical());
            prop_assert_eq!(canonical.limit(), parsed.limit());
            prop_assert_eq!(EmailAddress::parse(&text).is_ok(), !parsed.is_internationalized());
        }
    }
}
