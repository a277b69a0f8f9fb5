// SPDX-License-Identifier: Apache-2.0
//! Rules against stepping back: what was admitted last under a name, and what may follow it.

use std::time::SystemTime;

use gantry_oci::ManifestDigest;
use serde::Serialize;

use super::{Circumstances, ConditionVerdict, Rule};
use crate::evaluate::{Counted, Question};
use crate::refusal::{Reason, Refusal};
use crate::scope::Subject;

/// An admission to remember, so that older images are refused later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Record {
    /// What the name led to: the manifest, or the index that it was chosen from.
    pub manifest_digest: ManifestDigest,
    /// When the newest signature that counted was made.
    #[serde(serialize_with = "crate::evaluate::unix_s")]
    pub made: Option<SystemTime>,
}

/// What was last admitted under a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Last {
    /// Nobody says; rules against stepping back are not met then.
    #[default]
    Unknown,
    /// Nothing yet.
    Nothing,
    /// This.
    Image(Record),
}

impl Last {
    /// Whether it is this image, so that there is no step.
    fn is(&self, question: &Question<'_>) -> bool {
        let Self::Image(last) = self else {
            return false;
        };
        let index = question.chosen_from.map(|index| index.digest());
        last.manifest_digest == *question.manifest.digest() || index == Some(&last.manifest_digest)
    }

    /// What decides about a question: the same for the first image of a name and for the last one again.
    pub(crate) fn key(&self, question: &Question<'_>) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Image(_) if self.is(question) => None,
            other => Some(format!("{other:?}")),
        }
    }

    /// What is to stand in its place after `admitted` was admitted; none if that is nothing new.
    pub(crate) fn followed_by(&self, admitted: &Record, question: &Question<'_>) -> Option<Record> {
        let Self::Image(last) = self else {
            return Some(*admitted);
        };
        let next = Record {
            // A manifest stays one: other images of an index that lists it were not compared with it.
            manifest_digest: if last.manifest_digest == *question.manifest.digest() {
                last.manifest_digest
            } else {
                admitted.manifest_digest
            },
            // A signature that is gone does not make the past longer.
            made: admitted.made.max(last.made),
        };
        (next != *last).then_some(next)
    }
}

impl Question<'_> {
    /// The same question after something else was admitted.
    pub(crate) fn after(&self, last: Last) -> Self {
        Self {
            circumstances: Circumstances {
                last,
                ..self.circumstances
            },
            ..*self
        }
    }
}

impl Subject {
    /// Whether what it names may be replaced by something else: a tag, a path. A digest cannot, and what has no name
    /// has none to step back under.
    pub(crate) fn can_step(&self) -> bool {
        match self.reference() {
            Some(reference) => reference.digest.is_none(),
            None => self.candidates().any(|candidate| !candidate.is_empty()),
        }
    }
}

impl Rule {
    /// Whoever asks by digest gets what was asked for; a tag must not go back in time.
    pub(super) fn judge_step(
        &self,
        question: &Question<'_>,
        counted: &[&Counted],
    ) -> Option<ConditionVerdict> {
        if !self.monotonic || !question.subject.can_step() {
            return None;
        }
        let newest = counted.iter().filter_map(|counted| counted.made).max();
        let last = question.circumstances.last;
        let outcome = match (newest, last) {
            (None, _) => Err("no signature counts that says when it was made"),
            (_, Last::Unknown) => Err("what was admitted before under this name is not known"),
            (_, Last::Nothing) => Ok(()),
            (_, Last::Image(_)) if last.is(question) => Ok(()),
            (newest, Last::Image(last)) if last.made <= newest => Ok(()),
            _ => Err("signed before the image that was last admitted under this name"),
        };
        let outcome = outcome.map_err(|message| Refusal::new(Reason::Expired, message));
        Some(self.condition("monotonic", outcome))
    }
}
