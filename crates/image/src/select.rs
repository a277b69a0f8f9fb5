// SPDX-License-Identifier: Apache-2.0
//! Choosing one manifest from an index.
//!
//! Pure: an index and a platform in, an entry and the reason out.
//!
//! An entry fits if system and architecture are equal and its variant is the
//! wanted one or one that the wanted CPU runs too. Among those that fit, the
//! nearest variant wins, then one that is marked as having zstd layers (they
//! inflate about twice as fast), then the first.

use gantry_oci::{Descriptor, Index, Kind, Platform};

/// The annotation by which builders mark the zstd twin of an entry.
const ZSTD_ANNOTATION: &str = "io.github.containers.compression.zstd";

/// An entry that was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The entry.
    pub descriptor: &'a Descriptor,
    /// Its place in the index.
    pub position: usize,
    /// A phrase for people.
    pub reason: String,
}

/// No entry fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image for platform {wanted} in the index, which has {}", list(.available))]
pub struct SelectError {
    /// What was asked for.
    pub wanted: Platform,
    /// What there is.
    pub available: Vec<String>,
}

impl SelectError {
    /// Always [`Kind::NotFound`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::NotFound
    }
}

impl From<SelectError> for crate::EndpointError {
    fn from(error: SelectError) -> Self {
        Self::with_source(error.kind(), "choose an image from the index", error)
    }
}

fn list(available: &[String]) -> String {
    const SHOWN: usize = 12;
    match available.len() {
        0 => "no entries with a platform".to_owned(),
        count if count > SHOWN => format!(
            "{} and {} more",
            available[..SHOWN].join(", "),
            count - SHOWN
        ),
        _ => available.join(", "),
    }
}

/// Chooses the entry for `wanted`.
///
/// # Errors
/// [`SelectError`] names what there is instead.
pub fn choose_platform<'a>(index: &'a Index, wanted: &Platform) -> Result<Choice<'a>, SelectError> {
    let fitting = index
        .manifests
        .iter()
        .enumerate()
        .filter_map(|(position, descriptor)| {
            let distance = distance(descriptor.platform.as_ref()?, wanted)?;
            Some((distance, !has_zstd(descriptor), position, descriptor))
        });
    let best =
        fitting.min_by_key(|(distance, not_zstd, position, _)| (*distance, *not_zstd, *position));
    let Some((distance, not_zstd, position, descriptor)) = best else {
        let mut available: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .map(printable)
            .collect();
        available.dedup();
        return Err(SelectError {
            wanted: wanted.clone(),
            available,
        });
    };
    let found = descriptor
        .platform
        .as_ref()
        .map(printable)
        .unwrap_or_default();
    let mut reason = if distance == 0 {
        format!("entry {position} is for {found}")
    } else {
        format!("entry {position} is for {found}, which {wanted} runs too")
    };
    if !not_zstd {
        reason.push_str(", with zstd layers");
    }
    Ok(Choice {
        descriptor,
        position,
        reason,
    })
}

/// A platform from outside, without characters that move a cursor.
fn printable(platform: &Platform) -> String {
    platform
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .take(80)
        .collect()
}

fn has_zstd(descriptor: &Descriptor) -> bool {
    descriptor
        .annotations
        .get(ZSTD_ANNOTATION)
        .is_some_and(|value| value == "true")
}

/// How far `offered` is from what `wanted` runs best; `None` if it doesn't run.
fn distance(offered: &Platform, wanted: &Platform) -> Option<usize> {
    if offered.os != wanted.os || offered.architecture != wanted.architecture {
        return None;
    }
    if wanted.os_version.is_some() && offered.os_version != wanted.os_version {
        return None;
    }
    let offered = offered
        .variant
        .as_deref()
        .filter(|variant| !variant.is_empty());
    runnable_variants(wanted)
        .iter()
        .position(|runnable| *runnable == offered)
}

/// The variants that a CPU runs, best first; `None` stands for an entry
/// without variant.
fn runnable_variants(wanted: &Platform) -> Vec<Option<&str>> {
    let variant = wanted
        .variant
        .as_deref()
        .filter(|variant| !variant.is_empty());
    let ladder: &[&str] = match wanted.architecture.as_str() {
        "arm" => &["v8", "v7", "v6", "v5"],
        // An arm64 without a variant is v8 by definition, an amd64 v1.
        "arm64" => &["v8"],
        "amd64" => &["v4", "v3", "v2", "v1"],
        _ => &[],
    };
    match (wanted.architecture.as_str(), variant) {
        ("arm64", None | Some("v8")) => vec![Some("v8"), None],
        ("arm64", Some(other)) => vec![Some(other), Some("v8"), None],
        ("amd64", None | Some("v1")) => vec![None, Some("v1")],
        (_, None) => std::iter::once(None)
            .chain(ladder.iter().copied().map(Some))
            .collect(),
        (_, Some(variant)) => match ladder.iter().position(|step| *step == variant) {
            Some(step) => ladder[step..]
                .iter()
                .copied()
                .map(Some)
                .chain([None])
                .collect(),
            None => vec![Some(variant), None],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_oci::{Digest, MediaType};

    fn entry(number: u8, platform: &str) -> Descriptor {
        let mut descriptor =
            Descriptor::new(MediaType::OciManifest, Digest::sha256([number; 32]), 1);
        descriptor.platform = (!platform.is_empty()).then(|| Platform::parse(platform).unwrap());
        descriptor
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms
            .iter()
            .enumerate()
            .map(|(n, p)| entry(u8::try_from(n).unwrap(), p))
            .collect();
        Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests,
            subject: None,
            annotations: Default::default(),
        }
    }

    #[test]
    fn table_of_choices() {
        let cases: &[(&[&str], &str, Option<usize>)] = &[
            (&["linux/arm64", "linux/amd64"], "linux/amd64", Some(1)),
            (&["linux/amd64", "linux/amd64"], "linux/amd64", Some(0)),
            (&["", "linux/amd64"], "linux/amd64", Some(1)),
            (&["windows/amd64", "linux/386"], "linux/amd64", None),
            (
                &["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"],
                "linux/arm/v7",
                Some(1),
            ),
            (
                &["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"],
                "linux/arm/v6",
                Some(2),
            ),
            (&["linux/arm/v7"], "linux/arm/v6", None),
            (&["linux/arm/v6"], "linux/arm/v7", Some(0)),
            (&["linux/arm"], "linux/arm/v7", Some(0)),
            (&["linux/arm/v7", "linux/arm"], "linux/arm", Some(1)),
            (&["linux/arm64"], "linux/arm64/v8", Some(0)),
            (&["linux/arm64", "linux/arm64/v8"], "linux/arm64", Some(1)),
            (&["linux/amd64/v3", "linux/amd64"], "linux/amd64", Some(1)),
            (
                &["linux/amd64/v3", "linux/amd64"],
                "linux/amd64/v3",
                Some(0),
            ),
            (
                &["linux/amd64/v4", "linux/amd64"],
                "linux/amd64/v3",
                Some(1),
            ),
            (&["linux/amd64/v2"], "linux/amd64", None),
            (&["linux/riscv64"], "linux/riscv64", Some(0)),
            (&[], "linux/amd64", None),
        ];
        for (platforms, wanted, expected) in cases {
            let index = index(platforms);
            let choice = choose_platform(&index, &Platform::parse(wanted).unwrap());
            assert_eq!(
                choice.as_ref().ok().map(|c| c.position),
                *expected,
                "{wanted} from {platforms:?}: {choice:?}"
            );
        }
    }

    #[test]
    fn zstd_twin_wins_over_an_equal_entry_only() {
        let mut index = index(&["linux/amd64", "linux/amd64", "linux/arm64"]);
        for position in [1, 2] {
            index.manifests[position]
                .annotations
                .insert(ZSTD_ANNOTATION.into(), "true".into());
        }
        let choice = choose_platform(&index, &Platform::new("linux", "amd64")).unwrap();
        assert_eq!(choice.position, 1);
        assert_eq!(
            choice.reason,
            "entry 1 is for linux/amd64, with zstd layers"
        );
    }

    #[test]
    fn reason_says_that_a_variant_was_stepped_down() {
        let index = index(&["linux/arm/v6"]);
        let choice = choose_platform(&index, &Platform::parse("linux/arm/v7").unwrap()).unwrap();
        assert_eq!(
            choice.reason,
            "entry 0 is for linux/arm/v6, which linux/arm/v7 runs too"
        );
    }

    #[test]
    fn error_lists_what_there_is() {
        let error = choose_platform(&index(&["linux/arm64"]), &Platform::new("linux", "amd64"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no image for platform linux/amd64 in the index, which has linux/arm64"
        );
    }
}
