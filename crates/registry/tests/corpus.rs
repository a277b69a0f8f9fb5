// SPDX-License-Identifier: Apache-2.0
//! The hostile corpus, by every way into a store: its own transactions, a push into the registry, a copy from a layout.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use common::*;
use gantry_image::UnverifiedManifest;
use gantry_oci::{Document, ImageConfig, Kind, Platform};
use gantry_registry::Registry;
use gantry_store::endpoint::StoreDestination;
use gantry_store::{
    BlobForm, Claim, CommitImage, CreateOptions, FaceChoice, Faces, ImageName, IngestOptions, Store,
};
use gantry_testkit::corpus::{self, Context, EntryPoint, Outcome};
use gantry_testkit::image::{Image, digest};
use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::{skip, tool};
use gantry_transport::Selection;
use gantry_transport::copy::{self, CopyOptions, MultiArch, Silent};
use gantry_transport::oci_layout::{LayoutOptions, LayoutSource};

const REPOSITORY: &str = "corpus";

fn store(dir: &Scratch, name: &str) -> Store {
    let path = dir.join(name);
    Store::create(&path, &CreateOptions::default()).unwrap();
    Store::open_limited(&path, corpus::limits()).unwrap()
}

fn own_name(tag: &str) -> ImageName {
    ImageName::own(&format!("{REPOSITORY}:{tag}").parse().unwrap())
}

/// The hard-link face.
fn links(store: &Store, tag: &str) -> PathBuf {
    let link = store.path().join("images").join(REPOSITORY).join(tag);
    link.join("rootfs/")
}

fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn rejected(kind: Kind, error: &dyn std::error::Error) -> Outcome {
    Outcome::Rejected {
        kind: Some(kind),
        sentence: sentence(error),
    }
}

/// The store's own transactions.
struct ByIngest(Store);

impl ByIngest {
    fn ingest(&self, tag: &str, image: &Image) -> Result<(), Outcome> {
        let limits = corpus::limits();
        let media_type = Some(image.media_type.clone());
        let manifest = UnverifiedManifest::new(image.manifest.clone().into(), media_type, None)
            .verify(None, &limits)
            .map_err(|error| rejected(error.kind(), &error))?;
        let Document::Manifest(document) = manifest.document() else {
            panic!("not an image: {tag}");
        };
        let blob = |wanted: &gantry_oci::Digest| {
            let wanted = wanted.to_string();
            let blob = image.blobs.iter().find(|blob| digest(blob) == wanted);
            blob.map(Vec::as_slice).ok_or_else(|| Outcome::Rejected {
                kind: Some(Kind::NotFound),
                sentence: format!("there is no blob {wanted}"),
            })
        };
        let config = blob(&document.config.digest)?;
        let parsed = ImageConfig::parse(config, document.layers.len(), &limits)
            .map_err(|error| rejected(error.kind(), &error))?;
        let failed = |error: gantry_store::IngestError| rejected(error.kind(), &error);
        let ingest = self.0.begin(IngestOptions { faces: Faces::BOTH }).unwrap();
        for (layer, diff_id) in document.layers.iter().zip(&parsed.rootfs.diff_ids) {
            if let Claim::Wanted(claim) = ingest.claim(*diff_id).map_err(failed)? {
                let unpacked = claim.unpack(blob(&layer.digest)?, BlobForm::AsDescribed(layer));
                unpacked.map_err(failed)?;
            }
        }
        let commit = CommitImage {
            manifest: &manifest,
            config,
            names: &[own_name(tag)],
        };
        ingest.commit_image(&commit).map(drop).map_err(failed)
    }
}

impl EntryPoint for ByIngest {
    fn name(&self) -> &str {
        "ingest"
    }

    /// What an index names is checked by whoever brings it in.
    fn takes(&self, image: &Image) -> bool {
        image.children.is_empty()
    }

    fn bring(&mut self, tag: &str, image: &Image) -> Outcome {
        match self.ingest(tag, image) {
            Ok(()) => Outcome::Accepted,
            Err(outcome) => outcome,
        }
    }

    fn lines(&self, tag: &str, context: &Context) -> Result<Option<Vec<String>>> {
        corpus::lines(&links(&self.0, tag), context).map(Some)
    }

    fn visible(&self) -> Vec<String> {
        visible(self.0.path())
    }
}

/// What an index names, and what that names, the innermost first.
fn children(image: &Image) -> Vec<&Image> {
    let below = image.children.iter().flat_map(|child| {
        let mut all = children(child);
        all.push(child);
        all
    });
    below.collect()
}

/// A push.
struct ByPush(Server);

impl EntryPoint for ByPush {
    fn name(&self) -> &str {
        "push"
    }

    fn bring(&mut self, tag: &str, image: &Image) -> Outcome {
        let mut answer = None;
        for child in children(image) {
            let pushed = self.0.push(REPOSITORY, &child.digest(), child);
            if pushed.status != 201 {
                answer = Some(pushed);
            }
        }
        let answer = answer.unwrap_or_else(|| self.0.push(REPOSITORY, tag, image));
        match answer.status {
            201 => Outcome::Accepted,
            400 | 404 | 413 => {
                let (code, message) = answer.error();
                assert!(message.len() < 2000, "a long message: {message}");
                assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
                Outcome::Rejected {
                    kind: None,
                    sentence: format!("{code}: {message}"),
                }
            }
            _ => panic!("{tag}: {answer:?}"),
        }
    }

    fn lines(&self, tag: &str, context: &Context) -> Result<Option<Vec<String>>> {
        corpus::lines(&links(&self.0.store, tag), context).map(Some)
    }

    fn visible(&self) -> Vec<String> {
        visible(self.0.store.path())
    }
}

/// A copy from a layout, by the engine of `pull` and `copy`.
struct ByCopy {
    store: Store,
    dir: Scratch,
}

impl EntryPoint for ByCopy {
    fn name(&self) -> &str {
        "copy"
    }

    fn bring(&mut self, tag: &str, image: &Image) -> Outcome {
        let layout = self.dir.join(tag);
        image.write_layout(&layout, tag).unwrap();
        let options = LayoutOptions {
            limits: corpus::limits(),
            ..LayoutOptions::default()
        };
        let source = LayoutSource::new(layout, Selection::Named(tag.to_owned()), &options);
        let options = IngestOptions { faces: Faces::BOTH };
        let destination = StoreDestination::new(self.store.clone(), vec![own_name(tag)], options);
        let options = CopyOptions {
            limits: corpus::limits(),
            multi_arch: MultiArch::All,
            ..CopyOptions::new(Platform::host())
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let copied = copy::run(&source, &destination, &options, None, Arc::new(Silent));
        match runtime.block_on(copied) {
            Ok(_) => Outcome::Accepted,
            Err(error) => rejected(error.kind(), &error),
        }
    }

    /// By the other face, where this kernel can mount it: both must show the same tree.
    fn lines(&self, tag: &str, context: &Context) -> Result<Option<Vec<String>>> {
        let features = gantry_sys::probe::KernelFeatures::probe();
        if !features.can_mount_composefs() {
            return corpus::lines(&links(&self.store, tag), context).map(Some);
        }
        let record = self.store.resolve(&own_name(tag))?.context("no record")?;
        let record = self.store.as_image(record)?;
        let target = self.dir.join("mounted");
        std::fs::create_dir_all(&target)?;
        let (store, context) = (self.store.clone(), context.clone());
        let mounted = std::thread::spawn(move || {
            gantry_sys::mount::enter_private_namespace()?;
            let mount = store.mount(&record, FaceChoice::Composefs, None)?;
            gantry_sys::mount::attach(&mount, &target)?;
            // In this face a device 0:0 is what composefs makes of it: a file that an overlay above takes for one.
            const XWHITEOUT: &str = "\"\" trusted.overlay.whiteout= user.overlay.whiteout=";
            let lines = corpus::lines(&target, &context)?;
            let lines = lines.iter().map(|line| line.replace(XWHITEOUT, "c 0:0"));
            anyhow::Ok(lines.collect::<Vec<_>>())
        });
        mounted.join().unwrap().map(Some)
    }

    fn visible(&self) -> Vec<String> {
        visible(self.store.path())
    }
}

/// Runs the cases through all three, then looks for what they left behind.
fn hold_to_the_table(cases: &[corpus::Case]) {
    if !skip::is_root() {
        skip!("trees with foreign owners and device nodes need root");
    }
    let dir = scratch();
    let context = corpus::Context::new(dir.path()).unwrap();
    let mut ingest = ByIngest(store(&dir, "by-ingest"));
    let pushed = store(&dir, "by-push");
    let registry = Registry::new(pushed.clone(), rules(), corpus::limits()).unwrap();
    let mut push = ByPush(Server::of(pushed.clone(), registry, None));
    let mut copy = ByCopy {
        store: store(&dir, "by-copy"),
        dir: scratch(),
    };
    let stores = [ingest.0.clone(), pushed, copy.store.clone()];
    let only = std::env::var("GANTRY_CORPUS").ok();
    let cases: Vec<_> = cases
        .iter()
        .filter(|case| only.as_ref().is_none_or(|only| only == case.id))
        .copied()
        .collect();
    let verdicts = corpus::run(&cases, &mut [&mut ingest, &mut push, &mut copy], &context);
    for store in &stores {
        assert_eq!(staged(store.path()), 0, "{}", store.path().display());
        assert_sound(store);
    }
    if let Err(error) = verdicts {
        panic!("{error}");
    }
}

#[test]
fn privileged_hostile_layers_get_their_verdicts_everywhere() {
    let cases = corpus::layers::all();
    assert!(cases.len() >= 80, "{}", cases.len());
    hold_to_the_table(&cases);
}

#[test]
fn privileged_hostile_documents_get_their_verdicts_everywhere() {
    hold_to_the_table(&corpus::documents::all());
}

/// Where umoci does otherwise, and why we do not follow.
const NOT_AS_UMOCI: [(&str, &str); 8] = [
    (
        "W8",
        "it keeps user.overlay.*, which overlay mounted with userxattr obeys",
    ),
    ("W9", "it keeps what aufs left behind"),
    (
        "M3",
        "it sets security.ima and security.evm, which are the host's",
    ),
    ("P6c", "it cannot read a global comment"),
    ("C3", "it cannot read a contiguous file"),
    ("B4c", "older versions cannot read zstd"),
    ("B9", "older versions cannot read zstd"),
    ("B18", "it goes by the media type alone"),
];

#[test]
fn privileged_accepted_layers_are_what_umoci_unpacks() {
    if !skip::is_root() {
        skip!("trees with foreign owners and device nodes need root");
    }
    if let Some(missing) = tool::missing(&["umoci"]).first() {
        skip!("{missing} is not installed");
    }
    let dir = scratch();
    let context = corpus::Context::new(dir.path()).unwrap();
    let mut otherwise = Vec::new();
    for case in corpus::layers::all() {
        let corpus::Verdict::Accept(wanted) = case.verdict else {
            continue;
        };
        if NOT_AS_UMOCI.iter().any(|(id, _)| *id == case.id) {
            continue;
        }
        let (layout, bundle) = (dir.join(case.id), dir.join("bundle").join(case.id));
        (case.build)(&context).write_layout(&layout, "v1").unwrap();
        std::fs::create_dir_all(dir.join("bundle")).unwrap();
        let mut umoci = std::process::Command::new("umoci");
        umoci.args(["unpack", "--image"]);
        umoci.arg(format!("{}:v1", layout.display())).arg(&bundle);
        let found = tool::run(&mut umoci)
            .and_then(|_| corpus::lines(&bundle.join("rootfs"), &context))
            .map_err(|error| format!("{error:#}"));
        if found.as_deref()
            != Ok(&wanted
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>())
        {
            otherwise.push(format!(
                "{} ({}): {found:#?} instead of {wanted:#?}",
                case.id, case.what
            ));
        }
    }
    assert!(otherwise.is_empty(), "{}", otherwise.join("\n"));
}

#[test]
fn cases_are_named_once() {
    let mut ids: Vec<_> = corpus::layers::all()
        .iter()
        .chain(&corpus::documents::all())
        .map(|case| case.id)
        .collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}
