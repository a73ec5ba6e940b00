//! Stands in for the otpost binary in the tests of starting, measuring and stopping one: reads the
//! same variables, serves both listeners, and ends in order on SIGTERM.

#![expect(
    clippy::disallowed_methods,
    reason = "it is started as otpost is, with variables"
)]
#![expect(clippy::print_stderr, reason = "its log")]

#[path = "../tests/load/fake.rs"]
mod fake;

use anyhow::Context;
use fake::{Behaviour, Fake};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let smtp_url = std::env::var("OTPOST__MAIL__SMTP__URL")?;
    let smtp = smtp_url
        .strip_prefix("smtp://")
        .context("the SMTP URL")?
        .parse()?;
    if std::env::var("OTPOST__STORE__URL")?.starts_with("redis://") {
        std::env::var("OTPOST__KEYS__MASTER")?;
        std::env::var("OTPOST__KEYS__ADDRESS")?;
    }
    let mut servers = Vec::new();
    for variable in ["OTPOST__HTTP__LISTEN", "OTPOST__OPS__LISTEN"] {
        let server = Fake::start(
            std::env::var(variable)?.parse()?,
            smtp,
            Behaviour::default(),
        );
        servers.push(server.await?);
    }
    for server in &servers {
        eprintln!("listening on {}", server.address);
    }
    terminate.recv().await;
    Ok(())
}
