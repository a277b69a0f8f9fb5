// SPDX-License-Identifier: Apache-2.0
//! What a check finds, a repair mends: from a peer, or from where the image came from.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use gantry_image::{ImageSource, SignatureBlob};
use gantry_oci::ManifestDigest;
use gantry_store::endpoint::StoreSource;
use gantry_store::repair::{Origins, RepairReport, repair};
use gantry_store::{
    CheckOptions, CheckReport, Damage, Faces, ImageName, IngestOptions, RepairPlan, Store,
};
use gantry_testkit::scratch::scratch;
use gantry_testkit::skip::is_root;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The registry, as a store that has everything.
struct Upstream(Option<Store>);

impl Origins for Upstream {
    fn sources(&self, digest: &ManifestDigest, _: &[ImageName]) -> Vec<Arc<dyn ImageSource>> {
        let source = |store: &Store| StoreSource::new(store.clone(), "upstream".into(), *digest);
        let found = self.0.iter().map(source);
        found
            .map(|source| Arc::new(source) as Arc<dyn ImageSource>)
            .collect()
    }
}

fn two_layers() -> TestImage {
    let upper = Tar::default()
        .dir("etc/", mode(0o755))
        .file("etc/new", mode(0o644), &[3; 4000])
        .file("bin/tool", mode(0o755), &[11; 6000]);
    image(vec![layer(base_tar()), layer(upper)])
}

fn faces() -> Faces {
    if is_root() {
        Faces::BOTH
    } else {
        Faces::COMPOSEFS
    }
}

/// Two stores with the same image in both.
struct Pair {
    _dir: gantry_testkit::scratch::Scratch,
    store: Store,
    good: Store,
    digest: ManifestDigest,
}

fn pair() -> Pair {
    let dir = scratch();
    let image = two_layers();
    let of = |path: &str| {
        let path = dir.path().join(path);
        fs::create_dir(&path).unwrap();
        let store = store(&path);
        let record = import(&store, &image, faces(), &[name("demo/app:v1")]).unwrap();
        let signature = SignatureBlob {
            format: "simple-signing".into(),
            bytes: "a signature".into(),
        };
        let pushed = SignatureBlob {
            bytes: "pushed to a repository".into(),
            ..signature.clone()
        };
        store.add_signatures(&record.digest, &[signature]).unwrap();
        let repository = "demo/app".parse().unwrap();
        store
            .add_signatures_of(&record.digest, &repository, &[pushed])
            .unwrap();
        (store, record.digest)
    };
    let ((store, digest), (good, _)) = (of("damaged"), of("good"));
    Pair {
        _dir: dir,
        store,
        good,
        digest,
    }
}

fn check(store: &Store) -> CheckReport {
    store.check(&CheckOptions::default(), &|_, _| {}).unwrap()
}

fn mend(store: &Store, peers: &[Store], upstream: Option<&Store>) -> (RepairPlan, RepairReport) {
    let plan = store.plan_repair(&check(store)).unwrap();
    let origins = Upstream(upstream.cloned());
    let report = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(repair(store, &plan, peers, &origins, &|_, _| {}))
        .unwrap();
    (plan, report)
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Every file whose bytes matter, below the store's root.
fn records_and_contents(pair: &Pair) -> Vec<PathBuf> {
    let root = pair.store.path();
    let image = root.join("digests").join(pair.digest.to_string());
    let mut files = files_below(&root.join("objects"));
    files.extend(files_below(&root.join("layers")));
    files.extend(files_below(&image.join("signatures")));
    for name in ["manifest.json", "config.json", "record.json", "image.erofs"] {
        files.push(image.join(name));
    }
    files
}

#[test]
fn a_flipped_bit_anywhere_is_mended_from_a_peer_and_from_upstream() {
    let pair = pair();
    for file in records_and_contents(&pair) {
        for from_peer in [true, false] {
            flip(&file);
            let problems = check(&pair.store).problems;
            assert!(!problems.is_empty(), "{file:?}");
            let peer = std::slice::from_ref(&pair.good);
            let (plan, report) = if from_peer {
                mend(&pair.store, peer, None)
            } else {
                mend(&pair.store, &[], Some(&pair.good))
            };
            assert_eq!(report.unmended, [], "{file:?}: {plan}");
            let left = check(&pair.store);
            assert!(left.is_clean(), "{file:?}: {plan}{:#?}", left.problems);
            let one_object = !plan.objects.is_empty() && plan.layers.is_empty();
            if one_object && from_peer {
                assert_eq!((report.objects, report.layers), (1, 0), "{file:?}");
            }
        }
    }
    assert_eq!(pair.store.signatures(&pair.digest).unwrap().len(), 2);
    assert_eq!(same_tree(&pair), Ok(()));
    assert!(staging_is_empty(&pair.store));
}

/// Both stores' images hold the same.
fn same_tree(pair: &Pair) -> Result<(), String> {
    let tree = |store: &Store| {
        let record = store.resolve(&name("demo/app:v1")).unwrap().unwrap();
        format!("{:?}", store.tree(&record).unwrap())
    };
    if tree(&pair.store) == tree(&pair.good) {
        Ok(())
    } else {
        Err("trees differ".to_owned())
    }
}

#[test]
fn an_image_of_which_only_the_name_is_left_comes_back_with_its_layers() {
    let pair = pair();
    let root = pair.store.path();
    for dir in ["digests", "layers", "objects", "variants"] {
        fs::remove_dir_all(root.join(dir)).unwrap();
    }
    let (plan, report) = mend(&pair.store, &[], Some(&pair.good));
    assert_eq!(plan.images.len(), 1);
    assert_eq!((report.images, report.layers), (1, 2));
    assert_eq!(report.unmended, []);
    assert_sound(&pair.store);
    assert_eq!(same_tree(&pair), Ok(()));
}

#[test]
fn an_index_comes_back() {
    let pair = pair();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": pair.digest.to_string(),
            "size": pair.store.manifest(&pair.digest).unwrap().unwrap().len(),
            "platform": {"architecture": "amd64", "os": "linux"},
        }],
    });
    let index = verified(serde_json::to_vec(&index).unwrap());
    for store in [&pair.store, &pair.good] {
        let ingest = store.begin(IngestOptions::default()).unwrap();
        let names = [name("demo/index:v1")];
        ingest
            .commit_index(&index, Some(pair.digest), &names)
            .unwrap();
    }
    let record = pair.store.resolve(&name("demo/index:v1")).unwrap();
    let path = pair
        .store
        .path()
        .join("digests")
        .join(index.digest().to_string());
    fs::remove_dir_all(&path).unwrap();
    flip(
        &pair
            .store
            .path()
            .join("digests")
            .join(pair.digest.to_string())
            .join("record.json"),
    );
    let (_, report) = mend(&pair.store, std::slice::from_ref(&pair.good), None);
    assert_eq!((report.images, report.unmended.as_slice()), (2, &[][..]));
    assert_sound(&pair.store);
    assert_eq!(pair.store.resolve(&name("demo/index:v1")).unwrap(), record);
}

#[test]
fn without_a_source_what_can_be_mended_is_and_nothing_is_taken_away() {
    let pair = pair();
    let root = pair.store.path();
    let object = files_below(&root.join("objects")).remove(0);
    let image = root.join("digests").join(pair.digest.to_string());
    flip(&object);
    // Follows from what is here.
    flip(&image.join("image.erofs"));
    let (plan, report) = mend(&pair.store, &[], None);
    assert_eq!(plan.objects.len(), 1);
    assert_eq!((report.objects, report.images), (0, 1));
    assert!(!report.unmended.is_empty());
    assert!(object.exists(), "better a damaged file than none");
    let left = check(&pair.store).problems;
    assert!(
        left.iter()
            .all(|problem| matches!(problem.damage, Damage::Object(_) | Damage::Variant(_))),
        "{left:#?}"
    );
    let (_, report) = mend(&pair.store, std::slice::from_ref(&pair.good), None);
    assert_eq!((report.objects, report.unmended.as_slice()), (1, &[][..]));
    assert_sound(&pair.store);
}

#[test]
fn a_peer_with_the_same_damage_is_no_help() {
    let pair = pair();
    let object = files_below(&pair.store.path().join("objects")).remove(0);
    let theirs = pair
        .good
        .path()
        .join(object.strip_prefix(pair.store.path()).unwrap());
    flip(&object);
    flip(&theirs);
    let (_, report) = mend(&pair.store, std::slice::from_ref(&pair.good), None);
    assert_eq!(report.objects, 0);
    assert!(!check(&pair.store).is_clean());
    // A third one is.
    let dir = scratch();
    let third = store(dir.path());
    import(&third, &two_layers(), faces(), &[]).unwrap();
    let (_, report) = mend(&pair.store, &[pair.good.clone(), third], None);
    assert_eq!((report.objects, report.unmended.as_slice()), (1, &[][..]));
    assert_sound(&pair.store);
}

#[test]
fn a_hard_link_tree_shows_good_contents_again() {
    if !is_root() {
        gantry_testkit::skip!("the hard-link face needs root");
    }
    let pair = pair();
    let root = pair.store.path();
    let image = root.join("digests").join(pair.digest.to_string());
    let tool = image.join("rootfs/bin/tool");
    let wanted = fs::read(&tool).unwrap();
    let variant = files_below(&root.join("variants")).remove(0);
    let before = fs::metadata(&tool).unwrap();
    for file in [tool.clone(), variant] {
        flip(&file);
        assert!(!check(&pair.store).is_clean(), "{file:?}");
        let (_, report) = mend(&pair.store, std::slice::from_ref(&pair.good), None);
        assert_eq!(report.unmended, []);
        assert_sound(&pair.store);
        assert_eq!(fs::read(&tool).unwrap(), wanted);
        let after = fs::metadata(&tool).unwrap();
        let facts = |stat: &fs::Metadata| (stat.mode(), stat.uid(), stat.gid(), stat.mtime());
        assert_eq!(facts(&after), facts(&before));
    }
}
