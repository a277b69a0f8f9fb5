// SPDX-License-Identifier: Apache-2.0
//! `gantry store repair`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use gantry_image::ImageSource;
use gantry_oci::{Kind, ManifestDigest, Reference};
use gantry_store::name::{ImageName, Pointer};
use gantry_store::repair::{Origins, RepairReport, repair};
use gantry_store::{CheckOptions, RepairPlan, Store};
use gantry_transport::registry::RegistrySource;
use serde::Serialize;

use super::check::many;
use crate::commands::image::endpoint::{PlainArgs, Side};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::progress::Counter;
use crate::{network, output, stores};

/// Mend what is damaged: bring single objects, layers and images again, and nothing else.
///
/// Checks first, as "gantry store check" does. Bytes come from other stores (--peer, and the shares of the
/// configuration), from where the images were pulled, and from the places that --from names. Everything that comes is
/// verified; what cannot be mended stays as it is. Ends with status 5 if something is still damaged.
#[derive(Debug, clap::Args)]
pub struct Repair {
    /// Take what is lost from this store
    #[arg(long, value_name = "DIR")]
    peer: Vec<PathBuf>,
    /// Take images from here, too, whatever their names say: docker://HOST/NAME, oci:DIRECTORY
    #[arg(long, value_name = "SOURCE")]
    from: Vec<String>,
    /// Look at records, names and sizes only
    #[arg(long)]
    quick: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// How registries are reached.
    #[command(flatten)]
    side: PlainArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    plan: &'a RepairPlan,
    #[serde(flatten)]
    done: Option<&'a RepairReport>,
}

impl Repair {
    /// Checks, plans, mends.
    pub fn run(self, context: &Context) -> Outcome {
        let store = if self.dry_run {
            Store::open_read_only(&context.root)?
        } else {
            Store::open(&context.root)?
        };
        let options = CheckOptions {
            read_contents: !self.quick,
            ..CheckOptions::default()
        };
        let counter = Counter::new(context.progress, "check objects");
        let report = store.check(&options, &|done, all| counter.at(done, all));
        counter.finish();
        let plan = store.plan_repair(&report?)?;
        if self.dry_run || plan.is_empty() {
            return self.tell(&plan, None);
        }
        let peers = self.peers(context)?;
        let origins = KnownOrigins::new(self.side.clone().resolve()?, &self.from, context)?;
        let counter = Counter::new(context.progress, "mend");
        let done = network::run(async {
            let step = |done, all| counter.at(done, all);
            Ok(repair(&store, &plan, &peers, &origins, &step).await?)
        });
        counter.finish();
        self.tell(&plan, Some(&done?))
    }

    fn peers(&self, context: &Context) -> Result<Vec<Store>, Failure> {
        let shares = stores::shares(context, &self.peer)?;
        let others = shares.into_iter().map(|share| share.store);
        Ok(others.filter(|peer| peer.path() != context.root).collect())
    }

    fn tell(&self, plan: &RepairPlan, done: Option<&RepairReport>) -> Outcome {
        let unmended = done.map_or(0, |done| done.unmended.len()) + plan.beyond.len();
        if self.json {
            output::json(&Report {
                dry_run: self.dry_run,
                plan,
                done,
            })?;
        } else {
            print(plan, done)?;
        }
        if unmended == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let message = format!(
            "repair the store: {} could not be mended",
            many(unmended as u64, "thing")
        );
        Err(Failure::message(Kind::Corrupt, message))
    }
}

fn print(plan: &RepairPlan, done: Option<&RepairReport>) -> Result<(), Failure> {
    if plan.is_empty() {
        return output::line("nothing is damaged");
    }
    let Some(done) = done else {
        return output::lines(&plan.to_string());
    };
    for left in &done.unmended {
        output::lines(&format!("left {}: {}", left.what, left.why))?;
    }
    for problem in &plan.beyond {
        output::lines(&format!("left {}: {}", problem.path, problem.problem))?;
    }
    output::line(format_args!(
        "brought {} and {}, made {} again, removed {} and {}",
        many(done.objects, "object"),
        many(done.layers, "layer"),
        many(done.images, "image"),
        many(plan.variants.len() as u64, "variant"),
        many(done.signatures, "signature"),
    ))
}

/// The registries that images were pulled from, and the places that the user named.
struct KnownOrigins {
    side: Side,
    options: gantry_transport::registry::Options,
    named: Vec<Arc<dyn ImageSource>>,
}

impl KnownOrigins {
    fn new(side: Side, named: &[String], context: &Context) -> Result<Self, Failure> {
        let named = named
            .iter()
            .map(|name| Ok(Arc::from(side.source(name.parse()?, context)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(Self {
            options: side.registry_options(context)?,
            side,
            named,
        })
    }
}

impl Origins for KnownOrigins {
    fn sources(&self, digest: &ManifestDigest, names: &[ImageName]) -> Vec<Arc<dyn ImageSource>> {
        let pulled = names.iter().filter_map(|name| {
            let reference = pulled_as(name, digest)?;
            match RegistrySource::new(reference, &self.options, &self.side.conf) {
                Ok(source) => Some(Arc::new(source) as Arc<dyn ImageSource>),
                Err(error) => {
                    tracing::warn!(%error, "a place that an image was pulled from is left out");
                    None
                }
            }
        });
        self.named.iter().cloned().chain(pulled).collect()
    }
}

/// What an image was pulled as, but by this digest: its tag may have moved on.
fn pulled_as(name: &ImageName, digest: &ManifestDigest) -> Option<Reference> {
    let tag = match &name.pointer {
        Pointer::Tag(tag) => Some(tag.clone()),
        Pointer::Digest(_) => None,
    };
    Some(Reference {
        host: name.host.clone()?,
        repository: name.repository.clone(),
        tag,
        digest: Some(*digest),
    })
}
