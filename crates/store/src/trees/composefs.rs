// SPDX-License-Identifier: Apache-2.0
//! The composefs face: one EROFS file with all metadata; contents stay in the objects.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::record::ErofsFacts;
use gantry_layer::erofs;
use gantry_layer::tree::Tree;
use gantry_layer::verity::ObjectHasher;
use gantry_sys::root::RootDir;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};

/// Writes `image.erofs` into `dir`.
pub(crate) fn write(tree: &Tree, dir: &RootDir, sync: bool) -> Result<ErofsFacts, StoreError> {
    let action = || "write metadata image".to_owned();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = dir
        .open(layout::IMAGE_EROFS.as_bytes(), flags, layout::PUBLIC_FILE)
        .doing(action)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::from(file));
    let summary = erofs::write(tree, &mut out).map_err(|source| StoreError::Layer {
        action: action(),
        kind: source.kind(),
        source: source.into(),
    })?;
    out.flush().doing(action)?;
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .doing(action)?;
    rustix::fs::fchmod(&file, layout::PUBLIC_FILE).doing(action)?;
    if sync {
        file.sync_all().doing(action)?;
    }
    Ok(ErofsFacts {
        size_bytes: summary.size_bytes,
        verity: summary.id,
    })
}

/// Size and fs-verity digest of a whole file.
pub(crate) fn hash(file: &mut File) -> io::Result<ErofsFacts> {
    copy(file, &mut io::sink())
}

/// Copies a whole file, and tells size and fs-verity digest of what was copied.
pub(crate) fn copy(from: &mut File, to: &mut impl Write) -> io::Result<ErofsFacts> {
    let mut hasher = ObjectHasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size_bytes = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        size_bytes += count as u64;
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
    }
    Ok(ErofsFacts {
        size_bytes,
        verity: hasher.finish(),
    })
}
