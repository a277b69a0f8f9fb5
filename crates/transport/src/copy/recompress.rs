// SPDX-License-Identifier: Apache-2.0
//! A layer in another compression, on its way.
//!
//! ```text
//! source stream ─▶ (channel) ─▶ verify blob ─▶ inflate ─▶ diffID ─▶ deflate ─▶ (channel) ─▶ stream
//!                               └────────────── one blocking thread ─────────┘
//! ```
//!
//! The result ends well only if blob and diffID were right.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use gantry_image::{BlobStream, Checker, EndpointError, Layer, LayerForm, LayerStream, Verifying};
use gantry_layer::compress::{Compression, Decoder, DecompressError, Encoder, detect};
use gantry_oci::media_type::LayerCompression;
use gantry_oci::{Kind, Limits, MediaType};
use tokio::sync::mpsc;

const CHUNK: usize = 128 << 10;
const AHEAD: usize = 4;

type Item = Result<Bytes, EndpointError>;

/// Starts the conversion; must be called inside the runtime.
pub(super) fn stream(
    source: LayerStream,
    layer: &Layer,
    to: LayerCompression,
    limits: &Limits,
) -> Result<(MediaType, BlobStream), EndpointError> {
    let diff_id = layer.diff_id.ok_or_else(|| {
        EndpointError::new(
            Kind::Unsupported,
            format!(
                "compress blob {} anew: it is not a layer",
                layer.descriptor.digest
            ),
        )
    })?;
    let media_type = match to {
        LayerCompression::None => MediaType::OciLayer,
        LayerCompression::Gzip => MediaType::OciLayerGzip,
        LayerCompression::Zstd => MediaType::OciLayerZstd,
    };
    let checker = match source.form {
        LayerForm::AsDescribed => Checker::of(&layer.descriptor),
        LayerForm::PlainTar => Checker::new(*diff_id.digest(), None),
    };
    let (feed, fed) = mpsc::channel::<Item>(AHEAD);
    let mut blob = source.blob;
    tokio::spawn(async move {
        while let Some(item) = blob.next().await {
            if feed.send(item).await.is_err() {
                return;
            }
        }
    });
    let (sender, receiver) = mpsc::channel::<Item>(AHEAD);
    let limits = *limits;
    tokio::task::spawn_blocking(move || {
        let input = Verifying::new(
            Feed {
                receiver: fed,
                chunk: Bytes::new(),
            },
            checker,
        );
        let sink = Sink {
            sender: sender.clone(),
            buffer: BytesMut::new(),
        };
        let tar = Checker::new(*diff_id.digest(), None);
        if let Err(error) = convert(input, tar, sink, to, &limits) {
            // If nobody listens any more, nobody wants to know.
            drop(sender.blocking_send(Err(failure(error))));
        }
    });
    let chunks = stream::unfold(receiver, |mut receiver| async {
        let item = receiver.recv().await?;
        Some((item, receiver))
    });
    Ok((media_type, BlobStream::new(None, chunks)))
}

fn convert(
    input: Verifying<Feed>,
    mut tar: Checker,
    sink: Sink,
    to: LayerCompression,
    limits: &Limits,
) -> io::Result<()> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    // By what the bytes say, not by what the media type says.
    let from = detect(input.fill_buf()?);
    let to = match to {
        LayerCompression::None => Compression::None,
        LayerCompression::Gzip => Compression::Gzip,
        LayerCompression::Zstd => Compression::Zstd,
    };
    let mut encoder = Encoder::new(sink, to, None)?;
    let mut decoder = Decoder::new(&mut input, from, *limits)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = decoder.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        tar.update(&buffer[..count]).map_err(invalid_data)?;
        encoder.write_all(&buffer[..count])?;
    }
    drop(decoder);
    input.into_inner().finish()?;
    tar.finish().map_err(invalid_data)?;
    // Only now do the last bytes go out.
    encoder.finish()?.finish()
}

fn invalid_data(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What the conversion failed with. A broken compressed stream is a corrupt
/// layer; a bomb looks like an attack.
fn failure(error: io::Error) -> EndpointError {
    const WHAT: &str = "compress a layer anew";
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<DecompressError>())
    {
        Some(bomb) => EndpointError::with_source(bomb.kind(), WHAT, error),
        None => EndpointError::io(WHAT, error),
    }
}

/// Reads from the asynchronous side.
struct Feed {
    receiver: mpsc::Receiver<Item>,
    chunk: Bytes,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(0),
            }
        }
        let count = self.chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

/// Writes to the asynchronous side. Holds back what would complete the blob
/// until [`finish`](Self::finish).
struct Sink {
    sender: mpsc::Sender<Item>,
    buffer: BytesMut,
}

impl Sink {
    fn send(&mut self) -> io::Result<()> {
        let chunk = self.buffer.split().freeze();
        self.sender
            .blocking_send(Ok(chunk))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            self.send()
        }
    }
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        self.buffer.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_oci::{Descriptor, DiffId};

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn layer(blob: &[u8], tar: &[u8]) -> Layer {
        Layer {
            position: 0,
            descriptor: Descriptor::of(MediaType::OciLayerGzip, blob),
            diff_id: Some(DiffId::from_digest(
                Descriptor::of(MediaType::OciLayer, tar).digest,
            )),
        }
    }

    fn recompress(
        blob: &[u8],
        layer: &Layer,
        to: LayerCompression,
    ) -> Result<Vec<u8>, EndpointError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let source =
                LayerStream::as_described(BlobStream::from_bytes(Bytes::copy_from_slice(blob)));
            let (_, mut blob) = stream(source, layer, to, &Limits::DEFAULT)?;
            let mut out = Vec::new();
            while let Some(chunk) = blob.next().await {
                out.extend_from_slice(&chunk?);
            }
            Ok(out)
        })
    }

    #[test]
    fn contents_survive_every_compression() {
        let tar: Vec<u8> = (0..1_000_000_u32)
            .flat_map(|n| (n % 977).to_le_bytes())
            .collect();
        let blob = gzip(&tar);
        let described = layer(&blob, &tar);
        assert_eq!(
            recompress(&blob, &described, LayerCompression::None).unwrap(),
            tar
        );
        let zstd = recompress(&blob, &described, LayerCompression::Zstd).unwrap();
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), tar);
    }

    #[test]
    fn wrong_tar_and_wrong_blob_end_in_corrupt() {
        let blob = gzip(b"tar");
        let error = recompress(&blob, &layer(&blob, b"other"), LayerCompression::Zstd).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        let error =
            recompress(&blob, &layer(&gzip(b"rat"), b"tar"), LayerCompression::Zstd).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    #[test]
    fn bomb_is_stopped_at_the_ratio() {
        let limits = Limits {
            ratio: 10,
            ratio_floor_bytes: 1 << 20,
            ..Limits::DEFAULT
        };
        let tar = vec![0; 8 << 20];
        let blob = gzip(&tar);
        let described = layer(&blob, &tar);
        let input = Verifying::new(
            Feed {
                receiver: mpsc::channel(1).1,
                chunk: Bytes::from(blob.clone()),
            },
            Checker::of(&described.descriptor),
        );
        let (sender, _receiver) = mpsc::channel(1024);
        let sink = Sink {
            sender,
            buffer: BytesMut::new(),
        };
        let tar = Checker::new(*described.diff_id.unwrap().digest(), None);
        let error = convert(input, tar, sink, LayerCompression::Gzip, &limits).unwrap_err();
        assert_eq!(failure(error).kind(), Kind::Unsafe);
    }
}
