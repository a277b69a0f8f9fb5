// SPDX-License-Identifier: Apache-2.0
//! What the tasks said, and what that comes to.
//!
//! ```text
//! # task NAME
//! ok 1 - what holds
//! not ok 2 - what does not
//! ok 3 - what could not be asked # SKIP why
//! 1..3
//! # end NAME STATUS
//! ```
//!
//! A task passes if it asked at least one thing, everything that it asked holds, its plan counts as many lines as it printed, and it ended with
//! status 0. A task that never began or never ended has failed.

use std::collections::BTreeMap;
use std::fmt;

/// One task as far as it was heard.
#[derive(Debug, Default)]
struct Heard {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    plan: Option<usize>,
    status: Option<i32>,
}

impl Heard {
    fn line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("not ok ") {
            self.failed.push(rest.to_owned());
        } else if let Some(rest) = line.strip_prefix("ok ") {
            if rest.contains("# SKIP") {
                self.skipped.push(rest.to_owned());
            } else {
                self.passed += 1;
            }
        } else if let Some(count) = line.strip_prefix("1..") {
            self.plan = count.parse().ok();
        }
    }

    fn fault(&self) -> Option<String> {
        let lines = self.passed + self.failed.len() + self.skipped.len();
        match (self.plan, self.status) {
            _ if !self.failed.is_empty() => Some(self.failed.join("; ")),
            (_, None) => Some("did not end".to_owned()),
            (None, _) => Some("ended without a plan".to_owned()),
            (Some(plan), _) if plan != lines => Some(format!("{lines} lines of {plan}")),
            (Some(0), _) => Some("asked nothing".to_owned()),
            (_, Some(status)) if status != 0 => Some(format!("ended with {status}")),
            _ => None,
        }
    }
}

/// Reads the lines of all boots.
#[derive(Debug, Default)]
pub(super) struct Reader {
    tasks: BTreeMap<String, Heard>,
    current: Option<String>,
}

impl Reader {
    /// Takes one line.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("# task ") {
            self.current = Some(name.to_owned());
            self.tasks.insert(name.to_owned(), Heard::default());
        } else if let Some((name, status)) = line
            .strip_prefix("# end ")
            .and_then(|rest| rest.rsplit_once(' '))
        {
            if let Some(heard) = self.tasks.get_mut(name) {
                heard.status = status.parse().ok();
            }
            self.current = None;
        } else if let Some(heard) = self
            .current
            .as_ref()
            .and_then(|name| self.tasks.get_mut(name))
        {
            heard.line(line);
        }
    }

    /// What those tasks come to.
    pub(super) fn judge(mut self, names: &[&str]) -> Report {
        let tasks = names.iter().map(|name| {
            let heard = self.tasks.remove(*name).unwrap_or_default();
            ((*name).to_owned(), heard)
        });
        Report(tasks.collect())
    }
}

/// The verdict over all tasks.
#[derive(Debug)]
pub(super) struct Report(Vec<(String, Heard)>);

impl Report {
    /// Nothing failed.
    pub(super) fn is_good(&self) -> bool {
        self.0.iter().all(|(_, heard)| heard.fault().is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, heard) in &self.0 {
            let verdict = heard
                .fault()
                .map_or_else(|| "passed".to_owned(), |fault| format!("FAILED: {fault}"));
            writeln!(
                f,
                "vm: {name}: {} ok, {} not, {} skipped: {verdict}",
                heard.passed,
                heard.failed.len(),
                heard.skipped.len()
            )?;
            for reason in &heard.skipped {
                writeln!(f, "vm:   skipped: {reason}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Report {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.judge(&["a"])
    }

    #[test]
    fn task_passes_only_if_it_said_so_to_its_end() {
        for (text, good) in [
            ("# task a\nok 1 - x\n1..1\n# end a 0\n# all", true),
            (
                "# task a\nok 1 - x\nok 2 - y # SKIP z\n1..2\n# end a 0",
                true,
            ),
            ("", false),
            ("# task a\nok 1 - x\n1..1\n", false),
            ("# task a\nok 1 - x\n# end a 0", false),
            ("# task a\nok 1 - x\n1..2\n# end a 0", false),
            ("# task a\n1..0\n# end a 0", false),
            ("# task a\nok 1 - x\n1..1\n# end a 1", false),
            ("# task a\nnot ok 1 - x\n1..1\n# end a 0", false),
            ("# task b\nok 1 - x\n1..1\n# end b 0", false),
        ] {
            let report = judged(text);
            assert_eq!(report.is_good(), good, "{text}\n{report}");
        }
    }
}
