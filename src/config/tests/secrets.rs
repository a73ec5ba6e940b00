//! Secrets: from files of their own, and never shown.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use super::*;

#[test]
fn no_secret_is_shown() {
    let api_keys = format!("{API_KEY_HASH},{API_KEY_HASH}");
    let config = load(&production_with(&[
        ("store.url", "redis://me:sesame@127.0.0.1:6380/1"),
        ("keys.master", MASTER),
        ("keys.address", ADDRESS),
        ("keys.previous", ADDRESS),
        ("http.api_keys", &api_keys),
    ]))
    .unwrap();
    let printed = config.print();
    for secret in [MASTER, ADDRESS, "sesame", "hunter2", "ba7816bf"] {
        assert!(!printed.contains(secret), "{printed}");
        assert!(!format!("{config:?}").contains(secret));
    }
    for line in [
        "url = \"redis://me:***@127.0.0.1:6380/1\"  # OTPOST__STORE__URL",
        "url = \"smtp://user:***@mail.example.com\"  # OTPOST__MAIL__SMTP__URL",
        "master = \"***\"  # OTPOST__KEYS__MASTER",
        "previous = [\"***\"]  # OTPOST__KEYS__PREVIOUS",
        "api_keys = [\"***\", \"***\"]  # OTPOST__HTTP__API_KEYS",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line}\n{printed}"
        );
    }
}

#[test]
fn a_secret_comes_from_its_file_without_the_last_line_break() {
    let mut sources = from_environment(&[
        ("keys.master_file", "/run/master"),
        ("keys.previous_file", "/run/previous"),
        ("keys.address", ADDRESS),
        ("store.url_file", "/run/store"),
        ("mail.smtp.url_file", "/run/smtp"),
        PRODUCTION[1],
    ]);
    for (path, content) in [
        ("/run/master", format!("{MASTER}\n")),
        ("/run/previous", format!("{ADDRESS}\n{MASTER}\r\n")),
        (
            "/run/store",
            "redis://:sesame@redis.example.com\r\n".to_owned(),
        ),
        (
            "/run/smtp",
            "smtps://user:sesame@mail.example.com".to_owned(),
        ),
    ] {
        sources
            .secrets
            .files
            .insert(PathBuf::from(path), Ok(SecretString::from(content)));
    }
    let config = load(&sources).unwrap();
    assert_eq!(config.settings.keys.previous.len(), 2);
    let StoreUrl::Redis {
        password: Some(password),
        ..
    } = &config.settings.store.url
    else {
        panic!()
    };
    assert_eq!(password.expose_secret(), "sesame");
    let printed = config.print();
    let line = "url = \"redis://:***@redis.example.com\"  # file of store.url_file";
    assert!(printed.contains(line), "{printed}");
    assert!(!printed.contains("sesame") && !printed.contains(MASTER));
}

#[test]
fn a_secret_and_its_file_together_are_refused() {
    for (name, value) in [
        REDIS[0],
        REDIS[1],
        ("keys.previous", ADDRESS),
        REDIS[2],
        PRODUCTION[0],
    ] {
        let file_name = format!("{name}_file");
        let mut sources = production_with(&REDIS);
        sources
            .environment
            .push((variable_name(name), value.to_owned()));
        sources
            .flags
            .push((file_name.clone(), "/run/secret".to_owned()));
        let content = Ok(SecretString::from(value));
        sources
            .secrets
            .files
            .insert(PathBuf::from("/run/secret"), content);
        assert_eq!(settings_refused(&sources), [file_name]);
    }
}

#[test]
fn a_secret_file_that_gives_nothing_is_refused() {
    let mut sources = production_with(&[("keys.address", ADDRESS), ("keys.master_file", "/run/x")]);
    assert_eq!(settings_refused(&sources), ["keys.master_file"]);
    for content in [Ok(SecretString::from("\n")), Err("no such file".to_owned())] {
        sources
            .secrets
            .files
            .insert(PathBuf::from("/run/x"), content);
        assert_eq!(settings_refused(&sources), ["keys.master_file"]);
    }
    sources
        .secrets
        .files
        .insert(PathBuf::from("/run/x"), Ok(SecretString::from("hunter2")));
    let found = findings_of(&sources).to_string();
    assert!(
        found.starts_with("`keys.master` from the file of `keys.master_file`: must"),
        "{found}"
    );
    assert!(!found.contains("hunter2"));
}

fn write(path: &Path, content: &str, mode: u32) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn one_line_break_is_cut_from_a_secret_and_no_more() {
    let smtp = PRODUCTION[0].1;
    for (content, is_usable) in [
        (smtp.to_owned(), true),
        (format!("{smtp}\n"), true),
        (format!("{smtp}\r\n"), true),
        (format!("{smtp}\r"), false),
        (format!("{smtp}\n\n"), false),
        (format!("{smtp}\n\r\n"), false),
        (format!(" {smtp}\n"), false),
    ] {
        let mut sources = from_environment(&[("mail.smtp.url_file", "/run/smtp"), PRODUCTION[1]]);
        sources.secrets.files.insert(
            PathBuf::from("/run/smtp"),
            Ok(SecretString::from(content.clone())),
        );
        assert_eq!(load(&sources).is_ok(), is_usable, "{content:?}");
    }
}

#[test]
fn a_key_of_16_bytes_in_a_file_is_refused() {
    let mut sources = production_with(&[("keys.address", ADDRESS), ("keys.master_file", "/run/x")]);
    let short = SecretString::from("AAECAwQFBgcICQoLDA0ODw==\n");
    sources
        .secrets
        .files
        .insert(PathBuf::from("/run/x"), Ok(short));
    let found = findings_of(&sources).to_string();
    assert!(
        found.contains("`keys.master_file`: must be 32 random bytes"),
        "{found}"
    );
}

#[test]
fn only_a_file_that_nobody_else_may_touch_is_taken_for_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master");
    let mut values = layers::defaults();
    let text = layers::Value::Text(path.display().to_string());
    values.set("keys.master_file", text, Origin::Flag);
    for (mode, is_taken) in [
        (0o600, true),
        (0o400, true),
        (0o700, true),
        (0o440, false),
        (0o404, false),
        (0o620, false),
        (0o602, false),
        (0o644, false),
    ] {
        write(&path, MASTER, mode);
        let read = SecretFiles::read(&values, None);
        let mut sources = production_with(&[("keys.address", ADDRESS)]);
        let named = ("keys.master_file".to_owned(), path.display().to_string());
        sources.flags.push(named);
        sources.secrets = read;
        match load(&sources) {
            Ok(_) => assert!(is_taken, "{mode:o}"),
            Err(found) => {
                let hint = format!("(mode {mode:03o}); `chmod 600` it");
                assert!(
                    !is_taken && found.concern("keys.master_file"),
                    "{mode:o} {found}"
                );
                assert!(found.to_string().ends_with(&hint), "{found}");
            }
        }
    }
}

#[test]
fn every_secret_can_be_a_credential_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    for (name, secret) in [
        REDIS[0],
        REDIS[1],
        ("keys.previous", ADDRESS),
        REDIS[2],
        PRODUCTION[0],
    ] {
        write(&directory.path().join(name), &format!("{secret}\n"), 0o400);
    }
    let mut sources = from_environment(&[PRODUCTION[1]]);
    sources.secrets = SecretFiles::read(&layers::defaults(), Some(directory.path()));
    let config = load(&sources).unwrap();
    let printed = config.print();
    assert!(
        printed.contains("previous = [\"***\"]  # credential keys.previous"),
        "{printed}"
    );
    assert_eq!(config.settings.keys.address.unwrap().expose()[0], 32);
    assert!(!config.settings.development);
}

/// systemd keeps credentials as root's and lets the unit's user in by an access list, whose mask
/// shows as the group's right to read.
#[test]
fn a_credential_may_show_a_group_that_reads_but_nothing_beyond() {
    let directory = tempfile::tempdir().unwrap();
    for (mode, is_taken) in [(0o400, true), (0o440, true), (0o460, false), (0o444, false)] {
        write(&directory.path().join("keys.master"), MASTER, mode);
        let mut sources = production_with(&[("keys.address", ADDRESS)]);
        sources.secrets = SecretFiles::read(&layers::defaults(), Some(directory.path()));
        assert_eq!(load(&sources).is_ok(), is_taken, "{mode:o}");
        if !is_taken {
            let found = findings_of(&sources).to_string();
            let begin = "`keys.master` from the credential of that name: the file cannot be used";
            assert!(found.starts_with(begin), "{found}");
        }
    }
}

#[test]
fn a_credential_beside_a_value_or_a_file_is_refused_with_both_names() {
    for (name, value) in [
        REDIS[0],
        REDIS[1],
        ("keys.previous", ADDRESS),
        REDIS[2],
        PRODUCTION[0],
    ] {
        let file_name = format!("{name}_file");
        for (rival, given) in [(name, value), (file_name.as_str(), "/run/secret")] {
            let mut sources = from_environment(&PRODUCTION[1..]);
            for (other, value) in [PRODUCTION[0], REDIS[0], REDIS[1], REDIS[2]] {
                if other != name {
                    sources
                        .environment
                        .push((variable_name(other), value.to_owned()));
                }
            }
            sources
                .environment
                .push((variable_name(rival), given.to_owned()));
            let content = || Ok(SecretString::from(value));
            sources
                .secrets
                .files
                .insert(PathBuf::from("/run/secret"), content());
            sources
                .secrets
                .credentials
                .insert(name.to_owned(), content());
            let found = findings_of(&sources).to_string();
            let message = format!(
                "`{name}` from the credential of that name: is given together with `{rival}`"
            );
            assert!(found.contains(&message), "{found}");
        }
    }
}

#[test]
fn a_named_settings_file_and_the_files_it_names_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let master = directory.path().join("master");
    write(&master, &format!("{MASTER}\n"), 0o600);
    let settings = directory.path().join("settings.toml");
    let text = format!(
        "[keys]\nmaster_file = {:?}\naddress = \"{ADDRESS}\"\n[mail]\nfrom = \"a@example.com\"\n\
         [mail.smtp]\nurl = \"smtp://mail.example.com\"\n",
        master.display().to_string()
    );
    std::fs::write(&settings, text).unwrap();
    let sources = Sources::read(Some(settings), Role::All, Vec::new()).unwrap();
    let config = load(&sources).unwrap();
    assert_eq!(
        config.settings.keys.master.as_ref().unwrap().expose()[31],
        31
    );
    assert_eq!(
        config.origin("keys.master").unwrap().to_string(),
        "file of keys.master_file"
    );
}

#[test]
fn a_named_settings_file_must_be_there_and_of_a_sensible_size() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let large = directory.path().join("large.toml");
    std::fs::write(&large, "\n".repeat(64 * 1024 + 1)).unwrap();
    for path in [missing, large, directory.path().to_owned()] {
        let found = Sources::read(Some(path.clone()), Role::All, Vec::new())
            .err()
            .unwrap();
        assert_eq!(
            found.iter().next().unwrap().setting,
            path.display().to_string()
        );
        assert!(
            found
                .to_string()
                .contains("the settings file cannot be read: "),
            "{found}"
        );
    }
}

proptest! {
    #[test]
    fn no_value_breaks_the_load_or_comes_back(
        index in 0..1_000_usize,
        scheme in "|smtp://|smtps://|redis://|redis\\+cluster://|sqlite:|https://",
        text in "(\\PC|[%@:/?#\\[\\],=]){0,40}",
    ) {
        let names = layers::defaults().names;
        let name = names[index % names.len()].as_str();
        let value = format!("{scheme}hunter2{text}");
        match load(&production_with(&[(name, value.as_str())])) {
            Ok(config) => prop_assert!(!config.settings.development),
            Err(found) => prop_assert!(!found.to_string().contains("hunter2"), "{found}"),
        }
    }

    #[test]
    fn no_file_breaks_the_load(
        text in "(\\PC|[\n\"'=.\\[\\]{}#]|(mail|smtp|otp|digits|url)){0,60}",
    ) {
        let _ = load(&from_file(&text));
    }
}
