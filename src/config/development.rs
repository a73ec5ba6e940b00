//! Development mode: who is in it, and what it changes. In it mails go to a mailbox that everybody who
//! reaches the listener can read, hence the strict company it keeps (see `check`).

use super::finding::Origin;
use super::layers::{Value, Values};

/// The sender of mails that never leave: in development mode, or where nothing is mailed.
pub const STAND_IN_SENDER: &str = "otpost <otpost@otpost.localhost>";

/// Whether this is development mode: by `--dev`, by the mailbox as transport, or because nothing but
/// listeners, limits and logging has been configured. `http.public_url` is not among these: whoever
/// sets it means others to come.
pub fn is_development(values: &Values) -> bool {
    let says_nothing = |name: &str| {
        matches!(name, "http.listen" | "ops.listen")
            || name.starts_with("limits.")
            || name.starts_with("log.")
    };
    let is_unconfigured = || {
        values
            .names
            .iter()
            .all(|name| says_nothing(name) || !values.is_configured(name))
    };
    values.development_flag || values.text("mail.transport") == "mailbox" || is_unconfigured()
}

/// Let mails go to the mailbox, from a sender that needs no configuration.
pub fn apply_development(values: &mut Values) {
    if values.text("mail.transport") != "mailbox" {
        let mailbox = Value::Text("mailbox".to_owned());
        values.set("mail.transport", mailbox, Origin::Development);
    }
    if values.text("mail.from").is_empty() {
        let sender = Value::Text(STAND_IN_SENDER.to_owned());
        values.set("mail.from", sender, Origin::Development);
    }
}
