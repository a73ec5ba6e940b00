//! The settings: four layers (defaults, file, environment, flags) merged, understood and checked at
//! once. Either every setting is usable, or all findings come back together, each with its name and
//! origin and never with a value. Nothing is connected to, and no secret can be printed.

mod check;
mod development;
mod duration;
mod file;
mod finding;
mod layers;
mod nearest;
mod print;
mod read;
mod secret_files;
mod secret_key;
mod sender;
mod settings;
mod smtp_url;
mod sources;
mod store_url;
mod url;

use std::net::SocketAddr;

pub use duration::parse_duration;
pub use finding::{Finding, Findings, Origin};
pub use layers::DEFAULTS;
pub use secret_files::{SecretFiles, read_secret_file};
pub use secret_key::SecretKey;
pub use sender::Sender;
pub use settings::{
    ClientSettings, DomainLimits, Durability, ForwardedHeader, GlobalLimits, HttpSettings,
    KeysSettings, LimitsSettings, LogFormat, LogSettings, MailSettings, OpsSettings, OtpSettings,
    QueueSettings, Settings, SmtpSettings, StoreSettings, Transport,
};
pub use smtp_url::{SmtpSecurity, SmtpUrl};
pub use sources::{Role, Sources};
pub use store_url::{Node, StoreUrl};
pub use url::is_loopback_host;

use print::ShownSetting;

/// Settings that passed every check, and where each came from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings.
    pub settings: Settings,
    shown: Vec<ShownSetting>,
}

impl Config {
    /// The settings in effect as TOML in the order of the defaults, each with its origin, secrets masked.
    pub fn print(&self) -> String {
        print::print(&self.shown)
    }

    /// Where the value of a setting came from; `None` for an unknown name.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.shown
            .iter()
            .find(|setting| setting.name == name)
            .map(|setting| &setting.origin)
    }
}

/// Turn what was read into settings, or into everything that is wrong with it.
pub fn load(sources: &Sources) -> Result<Config, Findings> {
    let mut findings = Findings::default();
    let mut values = layers::merge(sources, &mut findings);
    secret_files::resolve_secret_files(sources, &mut values, &mut findings);
    let development = development::is_development(&values);
    if development {
        development::apply_development(&mut values);
    }
    let settings = read::read_settings(&values, development, &mut findings);
    // What an unreadable file would have given is not missing.
    if !values.unreadable {
        check::check(&settings, &values, sources.role, &mut findings);
    }
    if findings.is_empty() {
        Ok(Config {
            settings,
            shown: print::show(&values),
        })
    } else {
        Err(findings)
    }
}

/// Turn `ops.listen` alone into an address, whatever is wrong with other settings.
pub fn ops_listen(sources: &Sources) -> Result<SocketAddr, Findings> {
    let mut findings = Findings::default();
    let values = layers::merge(sources, &mut findings);
    let settings = read::read_settings(&values, false, &mut findings);
    if findings.concern("ops.listen") {
        return Err(findings);
    }
    Ok(settings.ops.listen)
}

#[cfg(test)]
mod tests;
