// SPDX-License-Identifier: Apache-2.0
//! What an image is, without fetching its layers.
//!
//! The JSON forms are skopeo's: the same members, in the same order, with the
//! same indentation and escapes, so that scripts made for one read the other.

use bytes::Bytes;
use gantry_image::{
    Checker, EndpointError, ImageSource, ManifestBytes, VerifiedBytes, VerifyingStream, Wanted,
    select,
};
use gantry_oci::{Digest, ImageConfig, Kind, Limits, ManifestDigest, MediaType, Platform};
use serde::Serialize;
use std::collections::BTreeMap;

use crate::registry::RegistrySource;

/// One layer, as skopeo shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerData {
    /// The media type.
    #[serde(rename = "MIMEType")]
    pub mime_type: MediaType,
    /// The blob's digest.
    #[serde(rename = "Digest")]
    pub digest: Digest,
    /// Its size.
    #[serde(rename = "Size")]
    pub size_bytes: u64,
    /// Its annotations; `null` for none.
    #[serde(rename = "Annotations")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// An image, as skopeo shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspection {
    /// `host/repository`, for images of registries.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The digest of what the reference names: the index, if it is one.
    pub digest: ManifestDigest,
    /// All tags of the repository.
    pub repo_tags: Vec<String>,
    /// When the image was made.
    pub created: Option<String>,
    /// By which Docker.
    pub docker_version: String,
    /// Its labels; `null` for none.
    pub labels: Option<BTreeMap<String, String>>,
    /// CPU architecture.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// The layers' digests, base first.
    pub layers: Vec<Digest>,
    /// The same with more about each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers_data: Vec<LayerData>,
    /// Its environment; `null` for none.
    pub env: Option<Vec<String>>,
}

impl Inspection {
    /// The JSON text, without a line break at its end.
    ///
    /// # Errors
    /// [`Kind::Internal`] only.
    pub fn to_json(&self) -> Result<String, EndpointError> {
        indented(self)
    }
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct InspectOptions {
    /// The platform to choose from an index.
    pub platform: Platform,
    /// Caps.
    pub limits: Limits,
}

impl InspectOptions {
    /// The defaults, for a platform.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            limits: Limits::DEFAULT,
        }
    }
}

/// Inspects an image of any source. `name` and `repo_tags` are what the
/// transport knows beside it.
///
/// # Errors
/// The source's; [`Kind::Unsupported`] for an artifact.
pub async fn inspect(
    source: &dyn ImageSource,
    name: String,
    repo_tags: Vec<String>,
    options: &InspectOptions,
) -> Result<Inspection, EndpointError> {
    let (top, image) = resolve(source, options).await?;
    let config = fetch_config(source, &image, options).await?;
    let manifest = manifest_of(&image)?;
    let parsed = parse_config(&config, manifest.layers.len(), options)?;
    let docker = image.media_type() == MediaType::DockerManifest;
    let created = match parsed.created.as_deref() {
        Some(created) => Some(go_time(created)?),
        // A Docker image without a time has the zero one.
        None => docker.then(|| "0001-01-01T00:00:00Z".to_owned()),
    };
    Ok(Inspection {
        name,
        digest: *top.digest(),
        repo_tags,
        created,
        docker_version: parsed.docker_version.unwrap_or_default(),
        labels: non_empty(parsed.config.labels, BTreeMap::is_empty),
        architecture: parsed.architecture,
        os: parsed.os,
        layers: manifest.layers.iter().map(|layer| layer.digest).collect(),
        layers_data: manifest
            .layers
            .iter()
            .map(|layer| LayerData {
                mime_type: layer.media_type.clone(),
                digest: layer.digest,
                size_bytes: layer.size_bytes,
                annotations: non_empty(layer.annotations.clone(), BTreeMap::is_empty),
            })
            .collect(),
        env: non_empty(parsed.config.env, Vec::is_empty),
    })
}

/// Inspects an image of a registry, with the repository's tags unless
/// `no_tags`. A registry that does not list tags is no failure.
///
/// # Errors
/// As [`inspect`].
pub async fn inspect_registry(
    source: &RegistrySource,
    no_tags: bool,
    options: &InspectOptions,
) -> Result<Inspection, EndpointError> {
    let name = source.reference().name();
    let tags = async {
        match source.repository().filter(|_| !no_tags) {
            Some(repository) => repository.tags().await,
            None => Ok(Vec::new()),
        }
    };
    let (inspection, tags) =
        futures_util::future::join(inspect(source, name, Vec::new(), options), tags).await;
    let mut inspection = inspection?;
    inspection.repo_tags = match tags {
        Ok(tags) => tags,
        Err(error)
            if matches!(
                error.kind(),
                Kind::Denied | Kind::NotFound | Kind::Unsupported
            ) =>
        {
            tracing::warn!(%error, "the registry does not list tags");
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    Ok(inspection)
}

/// The bytes that the reference names, exactly: a manifest or an index.
///
/// # Errors
/// The source's.
pub async fn raw(
    source: &dyn ImageSource,
    options: &InspectOptions,
) -> Result<ManifestBytes, EndpointError> {
    Ok(source
        .manifest(Wanted::Primary)
        .await?
        .verify(None, &options.limits)?)
}

/// The configuration's bytes, exactly.
///
/// # Errors
/// The source's.
pub async fn raw_config(
    source: &dyn ImageSource,
    options: &InspectOptions,
) -> Result<Bytes, EndpointError> {
    let (_, image) = resolve(source, options).await?;
    Ok(fetch_config(source, &image, options).await?.bytes().clone())
}

/// The configuration as OCI's members only, indented as skopeo shows it.
///
/// # Errors
/// The source's.
pub async fn config(
    source: &dyn ImageSource,
    options: &InspectOptions,
) -> Result<String, EndpointError> {
    let (_, image) = resolve(source, options).await?;
    let config = fetch_config(source, &image, options).await?;
    let parsed = parse_config(&config, manifest_of(&image)?.layers.len(), options)?;
    indented(&OciView::of(parsed)?)
}

/// The top document, and the image that it leads to.
///
/// # Errors
/// The source's; [`Kind::NotFound`] if an index has none for the platform.
pub async fn resolve(
    source: &dyn ImageSource,
    options: &InspectOptions,
) -> Result<(ManifestBytes, ManifestBytes), EndpointError> {
    let top = raw(source, options).await?;
    let mut image = top.clone();
    for _ in 0..options.limits.index_depth {
        let Some(index) = image.as_index() else { break };
        let choice = select::choose_platform(index, &options.platform)?;
        image = crate::copy::resolve_entry(source, choice.descriptor, &options.limits).await?;
    }
    Ok((top, image))
}

fn manifest_of(image: &ManifestBytes) -> Result<&gantry_oci::Manifest, EndpointError> {
    image.as_manifest().ok_or_else(|| {
        EndpointError::new(
            Kind::Unsafe,
            format!("{} leads to indexes too deeply", image.digest()),
        )
    })
}

async fn fetch_config(
    source: &dyn ImageSource,
    image: &ManifestBytes,
    options: &InspectOptions,
) -> Result<VerifiedBytes, EndpointError> {
    let descriptor = &manifest_of(image)?.config;
    let blob = source.blob(descriptor).await?;
    VerifyingStream::new(blob, Checker::of(descriptor))
        .collect_small(options.limits.config_bytes)
        .await
}

fn parse_config(
    config: &VerifiedBytes,
    layers: usize,
    options: &InspectOptions,
) -> Result<ImageConfig, EndpointError> {
    ImageConfig::parse(config.bytes(), layers, &options.limits).map_err(|error| {
        EndpointError::with_source(
            error.kind(),
            format!("read image config {}", config.digest()),
            error,
        )
    })
}

fn non_empty<T>(value: T, is_empty: impl Fn(&T) -> bool) -> Option<T> {
    (!is_empty(&value)).then_some(value)
}

/// A configuration reduced to what image-spec v1.1 defines, in its order.
#[derive(Serialize)]
struct OciView {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    config: ProcessView,
    rootfs: gantry_oci::config::RootFs,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<gantry_oci::config::History>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessView {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
}

impl OciView {
    fn of(config: ImageConfig) -> Result<Self, EndpointError> {
        let process = config.config;
        let mut history = config.history;
        for step in &mut history {
            step.created = step.created.as_deref().map(go_time).transpose()?;
            // Go leaves empty strings and false out.
            for text in [&mut step.created_by, &mut step.author, &mut step.comment] {
                *text = text.take().filter(|text| !text.is_empty());
            }
            step.empty_layer = step.empty_layer.filter(|empty| *empty);
        }
        Ok(Self {
            created: config.created.as_deref().map(go_time).transpose()?,
            author: config.author.unwrap_or_default(),
            architecture: config.architecture,
            variant: config.variant.filter(|variant| !variant.is_empty()),
            os: config.os,
            config: ProcessView {
                user: process.user,
                exposed_ports: process.exposed_ports,
                env: process.env,
                entrypoint: process.entrypoint,
                cmd: process.cmd,
                volumes: process.volumes,
                working_dir: process.working_dir,
                labels: process.labels,
                stop_signal: process.stop_signal,
            },
            rootfs: config.rootfs,
            history,
        })
    }
}

/// RFC 3339 text as Go writes it back: no zeros at the end of the fraction,
/// at most nine digits, `Z` for a zero offset.
fn go_time(text: &str) -> Result<String, EndpointError> {
    let wrong = || {
        let text = crate::registry::error::printable(text);
        EndpointError::new(Kind::Corrupt, format!("{text:?} is not a time of RFC 3339"))
    };
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let head = bytes.get(..shape.len()).ok_or_else(wrong)?;
    let fits = |(byte, shape): (&u8, &u8)| {
        if *shape == b'd' {
            byte.is_ascii_digit()
        } else {
            byte == shape
        }
    };
    if !head.iter().zip(shape).all(fits) {
        return Err(wrong());
    }
    let (head, rest) = text.split_at(shape.len());
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            if end == 0 {
                return Err(wrong());
            }
            rest.split_at(end)
        }
        None => ("", rest),
    };
    let zone_fits = |zone: &str| {
        zone.len() == 6
            && zone.starts_with(['+', '-'])
            && zone
                .bytes()
                .skip(1)
                .zip(b"dd:dd")
                .all(|(byte, shape)| fits((&byte, shape)))
    };
    let zone = match zone {
        "Z" | "+00:00" => "Z",
        other if zone_fits(other) => other,
        _ => return Err(wrong()),
    };
    let fraction = fraction
        .get(..fraction.len().min(9))
        .unwrap_or_default()
        .trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{head}{dot}{fraction}{zone}"))
}

/// JSON with an indent of four and with Go's escapes, as skopeo prints it.
///
/// # Errors
/// [`Kind::Internal`] only.
pub fn indented(value: &impl Serialize) -> Result<String, EndpointError> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    let internal =
        |error: String| EndpointError::new(Kind::Internal, format!("encode JSON: {error}"));
    value
        .serialize(&mut serializer)
        .map_err(|error| internal(error.to_string()))?;
    let text = String::from_utf8(out).map_err(|error| internal(error.to_string()))?;
    // These stand inside strings only.
    Ok(text
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (text, written) in [
            ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05.120000000Z", "2024-01-02T03:04:05.12Z"),
            ("2024-01-02T03:04:05.000Z", "2024-01-02T03:04:05Z"),
            (
                "2024-01-02T03:04:05.1234567891Z",
                "2024-01-02T03:04:05.123456789Z",
            ),
            ("2024-01-02T03:04:05+02:00", "2024-01-02T03:04:05+02:00"),
            ("2024-01-02T03:04:05+00:00", "2024-01-02T03:04:05Z"),
        ] {
            assert_eq!(go_time(text).unwrap(), written);
        }
        for garbage in [
            "",
            "yesterday",
            "2024-01-02",
            "2024-01-02T03:04:05",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04:05\u{1b}[0m",
        ] {
            assert!(go_time(garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(
            indented(&"<a> & \u{2028}").unwrap(),
            "\"\\u003ca\\u003e \\u0026 \\u2028\""
        );
        assert_eq!(indented(&vec![1]).unwrap(), "[\n    1\n]");
        assert_eq!(indented(&Vec::<u8>::new()).unwrap(), "[]");
    }
}
