//! Secrets that stand in files of their own: those that `_file` settings name, and the credentials
//! that a service manager puts into one directory, each under the name of its setting.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::finding::{Findings, Origin};
use super::layers::{Value, Values};
use super::sources::{Sources, read_all};

/// A secret and the setting that names the file it may stand in. As a credential it has the name of
/// the secret.
const SECRETS: [(&str, &str); 5] = [
    ("store.url", "store.url_file"),
    ("keys.master", "keys.master_file"),
    ("keys.previous", "keys.previous_file"),
    ("keys.address", "keys.address_file"),
    ("mail.smtp.url", "mail.smtp.url_file"),
];

/// What nobody but the owner may do with a file that holds a secret.
const FOREIGN_ACCESS: u32 = 0o066;
/// The same for a credential. systemd lets the user of the unit read it by an access list, which
/// shows as a group that may read.
const FOREIGN_ACCESS_TO_CREDENTIAL: u32 = 0o026;

/// What stands in a file, or why it could not be used.
type Content = Result<SecretString, String>;

/// Everything that stands in files of their own.
#[derive(Default)]
pub struct SecretFiles {
    /// By the path that a `_file` setting names.
    pub files: BTreeMap<PathBuf, Content>,
    /// By the name of the setting.
    pub credentials: BTreeMap<String, Content>,
}

impl SecretFiles {
    /// Read every file that these settings name, and every credential that is there.
    pub fn read(values: &Values, credentials_directory: Option<&Path>) -> Self {
        let mut found = Self::default();
        for (name, file_name) in SECRETS {
            let path = values.text(file_name);
            if !path.is_empty() {
                let path = PathBuf::from(path);
                let content = read_secret(&path, FOREIGN_ACCESS);
                let content = content.map_err(|error| error.to_string());
                found.files.insert(path, content);
            }
            let Some(directory) = credentials_directory else {
                continue;
            };
            match read_secret(&directory.join(name), FOREIGN_ACCESS_TO_CREDENTIAL) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                content => {
                    let content = content.map_err(|error| error.to_string());
                    found.credentials.insert(name.to_owned(), content);
                }
            }
        }
        found
    }
}

/// Read a file that holds a secret, unless others than its owner could have done so.
pub fn read_secret_file(path: &Path) -> std::io::Result<SecretString> {
    read_secret(path, FOREIGN_ACCESS)
}

fn read_secret(path: &Path, foreign_access: u32) -> std::io::Result<SecretString> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & foreign_access != 0 {
        return Err(std::io::Error::new(
            ErrorKind::PermissionDenied,
            format!("others than its owner may read or write it (mode {mode:03o}); `chmod 600` it"),
        ));
    }
    read_all(&file).map(SecretString::from)
}

/// Put the secrets that stand in files of their own into their settings.
pub fn resolve_secret_files(sources: &Sources, values: &mut Values, findings: &mut Findings) {
    let SecretFiles { files, credentials } = &sources.secrets;
    for (name, file_name) in SECRETS {
        let path = values.text(file_name);
        let is_credential = credentials.contains_key(name);
        if !is_credential && path.is_empty() {
            continue;
        }
        let (setting, origin, content, rivals) = if is_credential {
            let origin = Origin::Credential(name.to_owned());
            (name, origin, credentials.get(name), &[name, file_name][..])
        } else {
            let origin = values.entry(file_name).origin.clone();
            (file_name, origin, files.get(Path::new(path)), &[name][..])
        };
        let value = match rivals.iter().find(|rival| is_given(values, rival)) {
            Some(rival) => Err(format!(
                "is given together with `{rival}`; remove one of the two"
            )),
            None => secret_in(content).map(|text| like(&values.entry(name).value, text)),
        };
        match value {
            Ok(value) if is_credential => values.set(name, value, origin),
            Ok(value) => values.set(name, value, Origin::SecretFile(file_name.to_owned())),
            Err(message) => findings.add(setting, Some(origin), message),
        }
    }
}

/// Whether a layer gives this setting something.
fn is_given(values: &Values, name: &str) -> bool {
    let is_empty = match &values.entry(name).value {
        Value::Text(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        _ => true,
    };
    values.is_configured(name) && !is_empty
}

/// What stands in a file without the one line break that editors and `echo` put at its end.
fn secret_in(content: Option<&Content>) -> Result<&str, String> {
    let content = match content {
        Some(Ok(content)) => content.expose_secret(),
        Some(Err(reason)) => return Err(format!("the file cannot be used: {reason}")),
        None => return Err("the file was not read".to_owned()),
    };
    let text = content
        .strip_suffix("\r\n")
        .or_else(|| content.strip_suffix('\n'))
        .unwrap_or(content);
    if text.is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(text)
}

/// The text as a value of the same type as this one; a list has an item a line.
fn like(value: &Value, text: &str) -> Value {
    match value {
        Value::List(_) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            Value::List(lines.map(str::to_owned).collect())
        }
        _ => Value::Text(text.to_owned()),
    }
}
