//! A mail as the SMTP server of the tests got it, read by a parser that has nothing in common with
//! what wrote it.

use mail_parser::{MessageParser, MimeHeaders};

/// A mail as the server got it.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Headers and body with CRLF, dots unstuffed, as text: what we send is ASCII.
    pub data: String,
}

impl Mail {
    /// The decoded subject.
    pub fn subject(&self) -> String {
        self.parsed().subject().expect("a subject").to_owned()
    }

    /// The decoded plain part.
    pub fn text(&self) -> String {
        self.part(0, "plain")
    }

    /// The decoded HTML part.
    pub fn html(&self) -> String {
        self.part(1, "html")
    }

    /// The code: the only run of six to eight digits in the plain part.
    pub fn code(&self) -> String {
        let text = self.text();
        let runs: Vec<&str> = text
            .split(|character: char| !character.is_ascii_digit())
            .filter(|run| (6..=8).contains(&run.len()))
            .collect();
        assert_eq!(runs.len(), 1, "one code in {text}");
        runs[0].to_owned()
    }

    /// The unfolded raw value of a header that must be there once.
    pub fn header(&self, name: &str) -> String {
        let values: Vec<String> = self
            .headers()
            .into_iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(values.len(), 1, "one {name}");
        values.concat()
    }

    /// Names and unfolded raw values of all headers.
    pub fn headers(&self) -> Vec<(String, String)> {
        let (head, _) = self.data.split_once("\r\n\r\n").expect("a header section");
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        unfolded
            .split("\r\n")
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a header");
                (name.to_owned(), value.trim().to_owned())
            })
            .collect()
    }

    /// Exactly two parts, which an independent parser decodes.
    fn part(&self, index: usize, subtype: &str) -> String {
        let parsed = self.parsed();
        assert_eq!(parsed.parts.len(), 3, "multipart/alternative and its parts");
        let part = &parsed.parts[index + 1];
        let kind = part.content_type().expect("a content type");
        assert_eq!(kind.ctype(), "text");
        assert_eq!(kind.subtype(), Some(subtype));
        assert_eq!(kind.attribute("charset"), Some("utf-8"));
        part.text_contents().expect("a text").replace("\r\n", "\n")
    }

    fn parsed(&self) -> mail_parser::Message<'_> {
        MessageParser::default()
            .parse(self.data.as_bytes())
            .expect("a mail")
    }
}
