// SPDX-License-Identifier: Apache-2.0
//! From decisions to instructions.
//!
//! Each machine is a search tree over ranges of call numbers, in whose leaves lie answers or comparisons. Classic BPF
//! only jumps forward, so the program is written from its end: where an instruction goes is there already.

use std::collections::HashMap;

use gantry_sys::seccomp::Instruction;
use oci_spec::runtime::LinuxSeccompOperator;

use super::machine::Machine;
use super::rules::{Case, Decision, MachineRules, Rules, Test};
use super::{ENOSYS, ERRNO, KILL_THREAD};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Where `struct seccomp_data` has the number, the machine and the arguments.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// An instruction, by its distance from the program's last.
type Label = usize;

/// Makes the program of a filter.
pub(super) fn program(rules: &Rules) -> Vec<Instruction> {
    let mut assembler = Assembler::default();
    let mut next = assembler.answer(KILL_THREAD);
    let mut audits: Vec<u32> = Vec::new();
    for machine in &rules.machines {
        if !audits.contains(&machine.machine.audit()) {
            audits.push(machine.machine.audit());
        }
    }
    // The native machine is tested first, so it comes last.
    for audit in audits.iter().rev() {
        let tree = assembler.machine(rules, *audit);
        let entry = assembler.load(NUMBER, tree);
        next = assembler.branch(IF_EQUAL, *audit, entry, next);
    }
    assembler.load(MACHINE, next);
    assembler.code.reverse();
    assembler.code
}

/// What a range of numbers leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Answer(u32),
    Code(Label),
}

#[derive(Default)]
struct Assembler {
    /// The last instruction first.
    code: Vec<Instruction>,
    /// Where each answer was last written.
    answers: HashMap<u32, Label>,
}

impl Assembler {
    fn push(&mut self, code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Label {
        self.code.push(Instruction {
            code,
            jump_true,
            jump_false,
            operand,
        });
        self.code.len() - 1
    }

    /// How many instructions lie between the next one that is written and `label`, if a branch can say it.
    fn reach(&self, label: Label) -> Option<u8> {
        u8::try_from(self.code.len() - 1 - label).ok()
    }

    /// Returns `action`; one instruction serves as long as it is near.
    fn answer(&mut self, action: u32) -> Label {
        // A branch and its other leg still have to fit in between.
        const NEAR: usize = 200;
        match self.answers.get(&action) {
            Some(label) if self.code.len() - label < NEAR => *label,
            _ => {
                let label = self.push(RETURN, action, 0, 0);
                self.answers.insert(action, label);
                label
            }
        }
    }

    /// An instruction that leads to `label` and is the last written: itself if it is that one.
    fn bring(&mut self, label: Label) -> Label {
        let Instruction { code, operand, .. } = self.code[label];
        if code == RETURN {
            self.push(RETURN, operand, 0, 0)
        } else {
            let distance = self.code.len() - 1 - label;
            let distance = u32::try_from(distance).expect("programs are short");
            self.push(JUMP, distance, 0, 0)
        }
    }

    /// An instruction after which `next` comes.
    fn before(&mut self, code: u16, operand: u32, next: Label) -> Label {
        if next != self.code.len() - 1 {
            self.bring(next);
        }
        self.push(code, operand, 0, 0)
    }

    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.before(LOAD, offset, next)
    }

    fn branch(&mut self, code: u16, operand: u32, mut yes: Label, mut no: Label) -> Label {
        loop {
            match (self.reach(yes), self.reach(no)) {
                (Some(jump_true), Some(jump_false)) => {
                    return self.push(code, operand, jump_true, jump_false);
                }
                (None, _) => yes = self.bring(yes),
                (_, None) => no = self.bring(no),
            }
        }
    }

    /// The tree of all numbers that come with `audit`.
    fn machine(&mut self, rules: &Rules, audit: u32) -> Label {
        let mut ranges = Ranges::default();
        let kin: Vec<Machine> = Machine::ALL
            .into_iter()
            .filter(|machine| machine.audit() == audit)
            .collect();
        for machine in kin {
            let listed = rules.machines.iter().find(|m| m.machine == machine);
            match listed {
                Some(listed) => self.numbers(rules, listed, &mut ranges),
                None => ranges.from(machine.span().0, Leaf::Answer(KILL_THREAD)),
            }
        }
        ranges.from(u32::MAX, Leaf::Answer(rules.default));
        self.tree(&ranges.0)
    }

    fn numbers(&mut self, rules: &Rules, listed: &MachineRules, ranges: &mut Ranges) {
        let default = Leaf::Answer(rules.default);
        let (start, end) = listed.machine.span();
        ranges.from(start, default);
        for (number, decision) in &listed.decisions {
            let leaf = match decision {
                Decision::Always(action) => Leaf::Answer(*action),
                Decision::Cases(cases) => {
                    Leaf::Code(self.cases(cases, listed.machine, rules.default))
                }
            };
            ranges.from(*number, leaf);
            ranges.from(*number + 1, default);
        }
        if let Some(newest) = listed.newest
            && newest < end
        {
            ranges.from(newest + 1, Leaf::Answer(ERRNO | ENOSYS));
        }
    }

    fn tree(&mut self, ranges: &[(u32, Leaf)]) -> Label {
        if let [(_, leaf)] = ranges {
            return match leaf {
                Leaf::Answer(action) => self.answer(*action),
                Leaf::Code(label) => *label,
            };
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let yes = self.tree(high);
        let no = self.tree(low);
        self.branch(IF_AT_LEAST, high[0].0, yes, no)
    }

    fn cases(&mut self, cases: &[Case], machine: Machine, default: u32) -> Label {
        let mut otherwise = self.answer(default);
        for case in cases.iter().rev() {
            let mut matched = self.answer(case.action);
            for test in case.tests.iter().rev() {
                matched = self.test(test, machine, matched, otherwise);
            }
            otherwise = matched;
        }
        otherwise
    }

    fn test(&mut self, test: &Test, machine: Machine, yes: Label, no: Label) -> Label {
        use LinuxSeccompOperator as Op;
        match test.operator {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => self.equal(test, machine, yes, no),
            Op::ScmpCmpNe => self.equal(test, machine, no, yes),
            Op::ScmpCmpGt => self.above(IF_GREATER, test, machine, yes, no),
            Op::ScmpCmpLe => self.above(IF_GREATER, test, machine, no, yes),
            Op::ScmpCmpGe => self.above(IF_AT_LEAST, test, machine, yes, no),
            Op::ScmpCmpLt => self.above(IF_AT_LEAST, test, machine, no, yes),
        }
    }

    fn equal(&mut self, test: &Test, machine: Machine, yes: Label, no: Label) -> Label {
        let halves = Halves::of(test, machine);
        let mut next = yes;
        for half in [Some(halves.low), halves.high].into_iter().flatten() {
            if half.mask == 0 {
                continue;
            }
            next = self.branch(IF_EQUAL, half.value, next, no);
            if half.mask != u32::MAX {
                next = self.before(AND, half.mask, next);
            }
            next = self.load(half.offset, next);
        }
        next
    }

    /// The upper half decides unless it is equal; then the lower does, by `code`.
    fn above(&mut self, code: u16, test: &Test, machine: Machine, yes: Label, no: Label) -> Label {
        let Halves { low, high } = Halves::of(test, machine);
        let next = self.branch(code, low.value, yes, no);
        let next = self.load(low.offset, next);
        let Some(high) = high else { return next };
        let next = self.branch(IF_EQUAL, high.value, next, no);
        let next = self.branch(IF_GREATER, high.value, yes, next);
        self.load(high.offset, next)
    }
}

/// Half of an argument.
struct Half {
    offset: u32,
    mask: u32,
    value: u32,
}

struct Halves {
    low: Half,
    high: Option<Half>,
}

impl Halves {
    #[expect(clippy::cast_possible_truncation, reason = "that is what halves are")]
    fn of(test: &Test, machine: Machine) -> Self {
        let offset = ARGUMENTS + 8 * test.argument;
        let (low, high) = if machine.is_big_endian() {
            (offset + 4, offset)
        } else {
            (offset, offset + 4)
        };
        Self {
            low: Half {
                offset: low,
                mask: test.mask as u32,
                value: test.value as u32,
            },
            high: machine.has_wide_arguments().then_some(Half {
                offset: high,
                mask: (test.mask >> 32) as u32,
                value: (test.value >> 32) as u32,
            }),
        }
    }
}

/// Ranges by their first number, each up to the next; equal neighbours are one.
#[derive(Default)]
struct Ranges(Vec<(u32, Leaf)>);

impl Ranges {
    /// Numbers from `start` on lead to `leaf`.
    fn from(&mut self, start: u32, leaf: Leaf) {
        while self.0.last().is_some_and(|(last, _)| *last >= start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != leaf) {
            self.0.push((start, leaf));
        }
    }
}
