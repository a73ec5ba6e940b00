//! Templates of the operator's own: each replaces its twin, and a mistake stops the start.

use otpost::mailer::template::{TemplateError, Templates};
use rstest::rstest;
use tempfile::TempDir;

use super::{CODE, job, letterhead, mailer_with, plain};
use crate::support::smtp_server::{Mail, SmtpServer};

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("a template is written");
    }
    folder
}

fn refusal(files: &[(&str, &str)]) -> TemplateError {
    Templates::load(Some(folder(files).path()))
        .err()
        .expect("the templates are refused")
}

async fn sent(files: &[(&str, &str)]) -> Mail {
    let server = SmtpServer::start().await;
    let templates = Templates::load(Some(folder(files).path())).expect("the templates");
    let mailer = mailer_with(plain(&server), templates, letterhead("otpost"));
    mailer.send(&job("j1")).await.expect("it is accepted");
    server.next_mail().await
}

#[tokio::test]
async fn templates_are_replaced_one_by_one() {
    let usual = sent(&[]).await;
    let mail = sent(&[("otp.hbs", "<p>{{code}}</p>")]).await;
    assert_eq!(mail.html(), format!("<p>{CODE}</p>\n"));
    assert_eq!(
        (mail.text(), mail.subject()),
        (usual.text(), usual.subject())
    );

    let mail = sent(&[("otp.txt.hbs", "{{code}} it is")]).await;
    assert_eq!(mail.text(), format!("{CODE} it is\n"));
    assert_eq!(
        (mail.html(), mail.subject()),
        (usual.html(), usual.subject())
    );

    let mail = sent(&[("otp.subject.hbs", "Hello from {{product}}")]).await;
    assert_eq!(mail.subject(), "Hello from otpost");
    assert_eq!((mail.html(), mail.text()), (usual.html(), usual.text()));
}

#[tokio::test]
async fn a_subject_becomes_one_trimmed_line() {
    let mail = sent(&[(
        "otp.subject.hbs",
        "\r\n  Your code\r\nBcc: eve@example.net\n\tfrom \u{7}{{product}} \n\n",
    )])
    .await;
    assert_eq!(mail.subject(), "Your code Bcc: eve@example.net from otpost");
    assert_eq!(mail.headers().len(), 9);
    assert_eq!(mail.to.len(), 1);
}

#[tokio::test]
async fn lines_that_begin_with_a_dot_arrive_as_they_are() {
    let text = "{{code}}\n.\n..\n.QUIT\n\n. \nend";
    let mail = sent(&[("otp.txt.hbs", text)]).await;
    assert_eq!(mail.text(), format!("{}\n", text.replace("{{code}}", CODE)));
    assert!(mail.html().contains(CODE));
}

#[rstest]
#[case::variable("otp.txt.hbs", "{{code}}\n\n{{surname}}", Some(3), "surname")]
#[case::optional("otp.hbs", "{{code}}\n{{locale}}", Some(2), "locale")]
#[case::in_a_rare_branch(
    "otp.txt.hbs",
    "{{code}}\n{{#if (eq minutes 0)}}\n{{soon}}\n{{/if}}",
    Some(3),
    "soon"
)]
#[case::syntax("otp.hbs", "{{code}}\n{{#if minutes}}", Some(2), "")]
#[case::helper("otp.txt.hbs", "{{code}}\n{{shout code}}", Some(2), "shout")]
#[case::log("otp.txt.hbs", "{{code}}\n{{log code}}", Some(2), "log")]
#[case::code_in_every_subject("otp.subject.hbs", "{{code}}", Some(1), "code")]
#[case::triple_braces("otp.hbs", "{{code}}{{{product}}}", None, "escaped")]
#[case::no_code("otp.txt.hbs", "Hello", None, "code")]
#[case::no_code_in_html("otp.hbs", "Hello", None, "code")]
#[case::empty_subject("otp.subject.hbs", " \n", None, "empty")]
fn a_mistake_stops_the_start(
    #[case] name: &str,
    #[case] content: &str,
    #[case] line: Option<usize>,
    #[case] problem: &str,
) {
    let error = refusal(&[(name, content)]);
    assert!(error.file.ends_with(name), "{error}");
    assert_eq!(error.line, line, "{error}");
    assert!(error.problem.contains(problem), "{error}");
}

#[test]
fn a_folder_that_is_not_there_stops_the_start() {
    let folder = folder(&[]);
    let missing = folder.path().join("missing");
    let error = Templates::load(Some(&missing)).err().expect("refused");
    assert!(error.to_string().contains("missing"), "{error}");
}

#[tokio::test]
async fn an_optional_variable_may_be_used_where_it_is() {
    let mail = sent(&[(
        "otp.txt.hbs",
        "{{code}} {{#if locale}}{{locale}}{{else}}no language{{/if}}",
    )])
    .await;
    assert_eq!(mail.text(), format!("{CODE} no language\n"));
}
