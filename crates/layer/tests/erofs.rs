// SPDX-License-Identifier: Apache-2.0
//! Metadata images against other people's tools.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use common::*;
use gantry_layer::tree::Tree;
use gantry_layer::{dump, erofs};
use gantry_oci::Limits;
use gantry_testkit::scratch::scratch;
use gantry_testkit::tool;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn image(tree: &Tree) -> Vec<u8> {
    let mut image = Vec::new();
    erofs::write(tree, &mut image).unwrap();
    image
}

fn text(tree: &Tree) -> Vec<u8> {
    let mut text = Vec::new();
    dump::write(tree, &mut text).unwrap();
    text
}

/// What `mkcomposefs` makes of the same tree. It refuses some: its account of
/// attribute sizes (1.0.8) goes wrong where it replaces one.
fn composefs_image(dir: &std::path::Path, tree: &Tree) -> Option<Vec<u8>> {
    std::fs::write(dir.join("dump"), text(tree)).unwrap();
    let made = Command::new("mkcomposefs")
        .arg("--from-file")
        .arg(dir.join("dump"))
        .arg(dir.join("image"))
        .output()
        .unwrap();
    made.status
        .success()
        .then(|| std::fs::read(dir.join("image")).unwrap())
}

fn assert_same_image(dir: &std::path::Path, tree: &Tree) {
    let (ours, theirs) = (image(tree), composefs_image(dir, tree).unwrap());
    if ours != theirs {
        let at = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        std::fs::write(dir.join("ours"), &ours).unwrap();
        panic!(
            "images of {} and {} bytes differ first at {at:?}",
            ours.len(),
            theirs.len()
        );
    }
}

#[test]
fn image_is_byte_for_byte_that_of_mkcomposefs() {
    if !tool::missing(&["mkcomposefs"]).is_empty() {
        gantry_testkit::skip!("mkcomposefs is not installed");
    }
    let scratch = scratch();
    assert_same_image(scratch.path(), &Tree::new(metadata(0o755, &[])));
    assert_same_image(scratch.path(), &overlay_escapes());
    assert_same_image(scratch.path(), &everything());
}

#[test]
fn image_of_any_tree_is_that_of_mkcomposefs() {
    if !tool::missing(&["mkcomposefs"]).is_empty() {
        gantry_testkit::skip!("mkcomposefs is not installed");
    }
    let scratch = scratch();
    let compared = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 200,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&any_tree(), |tree| {
            prop_assert_eq!(&dump::parse(&text(&tree), &Limits::DEFAULT).unwrap(), &tree);
            let Some(theirs) = composefs_image(scratch.path(), &tree) else {
                return Ok(());
            };
            compared.set(compared.get() + 1);
            let ours = image(&tree);
            prop_assert!(
                ours == theirs,
                "{} and {} bytes, first difference at {:?}",
                ours.len(),
                theirs.len(),
                ours.iter().zip(&theirs).position(|(a, b)| a != b)
            );
            Ok(())
        })
        .unwrap();
    assert!(
        compared.get() >= 100,
        "only {} trees were compared",
        compared.get()
    );
}
