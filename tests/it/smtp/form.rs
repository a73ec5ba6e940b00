//! The form of the mail: what arrives, whatever was asked for.

use std::sync::Arc;
use std::time::Duration;

use otpost::mailer::mailbox::Mailbox;
use otpost::mailer::template::Templates;
use otpost::mailer::{Letterhead, Mailer, OtpMail};
use otpost::otp::address::EmailAddress;

use super::{CODE, job, letterhead, mailer, mailer_with, plain};
use crate::support::clock::ManualClock;
use crate::support::smtp_server::{Mail, SmtpServer};

const HEADERS: [&str; 9] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "MIME-Version",
    "Content-Type",
];

async fn sent(mail: &OtpMail) -> Mail {
    let server = SmtpServer::start().await;
    mailer(plain(&server))
        .send(mail)
        .await
        .expect("it is accepted");
    server.next_mail().await
}

/// Fails unless the mail has its headers, its code and one recipient, and nothing else.
pub fn assert_form(mail: &Mail) {
    let names: Vec<String> = mail.headers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, HEADERS);
    assert_eq!(mail.to.len(), 1);
    assert_eq!(mail.text().matches(CODE).count(), 1, "{}", mail.text());
    assert_eq!(mail.html().matches(CODE).count(), 1, "{}", mail.html());
}

#[tokio::test]
async fn a_mail_has_its_nine_headers_once_each() {
    let mail = sent(&job("j1")).await;
    assert_form(&mail);
    assert_eq!(mail.header("From"), "Example <codes@example.com>");
    assert_eq!(mail.header("To"), "ada@example.org");
    assert_eq!(mail.header("Subject"), "Your otpost code");
    assert_eq!(mail.header("Date"), "Mon, 21 Sep 2026 14:13:20 +0000");
    assert_eq!(mail.header("MIME-Version"), "1.0");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert_eq!(mail.header("X-Auto-Response-Suppress"), "All");
    let id = mail.header("Message-ID");
    let local = id
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix("@example.com>"))
        .expect("<...@example.com>");
    assert_eq!(local.len(), 26);
    assert_eq!(mail.from, "codes@example.com");
    assert_eq!(mail.to, ["ada@example.org"]);
}

#[tokio::test]
async fn the_default_mail_is_as_it_was() {
    let mail = sent(&job("j1")).await;
    let (head, html) = mail.data.split_once("<!DOCTYPE").unwrap();
    insta::assert_snapshot!("headers_and_text", head.replace("\r\n", "\n"));
    insta::assert_snapshot!("html", format!("<!DOCTYPE{}", html.replace("\r\n", "\n")));
    assert_eq!(mail.code(), CODE);
}

#[tokio::test]
async fn text_is_readable_on_the_wire_in_lines_of_at_most_78_characters() {
    let mail = sent(&job("j1")).await;
    assert!(
        mail.data
            .contains(&format!("\r\nYour otpost code: {CODE}\r\n"))
    );
    for line in mail.data.lines() {
        assert!(line.len() <= 78, "{line}");
    }
    assert!(mail.data.len() < 15_000);
}

#[tokio::test]
async fn no_header_has_the_code() {
    let mail = sent(&job("j1")).await;
    for (name, value) in mail.headers() {
        assert!(!value.contains(CODE), "{name}: {value}");
    }
}

#[tokio::test]
async fn the_code_stands_in_the_subject_once_if_that_is_wanted() {
    let server = SmtpServer::start().await;
    let letterhead = Letterhead {
        code_in_subject: true,
        ..letterhead("otpost")
    };
    let mailer = mailer_with(plain(&server), Templates::load(None).unwrap(), letterhead);
    mailer.send(&job("j1")).await.unwrap();
    let mail = server.next_mail().await;
    assert_form(&mail);
    assert_eq!(mail.subject(), format!("{CODE} is your otpost code"));
}

#[tokio::test]
async fn the_recipient_gets_the_mail_under_the_local_part_as_typed() {
    let mail = sent(&OtpMail {
        to: EmailAddress::parse("!#$%&'*+-/=?^_`{|}~.Ada@Bücher.EXAMPLE").unwrap(),
        ..job("j1")
    })
    .await;
    let recipient = "!#$%&'*+-/=?^_`{|}~.Ada@xn--bcher-kva.example";
    assert_eq!(mail.to, [recipient]);
    assert_eq!(mail.header("To"), recipient);
}

#[tokio::test]
async fn the_longest_address_stays_one_recipient() {
    let labels = format!("{0}.{0}.{1}.example", "d".repeat(60), "d".repeat(59));
    let mail = sent(&OtpMail {
        to: EmailAddress::parse(&format!("{}@{labels}", "l".repeat(64))).unwrap(),
        ..job("j1")
    })
    .await;
    assert_form(&mail);
    assert_eq!(mail.header("To"), mail.to[0]);
}

#[tokio::test]
async fn a_product_is_escaped_in_html_and_left_alone_elsewhere() {
    let server = SmtpServer::start().await;
    let product = "<script>&\"' Käse";
    let mailer = mailer_with(
        plain(&server),
        Templates::load(None).unwrap(),
        letterhead(product),
    );
    mailer.send(&job("j1")).await.unwrap();
    let mail = server.next_mail().await;
    assert_form(&mail);
    assert!(!mail.html().contains("<script>"));
    assert!(mail.html().contains("&lt;script&gt;&amp;&quot;&#x27; Käse"));
    assert!(mail.text().contains(product));
    assert_eq!(mail.subject(), format!("Your {product} code"));
    assert!(mail.data.is_ascii());
}

#[tokio::test]
async fn the_time_left_is_told_in_whole_minutes_rounded_down() {
    for (seconds, told) in [
        (0, "for less than a minute and"),
        (59, "for less than a minute and"),
        (60, "for 1 minute and"),
        (119, "for 1 minute and"),
        (120, "for 2 minutes and"),
        (659, "for 10 minutes and"),
    ] {
        let mail = sent(&OtpMail {
            valid_for: Duration::from_secs(seconds),
            ..job("j1")
        })
        .await;
        assert!(mail.text().contains(told), "{seconds} s: {}", mail.text());
        assert!(mail.html().contains(told), "{seconds} s: {}", mail.html());
    }
}

/// Everything that comes with a request or a job, filled with what breaks mail programs.
#[tokio::test]
async fn no_value_from_outside_adds_a_header_a_recipient_or_a_line() {
    let server = SmtpServer::start().await;
    let mailer = mailer(plain(&server));
    let expected = sent(&job("j1")).await;
    let mut accepted = 0;
    for tail in [
        "\r\nBcc: eve@example.net",
        "\nBcc: eve@example.net",
        "\rBcc: eve@example.net",
        "\r\n\r\nbody",
        "\r\n.\r\nMAIL FROM:<eve@example.net>",
        "\n.\n",
        "\n.\r\nQUIT",
        "\0",
        "%0d%0aBcc:eve",
        "\u{85}Bcc: x",
        "\u{2028}Bcc: x",
        "=?utf-8?q?=0d=0aBcc:_eve?=",
        "=?utf-8?b?DQpCY2M6IGV2ZQ==?=",
        "> SIZE=1",
        ">\r\nRCPT TO:<eve@example.net",
        ", eve@example.net",
        "; eve@example.net",
        "<eve@example.net>",
        "(comment)",
        "\"quoted\"",
    ] {
        let addresses = [
            format!("ada{tail}@example.org"),
            format!("ada@example.org{tail}"),
            format!("{tail}@example.org"),
        ];
        for text in addresses {
            let Ok(to) = EmailAddress::parse(&text) else {
                continue;
            };
            mailer.send(&OtpMail { to, ..job("j1") }).await.unwrap();
            let mail = server.next_mail().await;
            assert_form(&mail);
            assert_eq!(mail.to, [text]);
            accepted += 1;
        }
        let locale = Some(format!("en{tail}"));
        let mail = OtpMail {
            locale,
            ..job("j1")
        };
        mailer.send(&mail).await.unwrap();
        assert_eq!(server.next_mail().await.data, expected.data, "{tail:?}");
    }
    assert!(accepted > 0, "some payloads are lawful local parts");
}

/// What mail programs look for when they offer to fill in a code: words of 4 to 9 letters and
/// digits with a digit in them.
fn code_like(text: &str) -> Vec<&str> {
    text.split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| (4..=9).contains(&word.len()))
        .filter(|word| word.bytes().any(|byte| byte.is_ascii_digit()))
        .collect()
}

/// What is left of HTML when tags and styles are taken away.
fn visible(html: &str) -> String {
    let (head, rest) = html.split_once("<style>").expect("a style sheet");
    let (_, body) = rest.split_once("</style>").expect("its end");
    format!("{head}{body}")
        .split('<')
        .filter_map(|piece| piece.split_once('>').map(|(_, text)| text))
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn nothing_but_the_code_looks_like_one() {
    let mail = sent(&job("j1")).await;
    for text in [mail.text(), visible(&mail.html())] {
        assert_eq!(code_like(&text), [CODE], "{text}");
        let (before, _) = text.split_once(CODE).unwrap();
        let near = &before[before.len().saturating_sub(50)..];
        assert!(near.contains("code"), "{near}");
        assert!(before.len() < 600);
    }
    let numbers = mail.html();
    let all_digits = code_like(&numbers)
        .into_iter()
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    assert_eq!(all_digits.collect::<Vec<_>>(), [CODE]);
}

#[tokio::test]
async fn the_mail_loads_nothing_and_links_nowhere() {
    let mail = sent(&job("j1")).await;
    let source = format!("{}{}", mail.text(), mail.html()).to_ascii_lowercase();
    for forbidden in [
        "http", "href", "src", "url(", "cid:", "@import", "<img", "<a ", "<script", "<form", "www.",
    ] {
        assert!(!source.contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn the_html_is_accessible() {
    let html = sent(&job("j1")).await.html();
    assert!(html.starts_with("<!DOCTYPE html>"), "{html}");
    assert!(html.contains("<html lang=\"en\" dir=\"ltr\">"));
    assert!(html.contains("<title>Your otpost code</title>"));
    assert!(html.contains("name=\"color-scheme\" content=\"light dark\""));
    assert!(html.contains("prefers-color-scheme: dark"));
    assert_eq!(html.matches("<h1").count(), 1);
    assert_eq!(
        html.matches("<table").count(),
        html.matches("<table role=\"presentation\"").count()
    );
    // The code is one word in one element of its own.
    assert!(html.contains(&format!(">{CODE}</div>")));
    let sizes = html.split("font-size:").skip(1).map(|rest| {
        let size = rest.split("px").next().unwrap_or_default();
        size.parse::<u32>().expect("a size in px")
    });
    assert!(sizes.clone().all(|size| size >= 16));
    assert!(sizes.max() >= Some(24));
}

#[tokio::test]
async fn text_is_readable_against_its_background_in_light_and_dark() {
    for (text, background) in [
        // Light: text, code and note, each on its surface.
        ("223", "fff"),
        ("112", "eef"),
        ("556", "fff"),
        // Dark.
        ("eee", "222"),
        ("fff", "333"),
        ("bbb", "222"),
    ] {
        let html = sent(&job("j1")).await.html();
        assert!(
            html.contains(&format!("color:#{text}")) || html.contains(&format!("color: #{text}"))
        );
        assert!(html.contains(&format!("#{background}")));
        let (dark, light) = (luminance(text), luminance(background));
        let contrast = (dark.max(light) + 0.05) / (dark.min(light) + 0.05);
        assert!(contrast >= 4.5, "#{text} on #{background}: {contrast}");
    }
}

/// Relative luminance by WCAG 2.2 of a colour of three digits.
fn luminance(colour: &str) -> f64 {
    let channel = |index: usize| {
        let digit = u8::from_str_radix(&colour[index..=index], 16).expect("a digit");
        let value = f64::from(digit) * 17.0 / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * channel(0) + 0.7152 * channel(1) + 0.0722 * channel(2)
}

#[tokio::test]
async fn the_development_mailbox_keeps_the_last_hundred_mails() {
    let clock = Arc::new(ManualClock::new());
    let mailbox = Arc::new(Mailbox::new(clock.clone()));
    let mailer = Mailer::new(
        Templates::load(None).unwrap(),
        letterhead("otpost"),
        mailbox.clone(),
        clock,
    );
    for number in 0..101 {
        mailer.send(&job(&format!("j{number}"))).await.unwrap();
    }
    let mails = mailbox.messages();
    assert_eq!(mails.len(), 100);
    let newest = serde_json::to_value(&mails[0]).unwrap();
    assert_eq!(newest["id"], "101");
    assert_eq!(newest["to"], "ada@example.org");
    assert_eq!(newest["subject"], "Your otpost code");
    assert_eq!(newest["received"], "2026-09-21T14:13:20.000Z");
    assert!(newest["text"].as_str().unwrap().contains(CODE));
    assert!(newest["html"].as_str().unwrap().contains(CODE));
    assert_eq!(newest.as_object().unwrap().len(), 6);
    assert_eq!(mails[99].id, "2");
}
