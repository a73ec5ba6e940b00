//! Turns measurements into the rows of a Markdown table, and several runs of one measurement into
//! the median of each number.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::http::Fault;
use crate::pace::Pace;
use crate::process::{Memory, Probe};
use crate::scenario::{Measured, Outcome, Post, Sample, Scenario, Verified};

/// What went wrong, and how often.
pub type Faults = BTreeMap<String, u32>;

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What is measured, with its unit.
    pub label: String,
    /// What came out.
    pub value: Value,
}

/// What came out, for one target.
#[derive(Debug, Clone)]
pub enum Value {
    /// Numbers shown side by side; several runs give the median of each.
    Numbers(Vec<f64>),
    /// Faults; several runs give their sum.
    Faults(Faults),
}

impl Row {
    /// A row that only names those below it.
    pub fn heading(label: &str) -> Row {
        Row::numbers(format!("**{label}**"), [])
    }

    /// A row of numbers.
    pub fn numbers(label: impl Into<String>, numbers: impl Into<Vec<f64>>) -> Row {
        Row {
            label: label.into(),
            value: Value::Numbers(numbers.into()),
        }
    }

    /// A row of faults.
    pub fn faults(label: impl Into<String>, faults: Faults) -> Row {
        Row {
            label: label.into(),
            value: Value::Faults(faults),
        }
    }
}

/// The rows of one measurement.
pub fn rows(measured: &Measured) -> Vec<Row> {
    let good = measured
        .samples
        .iter()
        .filter(|sample| sample.outcome == Outcome::AsExpected);
    let good: Vec<&Sample> = good.collect();
    let answers = good.iter().map(|sample| sample.answered - sample.scheduled);
    let mut rows = vec![
        Row::heading(&name(measured)),
        Row::numbers("good answers per second", [throughput(measured)]),
        spread("HTTP answer", answers),
    ];
    if measured.plan.scenario != Scenario::VerifyWrong {
        rows.extend(mail_rows(measured.started, &good));
    }
    if measured.plan.scenario == Scenario::Flow {
        let flows: Vec<(&Sample, Verified)> = good
            .iter()
            .filter_map(|sample| Some((*sample, sample.verified?)))
            .collect();
        let verified = flows
            .iter()
            .map(|(_, verified)| verified.answered - verified.sent);
        rows.push(spread("verify answer", verified));
        let whole = flows
            .iter()
            .map(|(sample, verified)| verified.answered - sample.scheduled);
        rows.push(spread("whole flow", whole));
    }
    if measured.plan.pace != Pace::Closed {
        let late = measured
            .samples
            .iter()
            .map(|sample| sample.sent - sample.scheduled);
        rows.push(spread("sent late by", late));
    }
    rows.extend(cost_rows(measured, good.len()));
    rows.push(Row::faults("faults", faults(measured)));
    rows
}

/// Memory of the processes under test and of redis-server, picked from a reading of each.
pub fn memory_row(when: &str, probe: &Probe, pick: impl Fn(Memory) -> u32) -> anyhow::Result<Row> {
    let mib = |memory| f64::from(pick(memory)) / 1024.0;
    let numbers = [mib(probe.target_memory()?), mib(probe.redis_memory()?)];
    Ok(Row::numbers(
        format!("{when} memory, MiB (otpost / redis-server)"),
        numbers,
    ))
}

/// What went wrong in a measurement; empty if every request did what it should.
pub fn faults(measured: &Measured) -> Faults {
    let mut faults = Faults::new();
    let mut count = |what: String, times: u32| {
        if times > 0 {
            *faults.entry(what).or_default() += times;
        }
    };
    for sample in &measured.samples {
        for outcome in [Some(sample.outcome), sample.verified.map(|v| v.outcome)]
            .into_iter()
            .flatten()
        {
            match outcome {
                Outcome::AsExpected => {}
                Outcome::Answer(status) => count(format!("unexpected answer {status}"), 1),
                Outcome::Fault(Fault::Connect) => count("no connection".to_owned(), 1),
                Outcome::Fault(Fault::Closed) => count("connection ended".to_owned(), 1),
                Outcome::Fault(Fault::Timeout) => count("no answer in time".to_owned(), 1),
                Outcome::Fault(Fault::Malformed) => count("malformed answer".to_owned(), 1),
            }
        }
        if matches!(sample.post, Post::Lost) {
            count("mail lost".to_owned(), 1);
        }
    }
    count("mail twice".to_owned(), measured.mails.duplicates);
    count(
        "mail nobody asked for".to_owned(),
        measured.mails.unexpected,
    );
    count(
        "mail without a code".to_owned(),
        measured.mails.without_code,
    );
    count("request never sent".to_owned(), measured.unsent);
    count(
        "address without a code to guess at".to_owned(),
        measured.unprepared,
    );
    faults
}

/// Folds several runs of the same rows into one: medians of numbers, sums of faults.
pub fn fold(runs: &[Vec<Row>]) -> Vec<Row> {
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    let folded = first.iter().enumerate().map(|(at, row)| {
        let all: Vec<&Row> = runs.iter().filter_map(|run| run.get(at)).collect();
        let value = match &row.value {
            Value::Numbers(numbers) => Value::Numbers(medians(numbers.len(), &all)),
            Value::Faults(_) => Value::Faults(sums(&all)),
        };
        Row {
            label: row.label.clone(),
            value,
        }
    });
    folded.collect()
}

/// Renders columns of the same rows as one Markdown table.
pub fn markdown(columns: &[(&str, Vec<Row>)]) -> String {
    let mut text = String::from("| |");
    for (title, _) in columns {
        let _ = write!(text, " {title} |");
    }
    let _ = write!(text, "\n|---|{}", "---|".repeat(columns.len()));
    let rows = columns.first().map_or(&[][..], |(_, rows)| rows);
    for (at, row) in rows.iter().enumerate() {
        let _ = write!(text, "\n| {} |", row.label);
        for (_, column) in columns {
            let _ = write!(
                text,
                " {} |",
                column.get(at).map_or(String::new(), |row| show(&row.value))
            );
        }
    }
    text.push('\n');
    text
}

/// Whether no row tells of a fault.
pub fn is_clean(rows: &[Row]) -> bool {
    rows.iter()
        .all(|row| !matches!(&row.value, Value::Faults(faults) if !faults.is_empty()))
}

/// The smallest of sorted values that at least `percent` of them do not exceed.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

fn name(measured: &Measured) -> String {
    let scenario = match measured.plan.scenario {
        Scenario::Generate => "generate",
        Scenario::Flow => "flow",
        Scenario::VerifyWrong => "verify-wrong",
    };
    match measured.plan.pace {
        Pace::Open { rate } => format!("{scenario}, {rate}/s scheduled"),
        Pace::Closed => format!("{scenario}, {} at a time", measured.plan.connections),
    }
}

fn mail_rows(started: Instant, good: &[&Sample]) -> [Row; 2] {
    let mails: Vec<(&Sample, Instant)> = good
        .iter()
        .filter_map(|sample| Some((*sample, accepted(sample)?)))
        .collect();
    let last = mails.iter().map(|(_, at)| *at).max().unwrap_or(started);
    let rate = per_second(mails.len(), last - started);
    let times = mails.iter().map(|(sample, at)| *at - sample.scheduled);
    [
        spread("request to mail accepted", times),
        Row::numbers("mails accepted per second", [rate]),
    ]
}

fn cost_rows(measured: &Measured, answers: usize) -> [Row; 2] {
    let cost = measured.cost;
    let parties = [cost.target, cost.redis, cost.tool].map(|cpu| cpu.as_secs_f64());
    let each = parties.map(|seconds| seconds * 1e6 / float(answers.max(1)));
    let busy = parties.map(|seconds| seconds / measured.elapsed.as_secs_f64().max(1e-3));
    let label = |what| format!("{what} (otpost / redis-server / this tool)");
    [
        Row::numbers(label("CPU each, µs"), each),
        Row::numbers(label("busy cores"), busy),
    ]
}

fn accepted(sample: &Sample) -> Option<Instant> {
    match &sample.post {
        Post::Came(mail) => Some(mail.accepted),
        _ => None,
    }
}

fn throughput(measured: &Measured) -> f64 {
    let flow = measured.plan.scenario == Scenario::Flow;
    let ends = measured
        .samples
        .iter()
        .filter_map(|sample| match sample.verified {
            Some(verified) if flow => {
                (verified.outcome == Outcome::AsExpected).then_some(verified.answered)
            }
            _ => (!flow && sample.outcome == Outcome::AsExpected).then_some(sample.answered),
        });
    let ends: Vec<Instant> = ends.collect();
    let last = ends.iter().max().copied().unwrap_or(measured.started);
    per_second(ends.len(), last - measured.started)
}

fn per_second(count: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        float(count) / time.as_secs_f64()
    }
}

/// Counts are bounded by the million requests of a measurement, far below where this saturates.
fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn spread(what: &str, times: impl Iterator<Item = Duration>) -> Row {
    let mut sorted: Vec<Duration> = times.collect();
    sorted.sort_unstable();
    let numbers = [50, 90, 99, 100].map(|percent| percentile(&sorted, percent).as_secs_f64() * 1e3);
    Row::numbers(format!("{what}, ms (p50 / p90 / p99 / max)"), numbers)
}

fn medians(width: usize, rows: &[&Row]) -> Vec<f64> {
    let column = |at: usize| {
        let mut values: Vec<f64> = rows
            .iter()
            .filter_map(|row| match &row.value {
                Value::Numbers(numbers) => numbers.get(at).copied(),
                Value::Faults(_) => None,
            })
            .collect();
        values.sort_unstable_by(f64::total_cmp);
        values
            .get(values.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or_default()
    };
    (0..width).map(column).collect()
}

fn sums(rows: &[&Row]) -> Faults {
    let mut sum = Faults::new();
    for row in rows {
        let Value::Faults(faults) = &row.value else {
            continue;
        };
        for (what, times) in faults {
            *sum.entry(what.clone()).or_default() += times;
        }
    }
    sum
}

fn show(value: &Value) -> String {
    match value {
        Value::Numbers(numbers) => {
            let shown = numbers.iter().map(|number| match number {
                small if *small < 10.0 => format!("{small:.2}"),
                middle if *middle < 100.0 => format!("{middle:.1}"),
                large => format!("{large:.0}"),
            });
            shown.collect::<Vec<_>>().join(" / ")
        }
        Value::Faults(faults) if faults.is_empty() => "none".to_owned(),
        Value::Faults(faults) => {
            let shown = faults
                .iter()
                .map(|(what, times)| format!("{times} × {what}"));
            format!("**{}**", shown.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();
        let of = |percent| percentile(&sorted, percent).as_millis();
        assert_eq!((of(50), of(90), of(99), of(100)), (5, 9, 10, 10));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn runs_fold_into_medians_and_sums_of_faults() {
        let run = |number: f64, lost: u32| {
            let faults = Faults::from([("mail lost".to_owned(), lost)]);
            vec![
                Row::numbers("a", [number, -number]),
                Row::faults("f", faults),
            ]
        };
        let folded = fold(&[run(9.0, 0), run(1.0, 2), run(5.0, 1)]);
        assert_eq!(
            markdown(&[("x", folded)]),
            "| | x |\n|---|---|\n| a | 5.00 / -5.00 |\n| f | **3 × mail lost** |\n"
        );
    }

    #[test]
    fn a_row_with_a_fault_is_not_clean() {
        let clean = Row::faults("f", Faults::new());
        assert!(is_clean(std::slice::from_ref(&clean)));
        assert!(!is_clean(&[
            clean,
            Row::faults("f", Faults::from([("x".to_owned(), 1)]))
        ]));
    }
}
