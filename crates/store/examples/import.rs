// SPDX-License-Identifier: Apache-2.0
//! Imports an OCI layout into a store and says what it took. For measuring.
//!
//! `import STORE LAYOUT [composefs|hardlink|both] [parallel layers]`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use anyhow::{Context as _, Result};
use gantry_image::UnverifiedManifest;
use gantry_oci::{Descriptor, Document, ImageConfig, Limits, ManifestDigest};
use gantry_store::{BlobForm, Claim, CommitImage, CreateOptions, Faces, IngestOptions, Store};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let (store, layout) = (Path::new(&args[1]), Path::new(&args[2]));
    let faces = match args.get(3).map(String::as_str) {
        Some("hardlink") => Faces::HARDLINK,
        Some("both") => Faces::BOTH,
        _ => Faces::COMPOSEFS,
    };
    let parallel: usize = args.get(4).map_or(Ok(3), |text| text.parse())?;
    let began = Instant::now();
    let store = Store::open_or_create(store, &CreateOptions::default())?;
    let index = fs::read(layout.join("index.json"))?;
    let Document::Index(index) = Document::parse(&index, None, &Limits::DEFAULT)? else {
        anyhow::bail!("index.json is no index");
    };
    for entry in &index.manifests {
        import(&store, layout, entry, faces, parallel)?;
    }
    let wall = began.elapsed();
    let peak = peak()?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("stat")?
        .1
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap() / 100.0;
    println!(
        "total {:.2} s, user {:.2} s, system {:.2} s, {peak}",
        wall.as_secs_f64(),
        ticks(11),
        ticks(12)
    );
    Ok(())
}

fn peak() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    Ok(line.unwrap_or_default().to_owned())
}

fn import(
    store: &Store,
    layout: &Path,
    entry: &Descriptor,
    faces: Faces,
    parallel: usize,
) -> Result<()> {
    let blob = |digest: &gantry_oci::Digest| {
        layout
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    };
    let bytes = fs::read(blob(&entry.digest))?;
    let manifest = UnverifiedManifest::new(bytes.into(), None, None).verify(
        Some(&ManifestDigest::from_digest(entry.digest)),
        &Limits::DEFAULT,
    )?;
    let image = manifest.as_manifest().context("nested index")?;
    let config = fs::read(blob(&image.config.digest))?;
    let parsed = ImageConfig::parse(&config, image.layers.len(), &Limits::DEFAULT)?;
    let ingest = store.begin(IngestOptions { faces })?;
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..parallel)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(layer) = image.layers.get(at) else {
                            return Ok(());
                        };
                        if let Claim::Wanted(claim) = ingest.claim(parsed.rootfs.diff_ids[at])? {
                            let info = claim.unpack(
                                fs::File::open(blob(&layer.digest))?,
                                BlobForm::AsDescribed(layer),
                            )?;
                            println!(
                                "layer {at}: {} new files, {} new bytes, at {:.2} s",
                                info.new_files,
                                info.new_bytes,
                                began.elapsed().as_secs_f64()
                            );
                        }
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap())
    })?;
    println!(
        "unpacked {:.2} s, {}",
        began.elapsed().as_secs_f64(),
        peak()?
    );
    let record = ingest.commit_image(&CommitImage {
        manifest: &manifest,
        config: &config,
        names: &[],
    })?;
    println!(
        "committed {:.2} s: {:?}",
        began.elapsed().as_secs_f64(),
        record.image().map(|facts| facts.tree)
    );
    drop(ingest);
    println!("cleaned {:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}
