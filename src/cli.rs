//! The command line. It reads the settings, calls `app` and turns its errors into a few lines and
//! an exit code: 0 for success, 1 for a failure, 2 for a wrong command line or wrong settings.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::app;
use crate::config::{self, Config, Role, Settings, Sources};
use crate::otp::address::{AddressError, EmailAddress};
use crate::telemetry;

/// The exit code of a failure.
const FAILED: u8 = 1;
/// The exit code of a wrong command line or wrong settings.
const WRONG_SETTINGS: u8 = 2;
/// How long the end of the program waits for threads that are blocked.
pub const LAST_WAIT: Duration = Duration::from_secs(1);

/// Proves that a person reads an email address: mails one-time codes and checks them.
#[derive(Debug, Parser)]
#[command(name = "otpost", version, about)]
struct CommandLine {
    /// Settings file; without it `otpost.toml` in the working directory, if there is one.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API, mail the codes, or both (the default command).
    Serve(Mode),
    /// Check the settings, or show them.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Try the way to the mail server.
    #[command(subcommand)]
    Mail(MailCommand),
    /// Print the limits in effect and the chance of guessing a code that they leave.
    Limits(Mode),
    /// Print the name that ADDRESS has in the log.
    Pseudonym {
        /// The address that a person complains about.
        address: String,
    },
    /// Print the OpenAPI document of the API.
    Openapi,
    /// Print a fresh pair of keys for the settings.
    Keygen,
    /// Print a fresh API key for a calling application and, below it, the line for `[http]` in the
    /// settings of otpost. The key is shown only now.
    Apikey,
    /// Ask the running process whether it is ready; for container health checks.
    Healthcheck,
}

#[derive(Args, Debug, Default)]
struct Mode {
    /// What this process does: `api` takes requests and sends no mail, `worker` sends mail and
    /// takes no requests; these two need Redis.
    #[arg(long, default_value = Role::All.as_str(), value_parser = role_parser())]
    role: Role,
    /// Development mode: mails are kept in memory and shown at /dev/mailbox.
    #[arg(long)]
    dev: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings without connecting to anything.
    Check(Mode),
    /// Show the settings in effect and where each comes from; secrets are masked.
    Print(Mode),
}

#[derive(Debug, Subcommand)]
enum MailCommand {
    /// Send a sample mail to ADDRESS; its code belongs to nothing.
    Test {
        /// Who gets it.
        address: String,
    },
}

/// Runs the program.
pub fn run() -> ExitCode {
    let command_line = CommandLine::parse();
    let path = command_line.config;
    match command_line
        .command
        .unwrap_or_else(|| Command::Serve(Mode::default()))
    {
        Command::Serve(mode) => with_checked(path, &mode, |config| {
            telemetry::start_log(log_format(&config), &config.settings.log.level)?;
            block_on(app::serve(config.settings, mode.role))
        }),
        Command::Config(ConfigCommand::Check(mode)) => with_checked(path, &mode, |_config| {
            say("The settings are usable.");
            Ok(ExitCode::SUCCESS)
        }),
        Command::Config(ConfigCommand::Print(mode)) => with_config(path, &mode, |config| {
            say(config.print().trim_end());
            Ok(ExitCode::SUCCESS)
        }),
        Command::Mail(MailCommand::Test { address }) => mail_test(path, &address),
        Command::Limits(mode) => with_config(path, &mode, |config| {
            say(&app::limits(&config.settings));
            Ok(ExitCode::SUCCESS)
        }),
        Command::Pseudonym { address } => pseudonym(path, &address),
        Command::Openapi => {
            say(app::openapi().trim_end());
            ExitCode::SUCCESS
        }
        Command::Keygen => report(app::keygen().map(|keys| {
            say(keys.trim_end());
            ExitCode::SUCCESS
        })),
        Command::Apikey => report(app::apikey().map(|key| {
            say(key.trim_end());
            ExitCode::SUCCESS
        })),
        Command::Healthcheck => healthcheck(path),
    }
}

fn mail_test(path: Option<PathBuf>, address: &str) -> ExitCode {
    with_address(path, address, |settings, address| {
        block_on(app::mail_test(settings, address))?;
        say("The mail server took the sample mail.");
        Ok(ExitCode::SUCCESS)
    })
}

fn pseudonym(path: Option<PathBuf>, address: &str) -> ExitCode {
    with_address(path, address, |settings, address| {
        say(&app::pseudonym(settings, address)?);
        Ok(ExitCode::SUCCESS)
    })
}

/// It needs one setting, and must not fail over others, which may be another role's.
fn healthcheck(path: Option<PathBuf>) -> ExitCode {
    let mode = Mode::default();
    match Sources::read(path, mode.role, mode.flags())
        .and_then(|sources| config::ops_listen(&sources))
    {
        Err(findings) => complain(&findings.to_string(), WRONG_SETTINGS),
        Ok(ops) => report(block_on(app::healthcheck(ops)).inspect(|_| say("ready"))),
    }
}

fn role_parser() -> impl TypedValueParser<Value = Role> {
    let roles = [Role::All, Role::Api, Role::Worker].map(Role::as_str);
    PossibleValuesParser::new(roles).try_map(|name| name.parse::<Role>())
}

impl Mode {
    fn flags(&self) -> Vec<(String, String)> {
        if self.dev {
            vec![("dev".to_owned(), "true".to_owned())]
        } else {
            Vec::new()
        }
    }
}

/// Drives the program to its end, and does not wait for what blocks a thread beyond it, such as a
/// name server that says nothing.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WAIT);
    outcome.map(|()| ExitCode::SUCCESS)
}

fn log_format(config: &Config) -> telemetry::LogFormat {
    match config.settings.log.format {
        config::LogFormat::Auto => telemetry::LogFormat::Auto,
        config::LogFormat::Text => telemetry::LogFormat::Text,
        config::LogFormat::Json => telemetry::LogFormat::Json,
    }
}

/// Reads the settings and goes on with them, or lists everything that is wrong with them.
fn with_config(
    path: Option<PathBuf>,
    mode: &Mode,
    then: impl FnOnce(Config) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    match Sources::read(path, mode.role, mode.flags()).and_then(|sources| config::load(&sources)) {
        Ok(config) => report(then(config)),
        Err(findings) => complain(&findings.to_string(), WRONG_SETTINGS),
    }
}

/// Goes on with the address, if the settings let the API take it, too.
fn with_address(
    path: Option<PathBuf>,
    text: &str,
    then: impl FnOnce(&Settings, &EmailAddress) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    with_config(path, &Mode::default(), |config| {
        let parsed = if config.settings.mail.smtputf8 {
            EmailAddress::parse_internationalized(text)
        } else {
            EmailAddress::parse(text)
        };
        match parsed {
            Ok(address) => then(&config.settings, &address),
            Err(AddressError::NotSupported) => Ok(complain(
                "the address must have only ASCII characters before the @, unless `mail.smtputf8` is true",
                WRONG_SETTINGS,
            )),
            Err(error) => Ok(complain(&format!("the address {error}"), WRONG_SETTINGS)),
        }
    })
}

/// Goes on only with settings that a start would take.
fn with_checked(
    path: Option<PathBuf>,
    mode: &Mode,
    then: impl FnOnce(Config) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    with_config(path, mode, |config| {
        match app::check(&config.settings, mode.role) {
            Ok(()) => then(config),
            Err(error) => Ok(complain(&telemetry::chain(error.as_ref()), WRONG_SETTINGS)),
        }
    })
}

fn report(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| complain(&telemetry::chain(error.as_ref()), FAILED))
}

/// A closed pipe is the reader's business.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "otpost: {text}");
    ExitCode::from(code)
}
