// SPDX-License-Identifier: Apache-2.0
//! Images go in, come out, and survive what may happen on the way.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use gantry_oci::Kind;
use gantry_store::{
    BlobForm, CheckOptions, Claim, CollectOptions, CreateOptions, DigestChoice, FaceChoice, Faces,
    IngestOptions, Owner, Seal, Store,
};
use gantry_testkit::scratch::scratch;
use gantry_testkit::skip::is_root;
use gantry_testkit::tree::{self, Ignore};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

fn two_layers() -> TestImage {
    let upper = Tar::default()
        .dir("etc/", mode(0o755))
        .file("etc/.wh.short", mode(0o644), b"")
        .file("etc/new", mode(0o644), &[3; 4000])
        .file("bin/tool", mode(0o755), &[11; 6000]);
    image(vec![layer(base_tar()), layer(upper)])
}

fn faces_for_this_user() -> Faces {
    if is_root() {
        Faces::BOTH
    } else {
        Faces::COMPOSEFS
    }
}

#[test]
fn image_goes_in_by_name_and_comes_out_bit_for_bit() {
    let dir = scratch();
    let store = store(dir.path());
    let image = two_layers();
    let record = import(
        &store,
        &image,
        faces_for_this_user(),
        &[name("demo/app:v1")],
    )
    .unwrap();
    assert_eq!(
        store.resolve(&name("demo/app:v1")).unwrap(),
        Some(record.clone())
    );
    assert_eq!(store.config_bytes(&record).unwrap(), image.config);
    assert_eq!(
        store.manifest(image.manifest.digest()).unwrap().unwrap(),
        image.manifest.bytes().to_vec()
    );
    for layer in &image.layers {
        let mut tar = Vec::new();
        store
            .layer_tar(&layer.diff_id)
            .unwrap()
            .read_to_end(&mut tar)
            .unwrap();
        assert!(
            tar == layer.tar,
            "the tar of {} came back different",
            layer.diff_id
        );
    }
    let facts = record.image().unwrap();
    assert_eq!(facts.layers.len(), 2);
    assert!(facts.tree.files > 5 && facts.tree.size_bytes > 3_000_000);
    assert_sound(&store);
    assert!(staging_is_empty(&store));
}

#[test]
fn objects_are_named_by_their_contents_and_always_readable() {
    let dir = scratch();
    let store = store(dir.path());
    import(&store, &two_layers(), faces_for_this_user(), &[]).unwrap();
    let mut objects = 0;
    for fan in fs::read_dir(store.path().join("objects")).unwrap() {
        for object in fs::read_dir(fan.unwrap().path()).unwrap() {
            let object = object.unwrap();
            let mode = object.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o6004, 0o004, "{:?}", object.path());
            objects += 1;
        }
    }
    // Two files of base have equal contents; what is 64 bytes or shorter is no object.
    assert_eq!(objects, 7);
}

#[test]
fn privileged_both_faces_show_the_same_tree() {
    if !is_root() {
        gantry_testkit::skip!("mounting needs root");
    }
    let dir = scratch();
    let store = store(dir.path());
    let record = import(&store, &two_layers(), Faces::BOTH, &[]).unwrap();
    let links = store
        .path()
        .join("digests")
        .join(record.digest.to_string())
        .join("rootfs");
    let tool = fs::metadata(links.join("bin/tool")).unwrap();
    assert_eq!((tool.size(), tool.mode() & 0o7777), (6000, 0o755));
    assert!(!links.join("etc/short").exists());
    assert_eq!(fs::metadata(links.join("data")).unwrap().mtime_nsec(), 5);
    let empty = fs::metadata(links.join("etc/empty")).unwrap();
    assert_eq!(empty.nlink(), 1);
    let plain = fs::metadata(links.join("bin/plain")).unwrap();
    assert_eq!(
        plain.ino(),
        fs::metadata(links.join("bin/plain-too")).unwrap().ino()
    );
    let null = fs::symlink_metadata(links.join("data/null")).unwrap();
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));

    let features = gantry_sys::probe::KernelFeatures::probe();
    if !features.can_mount_composefs() {
        gantry_testkit::skip!("no EROFS, or overlay without data-only layers: {features:?}");
    }
    let target = dir.join("mnt");
    fs::create_dir(&target).unwrap();
    let shown = std::thread::spawn(move || {
        gantry_sys::mount::enter_private_namespace().unwrap();
        let mount = store.mount(&record, FaceChoice::Composefs, None).unwrap();
        gantry_sys::mount::attach(&mount, &target).unwrap();
        let ours = tree::snapshot(&target).unwrap();
        let write = fs::write(target.join("etc/x"), "x").unwrap_err();
        assert_eq!(
            write.raw_os_error(),
            Some(rustix::io::Errno::ROFS.raw_os_error())
        );
        ours
    })
    .join()
    .unwrap();
    let mut theirs = tree::snapshot(&links).unwrap();
    only_groups_of(&mut theirs, &shown);
    let differences = tree::compare(&shown, &theirs, &Ignore::default());
    assert!(differences.is_empty(), "{differences:#?}");
}

/// The hard-link face lets equal files share an inode: forget groups that the other tree lacks.
fn only_groups_of(ours: &mut tree::Snapshot, theirs: &tree::Snapshot) {
    for (path, entry) in &mut ours.0 {
        let other = theirs
            .0
            .get(path)
            .and_then(|other| other.hard_link_of.as_ref());
        if other.is_none() {
            entry.hard_link_of = None;
        }
    }
}

#[test]
fn second_image_writes_only_what_is_new() {
    let dir = scratch();
    let store = store(dir.path());
    let base = layer(base_tar());
    import(&store, &image(vec![base.clone()]), Faces::COMPOSEFS, &[]).unwrap();
    let ingest = store.begin(IngestOptions::default()).unwrap();
    assert!(matches!(ingest.claim(base.diff_id).unwrap(), Claim::Held));
    // Other layer, known files, and one of another mode.
    let again = layer(base_tar().file("etc/again", mode(0o600), &[7; 5000]));
    let Claim::Wanted(claim) = ingest.claim(again.diff_id).unwrap() else {
        panic!("the layer is new");
    };
    let info = claim
        .unpack(
            again.blob.as_slice(),
            BlobForm::AsDescribed(&again.descriptor),
        )
        .unwrap();
    assert_eq!((info.new_files, info.new_bytes), (0, 0));
}

#[test]
fn wrong_bytes_leave_nothing_visible_and_the_right_ones_still_go_in() {
    let dir = scratch();
    let store = store(dir.path());
    let good = image(vec![layer(base_tar())]);
    let before = visible(&store);
    let one = &good.layers[0];
    let mut flipped = one.blob.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let mut longer = one.blob.clone();
    longer.push(0);
    let other = layer(Tar::default().file("x", mode(0o644), b"x"));
    let cases: [(&str, &[u8], BlobForm<'_>); 5] = [
        (
            "truncated",
            &one.blob[..one.blob.len() - 9],
            BlobForm::AsDescribed(&one.descriptor),
        ),
        ("flipped", &flipped, BlobForm::AsDescribed(&one.descriptor)),
        ("longer", &longer, BlobForm::AsDescribed(&one.descriptor)),
        ("empty", &[], BlobForm::AsDescribed(&one.descriptor)),
        (
            "another layer",
            &other.blob,
            BlobForm::AsDescribed(&other.descriptor),
        ),
    ];
    let ingest = store.begin(IngestOptions::default()).unwrap();
    for (what, blob, form) in cases {
        let Claim::Wanted(claim) = ingest.claim(one.diff_id).unwrap() else {
            panic!("{what}: held");
        };
        let error = claim.unpack(blob, form).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error:?}");
        assert_eq!(visible(&store), before, "{what}");
    }
    let commit = gantry_store::CommitImage {
        manifest: &good.manifest,
        config: &good.config,
        names: &[name("a:b")],
    };
    assert_eq!(
        ingest.commit_image(&commit).unwrap_err().kind(),
        Kind::NotFound
    );
    let Claim::Wanted(claim) = ingest.claim(one.diff_id).unwrap() else {
        panic!("held after failures");
    };
    claim
        .unpack(one.blob.as_slice(), BlobForm::AsDescribed(&one.descriptor))
        .unwrap();
    ingest.commit_image(&commit).unwrap();
    drop(ingest);
    assert_sound(&store);
    assert!(staging_is_empty(&store));
}

#[test]
fn plain_tar_goes_in_by_its_diff_id() {
    let dir = scratch();
    let store = store(dir.path());
    let one = layer(base_tar());
    let ingest = store.begin(IngestOptions::default()).unwrap();
    let Claim::Wanted(claim) = ingest.claim(one.diff_id).unwrap() else {
        panic!("held");
    };
    let info = claim
        .unpack(one.tar.as_slice(), BlobForm::PlainTar)
        .unwrap();
    assert_eq!(info.blob.digest(), one.diff_id.digest());
    let Claim::Held = ingest.claim(one.diff_id).unwrap() else {
        panic!("wanted twice");
    };
}

#[test]
fn one_layer_is_unpacked_once_by_two_ingests() {
    let dir = scratch();
    let store = store(dir.path());
    let image = image(vec![layer(base_tar())]);
    let one = &image.layers[0];
    let first = store.begin(IngestOptions::default()).unwrap();
    let Claim::Wanted(claim) = first.claim(one.diff_id).unwrap() else {
        panic!("held");
    };
    let second = store.begin(IngestOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| matches!(second.claim(one.diff_id).unwrap(), Claim::Held));
        std::thread::sleep(std::time::Duration::from_millis(100));
        claim
            .unpack(one.blob.as_slice(), BlobForm::AsDescribed(&one.descriptor))
            .unwrap();
        first
            .commit_image(&gantry_store::CommitImage {
                manifest: &image.manifest,
                config: &image.config,
                names: &[],
            })
            .unwrap();
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn two_ingests_that_want_each_others_layers_do_not_wait_in_a_circle() {
    let dir = scratch();
    let store = store(dir.path());
    let layers = [layer(base_tar()), layer(base_tar().fifo("another"))];
    let ingests = [
        store.begin(IngestOptions::default()).unwrap(),
        store.begin(IngestOptions::default()).unwrap(),
    ];
    // Each has one layer, finished and unpublished, and now wants the other's.
    for (ingest, layer) in ingests.iter().zip(&layers) {
        let Claim::Wanted(claim) = ingest.claim(layer.diff_id).unwrap() else {
            panic!("held");
        };
        claim
            .unpack(
                layer.blob.as_slice(),
                BlobForm::AsDescribed(&layer.descriptor),
            )
            .unwrap();
    }
    std::thread::scope(|scope| {
        for (ingest, layer) in ingests.iter().zip(layers.iter().rev()) {
            scope.spawn(move || {
                assert!(matches!(ingest.claim(layer.diff_id).unwrap(), Claim::Held));
            });
        }
    });
    drop(ingests);
    assert_sound(&store);
}

#[test]
fn names_move_and_images_without_names_are_collected() {
    let dir = scratch();
    let store = store(dir.path());
    let one = two_layers();
    let two = image(vec![layer(Tar::default().file(
        "only",
        mode(0o644),
        &[1; 9000],
    ))]);
    let tag = name("demo/app:v1");
    let first = import(
        &store,
        &one,
        faces_for_this_user(),
        std::slice::from_ref(&tag),
    )
    .unwrap();
    let second = import(
        &store,
        &two,
        faces_for_this_user(),
        std::slice::from_ref(&tag),
    )
    .unwrap();
    assert_eq!(store.target(&tag).unwrap(), Some(second.digest));
    assert!(store.image(&first.digest).unwrap().is_some());

    let lease = store
        .lease(
            &first.digest,
            Owner {
                label: "test".into(),
                pid: std::process::id(),
            },
            None,
        )
        .unwrap();
    assert_eq!(
        store.remove_image(&first.digest, true).unwrap_err().kind(),
        Kind::Busy
    );
    assert!(store.collect(true).unwrap().images.is_empty());
    assert!(store.release(lease.id()).unwrap());

    assert_eq!(
        store
            .remove_image(&second.digest, false)
            .unwrap_err()
            .kind(),
        Kind::Busy
    );
    let ingest = store.begin(IngestOptions::default()).unwrap();
    assert_eq!(store.collect(false).unwrap_err().kind(), Kind::Busy);
    drop(ingest);
    let planned = store.collect(true).unwrap();
    assert_eq!(planned.images, [first.digest]);
    assert!(planned.object_bytes > 3_000_000);
    let collected = store.collect(false).unwrap();
    assert_eq!(
        (collected.images, collected.objects),
        (planned.images, planned.objects)
    );
    assert_eq!(store.image(&first.digest).unwrap(), None);
    assert_sound(&store);
    assert_eq!(store.usage().unwrap().garbage_bytes, 0);

    // A name that is to go leads nowhere for whoever only asks, too.
    let mut options = CollectOptions {
        forget: store.dated_names().unwrap(),
        dry_run: true,
    };
    // One that was moved since stays.
    let mut moved = options.clone();
    moved.dry_run = false;
    moved.forget[0].placed -= std::time::Duration::from_secs(1);
    let kept = store.collect_with(&moved, &|_, _| {}).unwrap();
    assert!(kept.images.is_empty());
    let planned = store.collect_with(&options, &|_, _| {}).unwrap();
    assert_eq!(planned.images, [second.digest]);
    assert_eq!(store.names().unwrap().len(), 1);
    options.dry_run = false;
    assert_eq!(
        store.collect_with(&options, &|_, _| {}).unwrap().images,
        [second.digest]
    );
    assert_eq!(store.names().unwrap(), []);
    assert_eq!(store.usage().unwrap().objects, 0);
    assert!(staging_is_empty(&store));
}

#[test]
fn an_owner_that_has_ended_holds_nothing_although_nobody_has_asked_how() {
    let dir = scratch();
    let store = store(dir.path());
    let tag = name("demo/app:v1");
    let image = two_layers();
    let faces = faces_for_this_user();
    let digest = import(&store, &image, faces, std::slice::from_ref(&tag))
        .unwrap()
        .digest;
    let mut owner = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let label = "a container".to_owned();
    let pid = owner.id();
    store.lease(&digest, Owner { label, pid }, None).unwrap();
    store.untag(&tag).unwrap();
    assert_eq!(store.collect(true).unwrap().images, []);
    drop(owner.stdin.take());
    let proc = gantry_sys::proc::Proc::open().unwrap();
    while !proc.process(pid).unwrap().unwrap().is_zombie() {
        std::thread::yield_now();
    }
    assert_eq!(store.collect(true).unwrap().images, [digest]);
    owner.wait().unwrap();
}

#[test]
fn a_repository_and_a_tag_cannot_have_one_path() {
    let dir = scratch();
    let store = store(dir.path());
    let record = import(&store, &two_layers(), Faces::COMPOSEFS, &[name("a/b:c")]).unwrap();
    let under = store.tag(&name("a/b/c:d"), &record.digest).unwrap_err();
    assert_eq!(under.kind(), Kind::AlreadyExists, "{under:?}");
    let over = store.tag(&name("a:b"), &record.digest).unwrap_err();
    assert_eq!(over.kind(), Kind::AlreadyExists, "{over:?}");
    assert_eq!(store.names().unwrap().len(), 1);
    assert!(store.untag(&name("a/b:c")).unwrap());
    assert!(!store.untag(&name("a/b:c")).unwrap());
    store.tag(&name("a:b"), &record.digest).unwrap();
}

#[test]
fn usage_tells_shared_from_exclusive() {
    let dir = scratch();
    let store = store(dir.path());
    let base = layer(base_tar());
    for (number, content) in [(1, [1_u8; 8192]), (2, [2; 8192])] {
        let own = layer(Tar::default().file("own", mode(0o644), &content));
        let tag = name(&format!("demo/app:v{number}"));
        import(
            &store,
            &image(vec![base.clone(), own]),
            Faces::COMPOSEFS,
            &[tag],
        )
        .unwrap();
    }
    let usage = store.usage().unwrap();
    assert_eq!(usage.images.len(), 2);
    for image in &usage.images {
        assert_eq!(image.exclusive_bytes, 8192, "{usage:#?}");
        assert!(image.shared_bytes > 3_000_000, "{usage:#?}");
        assert_eq!(image.names.len(), 1);
    }
    assert_eq!(usage.saved_bytes(), usage.images[0].shared_bytes);
    assert_eq!(usage.garbage_bytes, 0);
}

#[test]
fn check_finds_a_flipped_bit_in_every_kind_of_file() {
    let dir = scratch();
    let store = store(dir.path());
    let record = import(&store, &two_layers(), Faces::COMPOSEFS, &[name("a:b")]).unwrap();
    assert_sound(&store);
    let digest = store.path().join("digests").join(record.digest.to_string());
    let object = fs::read_dir(store.path().join("objects"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let object = fs::read_dir(object)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let layer = fs::read_dir(store.path().join("layers"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for path in [
        object.clone(),
        layer,
        digest.join("manifest.json"),
        digest.join("config.json"),
        digest.join("record.json"),
        digest.join("image.erofs"),
    ] {
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&path, &bad).unwrap();
        let report = store.check(&CheckOptions::default(), &|_, _| {}).unwrap();
        let relative = path
            .strip_prefix(store.path())
            .unwrap()
            .display()
            .to_string();
        assert!(
            report
                .problems
                .iter()
                .any(|problem| relative.starts_with(&problem.path)
                    || problem.path.starts_with(&relative)),
            "{relative}: {:#?}",
            report.problems
        );
        fs::write(&path, &good).unwrap();
    }
    assert_sound(&store);
    let kept = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    assert!(
        !store
            .check(&CheckOptions::default(), &|_, _| {})
            .unwrap()
            .is_clean()
    );

    // An object that a crash of another kind left short is replaced by the next ingest.
    fs::write(&object, &kept[..kept.len() / 2]).unwrap();
    let again = two_layers();
    for layer in &again.layers {
        fs::remove_file(store.path().join("layers").join(layer.diff_id.to_string())).unwrap();
    }
    import(&store, &again, Faces::COMPOSEFS, &[]).unwrap();
    assert_sound(&store);
}

#[test]
fn image_gets_the_face_that_it_lacks() {
    if !is_root() {
        gantry_testkit::skip!("owners and devices need root");
    }
    let dir = scratch();
    let store = store(dir.path());
    let image = two_layers();
    import(&store, &image, Faces::COMPOSEFS, &[]).unwrap();
    let record = import(&store, &image, Faces::HARDLINK, &[]).unwrap();
    assert_eq!(record.image().unwrap().faces, Faces::BOTH);
    assert_eq!(store.image(&record.digest).unwrap(), Some(record.clone()));
    let path = store.path().join("digests").join(record.digest.to_string());
    assert!(path.join("image.erofs").exists() && path.join("rootfs/bin/tool").exists());
    assert_sound(&store);
}

#[test]
fn an_index_leads_to_its_image() {
    let dir = scratch();
    let store = store(dir.path());
    let image = two_layers();
    let faces = faces_for_this_user();
    let record = import(&store, &image, faces, &[]).unwrap();
    let mut entry = image.manifest.descriptor();
    entry.platform = Some(gantry_oci::Platform::new("linux", "amd64"));
    let index = verified(
        serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        }))
        .unwrap(),
    );
    let ingest = store.begin(IngestOptions { faces }).unwrap();
    ingest
        .commit_index(&index, Some(record.digest), &[name("multi:1")])
        .unwrap();
    drop(ingest);
    let found = store.resolve(&name("multi:1")).unwrap().unwrap();
    assert_eq!(store.as_image(found).unwrap(), record);
    if faces.hardlink {
        assert!(store.path().join("images/multi/1/rootfs/bin/tool").exists());
    }
    // The index holds its image.
    assert!(store.collect(true).unwrap().images.is_empty());
    assert_eq!(
        store.remove_image(&record.digest, true).unwrap_err().kind(),
        Kind::Busy
    );
    assert_sound(&store);
}

#[test]
fn privileged_read_only_mount_of_a_store_is_enough_to_read() {
    if !is_root() {
        gantry_testkit::skip!("mounting needs root");
    }
    let dir = scratch();
    let shared = Store::create(
        &dir.join("store"),
        &CreateOptions {
            shared: true,
            registry: None,
        },
    )
    .unwrap();
    let image = two_layers();
    let record = import(&shared, &image, Faces::BOTH, &[name("demo/app:v1")]).unwrap();
    let (from, to) = (shared.path().to_owned(), dir.join("client"));
    fs::create_dir(&to).unwrap();
    // A share may leave out what only its own host uses.
    for private in ["staging", "locks", "leases"] {
        fs::remove_dir_all(from.join(private)).unwrap();
    }
    std::thread::spawn(move || {
        gantry_sys::mount::enter_private_namespace().unwrap();
        let mount = gantry_sys::mount::clone_mount(&from, false).unwrap();
        gantry_sys::mount::set_read_only(&mount).unwrap();
        gantry_sys::mount::attach(&mount, &to).unwrap();
        let client = Store::open_read_only(&to).unwrap();
        assert_eq!(
            client.resolve(&name("demo/app:v1")).unwrap(),
            Some(record.clone())
        );
        assert_sound(&client);
        assert!(client.usage().unwrap().object_bytes > 0);
        assert_eq!(
            client.begin(IngestOptions::default()).unwrap_err().kind(),
            Kind::Denied
        );
        assert_eq!(
            client.untag(&name("demo/app:v1")).unwrap_err().kind(),
            Kind::Denied
        );
        let inside = to.join("mnt");
        assert!(!inside.exists());
        let plan = client
            .rootfs_plan(&record, FaceChoice::Hardlink, DigestChoice::Best, None)
            .unwrap();
        let features = gantry_sys::probe::KernelFeatures::probe();
        let tree = plan.mount(&features, None).unwrap();
        let tool = rustix::fs::statat(&tree, "bin/tool", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(tool.st_size, 6000);
    })
    .join()
    .unwrap();
}

#[test]
fn privileged_link_ceiling_is_met_by_a_further_inode() {
    let dir = scratch();
    if !is_root() || !dir.is_stock_ext4() {
        gantry_testkit::skip!("needs the link ceiling of ext4, 65000");
    }
    let store = store(dir.path());
    let content = [5_u8; 100];
    let mut tar = Tar::default().dir("d/", mode(0o755));
    for number in 0..65_100 {
        tar = tar.file(&format!("d/{number}"), mode(0o600), &content);
    }
    let record = import(&store, &image(vec![layer(tar)]), Faces::HARDLINK, &[]).unwrap();
    let tree = store
        .path()
        .join("digests")
        .join(record.digest.to_string())
        .join("rootfs/d");
    let mut inodes = BTreeSet::new();
    let mut names = 0;
    for entry in fs::read_dir(tree).unwrap() {
        inodes.insert(entry.unwrap().metadata().unwrap().ino());
        names += 1;
    }
    assert_eq!((names, inodes.len()), (65_100, 2));
    assert_sound(&store);
}

#[test]
fn privileged_full_disk_leaves_nothing_and_the_store_works_on() {
    if !is_root() {
        gantry_testkit::skip!("a file system of its own needs root");
    }
    let disk = gantry_testkit::scratch::Disk::new(24 << 20).unwrap();
    let store = store(disk.path());
    let small = image(vec![layer(base_tar())]);
    import(&store, &small, Faces::BOTH, &[name("small:1")]).unwrap();
    let before = visible(&store);
    let noise = |seed: u32| -> Vec<u8> {
        let mut state = seed;
        (0..1_000_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_le_bytes()[3]
            })
            .collect()
    };
    let mut tar = Tar::default();
    for number in 0..40 {
        tar = tar.file(&format!("big-{number}"), mode(0o644), &noise(number));
    }
    let big = image(vec![layer(tar)]);
    let error = import(&store, &big, Faces::BOTH, &[name("big:1")]).unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error:?}");
    assert_eq!(visible(&store), before);
    assert!(staging_is_empty(&store));
    assert_sound(&store);
    import(
        &store,
        &image(vec![layer(Tar::default().file(
            "x",
            mode(0o644),
            &[1; 500],
        ))]),
        Faces::BOTH,
        &[],
    )
    .unwrap();
}

#[test]
fn privileged_hard_link_tree_is_what_umoci_unpacks() {
    if !is_root() {
        gantry_testkit::skip!("owners and devices need root");
    }
    if let Some(missing) = gantry_testkit::tool::missing(&["umoci"]).first() {
        gantry_testkit::skip!("{missing} is not installed");
    }
    let dir = scratch();
    let image = two_layers();
    write_layout(&image, &dir.join("layout"));
    let bundle = dir.join("bundle");
    gantry_testkit::tool::run(
        std::process::Command::new("umoci")
            .args(["unpack", "--image"])
            .arg(format!("{}:latest", dir.join("layout").display()))
            .arg(&bundle),
    )
    .unwrap();
    let store = store(dir.path());
    let record = import(&store, &image, Faces::HARDLINK, &[]).unwrap();
    let rootfs = store
        .path()
        .join("digests")
        .join(record.digest.to_string())
        .join("rootfs");
    let theirs = tree::snapshot(&bundle.join("rootfs")).unwrap();
    let mut ours = tree::snapshot(&rootfs).unwrap();
    only_groups_of(&mut ours, &theirs);
    // Neither layer has an entry for the root, so umoci's keeps the time of its making.
    let ignore = Ignore {
        root: true,
        ..Ignore::default()
    };
    let differences = tree::compare(&ours, &theirs, &ignore);
    assert!(differences.is_empty(), "{differences:#?}");
}

fn write_layout(image: &TestImage, path: &Path) {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = gantry_oci::Digest::of(gantry_oci::Algorithm::Sha256, bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
    };
    image.layers.iter().for_each(|layer| put(&layer.blob));
    put(&image.config);
    put(image.manifest.bytes());
    let mut descriptor = image.manifest.descriptor();
    descriptor
        .annotations
        .insert("org.opencontainers.image.ref.name".into(), "latest".into());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]});
    fs::write(path.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn sealing_is_for_all_who_write_and_refused_where_it_cannot_be() {
    let dir = scratch();
    let path = {
        let store = store(dir.path());
        assert_eq!(store.seal(), Seal::Off);
        import(&store, &two_layers(), Faces::COMPOSEFS, &[name("a:b")]).unwrap();
        store.set_seal(Seal::Require).unwrap();
        store.path().to_owned()
    };
    let store = Store::open(&path).unwrap();
    assert_eq!(store.seal(), Seal::Require);
    let record = store.resolve(&name("a:b")).unwrap().unwrap();
    assert!(!record.image().unwrap().sealed);
    let plan = |record, digests| store.rootfs_plan(record, FaceChoice::Composefs, digests, None);
    assert_eq!(
        plan(&record, DigestChoice::Require).unwrap_err().kind(),
        Kind::Unsupported,
        "it is not sealed"
    );
    plan(&record, DigestChoice::Best).unwrap();
    let can = store.begin(IngestOptions::default()).unwrap().can_seal();
    let again = import(&store, &two_layers(), Faces::COMPOSEFS, &[]);
    match can {
        Ok(()) => {
            // The image that is here gets what it lacks.
            assert!(again.unwrap().image().unwrap().sealed);
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::Unsupported);
            assert_eq!(again.unwrap_err().kind(), Kind::Unsupported);
            store.set_seal(Seal::Try).unwrap();
            let store = Store::open(&path).unwrap();
            let record = import(&store, &two_layers(), Faces::COMPOSEFS, &[]).unwrap();
            assert!(!record.image().unwrap().sealed);
        }
    }
    assert_sound(&store);
}
