// SPDX-License-Identifier: Apache-2.0
//! What this host remembers of earlier admissions.
//!
//! ```text
//! RUNROOT/verdicts/<64 hex>   an admission that is still in force; goes with the next boot   verdicts
//! ROOT/trust/<64 hex>         what was last admitted under a name; stays                      history
//! ```
//!
//! What stands here decides what runs, so whoever can write here does. Directories and files must belong to the user
//! who runs the command and be closed to everybody else. Anything else is not relied on: a verdict is then as if it
//! were not there, and a history as if nobody knew it, which admits nothing that a rule wants it for.

mod history;
mod private;
mod verdicts;

use gantry_trust::admit::{QuestionKey, Remembered};
use gantry_trust::extra::{Last, Record};
use gantry_trust::{Advance, Memory, Subject};

use crate::context::Context;

use history::History;
use verdicts::Verdicts;

/// The memory of one store and one run root.
#[derive(Debug)]
pub struct HostMemory {
    verdicts: Verdicts,
    history: History,
    planning: bool,
}

impl HostMemory {
    /// The memory of this call's places. Nothing is made before the first is kept.
    pub fn new(context: &Context) -> Self {
        Self {
            verdicts: Verdicts::new(&context.runroot),
            history: History::new(&context.root),
            planning: false,
        }
    }

    /// The same for what is only planned: no name moves on.
    pub fn planning(self) -> Self {
        Self {
            planning: true,
            ..self
        }
    }
}

impl Memory for HostMemory {
    fn recall(&self, key: &QuestionKey) -> Option<Remembered> {
        self.verdicts.recall(key)
    }

    fn remember(&self, key: &QuestionKey, admission: &Remembered) {
        self.verdicts.remember(key, admission);
    }

    fn last(&self, subject: &Subject) -> Last {
        self.history.last(subject).unwrap_or_else(|error| {
            tracing::warn!("read what was last admitted: {error}");
            Last::Unknown
        })
    }

    fn advance(&self, subject: &Subject, last: &Last, next: &Record) -> Advance {
        if self.planning {
            return Advance::Done;
        }
        let moved = self.history.advance(subject, last, next);
        moved.unwrap_or_else(|error| {
            tracing::warn!("keep what was admitted: {error}");
            Advance::Failed
        })
    }
}
