// SPDX-License-Identifier: Apache-2.0
//! Which names a store keeps: rules by pattern, count and age.
//!
//! A rule speaks of the names that its pattern matches, and the first rule that matches decides. Of
//! those names it keeps, in each repository, the newest ones and the young ones; the others go. A
//! name that no rule matches stays. A name is as old as its last move.
//!
//! Removing a name removes nothing else: an image goes when nothing leads to it and nothing runs it.

use crate::error::{Doing as _, StoreError};
use crate::name::ImageName;
use crate::open::Store;
use crate::refs::NamedImage;
use gantry_oci::{Host, Repository};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRule {
    /// The names that it is about, as they are shown: `images/tag`, or `host/repository:tag` for
    /// what was pulled. `*` stands for anything, a slash too.
    pub names: String,
    /// What it keeps.
    pub keep: Keep,
}

/// What a rule keeps of the names that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Everything: for exceptions that stand before a broader rule.
    All,
    /// Those that are among the newest of their repository, or younger than that.
    Some {
        /// How many of each repository.
        newest: usize,
        /// How young.
        younger: Option<Duration>,
    },
}

/// A name, and when it was last moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedName {
    /// The name.
    pub name: ImageName,
    /// When it was made to point where it points.
    pub placed: SystemTime,
}

/// A name that goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outdated {
    /// The name, as it was when this was decided.
    pub dated: DatedName,
    /// The pattern that matched it.
    pub rule: String,
    /// Its place among the names of its repository that the rule matches, the newest being 1.
    pub rank: usize,
    /// How old it is.
    pub age: Duration,
}

/// Decides which names go, in the order of `names`.
#[must_use]
pub fn plan_retention(
    names: &[DatedName],
    rules: &[RetentionRule],
    now: SystemTime,
) -> Vec<Outdated> {
    let mut by_age: Vec<usize> = (0..names.len()).collect();
    // Of two that were placed at once, the later in the alphabet is the newer.
    by_age.sort_by(|a, b| {
        let key = |at: &usize| (names[*at].placed, &names[*at].name);
        key(b).cmp(&key(a))
    });
    let mut ranks: HashMap<(usize, Option<&Host>, &Repository), usize> = HashMap::new();
    let mut outdated: Vec<(usize, Outdated)> = Vec::new();
    for at in by_age {
        let DatedName { name, placed } = &names[at];
        let shown = name.to_string();
        let matching = |rule: &RetentionRule| matches(&rule.names, &shown);
        let Some(number) = rules.iter().position(matching) else {
            continue;
        };
        let rank = ranks
            .entry((number, name.host.as_ref(), &name.repository))
            .or_default();
        *rank += 1;
        // A clock that went backwards makes nothing old.
        let age = now.duration_since(*placed).unwrap_or(Duration::ZERO);
        let kept = match rules[number].keep {
            Keep::All => true,
            Keep::Some { newest, younger } => {
                *rank <= newest || younger.is_some_and(|younger| age < younger)
            }
        };
        if !kept {
            let rule = rules[number].names.clone();
            let gone = Outdated {
                dated: names[at].clone(),
                rule,
                rank: *rank,
                age,
            };
            outdated.push((at, gone));
        }
    }
    outdated.sort_by_key(|(at, _)| *at);
    outdated.into_iter().map(|(_, outdated)| outdated).collect()
}

/// Whether the whole of `text` fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Store {
    /// Lists every name with the time of its last move.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    pub fn dated_names(&self) -> Result<Vec<DatedName>, StoreError> {
        let mut dated = Vec::new();
        for NamedImage { name, .. } in self.names()? {
            // None if it was untagged meanwhile.
            let placed = self.placed(&name)?;
            dated.extend(placed.map(|placed| DatedName { name, placed }));
        }
        Ok(dated)
    }

    /// Removes a name unless it was moved since.
    pub(crate) fn untag_unmoved(&self, dated: &DatedName) -> Result<(), StoreError> {
        if self.placed(&dated.name)? == Some(dated.placed) {
            self.untag(&dated.name)?;
        }
        Ok(())
    }

    fn placed(&self, name: &ImageName) -> Result<Option<SystemTime>, StoreError> {
        let path = format!("{}/{}", name.dir(), name.file());
        let root = &self.inner.root;
        match rustix::fs::statat(root, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(time_of(stat.st_mtime, stat.st_mtime_nsec))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).doing(|| format!("stat {path}")),
        }
    }
}

fn time_of(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    UNIX_EPOCH + whole + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_oci::Reference;

    const DAY: Duration = Duration::from_secs(86400);

    fn dated(name: &str, days_old: u32) -> DatedName {
        let name = match name.strip_prefix("remote/") {
            Some(name) => {
                let text = format!("h.example/{name}");
                ImageName::remote(&Reference::parse_normalized(&text).unwrap())
            }
            None => ImageName::own(&name.parse().unwrap()),
        };
        DatedName {
            name,
            placed: now() - DAY * days_old,
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + DAY * 20_000
    }

    fn rule(names: &str, newest: usize, days: Option<u32>) -> RetentionRule {
        RetentionRule {
            names: names.to_owned(),
            keep: Keep::Some {
                newest,
                younger: days.map(|days| DAY * days),
            },
        }
    }

    fn goes(names: &[DatedName], rules: &[RetentionRule]) -> Vec<String> {
        let outdated = plan_retention(names, rules, now());
        outdated
            .into_iter()
            .map(|gone| gone.dated.name.to_string())
            .collect()
    }

    #[test]
    fn the_newest_of_each_repository_and_the_young_stay() {
        let names = [
            dated("team/a:v1", 50),
            dated("team/a:v2", 40),
            dated("team/a:v3", 3),
            dated("team/a:v4", 2),
            dated("team/b:v1", 90),
            dated("other:v1", 90),
        ];
        assert_eq!(
            goes(&names, &[rule("team/*", 1, None)]),
            ["team/a:v1", "team/a:v2", "team/a:v3"]
        );
        assert_eq!(
            goes(&names, &[rule("team/*", 1, Some(10))]),
            ["team/a:v1", "team/a:v2"]
        );
        assert_eq!(
            goes(&names, &[rule("*", 0, Some(60))]),
            ["team/b:v1", "other:v1"]
        );
        assert_eq!(goes(&names, &[rule("*", 9, None)]), [""; 0]);
        assert_eq!(goes(&names, &[]), [""; 0]);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let names = [
            dated("team/a:release-1", 50),
            dated("team/a:pr-1", 50),
            dated("team/a:pr-2", 1),
        ];
        let keep = RetentionRule {
            names: "*:release-*".to_owned(),
            keep: Keep::All,
        };
        let rules = [keep, rule("*:pr-*", 0, Some(7)), rule("*", 0, None)];
        assert_eq!(goes(&names, &rules), ["team/a:pr-1"]);
    }

    #[test]
    fn repositories_of_two_registries_are_two() {
        let names = [
            dated("a:v1", 2),
            dated("remote/a:v1", 3),
            dated("remote/a:v2", 1),
        ];
        assert_eq!(goes(&names, &[rule("*", 1, None)]), ["h.example/a:v1"]);
    }

    #[test]
    fn what_comes_from_the_future_is_new() {
        let mut name = dated("a:v1", 0);
        name.placed = now() + DAY;
        assert_eq!(goes(&[name], &[rule("*", 0, Some(1))]), [""; 0]);
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("*", "team/a:v1", true),
            ("team/*", "team/a/b:v1", true),
            ("team/*:v*", "team/a:v1", true),
            ("team/*:v*", "team/a:1", false),
            ("*:latest", "a:latest", true),
            ("*:latest", "a:latest2", false),
            ("a:v1", "a:v1", true),
            ("a:v1", "a:v10", false),
            ("a*a", "a", false),
            ("**", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }
}
