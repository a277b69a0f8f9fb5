// SPDX-License-Identifier: Apache-2.0
//! Real images, made from Debian packages: the hard-link face against umoci, file by file, and the
//! composefs face against the hard-link face.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use gantry_image::UnverifiedManifest;
use gantry_oci::{Descriptor, Document, ImageConfig, Limits, ManifestDigest};
use gantry_store::{
    BlobForm, Claim, CommitImage, FaceChoice, Faces, ImageRecord, IngestOptions, Store,
};
use gantry_testkit::scratch::scratch;
use gantry_testkit::skip::is_root;
use gantry_testkit::tree::{self, Ignore};
use gantry_testkit::{fixtures, tool};
use std::fs;
use std::path::Path;
use std::process::Command;

fn import_layout(store: &Store, layout: &Path) -> ImageRecord {
    let blob = |digest: &gantry_oci::Digest| {
        fs::read(
            layout
                .join("blobs")
                .join(digest.algorithm().name())
                .join(digest.hex()),
        )
        .unwrap()
    };
    let index = fs::read(layout.join("index.json")).unwrap();
    let Document::Index(index) = Document::parse(&index, None, &Limits::DEFAULT).unwrap() else {
        panic!("index.json is no index");
    };
    let entry: &Descriptor = &index.manifests[0];
    let manifest = UnverifiedManifest::new(blob(&entry.digest).into(), None, None)
        .verify(
            Some(&ManifestDigest::from_digest(entry.digest)),
            &Limits::DEFAULT,
        )
        .unwrap();
    let image = manifest.as_manifest().unwrap();
    let config = blob(&image.config.digest);
    let parsed = ImageConfig::parse(&config, image.layers.len(), &Limits::DEFAULT).unwrap();
    let ingest = store.begin(IngestOptions { faces: Faces::BOTH }).unwrap();
    for (layer, diff_id) in image.layers.iter().zip(&parsed.rootfs.diff_ids) {
        if let Claim::Wanted(claim) = ingest.claim(*diff_id).unwrap() {
            claim
                .unpack(blob(&layer.digest).as_slice(), BlobForm::AsDescribed(layer))
                .unwrap();
        }
    }
    ingest
        .commit_image(&CommitImage {
            manifest: &manifest,
            config: &config,
            names: &[name("fixture:latest")],
        })
        .unwrap()
}

#[test]
fn privileged_real_images_unpack_as_umoci_does_and_mount_as_they_unpack() {
    if !is_root() {
        gantry_testkit::skip!("owners and devices need root");
    }
    if let Some(missing) = tool::missing(&["umoci"]).first() {
        gantry_testkit::skip!("{missing} is not installed");
    }
    // More by GANTRY_STORE_TEST_FIXTURES="base jre …".
    let wanted =
        std::env::var("GANTRY_STORE_TEST_FIXTURES").unwrap_or_else(|_| "base app-v1".to_owned());
    for fixture in wanted.split_whitespace() {
        let layout = match fixtures::layout(fixture) {
            Ok(layout) => layout,
            Err(error) => gantry_testkit::skip!("{error}"),
        };
        let dir = scratch();
        let store = store(dir.path());
        let record = import_layout(&store, &layout);
        let bundle = dir.join("bundle");
        tool::run(
            Command::new("umoci")
                .args(["unpack", "--image"])
                .arg(format!("{}:latest", layout.display()))
                .arg(&bundle),
        )
        .unwrap();
        let links = store.path().join("images/fixture/latest/rootfs/");
        let theirs = tree::snapshot(&bundle.join("rootfs")).unwrap();
        let ours = tree::snapshot(&links).unwrap();
        let ignore = Ignore {
            root: true,
            // Equal files may share an inode in the hard-link face.
            our_hard_links: true,
            ..Ignore::default()
        };
        tree::assert_same_snapshots("unpacked trees", &ours, &theirs, &ignore);
        assert_sound(&store);

        let features = gantry_sys::probe::KernelFeatures::probe();
        if !features.can_mount_composefs() {
            gantry_testkit::skip!("no EROFS, or overlay without data-only layers: {features:?}");
        }
        let target = dir.join("mnt");
        fs::create_dir(&target).unwrap();
        let mounted = std::thread::spawn(move || {
            gantry_sys::mount::enter_private_namespace().unwrap();
            let mount = store.mount(&record, FaceChoice::Composefs, None).unwrap();
            gantry_sys::mount::attach(&mount, &target).unwrap();
            tree::snapshot(&target).unwrap()
        })
        .join()
        .unwrap();
        tree::assert_same_snapshots("mount and tree", &mounted, &theirs, &ignore);
    }
}
