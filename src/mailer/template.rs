//! The three templates of the mail, compiled in and each replaceable by a file of the same name.
//!
//! Loading renders every template with every combination of what a mail can hold, in strict mode,
//! so that a mistake stops the start and not a mail. Values are escaped in HTML and nowhere else.

use std::path::Path;

use handlebars::{Handlebars, RenderError, no_escape};
use serde_json::{Map, Value};

const HTML: &str = "otp.hbs";
const TEXT: &str = "otp.txt.hbs";
const SUBJECT: &str = "otp.subject.hbs";

/// A product that shows whether HTML is escaped.
const HOSTILE_PRODUCT: &str = "<script>&\"'";
/// A code that no template has by chance.
const PROBE_CODE: &str = "918273";

/// What a mail tells.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The digits.
    pub code: &'a str,
    /// What the code is for.
    pub product: &'a str,
    /// Whole minutes that it is still good for, rounded down.
    pub minutes: u64,
    /// The reader's language, if it is known.
    pub locale: Option<&'a str>,
    /// Whether the subject may have the code.
    pub code_in_subject: bool,
}

/// The three texts of a mail.
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// The plain part.
    pub text: String,
    /// The HTML part.
    pub html: String,
}

/// A mistake in a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template {file}{}: {problem}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct TemplateError {
    /// The template's name, or the path of the file that replaces it.
    pub file: String,
    /// Where in it, if that is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

/// The templates, loaded and tried.
pub struct Templates {
    escaping: Handlebars<'static>,
    literal: Handlebars<'static>,
    files: [(&'static str, String); 3],
}

impl Templates {
    /// Loads the templates; those that lie in `folder` replace the ones compiled in.
    pub fn load(folder: Option<&Path>) -> Result<Self, TemplateError> {
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(TemplateError {
                file: folder.display().to_string(),
                line: None,
                problem: "is not a folder".to_owned(),
            });
        }
        let mut escaping = registry();
        let mut literal = registry();
        literal.register_escape_fn(no_escape);
        let html = add(&mut escaping, folder, HTML, include_str!("otp.hbs"))?;
        let text = add(&mut literal, folder, TEXT, include_str!("otp.txt.hbs"))?;
        let subject = add(
            &mut literal,
            folder,
            SUBJECT,
            include_str!("otp.subject.hbs"),
        )?;
        let templates = Self {
            escaping,
            literal,
            files: [(HTML, html), (TEXT, text), (SUBJECT, subject)],
        };
        templates.try_all()?;
        Ok(templates)
    }

    /// Renders the three texts.
    pub fn render(&self, facts: &Facts<'_>) -> Result<Rendered, TemplateError> {
        let body = Value::Object(facts.for_the_body());
        let subject = Value::Object(facts.for_the_subject());
        Ok(Rendered {
            subject: one_line(&self.one(&self.literal, SUBJECT, &subject)?),
            text: self.one(&self.literal, TEXT, &body)?,
            html: self.one(&self.escaping, HTML, &body)?,
        })
    }

    fn one(
        &self,
        registry: &Handlebars<'_>,
        name: &str,
        facts: &Value,
    ) -> Result<String, TemplateError> {
        registry
            .render(name, facts)
            .map_err(|error| self.error(name, error.line_no, problem(&error)))
    }

    /// Every combination that a mail can have.
    fn try_all(&self) -> Result<(), TemplateError> {
        for locale in [None, Some("en")] {
            for minutes in [0, 1, 10] {
                for code_in_subject in [false, true] {
                    self.try_one(&Facts {
                        code: PROBE_CODE,
                        product: HOSTILE_PRODUCT,
                        minutes,
                        locale,
                        code_in_subject,
                    })?;
                }
            }
        }
        Ok(())
    }

    fn try_one(&self, facts: &Facts<'_>) -> Result<(), TemplateError> {
        let rendered = self.render(facts)?;
        let complain = |name, problem: &str| Err(self.error(name, None, problem.to_owned()));
        if rendered.html.contains(HOSTILE_PRODUCT) {
            return complain(HTML, "a value is not escaped: no triple braces in HTML");
        }
        if !rendered.html.contains(PROBE_CODE) {
            return complain(HTML, "the code does not appear");
        }
        if !rendered.text.contains(PROBE_CODE) {
            return complain(TEXT, "the code does not appear");
        }
        if rendered.subject.is_empty() {
            return complain(SUBJECT, "the subject is empty");
        }
        Ok(())
    }

    fn error(&self, name: &str, line: Option<usize>, problem: String) -> TemplateError {
        let file = self
            .files
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(name, |(_, file)| file);
        TemplateError {
            file: file.to_owned(),
            line,
            problem,
        }
    }
}

impl Facts<'_> {
    fn for_the_body(&self) -> Map<String, Value> {
        let mut values = self.for_the_subject();
        values.insert("code".to_owned(), self.code.into());
        values
    }

    /// Without the code unless it may be there: strict mode then refuses to render it.
    fn for_the_subject(&self) -> Map<String, Value> {
        let mut values = Map::new();
        values.insert("product".to_owned(), self.product.into());
        values.insert("minutes".to_owned(), self.minutes.into());
        values.insert("code_in_subject".to_owned(), self.code_in_subject.into());
        if let Some(locale) = self.locale {
            values.insert("locale".to_owned(), locale.into());
        }
        if self.code_in_subject {
            values.insert("code".to_owned(), self.code.into());
        }
        values
    }
}

/// One line of printable text: a control character or a run of blanks becomes one blank.
pub fn one_line(text: &str) -> String {
    text.split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Strict, and without the helper that would write values to the log.
fn registry() -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.unregister_helper("log");
    registry
}

/// Compiles a template and returns the name to blame for its mistakes.
fn add(
    registry: &mut Handlebars<'static>,
    folder: Option<&Path>,
    name: &str,
    built_in: &str,
) -> Result<String, TemplateError> {
    let path = folder
        .map(|folder| folder.join(name))
        .filter(|path| path.exists());
    let file = path
        .as_ref()
        .map_or_else(|| name.to_owned(), |path| path.display().to_string());
    let error = |line, problem| TemplateError {
        file: file.clone(),
        line,
        problem,
    };
    let source = match &path {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|failure| error(None, format!("cannot be read: {failure}")))?,
        None => built_in.to_owned(),
    };
    registry
        .register_template_string(name, source)
        .map_err(|mistake| {
            error(
                mistake.pos().map(|(line, _)| line),
                mistake.reason().to_string(),
            )
        })?;
    Ok(file)
}

/// What is wrong, in words for whoever wrote the template. It may quote values, so a mistake that
/// only a real mail finds is not told further.
fn problem(error: &RenderError) -> String {
    match error.reason() {
        handlebars::RenderErrorReason::MissingVariable(Some(name)) => {
            format!("`{name}` is not always there: ask with #if first")
        }
        handlebars::RenderErrorReason::MissingVariable(None) => {
            "a variable is not always there: ask with #if first".to_owned()
        }
        other => other.to_string(),
    }
}
