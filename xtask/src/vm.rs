// SPDX-License-Identifier: Apache-2.0
//! `make test-vm`: what this machine's kernel or set-up cannot show, asked in a guest of our own.
//!
//! ```text
//! vm/root.sh        builds the guest once: a Debian 13 with systemd, kept in the cache under the digest of the script
//! vm/tasks/*.sh     one task each; those that want the same kernel line (`# kernel: …`) share a boot
//! vm/lib.sh         what they are written with
//! vm/run.sh         runs them inside, one after the other
//! ```
//!
//! The disk with tasks, programs and compiled tests is made anew for each boot, and the guest's own disk is a throw-away view of the
//! kept one. A task prints TAP; what it does not say does not count: see [`verdict`].

mod boot;
mod disk;
mod guest;
mod verdict;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use gantry_testkit::fixtures::workspace_root;
use gantry_testkit::{scratch::scratch, skip::is_root, tool};

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which tasks; all without.
    tasks: Vec<String>,
    /// Build the guest again.
    #[arg(long)]
    again: bool,
    /// Memory of the guest.
    #[arg(long, default_value_t = 2048)]
    memory_mib: u32,
    /// After this many seconds a boot is given up.
    #[arg(long, default_value_t = 3600)]
    limit_s: u64,
    /// Of the task `tests`, only this program.
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Of those programs, only tests whose name holds this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Only build the guest and what it runs.
    #[arg(long)]
    prepare: bool,
}

/// One file of `vm/tasks`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    name: String,
    /// What it wants of the kernel's line.
    kernel: String,
}

/// Boots the guest as often as the tasks want different kernel lines, and prints what they say.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        is_root(),
        "the guest's root file system has foreign owners: this needs root"
    );
    let missing = tool::missing(&["mmdebstrap", "qemu-system-x86_64", "mke2fs", "strip"]);
    ensure!(
        missing.is_empty(),
        "not installed: {}; run `make test-vm`",
        missing.join(", ")
    );
    let tasks = select(list()?, &args.tasks)?;
    let guest = guest::ensure(args.again)?;
    let asks_tests = tasks.iter().any(|task| task.name == disk::TESTS_TASK);
    let programs = disk::build(asks_tests, args.program.as_deref())?;
    if args.prepare {
        return Ok(());
    }
    let mut boots: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for task in &tasks {
        boots.entry(&task.kernel).or_default().push(&task.name);
    }
    let mut reader = verdict::Reader::default();
    for (kernel, names) in boots {
        println!("vm: boot for {} ({kernel:?})", names.join(", "));
        let work = scratch();
        let image = work.join("tasks.ext4");
        disk::make(&image, &programs, &names, &args.filter)?;
        boot::run(&guest, &image, kernel, args, &mut |line| {
            println!("{line}");
            reader.line(line);
        })?;
    }
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    let report = reader.judge(&names);
    println!("{report}");
    if !report.is_good() {
        bail!("not everything passed in the guest");
    }
    Ok(())
}

fn list() -> Result<Vec<Task>> {
    let dir = workspace_root().join("vm/tasks");
    let mut tasks = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path: PathBuf = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} is no task", path.display()))?;
        let text = fs::read_to_string(&path)?;
        let kernel = text
            .lines()
            .find_map(|line| line.strip_prefix("# kernel: "));
        tasks.push(Task {
            name: name.to_owned(),
            kernel: kernel.unwrap_or_default().trim().to_owned(),
        });
    }
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tasks)
}

fn select(tasks: Vec<Task>, wanted: &[String]) -> Result<Vec<Task>> {
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !tasks.iter().any(|task| task.name == **name))
    {
        let known: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        bail!("no task {unknown}; there are {}", known.join(", "));
    }
    let is_wanted = |task: &Task| wanted.is_empty() || wanted.contains(&task.name);
    Ok(tasks.into_iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_the_directory_are_found_and_chosen_by_name() {
        let tasks = list().unwrap();
        assert!(tasks.len() > 1);
        let first = tasks[0].name.clone();
        let chosen = select(tasks.clone(), std::slice::from_ref(&first)).unwrap();
        assert_eq!(chosen.len(), 1);
        assert!(select(tasks, &["no-such-task".to_owned()]).is_err());
    }
}
