// SPDX-License-Identifier: Apache-2.0
//! Keeping a container's name on its container while it is started by name.
//!
//! Between our answer and the start the daemon looks the name up again. A
//! rename in between would have another container started than the one that
//! was judged. So a start by name and a call that may free or take names wait
//! for each other; dockerd tells when a call is over by asking about its
//! response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// What a call does with names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Looks one up.
    Starts,
    /// May change what one means.
    Changes,
}

/// How long a call counts as running whose end nobody tells: the daemon looks names up first of all.
const LONGEST: Duration = Duration::from_secs(30);
/// How often whoever waits looks for such calls.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Turn {
    Starts {
        /// Ends the turn when dropped.
        _guard: OwnedRwLockReadGuard<()>,
    },
    Changes {
        /// Ends the turn when dropped.
        _guard: OwnedRwLockWriteGuard<()>,
    },
}

#[derive(Debug)]
struct Running {
    /// Method and target, by which the end is recognised.
    call: String,
    since: Instant,
    _turn: Turn,
}

/// The calls that are running in the daemon. Who came first has the first turn.
#[derive(Debug, Default)]
pub struct Names {
    turns: Arc<RwLock<()>>,
    running: Mutex<Vec<Running>>,
}

impl Names {
    /// Waits until no call of the other kind is running, then counts this one as running.
    ///
    /// Cancelled, it has changed nothing.
    pub async fn begin(&self, usage: Use, call: &str) {
        let turn = async {
            let turns = Arc::clone(&self.turns);
            match usage {
                Use::Starts => Turn::Starts {
                    _guard: turns.read_owned().await,
                },
                Use::Changes => Turn::Changes {
                    _guard: turns.write_owned().await,
                },
            }
        };
        let mut turn = std::pin::pin!(turn);
        let turn = loop {
            match tokio::time::timeout(LOOK, turn.as_mut()).await {
                Ok(turn) => break turn,
                Err(_) => self
                    .running
                    .lock()
                    .await
                    .retain(|call| call.since.elapsed() < LONGEST),
            }
        };
        self.running.lock().await.push(Running {
            call: call.to_owned(),
            since: Instant::now(),
            _turn: turn,
        });
    }

    /// Counts one such call as over.
    pub async fn end(&self, call: &str) {
        let mut running = self.running.lock().await;
        if let Some(position) = running.iter().position(|running| running.call == call) {
            running.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begins_at_once(names: &Names, usage: Use, call: &str) -> bool {
        let short = Duration::from_millis(50);
        tokio::time::timeout(short, names.begin(usage, call))
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn starts_and_changes_exclude_each_other() {
        let names = Names::default();
        assert!(begins_at_once(&names, Use::Starts, "start a").await);
        assert!(begins_at_once(&names, Use::Starts, "start b").await);
        assert!(!begins_at_once(&names, Use::Changes, "rename").await);
        names.end("start a").await;
        assert!(!begins_at_once(&names, Use::Changes, "rename").await);
        names.end("start b").await;
        assert!(begins_at_once(&names, Use::Changes, "rename").await);
        assert!(!begins_at_once(&names, Use::Starts, "start a").await);
        names.end("something else").await;
        assert!(!begins_at_once(&names, Use::Starts, "start a").await);
        names.end("rename").await;
        assert!(begins_at_once(&names, Use::Starts, "start a").await);
    }

    #[tokio::test]
    async fn an_end_wakes_who_waits() {
        let names = Names::default();
        names.begin(Use::Starts, "start").await;
        let waiting = async {
            let begun = Instant::now();
            names.begin(Use::Changes, "rename").await;
            begun.elapsed()
        };
        let ending = async {
            tokio::task::yield_now().await;
            names.end("start").await;
        };
        let (waited, ()) = tokio::join!(waiting, ending);
        assert!(waited < Duration::from_millis(900), "{waited:?}");
    }
}
