// SPDX-License-Identifier: Apache-2.0
//! `gantry store gc`.

use std::process::ExitCode;
use std::time::SystemTime;

use gantry_oci::Age;
use gantry_store::retention::{Keep, Outdated, RetentionRule, plan_retention};
use gantry_store::{CollectOptions, Collection, Store};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output::{self, human_bytes};
use crate::progress::Counter;

/// Delete what no name and no container leads to: images, their layers, and the contents that only they had.
///
/// Names that the configuration's retention rules do not keep go first, and so do those that --keep-newest and
/// --keep-younger do not keep. An image that runs stays until it ends. Waits for nobody: while an image is being brought
/// in, it ends with status 9.
#[derive(Debug, clap::Args)]
pub struct Gc {
    /// Remove all names of a repository but the newest N
    #[arg(long, value_name = "N")]
    keep_newest: Option<usize>,
    /// Remove names that are older than this (12h, 30d), but for those that --keep-newest keeps
    #[arg(long, value_name = "AGE")]
    keep_younger: Option<Age>,
    /// The names that --keep-newest and --keep-younger are about; * stands for anything
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    names: String,
    /// Leave the configuration's rules out
    #[arg(long)]
    no_rules: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    names: Vec<Gone<'a>>,
    #[serde(flatten)]
    collection: &'a Collection,
}

/// A name that goes.
#[derive(Serialize)]
struct Gone<'a> {
    name: String,
    /// The pattern of the rule.
    rule: &'a str,
    rank: usize,
    age_seconds: u64,
}

impl Gc {
    /// Collects.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open(&context.root)?;
        let rules = self.rules(context);
        let outdated = if rules.is_empty() {
            Vec::new()
        } else {
            plan_retention(&store.dated_names()?, &rules, SystemTime::now())
        };
        let options = CollectOptions {
            forget: outdated.iter().map(|gone| gone.dated.clone()).collect(),
            dry_run: self.dry_run,
        };
        let counter = Counter::new(context.progress, "collect garbage");
        let collection = store.collect_with(&options, &|done, all| counter.at(done, all));
        counter.finish();
        let collection = collection?;
        if self.json {
            output::json(&Report {
                dry_run: self.dry_run,
                names: outdated.iter().map(gone).collect(),
                collection: &collection,
            })?;
        } else {
            self.print(&outdated, &collection)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The call's own rule stands before the configuration's.
    fn rules(&self, context: &Context) -> Vec<RetentionRule> {
        let own = (self.keep_newest.is_some() || self.keep_younger.is_some()).then(|| {
            let keep = Keep::Some {
                newest: self.keep_newest.unwrap_or(0),
                younger: self.keep_younger.map(Age::duration),
            };
            RetentionRule {
                names: self.names.clone(),
                keep,
            }
        });
        let configured = context.config.retention.iter().filter(|_| !self.no_rules);
        let configured = configured.map(|rule| rule.0.clone());
        own.into_iter().chain(configured).collect()
    }

    fn print(&self, outdated: &[Outdated], collection: &Collection) -> Result<(), Failure> {
        for gone in outdated.iter().map(gone) {
            output::line(format_args!(
                "name {} (rule {:?}: number {}, {} days old)",
                gone.name,
                gone.rule,
                gone.rank,
                gone.age_seconds / 86_400
            ))?;
        }
        for digest in &collection.images {
            output::line(format_args!("image {digest}"))?;
        }
        output::line(format_args!(
            "{}: names {}, images {}, layers {}, objects {} ({}), variants {} ({})",
            if self.dry_run {
                "would delete"
            } else {
                "deleted"
            },
            outdated.len(),
            collection.images.len(),
            collection.layers.len(),
            collection.objects,
            human_bytes(collection.object_bytes),
            collection.variants,
            human_bytes(collection.variant_bytes)
        ))
    }
}

fn gone(outdated: &Outdated) -> Gone<'_> {
    Gone {
        name: outdated.dated.name.to_string(),
        rule: &outdated.rule,
        rank: outdated.rank,
        age_seconds: outdated.age.as_secs(),
    }
}
