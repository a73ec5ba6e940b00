//! The command line of the load tool. Everything is bounded in count and time, and load goes to
//! loopback addresses only.

#![expect(
    clippy::print_stdout,
    reason = "the tables are what this program is for"
)]
#![expect(clippy::print_stderr, reason = "its errors are read by a person")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser, Subcommand, value_parser};
use otpost_load::http::parse_target;
use otpost_load::pace::Pace;
use otpost_load::process::Probe;
use otpost_load::report;
use otpost_load::scenario::{Load, Plan, Scenario};
use otpost_load::sink::Sink;
use otpost_load::table::{self, Settings};
use otpost_load::target::{Backend, Programs};
use otpost_load::timing;
use tokio::signal::unix::{SignalKind, signal};

/// Load for otpost.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start otpost on each backend, measure all scenarios, print one table.
    Table(TableArgs),
    /// Compare the time of answers that must not differ; exit code 1 if any pair of classes does.
    Timing(TimingArgs),
    /// Measure one scenario against an otpost that runs and mails to `--smtp-port`.
    Run(RunArgs),
    /// Only take mail, and tell each second how much has come.
    Sink(SinkArgs),
}

#[derive(Debug, Args)]
struct Bounds {
    /// For how many seconds requests are sent.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections to the target.
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// No measurement sends more requests than this.
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    max_requests: u32,
    /// Deadline of one HTTP request, in seconds.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..=60))]
    deadline: u64,
    /// A promised mail is lost when no mail has come for so many seconds.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..=120))]
    grace: u64,
    /// Delay of every reply of the SMTP server.
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u64).range(0..=10_000))]
    smtp_delay_ms: u64,
}

impl Bounds {
    fn plan(&self, scenario: Scenario, pace: Pace) -> Plan {
        Plan {
            scenario,
            pace,
            connections: self.connections,
            length: Duration::from_secs(self.seconds),
            most: self.max_requests,
            deadline: Duration::from_secs(self.deadline),
            grace: Duration::from_secs(self.grace),
        }
    }

    fn smtp_delay(&self) -> Duration {
        Duration::from_millis(self.smtp_delay_ms)
    }
}

#[derive(Debug, Args)]
struct TableArgs {
    /// The otpost binary.
    #[arg(long)]
    binary: PathBuf,
    /// The redis-server binary.
    #[arg(long, default_value = "redis-server")]
    redis_server: PathBuf,
    /// The columns of the table.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["sqlite", "redis"])]
    backends: Vec<Backend>,
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=20))]
    repeat: u32,
    /// Requests per second of the open loops.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=50_000))]
    rate: u32,
    #[command(flatten)]
    bounds: Bounds,
}

#[derive(Debug, Args)]
struct TimingArgs {
    /// The otpost binary.
    #[arg(long)]
    binary: PathBuf,
    /// The redis-server binary.
    #[arg(long, default_value = "redis-server")]
    redis_server: PathBuf,
    /// Where codes are kept, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["sqlite", "redis"])]
    backends: Vec<Backend>,
    /// Requests of each class, at least.
    #[arg(long, default_value_t = 20_000, value_parser = value_parser!(u32).range(10..=1_000_000))]
    requests: u32,
    /// Name an end user's address of its own with each request, so that limits of clients count.
    #[arg(long)]
    clients: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The API of the running otpost, on a loopback address.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    target: String,
    /// A process of the target whose CPU time and memory are read (may be repeated).
    #[arg(long)]
    pid: Vec<u32>,
    /// The process of its redis-server.
    #[arg(long)]
    redis_pid: Vec<u32>,
    /// The port on which mail is taken; the target must send it there.
    #[arg(long)]
    smtp_port: u16,
    /// What each request does.
    #[arg(long, value_enum, default_value = "flow")]
    scenario: Scenario,
    /// Open loop with so many requests per second; without it the closed loop.
    #[arg(long, value_parser = value_parser!(u32).range(1..=50_000))]
    rate: Option<u32>,
    #[command(flatten)]
    bounds: Bounds,
}

#[derive(Debug, Args)]
struct SinkArgs {
    /// The port on which mail is taken.
    #[arg(long)]
    port: u16,
    /// Ends after so many seconds.
    #[arg(long, default_value_t = 3600, value_parser = value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Delay of every reply.
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u64).range(0..=10_000))]
    smtp_delay_ms: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match until_interrupted(cli.command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether the command met no fault. When it is interrupted, dropping it kills what it has started.
async fn until_interrupted(command: Command) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let work = async {
        match command {
            Command::Table(args) => make_table(args).await,
            Command::Timing(args) => compare_times(args).await,
            Command::Run(args) => run(args).await,
            Command::Sink(args) => take_mail(args).await,
        }
    };
    tokio::select! {
        clean = work => clean,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn make_table(args: TableArgs) -> anyhow::Result<bool> {
    let settings = Settings {
        programs: Programs {
            otpost: args.binary,
            redis_server: args.redis_server,
        },
        backends: args.backends,
        repeat: args.repeat,
        rate: args.rate,
        smtp_delay: args.bounds.smtp_delay(),
        plan: args.bounds.plan(Scenario::Flow, Pace::Closed),
    };
    let (table, clean) = table::measure(&settings).await?;
    println!("{table}");
    Ok(clean)
}

async fn compare_times(args: TimingArgs) -> anyhow::Result<bool> {
    let programs = Programs {
        otpost: args.binary,
        redis_server: args.redis_server,
    };
    let plan = timing::Plan {
        requests: args.requests,
        clients: args.clients,
    };
    let mut clean = true;
    for backend in args.backends {
        println!("## {}\n", table::title(backend));
        for comparison in timing::measure(&programs, backend, plan).await? {
            println!("{}", comparison.markdown()?);
            clean &= comparison.is_clean()?;
        }
    }
    Ok(clean)
}

async fn run(args: RunArgs) -> anyhow::Result<bool> {
    let target = parse_target(&args.target)?;
    let pace = args.rate.map_or(Pace::Closed, |rate| Pace::Open { rate });
    let sink = Sink::start(args.smtp_port, args.bounds.smtp_delay()).await?;
    let probe = Probe {
        target: args.pid,
        redis: args.redis_pid,
    };
    let load = Load {
        target,
        ledger: sink.ledger().clone(),
        probe,
    };
    let mut rows = report::rows(&load.run(args.bounds.plan(args.scenario, pace)).await?);
    rows.push(report::memory_row("peak", &load.probe, |memory| {
        memory.peak_kib
    })?);
    let clean = report::is_clean(&rows);
    println!("{}", report::markdown(&[(args.target.as_str(), rows)]));
    Ok(clean)
}

async fn take_mail(args: SinkArgs) -> anyhow::Result<bool> {
    let sink = Sink::start(args.port, Duration::from_millis(args.smtp_delay_ms)).await?;
    println!("taking mail on {}", sink.address());
    let mut before = sink.ledger().counts();
    for _ in 0..args.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = sink.ledger().counts();
        if now != before {
            println!(
                "{} mails, {} of them without a code",
                now.mails, now.without_code
            );
        }
        before = now;
    }
    Ok(true)
}
