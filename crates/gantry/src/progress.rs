// SPDX-License-Identifier: Apache-2.0
//! Progress, on standard error: bars, lines of JSON, or nothing.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_oci::Digest;
use gantry_transport::copy::{Event, ProgressSink, Silent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::args::ProgressMode;
use crate::output::{escape_controls, escape_json};

/// What hears the events of a copy.
#[must_use]
pub fn sink(mode: ProgressMode, quiet: bool) -> Arc<dyn ProgressSink> {
    match mode {
        ProgressMode::None => Arc::new(Silent),
        ProgressMode::Json => Arc::new(JsonLines),
        ProgressMode::Bar => Arc::new(Bars::default()),
        ProgressMode::Auto if !quiet && std::io::stderr().is_terminal() => {
            Arc::new(Bars::default())
        }
        ProgressMode::Auto => Arc::new(Silent),
    }
}

struct JsonLines;

impl ProgressSink for JsonLines {
    fn event(&self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            say_json(&line);
        }
    }
}

fn say_json(line: &str) {
    // Nothing is left to do when standard error is gone.
    drop(writeln!(std::io::stderr().lock(), "{}", escape_json(line)));
}

/// Progress of something that is counted: a bar, lines of JSON, or nothing.
#[derive(Debug)]
pub struct Counter {
    show: Show,
    /// The last hundredth that was told.
    told: AtomicU64,
}

#[derive(Debug)]
enum Show {
    Bar(ProgressBar),
    Json(&'static str),
    Nothing,
}

impl Counter {
    /// A counter of `what`.
    #[must_use]
    pub fn new(mode: ProgressMode, what: &'static str) -> Self {
        let bar = || {
            let bar = ProgressBar::new(0);
            bar.set_style(style("{msg} [{bar:32}] {human_pos} of {human_len}"));
            bar.set_message(what);
            Show::Bar(bar)
        };
        Self {
            show: match mode {
                ProgressMode::Json => Show::Json(what),
                ProgressMode::Bar => bar(),
                ProgressMode::Auto if std::io::stderr().is_terminal() => bar(),
                ProgressMode::Auto | ProgressMode::None => Show::Nothing,
            },
            told: AtomicU64::new(0),
        }
    }

    /// So many of so many are done. May be called from several threads.
    pub fn at(&self, done: u64, all: u64) {
        match &self.show {
            Show::Bar(bar) => {
                bar.set_length(all);
                bar.set_position(done);
            }
            Show::Json(what) => {
                let hundredth = done.saturating_mul(100).checked_div(all).unwrap_or(100);
                if self.told.fetch_max(hundredth, Ordering::Relaxed) < hundredth {
                    let what = what.replace(' ', "-");
                    let event = serde_json::json!({"event": what, "done": done, "all": all});
                    say_json(&event.to_string());
                }
            }
            Show::Nothing => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
    }
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<HashMap<Digest, ProgressBar>>,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Bars {
    fn bar(&self, digest: &Digest, size_bytes: u64) -> ProgressBar {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = layers.entry(*digest).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(size_bytes));
            bar.set_style(style(
                "{prefix:12} [{bar:32}] {bytes:>10} of {total_bytes:10} {msg}",
            ));
            bar.set_prefix(digest.short());
            bar
        });
        bar.clone()
    }

    fn known(&self, digest: &Digest) -> Option<ProgressBar> {
        self.layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned()
    }

    fn say(&self, text: &str) {
        // A line that cannot be written is not worth failing for.
        drop(self.all.println(escape_controls(text)));
    }
}

impl ProgressSink for Bars {
    fn event(&self, event: &Event) {
        match event {
            Event::Chosen { reason, .. } => self.say(reason),
            Event::LayerHeld { digest, size_bytes } => {
                let bar = self.bar(digest, *size_bytes);
                bar.set_style(style("{prefix:12} {msg}"));
                bar.finish_with_message("is there already");
            }
            Event::LayerStarted { digest, size_bytes } => self.bar(digest, *size_bytes).reset(),
            Event::LayerBytes { digest, count } => {
                if let Some(bar) = self.known(digest) {
                    bar.inc(*count);
                }
            }
            Event::LayerFinished { digest } => {
                if let Some(bar) = self.known(digest) {
                    bar.finish_with_message("done");
                }
            }
            Event::Retrying {
                digest,
                attempt,
                error,
                ..
            } => {
                if let Some(bar) = digest.as_ref().and_then(|digest| self.known(digest)) {
                    bar.reset();
                }
                self.say(&format!("try again ({attempt}): {error}"));
            }
            _ => {}
        }
    }
}
