// SPDX-License-Identifier: Apache-2.0
//! OCI layouts: hostile ones, concurrent writers, killed writers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::image::{Image, image, write_layout};
use common::{block_on, copy, copy_options, sentence};
use gantry_oci::Kind;
use gantry_testkit::{skip, tool};
use gantry_transport::Selection;
use gantry_transport::copy::{Event, ProgressSink, run};
use gantry_transport::oci_layout::{LayoutDestination, LayoutOptions, LayoutSource};

fn options() -> LayoutOptions {
    LayoutOptions {
        no_sync: true,
        ..LayoutOptions::default()
    }
}

fn copy_layout(from: &Path, name: &str, to: &Path, as_name: &str) -> Result<(), (Kind, String)> {
    block_on(async {
        let source = LayoutSource::new(from.to_owned(), Selection::Named(name.into()), &options());
        let selection = Selection::Named(as_name.into());
        let destination = LayoutDestination::create(to.to_owned(), selection, &options())
            .await
            .map_err(|error| (error.kind(), sentence(&error)))?;
        let outcome = copy(&source, &destination, &copy_options()).await;
        outcome
            .map(drop)
            .map_err(|error| (error.kind(), sentence(&error)))
    })
}

/// A layout with one image, changed by `change`, and what copying it says.
fn hostile(change: impl FnOnce(&Path, &Image)) -> (Kind, String) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let image = image(1, 5000, 21);
    write_layout(&from, &[("v1", &image)]);
    change(&from, &image);
    let error = copy_layout(&from, "v1", &to, "v1").unwrap_err();
    assert!(!to.join("index.json").exists(), "{error:?}");
    error
}

#[test]
fn hostile_layouts_are_refused_by_kind() {
    let index = |text: &'static str| {
        hostile(move |dir, _| std::fs::write(dir.join("index.json"), text).unwrap()).0
    };
    assert_eq!(index("{"), Kind::Corrupt);
    assert_eq!(
        index(r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#),
        Kind::Corrupt
    );
    assert_eq!(
        index(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
        Kind::Unsafe
    );
    assert_eq!(
        index(r#"{"schemaVersion":2,"manifests":[]}"#),
        Kind::NotFound
    );
    let traversal = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "digest":"sha256:../../../../etc/passwd","size":1}]}"#;
    assert_eq!(index(traversal), Kind::Corrupt);
    let huge = hostile(|dir, _| {
        std::fs::write(dir.join("index.json"), vec![b' '; (4 << 20) + 1]).unwrap()
    });
    assert_eq!(huge.0, Kind::Unsafe);
    let version = hostile(|dir, _| {
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap()
    });
    assert_eq!(version.0, Kind::Unsupported);
    let no_layout = hostile(|dir, _| std::fs::remove_file(dir.join("oci-layout")).unwrap());
    assert_eq!(no_layout.0, Kind::NotFound);
}

#[test]
fn blobs_that_are_not_what_they_are_called() {
    let blob =
        |dir: &Path, image: &Image| dir.join("blobs/sha256").join(image.layer(0).digest.hex());
    let flipped = hostile(|dir, image| {
        let mut data = image.layers[0].clone();
        data[100] ^= 1;
        std::fs::write(blob(dir, image), data).unwrap();
    });
    assert_eq!(flipped.0, Kind::Corrupt);
    let short = hostile(|dir, image| std::fs::write(blob(dir, image), b"short").unwrap());
    assert_eq!(short.0, Kind::Corrupt, "{}", short.1);
    let missing = hostile(|dir, image| std::fs::remove_file(blob(dir, image)).unwrap());
    assert_eq!(missing.0, Kind::NotFound, "{}", missing.1);
    let manifest = hostile(|dir, image| {
        let path = dir.join("blobs/sha256").join(image.digest().hex());
        std::fs::write(path, &common::image::image(1, 10, 1).manifest).unwrap();
    });
    assert_eq!(manifest.0, Kind::Corrupt, "{}", manifest.1);
    // A FIFO would block whoever opens it; a directory is no blob.
    let fifo = hostile(|dir, image| {
        std::fs::remove_file(blob(dir, image)).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            blob(dir, image),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    });
    assert_eq!(fifo.0, Kind::Unsafe);
    let directory = hostile(|dir, image| {
        std::fs::remove_file(blob(dir, image)).unwrap();
        std::fs::create_dir(blob(dir, image)).unwrap();
    });
    assert_eq!(directory.0, Kind::Unsafe);
}

#[test]
fn many_writers_keep_each_others_images() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let images: Vec<Image> = (0..8).map(|n| image(2, 20_000, n)).collect();
    let names: Vec<String> = (0..8).map(|n| format!("v{n}")).collect();
    write_layout(
        &from,
        &names
            .iter()
            .map(String::as_str)
            .zip(&images)
            .collect::<Vec<_>>(),
    );
    let to = dir.path().join("to");
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| copy_layout(&from, name, &to, name).unwrap());
        }
    });
    for name in &names {
        copy_layout(&to, name, &dir.path().join("back"), name).unwrap();
    }
    if tool::missing(&["skopeo"]).is_empty() {
        for name in &names {
            tool::text(
                "skopeo",
                ["inspect", &format!("oci:{}:{name}", to.display())],
            )
            .unwrap();
        }
    }
}

#[test]
fn shared_blob_directory_is_used_instead_of_the_own() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    write_layout(&from, &[("v1", &image(1, 1000, 5))]);
    let shared = LayoutOptions {
        shared_blob_dir: Some(dir.path().join("shared")),
        ..options()
    };
    let to = dir.path().join("to");
    block_on(async {
        let source = LayoutSource::new(from, Selection::Only, &options());
        let destination = LayoutDestination::create(to.clone(), Selection::Only, &shared)
            .await
            .unwrap();
        copy(&source, &destination, &copy_options()).await.unwrap();
        assert!(!to.join("blobs").exists());
        let source = LayoutSource::new(to, Selection::Only, &shared);
        let third =
            LayoutDestination::create(dir.path().join("third"), Selection::Only, &options())
                .await
                .unwrap();
        copy(&source, &third, &copy_options()).await.unwrap();
    });
}

#[test]
fn what_umoci_makes_is_read() {
    if !tool::missing(&["umoci"]).is_empty() {
        skip!("umoci not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let image = format!("{}:v1", layout.display());
    tool::text("umoci", ["init", "--layout", layout.to_str().unwrap()]).unwrap();
    tool::text("umoci", ["new", "--image", &image]).unwrap();
    tool::text(
        "umoci",
        ["config", "--image", &image, "--config.label", "a=b"],
    )
    .unwrap();
    copy_layout(&layout, "v1", &dir.path().join("to"), "v2").unwrap();
    tool::text(
        "umoci",
        [
            "stat",
            "--image",
            &format!("{}:v2", dir.path().join("to").display()),
        ],
    )
    .unwrap();
}

/// Remembers what it hears.
#[derive(Default)]
struct Record(std::sync::Mutex<Vec<Event>>);

impl ProgressSink for Record {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn progress_tells_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let image = image(2, 600_000, 9);
    write_layout(&from, &[("v1", &image)]);
    let record = Arc::new(Record::default());
    block_on(async {
        let source = LayoutSource::new(from, Selection::Only, &options());
        let to = dir.path().join("to");
        let destination = LayoutDestination::create(to, Selection::Only, &options())
            .await
            .unwrap();
        run(&source, &destination, &copy_options(), None, record.clone())
            .await
            .unwrap();
    });
    let events = record.0.lock().unwrap().clone();
    let bytes: u64 = events
        .iter()
        .map(|event| match event {
            Event::LayerBytes { count, .. } => *count,
            _ => 0,
        })
        .sum();
    assert_eq!(
        bytes,
        image
            .layers
            .iter()
            .map(|layer| layer.len() as u64)
            .sum::<u64>()
    );
    assert!(matches!(
        events.first(),
        Some(Event::Resolved { layers: 2, .. })
    ));
    assert!(matches!(events.last(), Some(Event::Committed { .. })));
    let line = serde_json::to_string(&events[0]).unwrap();
    assert!(
        line.starts_with(r#"{"event":"resolved","digest":"sha256:"#),
        "{line}"
    );
}

#[test]
fn plan_can_be_printed() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let image = image(1, 10, 9);
    write_layout(&from, &[("v1", &image)]);
    let plan = block_on(async {
        let source = LayoutSource::new(from.clone(), Selection::Only, &options());
        let to = LayoutDestination::create(dir.path().join("to"), Selection::Only, &options())
            .await
            .unwrap();
        gantry_transport::copy::plan(&source, &to, &copy_options(), None)
            .await
            .unwrap()
    });
    let expected = format!(
        "copy oci:{} to oci:{}\n  image {} as OCI\n    layer {} ({} bytes) as it is\n",
        from.display(),
        dir.path().join("to").display(),
        image.digest(),
        image.layer(0).digest,
        image.layers[0].len(),
    );
    assert_eq!(plan.to_string(), expected);
}
