// SPDX-License-Identifier: Apache-2.0
//! Changes of real inputs through every target: nothing panics.
//!
//! `GANTRY_FUZZ_RUNS` sets how many for each target (1000), `GANTRY_FUZZ_SEED` which.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use gantry_fuzz::{TARGETS, seeds};
use gantry_testkit::dice::Dice;
use gantry_testkit::skip;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// A few changes: bytes, spans that are doubled, lost or another's.
fn change(seed: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    const TELLING: &[u8] = b"\0\xff\x7f\x80{}[]\",:/@\n-\\u0";
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        let length = dice.roll(24).min(bytes.len() - at);
        match dice.roll(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            1 if at < bytes.len() => bytes[at] = TELLING[dice.roll(TELLING.len())],
            2 => bytes.insert(at, TELLING[dice.roll(TELLING.len())]),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let span = bytes[at..at + length].to_vec();
                drop(bytes.splice(at..at, span));
            }
            _ => {
                let from = dice.roll(other.len() + 1);
                let until = (from + 24).min(other.len());
                drop(bytes.splice(at..at + length, other[from..until].iter().copied()));
            }
        }
    }
    bytes
}

#[test]
fn no_change_of_a_real_input_breaks_a_reader() {
    let Some(seeds) = seeds().unwrap() else {
        skip!("gpg or openssl is not installed");
    };
    let runs = setting("GANTRY_FUZZ_RUNS", 1000);
    let mut dice = Dice(setting("GANTRY_FUZZ_SEED", 0x6761_6e74_7279) | 1);
    let mut wrong = Vec::new();
    for target in TARGETS {
        let inputs = &seeds[target.name];
        assert!(
            inputs.len() > 2,
            "{} has {} seeds",
            target.name,
            inputs.len()
        );
        let mut judge = |input: &[u8]| {
            if catch_unwind(AssertUnwindSafe(|| (target.body)(input))).is_err() {
                wrong.push(format!("{}: b\"{}\"", target.name, input.escape_ascii()));
            }
        };
        inputs.iter().for_each(|input| judge(input));
        for _ in 0..runs {
            let (one, other) = (dice.roll(inputs.len()), dice.roll(inputs.len()));
            judge(&change(&inputs[one], &inputs[other], &mut dice));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
