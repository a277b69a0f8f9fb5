// SPDX-License-Identifier: Apache-2.0
//! A layout as a source of images.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use gantry_image::{BlobStream, EndpointError, ImageSource, UnverifiedManifest, Wanted};
use gantry_oci::{Descriptor, Kind, ManifestDigest};
use tokio::sync::mpsc;

use super::files::{Files, read_small};
use super::{LayoutOptions, select};
use crate::name::{ImageName, Selection};

/// An image in a layout.
#[derive(Debug)]
pub struct LayoutSource {
    files: Files,
    selection: Selection,
}

impl LayoutSource {
    /// A source for one image of the layout at `path`; nothing is read yet.
    #[must_use]
    pub fn new(path: PathBuf, selection: Selection, options: &LayoutOptions) -> Self {
        Self {
            files: Files::new(path, options),
            selection,
        }
    }

    /// The descriptor of the image that is meant.
    ///
    /// # Errors
    /// The layout cannot be read, or has no such image.
    pub async fn descriptor(&self) -> Result<Descriptor, EndpointError> {
        let (files, selection) = (self.files.clone(), self.selection.clone());
        blocking(move || select(&files.load_index()?, &selection).cloned()).await
    }
}

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EndpointError> + Send + 'static,
) -> Result<T, EndpointError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(EndpointError::with_source(
            Kind::Internal,
            "work on a layout",
            error,
        )),
    }
}

#[async_trait]
impl ImageSource for LayoutSource {
    fn describe(&self) -> String {
        ImageName::OciLayout {
            path: self.files.dir().to_owned(),
            selection: self.selection.clone(),
        }
        .to_string()
    }

    async fn manifest(&self, wanted: Wanted<'_>) -> Result<UnverifiedManifest, EndpointError> {
        let (digest, content_type) = match wanted {
            Wanted::Primary => {
                let entry = self.descriptor().await?;
                (
                    ManifestDigest::from_digest(entry.digest),
                    Some(entry.media_type.to_string()),
                )
            }
            Wanted::Digest(digest) => (*digest, None),
        };
        let files = self.files.clone();
        let bytes = blocking(move || {
            read_small(
                &files.blob_path(digest.digest()),
                files.limits.manifest_bytes,
            )
        })
        .await?;
        // The index is this layout's word for what the bytes must be.
        Ok(UnverifiedManifest::new(
            bytes.into(),
            content_type,
            Some(digest),
        ))
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, EndpointError> {
        let (files, digest) = (self.files.clone(), descriptor.digest);
        let (file, size_bytes) = blocking(move || files.open_blob(&digest)).await?;
        if size_bytes != descriptor.size_bytes {
            return Err(EndpointError::new(
                Kind::Corrupt,
                format!(
                    "blob {digest} has {size_bytes} bytes instead of {}",
                    descriptor.size_bytes
                ),
            ));
        }
        Ok(BlobStream::new(Some(size_bytes), read_file(file)))
    }
}

/// Reads a file on the blocking pool, a few chunks ahead.
fn read_file(
    mut file: File,
) -> impl futures_util::Stream<Item = Result<Bytes, EndpointError>> + Send {
    const CHUNK: usize = 256 << 10;
    const AHEAD: usize = 2;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let item = match file.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    Ok(Bytes::from(chunk))
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(EndpointError::io("read a blob of the layout", error)),
            };
            let failed = item.is_err();
            if sender.blocking_send(item).is_err() || failed {
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}
