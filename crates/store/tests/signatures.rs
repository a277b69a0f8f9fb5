// SPDX-License-Identifier: Apache-2.0
//! Signatures beside an image, added by many at once.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{Tar, image, import, layer, mode, name};
use gantry_image::SignatureBlob;
use gantry_oci::{Kind, Limits};
use gantry_store::{Faces, Store};

fn signature(number: usize) -> SignatureBlob {
    SignatureBlob {
        format: "simple-signing".into(),
        bytes: Bytes::from(format!("\u{a3}{number}")),
    }
}

#[test]
fn those_who_add_at_once_stay_within_the_limit_together() {
    let dir = tempfile::tempdir().unwrap();
    drop(common::store(dir.path()));
    let limits = Limits {
        signatures: 8,
        ..Limits::DEFAULT
    };
    let path = dir.path().join("store");
    let store = Store::open_limited(&path, limits).unwrap();
    let image = image(vec![layer(Tar::default().file("a", mode(0o644), b"a"))]);
    let record = import(&store, &image, Faces::COMPOSEFS, &[name("app:v1")]).unwrap();
    let digest = record.digest;
    let writers: Vec<_> = (0..4_usize)
        .map(|writer| {
            let path = path.clone();
            std::thread::spawn(move || {
                let store = Store::open_limited(&path, limits).unwrap();
                let add = |number: usize| {
                    store.add_signatures(&digest, &[signature(4 * number + writer)])
                };
                let added: Vec<_> = (0..4).map(add).collect();
                added.iter().filter(|outcome| outcome.is_ok()).count()
            })
        })
        .collect();
    let added: usize = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .sum();
    assert_eq!(added, 8);
    assert_eq!(store.signatures(&digest).unwrap().len(), 8);
    // What is there may be added again; more may not.
    let there = store.signatures(&digest).unwrap();
    store.add_signatures(&digest, &there).unwrap();
    let more = store.add_signatures(&digest, &[signature(99)]);
    assert_eq!(more.unwrap_err().kind(), Kind::AlreadyExists);
}

#[test]
fn repositories_of_a_registry_have_places_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    drop(common::store(dir.path()));
    let limits = Limits {
        signatures: 4,
        ..Limits::DEFAULT
    };
    let store = Store::open_limited(&dir.path().join("store"), limits).unwrap();
    let image = image(vec![layer(Tar::default().file("a", mode(0o644), b"a"))]);
    let record = import(&store, &image, Faces::COMPOSEFS, &[name("app:v1")]).unwrap();
    let digest = record.digest;
    let [mine, others] = ["team/app", "evil/app"].map(|name| name.parse().unwrap());
    let add =
        |repository, number| store.add_signatures_of(&digest, repository, &[signature(number)]);
    for number in 0..4 {
        add(&others, number).unwrap();
    }
    let full = add(&others, 4).unwrap_err();
    assert_eq!(full.kind(), Kind::AlreadyExists);
    add(&mine, 5).unwrap();
    store.add_signatures(&digest, &[signature(6)]).unwrap();
    // Under a name: what was pushed there, and what is anybody's.
    let mut read: Vec<_> = store.signatures_of(&digest, &mine).unwrap();
    read.sort_by(|one, other| one.bytes.cmp(&other.bytes));
    assert_eq!(read, [signature(5), signature(6)]);
    // Under none: a fair share of each, no more than the limit.
    let all = store.signatures(&digest).unwrap();
    assert_eq!(all.len(), 4);
    assert!(all.contains(&signature(5)) && all.contains(&signature(6)));
    // A check looks at all of them.
    let own = format!("store/digests/{digest}/signatures/of/team+app");
    let file = std::fs::read_dir(dir.path().join(own)).unwrap().next();
    std::fs::write(file.unwrap().unwrap().path(), b"other").unwrap();
    let report = store
        .check(&gantry_store::CheckOptions::default(), &|_, _| {})
        .unwrap();
    assert_eq!(report.problems.len(), 1, "{report:#?}");
}
