//! The log of the process: its form, and whose lines are in it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log of the process, on standard output. A bare `level` is otpost's own; other crates
/// warn only, and the queue crate, whose lines hold whole request ids, says nothing unless a
/// directive names it.
pub fn start_log(format: LogFormat, level: &str) -> Result<(), TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let bare = !level.contains(['=', ',']);
    let directives = if bare {
        format!("warn,bullmq=off,otpost={level}")
    } else {
        format!("bullmq=off,{level}")
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_writer(std::io::stdout);
    let is_terminal = std::io::stdout().is_terminal();
    match format {
        LogFormat::Text => builder.with_ansi(is_terminal).finish().try_init(),
        LogFormat::Auto if is_terminal => builder.finish().try_init(),
        LogFormat::Auto | LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}
