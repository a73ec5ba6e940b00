//! Measures otpost on each backend and puts the numbers side by side. Every repetition starts each
//! backend anew, so that the two take turns under whatever else the machine does.

#![expect(
    clippy::print_stderr,
    reason = "progress of a command that runs for minutes"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::pace::Pace;
use crate::report::{self, Faults, Row};
use crate::scenario::{Load, Plan, Scenario};
use crate::sink::Sink;
use crate::target::{Backend, Programs, Setup, Sync, Target};

/// After readiness and before the idle memory is read.
const IDLE: Duration = Duration::from_millis(500);
/// Requests before the first measurement, so that it meets a warm target.
const WARM_UP: u32 = 200;
/// The closed loop of wrong guesses prepares so many addresses.
const MOST_GUESSES: u32 = 5000;

/// Limits cost what they cost in service: each flow comes from an end user of its own, whom a proxy
/// tells. All mails go to one domain.
const LIMITED: Setup<'_> = Setup {
    sync: Sync::EverySecond,
    settings: &[
        ("OTPOST__HTTP__TRUSTED_PROXIES", "127.0.0.1"),
        ("OTPOST__LIMITS__DOMAIN__PER_MINUTE", "1000000"),
    ],
};

/// What the table is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The binaries.
    pub programs: Programs,
    /// The columns.
    pub backends: Vec<Backend>,
    /// How often everything is measured; the table shows medians.
    pub repeat: u32,
    /// Requests per second of the open loops.
    pub rate: u32,
    /// The delay of every reply of the SMTP server.
    pub smtp_delay: Duration,
    /// Lengths and bounds, shared by all measurements.
    pub plan: Plan,
}

/// Measures everything and returns the table, and whether nothing was lost or went wrong.
pub async fn measure(settings: &Settings) -> anyhow::Result<(String, bool)> {
    let mut runs = vec![Vec::new(); settings.backends.len()];
    for turn in 1..=settings.repeat {
        for (column, backend) in settings.backends.iter().enumerate() {
            eprintln!("{turn}/{}: {}", settings.repeat, title(*backend));
            let run = measure_backend(settings, *backend).await;
            runs[column].push(run.with_context(|| format!("measuring {}", title(*backend)))?);
        }
    }
    let titles = settings.backends.iter().map(|backend| title(*backend));
    let columns: Vec<_> = titles
        .zip(runs.iter().map(|runs| report::fold(runs)))
        .collect();
    let clean = columns.iter().all(|(_, rows)| report::is_clean(rows));
    Ok((report::markdown(&columns), clean))
}

/// What people call it.
pub fn title(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => "embedded (SQLite)",
        Backend::Redis => "Redis",
    }
}

async fn measure_backend(settings: &Settings, backend: Backend) -> anyhow::Result<Vec<Row>> {
    let sink = Sink::start(0, settings.smtp_delay).await?;
    let target = Target::start(&settings.programs, backend, sink.address(), LIMITED).await?;
    let ready_ms = target.ready_after.as_secs_f64() * 1e3;
    tokio::time::sleep(IDLE).await;
    let mut rows = vec![
        Row::heading("at rest"),
        Row::numbers(
            "size of the binary, MiB",
            [file_mib(&settings.programs.otpost)?],
        ),
        Row::numbers("start to ready, ms", [ready_ms]),
        report::memory_row("idle", &target.probe(), |memory| memory.resident_kib)?,
    ];
    let load = Load {
        target: target.http,
        ledger: sink.ledger().clone(),
        probe: target.probe(),
    };
    warm_up(&load, settings.plan).await?;
    for plan in plans(settings) {
        let measured = load.run(plan).await?;
        rows.extend(report::rows(&measured));
    }
    rows.push(Row::heading("after all measurements"));
    rows.push(report::memory_row("peak", &target.probe(), |memory| {
        memory.peak_kib
    })?);
    let before_stop = sink.ledger().counts();
    let mut late = Faults::new();
    if let Err(error) = target.stop().await {
        eprintln!("{error:#}");
        late.insert("did not stop in order".to_owned(), 1);
    }
    let mails = sink.ledger().counts().since(before_stop).mails;
    if mails > 0 {
        late.insert("mail after the last measurement".to_owned(), mails);
    }
    rows.push(Row::faults("faults at the stop", late));
    Ok(rows)
}

async fn warm_up(load: &Load, plan: Plan) -> anyhow::Result<()> {
    let (scenario, pace, most) = (Scenario::Flow, Pace::Closed, WARM_UP);
    let measured = load
        .run(Plan {
            scenario,
            pace,
            most,
            ..plan
        })
        .await?;
    let faults = report::faults(&measured);
    if !faults.is_empty() {
        bail!(
            "the warm-up of {} flows met {faults:?}",
            measured.samples.len()
        );
    }
    Ok(())
}

fn plans(settings: &Settings) -> Vec<Plan> {
    let scenarios = [Scenario::Generate, Scenario::Flow, Scenario::VerifyWrong];
    let paces = [
        Pace::Open {
            rate: settings.rate,
        },
        Pace::Closed,
    ];
    let all = scenarios.into_iter().flat_map(|scenario| {
        paces.into_iter().map(move |pace| Plan {
            scenario,
            pace,
            ..settings.plan
        })
    });
    all.map(|plan| match (plan.scenario, plan.pace) {
        (Scenario::VerifyWrong, Pace::Closed) => Plan {
            most: plan.most.min(MOST_GUESSES),
            ..plan
        },
        _ => plan,
    })
    .collect()
}

fn file_mib(path: &Path) -> anyhow::Result<f64> {
    let kib = u32::try_from(fs::metadata(path)?.len() / 1024)?;
    Ok(f64::from(kib) / 1024.0)
}
