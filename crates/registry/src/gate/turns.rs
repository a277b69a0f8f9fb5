// SPDX-License-Identifier: Apache-2.0
//! One at a time for each key, and no waiting for others' keys.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The keys that are taken.
#[derive(Debug)]
pub struct Turns<K> {
    taken: Mutex<HashSet<K>>,
    given_back: Condvar,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self {
            taken: Mutex::new(HashSet::new()),
            given_back: Condvar::new(),
        }
    }
}

/// A key that is taken, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a, K: Eq + Hash> {
    turns: &'a Turns<K>,
    key: K,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Takes a key, waiting for who has it.
    pub fn take(&self, key: K) -> Turn<'_, K> {
        let mut taken = self.lock();
        while !taken.insert(key.clone()) {
            let waited = self.given_back.wait(taken);
            taken = waited.unwrap_or_else(PoisonError::into_inner);
        }
        drop(taken);
        Turn { turns: self, key }
    }
}

impl<K> Turns<K> {
    fn lock(&self) -> MutexGuard<'_, HashSet<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.key);
        self.turns.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_key_has_one_holder() {
        let turns = Turns::default();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let _other = turns.take(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _turn = turns.take(1);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }
}
