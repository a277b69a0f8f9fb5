// SPDX-License-Identifier: Apache-2.0
//! Measuring commands against each other.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::tool;
use serde_json::json;

/// Clock ticks a second of the times in `/proc/PID/stat`; fixed in the kernel's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// One program that does the job.
pub struct Contender<'a> {
    /// Its name in the table.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Puts everything into the state before the job; not measured.
    pub prepare: Box<dyn Fn() -> Result<()> + 'a>,
    /// The job.
    pub commands: Box<dyn Fn() -> Vec<Command> + 'a>,
    /// Daemons that do a part of the job, whose CPU time counts.
    pub daemons: Vec<u32>,
    pub pace: Pace,
}

/// How a job is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Under GNU time.
    Long,
    /// The job takes milliseconds: nothing may stand between us and it, so its CPU time, which the kernel shows in
    /// hundredths of a second, is the mean over all runs.
    Brief,
    /// The same, and processes that are not the command's own children do a part of it: its CPU time is not known.
    Detached,
}

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    pub wall_ms: f64,
    pub cpu_ms: f64,
    pub peak_mib: f64,
}

/// Runs ours and the peers in turn, `runs` times, and records each ratio; answers what each took, ours first.
pub fn compare(
    report: &mut Report,
    bench: &str,
    subject: &str,
    runs: usize,
    ours: &Contender,
    peers: &[Contender],
) -> Result<Vec<Sample>> {
    let mut samples = vec![Vec::new(); peers.len() + 1];
    for _ in 0..runs {
        for (contender, samples) in std::iter::once(ours).chain(peers).zip(&mut samples) {
            samples.push(once(contender)?);
        }
    }
    let our = summary(ours, &samples[0])?;
    let mut summaries = vec![our];
    for (peer, samples) in peers.iter().zip(&samples[1..]) {
        let theirs = summary(peer, samples)?;
        let who = (peer.name, peer.version.as_str());
        report.record(bench, subject, who, runs, our, theirs)?;
        summaries.push(theirs);
    }
    Ok(summaries)
}

/// Prepares and runs a contender once.
pub fn once(contender: &Contender) -> Result<Sample> {
    (contender.prepare)().with_context(|| format!("prepare {}", contender.name))?;
    let run = match contender.pace {
        Pace::Long => measure(contender),
        Pace::Brief | Pace::Detached => measure_brief(contender),
    };
    run.with_context(|| format!("run {}", contender.name))
}

fn summary(contender: &Contender, samples: &[Sample]) -> Result<Sample> {
    let mut summary = median(samples);
    if contender.pace != Pace::Long {
        let runs: f64 = samples.iter().map(|_| 1.0).sum();
        summary.cpu_ms = samples.iter().map(|sample| sample.cpu_ms).sum::<f64>() / runs;
        if contender.pace == Pace::Detached {
            summary.cpu_ms = 0.0;
        }
        (contender.prepare)()?;
        summary.peak_mib = measure(contender)?.peak_mib;
    }
    Ok(summary)
}

fn measure_brief(contender: &Contender) -> Result<Sample> {
    let before = cpu_ms(std::process::id())? + daemons_cpu_ms(&contender.daemons)?;
    let mut wall_ms = 0.0;
    for mut command in (contender.commands)() {
        let start = Instant::now();
        tool::run(&mut command)?;
        wall_ms += start.elapsed().as_secs_f64() * 1e3;
    }
    let after = cpu_ms(std::process::id())? + daemons_cpu_ms(&contender.daemons)?;
    Ok(Sample {
        wall_ms,
        cpu_ms: after - before,
        peak_mib: 0.0,
    })
}

fn measure(contender: &Contender) -> Result<Sample> {
    let mut sample = Sample::default();
    tool::run(&mut Command::new("sync"))?;
    let daemons_before = daemons_cpu_ms(&contender.daemons)?;
    for command in (contender.commands)() {
        let start = Instant::now();
        let one = timed(command)?;
        sample.wall_ms += start.elapsed().as_secs_f64() * 1e3;
        sample.cpu_ms += one.cpu_ms;
        sample.peak_mib = sample.peak_mib.max(one.peak_mib);
    }
    sample.cpu_ms += daemons_cpu_ms(&contender.daemons)? - daemons_before;
    Ok(sample)
}

/// Runs a command under GNU time, which knows CPU time and peak memory of the whole tree.
fn timed(command: Command) -> Result<Sample> {
    let mut wrapped = Command::new("/usr/bin/time");
    wrapped
        .args(["-q", "-f", "%U %S %M"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    let output = wrapped
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {text}",
        output.status
    );
    let last = text.lines().last().unwrap_or_default();
    let numbers: Vec<f64> = last
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let &[user, system, peak_kib] = numbers.as_slice() else {
        anyhow::bail!("time printed {last:?}");
    };
    Ok(Sample {
        wall_ms: 0.0,
        cpu_ms: (user + system) * 1e3,
        peak_mib: peak_kib / 1024.0,
    })
}

fn daemons_cpu_ms(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| cpu_ms(*pid)).sum()
}

/// CPU time that a process and the children it has waited for have used.
pub fn cpu_ms(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("read /proc/PID/stat")?;
    let ticks: f64 = fields
        .split(' ')
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS_PER_SECOND * 1e3)
}

/// The median of each quantity on its own.
pub fn median(samples: &[Sample]) -> Sample {
    let of = |quantity: fn(&Sample) -> f64| {
        let mut values: Vec<_> = samples.iter().map(quantity).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Sample {
        wall_ms: of(|sample| sample.wall_ms),
        cpu_ms: of(|sample| sample.cpu_ms),
        peak_mib: of(|sample| sample.peak_mib),
    }
}

/// The results of one run: a file of JSON lines, and the table for people.
pub struct Report {
    path: PathBuf,
    rows: Vec<String>,
}

impl Report {
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.parent().context("results need a directory")?)?;
        fs::write(path, "")?;
        Ok(Self {
            path: path.to_owned(),
            rows: Vec::new(),
        })
    }

    /// Records one figure in the form that all benches share.
    pub fn record(
        &mut self,
        bench: &str,
        subject: &str,
        (peer, peer_version): (&str, &str),
        runs: usize,
        ours: Sample,
        theirs: Sample,
    ) -> Result<()> {
        let ratio = |ours: f64, theirs: f64| {
            if theirs > 0.0 {
                Some((ours / theirs * 1e3).round() / 1e3)
            } else {
                None
            }
        };
        let tenth = |value: f64| (value * 10.0).round() / 10.0;
        let line = json!({
            "bench": bench, "subject": subject, "peer": peer, "peer_version": peer_version, "runs": runs,
            "wall_ratio": ratio(ours.wall_ms, theirs.wall_ms), "cpu_ratio": ratio(ours.cpu_ms, theirs.cpu_ms),
            "ours_wall_ms": tenth(ours.wall_ms), "peer_wall_ms": tenth(theirs.wall_ms), "ours_peak_mib": tenth(ours.peak_mib),
        });
        writeln!(
            fs::OpenOptions::new().append(true).open(&self.path)?,
            "{line}"
        )?;
        let shown =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let row = format!(
            "| {bench:<6} | {subject:<30} | {peer:<34} | {:>10.1} | {:>10.1} | {:>6} | {:>6} | {:>6.1} |",
            ours.wall_ms,
            theirs.wall_ms,
            shown(ratio(ours.wall_ms, theirs.wall_ms)),
            shown(ratio(ours.cpu_ms, theirs.cpu_ms)),
            ours.peak_mib
        );
        println!("{row}");
        self.rows.push(row);
        Ok(())
    }

    /// Prints a line that belongs to the figures without being a ratio.
    pub fn note(&mut self, text: String) {
        println!("{text}");
        self.rows.push(text);
    }

    /// Everything recorded, under a heading.
    pub fn table(&self) -> String {
        let heading = format!(
            "| {:<6} | {:<30} | {:<34} | {:>10} | {:>10} | {:>6} | {:>6} | {:>6} |",
            "bench", "subject", "peer", "ours ms", "peer ms", "wall", "cpu", "MiB"
        );
        format!("{heading}\n{}", self.rows.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_of_each_quantity() {
        let sample = |wall_ms, cpu_ms| Sample {
            wall_ms,
            cpu_ms,
            peak_mib: 1.0,
        };
        let found = median(&[sample(3.0, 1.0), sample(1.0, 9.0), sample(2.0, 5.0)]);
        assert_eq!((found.wall_ms, found.cpu_ms), (2.0, 5.0));
    }
}
