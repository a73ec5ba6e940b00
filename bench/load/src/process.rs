//! CPU time and memory of processes and their descendants, read from /proc.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time, user and system, of the parties to a measurement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// The processes under test, without redis-server.
    pub target: Duration,
    /// redis-server, zero where there is none.
    pub redis: Duration,
    /// This tool: schedule, client and SMTP server.
    pub tool: Duration,
}

impl Cost {
    /// What was spent since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Cost) -> Cost {
        Cost {
            target: self.target.saturating_sub(earlier.target),
            redis: self.redis.saturating_sub(earlier.redis),
            tool: self.tool.saturating_sub(earlier.tool),
        }
    }
}

/// Resident memory of processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident now, in KiB.
    pub resident_kib: u32,
    /// Most that was ever resident, in KiB, summed over the processes.
    pub peak_kib: u32,
}

/// The processes whose cost is read.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// The processes under test; descendants are found.
    pub target: Vec<u32>,
    /// redis-server.
    pub redis: Vec<u32>,
}

impl Probe {
    /// CPU time spent so far.
    pub fn cost(&self) -> anyhow::Result<Cost> {
        let own = Stat::read(std::process::id())?;
        let tool = ticks(own.cpu_ticks);
        Ok(Cost {
            target: cpu_of(&self.target)?,
            redis: cpu_of(&self.redis)?,
            tool,
        })
    }

    /// Memory of the processes under test.
    pub fn target_memory(&self) -> anyhow::Result<Memory> {
        memory_of(&self.target)
    }

    /// Memory of redis-server.
    pub fn redis_memory(&self) -> anyhow::Result<Memory> {
        memory_of(&self.redis)
    }
}

/// CPU time of processes and of their descendants, the ended ones included.
pub fn cpu_of(roots: &[u32]) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for pid in tree(roots)? {
        match Stat::read(pid) {
            Ok(stat) => sum += stat.cpu_ticks + stat.ended_children_ticks,
            // A descendant that has ended meanwhile; its parent has its time.
            Err(_gone) if !roots.contains(&pid) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ticks(sum))
}

fn memory_of(roots: &[u32]) -> anyhow::Result<Memory> {
    let mut memory = Memory::default();
    for pid in tree(roots)? {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} does not run"))?;
        memory.resident_kib += kib(&status, "VmRSS:");
        memory.peak_kib += kib(&status, "VmHWM:");
    }
    Ok(memory)
}

fn kib(status: &str, name: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// The given processes and all that descend from them, each once.
fn tree(roots: &[u32]) -> anyhow::Result<BTreeSet<u32>> {
    let mut found: BTreeSet<u32> = roots.iter().copied().collect();
    if found.is_empty() {
        return Ok(found);
    }
    let pids =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids
        .filter_map(|pid| Some((pid, Stat::read(pid).ok()?.parent)))
        .collect();
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, up)| found.contains(up))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            return Ok(found);
        }
    }
}

struct Stat {
    parent: u32,
    cpu_ticks: u64,
    ended_children_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> anyhow::Result<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} does not run"))?;
        Stat::parse(&text).with_context(|| format!("/proc/{pid}/stat has an unknown form"))
    }

    /// See `proc_pid_stat(5)`; the name in brackets may itself hold brackets and spaces.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat {
            parent: u32::try_from(number(1)?).ok()?,
            cpu_ticks: number(11)? + number(12)?,
            ended_children_ticks: number(13)? + number(14)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_last_bracket() {
        let line = "7 (a) b) S 4 7 7 0 -1 0 1 2 3 4 500 60 7 8 20 0 1 0 99 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.parent, stat.cpu_ticks, stat.ended_children_ticks),
            (4, 560, 15)
        );
    }

    #[test]
    fn work_costs_cpu_time() {
        let before = cpu_of(&[std::process::id()]).unwrap();
        let started = Instant::now();
        while cpu_of(&[std::process::id()]).unwrap() < before + Duration::from_millis(30) {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "no CPU time was counted"
            );
        }
    }

    #[test]
    fn children_belong_to_the_tree_until_they_end() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let own = std::process::id();
        assert!(tree(&[own]).unwrap().contains(&child.id()));
        assert!(memory_of(&[child.id()]).unwrap().peak_kib > 0);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!tree(&[own]).unwrap().contains(&child.id()));
        assert!(cpu_of(&[child.id()]).is_err());
    }
}
