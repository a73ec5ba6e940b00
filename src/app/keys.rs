//! Where the keys come from: the settings, or, on the embedded store, a file beside the database
//! that is made once, together with a new database.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use data_encoding::BASE64;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;

use crate::config::{KeysSettings, SecretKey, Settings, StoreUrl, read_secret_file};
use crate::otp::address::EmailAddress;
use crate::otp::code::Entropy;
use crate::otp::keys::KeyRing;
use crate::sqlite::beside;

/// Only the owner may read the key file.
const KEY_FILE_MODE: u32 = 0o600;

/// A fresh pair of keys in the form of the settings file.
pub fn fresh(entropy: &dyn Entropy) -> anyhow::Result<Zeroizing<String>> {
    let draw = || -> anyhow::Result<Zeroizing<String>> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(&mut *key)?;
        Ok(Zeroizing::new(BASE64.encode(&*key)))
    };
    let (master, address) = (draw()?, draw()?);
    Ok(Zeroizing::new(format!(
        "[keys]\nmaster = \"{}\"\naddress = \"{}\"\n",
        *master, *address
    )))
}

/// The keys of this process. On the embedded store without keys in the settings they are read from
/// the file beside the database, which is made together with a new database.
pub fn ring(settings: &Settings, entropy: &dyn Entropy) -> anyhow::Result<KeyRing> {
    let keys = &settings.keys;
    match (&keys.master, &keys.address, &settings.store.url) {
        (Some(master), Some(address), _) => Ok(ring_of(master, address, keys)),
        (None, None, StoreUrl::Sqlite(database)) => {
            let (master, address) = beside_database(database, entropy)?;
            Ok(ring_of(&master, &address, keys))
        }
        _ => bail!("`keys.master` and `keys.address` are both needed; `otpost keygen` makes them"),
    }
}

/// The pseudonym under which the log speaks of an address. No keys are made for it.
pub fn pseudonym(settings: &Settings, address: &EmailAddress) -> anyhow::Result<String> {
    let key = match (&settings.keys.address, &settings.store.url) {
        (Some(key), _) => key.clone(),
        (None, StoreUrl::Sqlite(database)) => {
            let path = beside(database, "keys");
            let keys = read(&path);
            keys.with_context(|| format!("can't use the keys in `{}`", path.display()))?
                .1
        }
        (None, _) => bail!("`keys.address` is needed"),
    };
    // Log names hang on the address key alone.
    Ok(address.pseudonym(&KeyRing::new(key.expose(), &[], key.expose())))
}

fn ring_of(master: &SecretKey, address: &SecretKey, keys: &KeysSettings) -> KeyRing {
    let previous: Vec<[u8; 32]> = keys.previous.iter().map(|key| *key.expose()).collect();
    KeyRing::new(master.expose(), &previous, address.expose())
}

fn beside_database(
    database: &Path,
    entropy: &dyn Entropy,
) -> anyhow::Result<(SecretKey, SecretKey)> {
    let path = beside(database, "keys");
    if !path.exists() {
        if database.exists() {
            bail!(
                "`{}` has no key file; put `{}` back beside it, or set `keys.master` and `keys.address` to the keys that it was made with",
                database.display(),
                path.display()
            );
        }
        make(&path, entropy).with_context(|| format!("can't make `{}`", path.display()))?;
    }
    read(&path).with_context(|| format!("can't use the keys in `{}`", path.display()))
}

/// Makes the file whole or not at all, and never in place of one that another process has made
/// in the meantime.
fn make(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let text = fresh(entropy)?;
    let draft = beside(path, &format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(KEY_FILE_MODE)
        .open(&draft)?;
    file.write_all(
        b"# The keys of the database beside this file; it is worth nothing without them.\n",
    )?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other?),
    }
}

fn read(path: &Path) -> anyhow::Result<(SecretKey, SecretKey)> {
    let table: toml::Table = read_secret_file(path)?
        .expose_secret()
        .parse()
        .map_err(|_it_quotes_the_keys| anyhow::anyhow!("it is no TOML"))?;
    let key = |name: &str| {
        let text = table
            .get("keys")
            .and_then(|keys| keys.get(name))
            .and_then(toml::Value::as_str);
        let Some(text) = text else {
            bail!("`keys.{name}` is missing")
        };
        SecretKey::parse(text).map_err(|error| anyhow::anyhow!("`keys.{name}` {error}"))
    };
    Ok((key("master")?, key("address")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::otp::code::OsEntropy;

    #[test]
    fn a_new_database_gets_keys_that_only_its_owner_reads_and_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("otpost.db");
        let (master, address) = beside_database(&database, &OsEntropy).unwrap();
        assert_ne!(master.expose(), address.expose());
        let mode = beside(&database, "keys")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&database, "").unwrap();
        let (again, _) = beside_database(&database, &OsEntropy).unwrap();
        assert_eq!(master.expose(), again.expose());
    }

    #[test]
    fn a_database_without_its_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("otpost.db");
        std::fs::write(&database, "").unwrap();
        let error = beside_database(&database, &OsEntropy)
            .unwrap_err()
            .to_string();
        assert!(error.contains("otpost.db.keys"), "{error}");
        assert!(!beside(&database, "keys").exists());
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused_with_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("otpost.db");
        beside_database(&database, &OsEntropy).unwrap();
        let path = beside(&database, "keys");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = format!("{:#}", beside_database(&database, &OsEntropy).unwrap_err());
        assert!(
            error.contains("otpost.db.keys") && error.contains("chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_key_file_is_refused_without_being_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("otpost.db");
        for text in [
            "[keys]\nmaster = \"c2VjcmV0\"\naddress = \"c2VjcmV0\"\n",
            "c2VjcmV0 = [",
            "",
        ] {
            let path = beside(&database, "keys");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            let error = format!("{:#}", beside_database(&database, &OsEntropy).unwrap_err());
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
