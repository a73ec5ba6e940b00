//! The command line. It reads the settings, calls `app` and turns its errors into a few lines and
//! an exit code: 0 for success, 1 for a failure, 2 for a wrong command line or wrong settings.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;

use crate::app;
use crate::config::{self, Config, Role, Sources};
use crate::otp::address::EmailAddress;
use crate::telemetry;

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
    Serve(Serve),
    /// Check the settings, or show them.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Try the way to the mail server.
    #[command(subcommand)]
    Mail(MailCommand),
    /// Print the limits in effect and the chance of guessing a code that they leave.
    Limits,
    /// Print the OpenAPI document of the API.
    Openapi,
    /// Print a fresh pair of keys for the settings.
    Keygen,
    /// Ask the running process whether it is ready; for container health checks.
    Healthcheck,
}

#[derive(Args, Debug, Default)]
struct Serve {
    /// What this process does; split roles need Redis.
    #[arg(long, value_enum, default_value_t)]
    role: RoleName,
    /// Development mode: mails are kept in memory and shown at /dev/mailbox.
    #[arg(long)]
    dev: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RoleName {
    /// API and worker.
    #[default]
    All,
    /// Takes requests, sends no mail.
    Api,
    /// Sends mail, takes no requests.
    Worker,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings without connecting to anything.
    Check,
    /// Show the settings in effect and where each comes from; secrets are masked.
    Print,
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
        .unwrap_or_else(|| Command::Serve(Serve::default()))
    {
        Command::Serve(arguments) => serve(path, &arguments),
        Command::Config(ConfigCommand::Check) => with_config(path, Role::All, false, |_config| {
            say("The settings are usable.");
            Ok(())
        }),
        Command::Config(ConfigCommand::Print) => with_config(path, Role::All, false, |config| {
            say(config.print().trim_end());
            Ok(())
        }),
        Command::Mail(MailCommand::Test { address }) => mail_test(path, &address),
        Command::Limits => with_config(path, Role::All, false, |config| {
            say(&app::limits(&config.settings));
            Ok(())
        }),
        Command::Openapi => {
            say(app::openapi().trim_end());
            ExitCode::SUCCESS
        }
        Command::Keygen => report(app::keygen().map(|keys| say(keys.trim_end()))),
        Command::Healthcheck => with_config(path, Role::All, false, |config| {
            Runtime::new()?.block_on(app::healthcheck(&config.settings))?;
            say("ready");
            Ok(())
        }),
    }
}

fn serve(path: Option<PathBuf>, arguments: &Serve) -> ExitCode {
    let role = match arguments.role {
        RoleName::All => Role::All,
        RoleName::Api => Role::Api,
        RoleName::Worker => Role::Worker,
    };
    with_config(path, role, arguments.dev, |config| {
        telemetry::start_log(log_format(&config), &config.settings.log.level)?;
        Runtime::new()?.block_on(app::serve(config, role))
    })
}

fn mail_test(path: Option<PathBuf>, address: &str) -> ExitCode {
    let address = match EmailAddress::parse(address) {
        Ok(address) => address,
        Err(error) => return complain(&format!("the address {error}"), 2),
    };
    with_config(path, Role::All, false, |config| {
        Runtime::new()?.block_on(app::mail_test(&config.settings, &address))?;
        say("The mail server took the sample mail.");
        Ok(())
    })
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
    role: Role,
    dev: bool,
    then: impl FnOnce(Config) -> anyhow::Result<()>,
) -> ExitCode {
    let flags = if dev {
        vec![("dev".to_owned(), "true".to_owned())]
    } else {
        Vec::new()
    };
    match Sources::read(path, role, flags).and_then(|sources| config::load(&sources)) {
        Ok(config) => report(then(config)),
        Err(findings) => complain(&findings.to_string(), 2),
    }
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&telemetry::chain(error.as_ref()), 1),
    }
}

/// A closed pipe is the reader's business.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "otpost: {text}");
    ExitCode::from(code)
}
