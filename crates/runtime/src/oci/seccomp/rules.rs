// SPDX-License-Identifier: Apache-2.0
//! From names and comparisons to numbers and decisions, machine by machine.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::machine::{ARM_PRIVATE, MULTIPLEXED, Machine, X32_BIT};
use super::table::{CALLS, NO};
use super::{CompileError, ENOSYS, action_code};

/// A filter with nothing left to look up.
#[derive(Debug)]
pub(super) struct Rules {
    /// What happens to calls that no rule decides.
    pub(super) default: u32,
    /// The machines that are listed, each once, the native one first.
    pub(super) machines: Vec<MachineRules>,
    /// True when some rule refers to an agent.
    pub(super) notifies: bool,
    /// Names that no machine of this host has.
    pub(super) skipped: Vec<String>,
}

/// What happens to the calls of one machine.
#[derive(Debug)]
pub(super) struct MachineRules {
    pub(super) machine: Machine,
    /// By number, with the bit of x32.
    pub(super) decisions: BTreeMap<u32, Decision>,
    /// Numbers above this one are calls that the filter's author did not know.
    pub(super) newest: Option<u32>,
}

/// What happens to one call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Always the same.
    Always(u32),
    /// The first case whose tests all hold decides.
    Cases(Vec<Case>),
}

/// An action under conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) tests: Vec<Test>,
    pub(super) action: u32,
}

/// One comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) argument: u32,
    pub(super) operator: LinuxSeccompOperator,
    /// Which bits count; all of them but for a masked comparison.
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// The call with which the listener's number leaves the process that installs the filter.
const HAND_OVER_CALL: &str = "write";

/// Resolves a document's filter.
pub(super) fn resolve(seccomp: &LinuxSeccomp, native: Machine) -> Result<Rules, CompileError> {
    if seccomp.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(CompileError::NotifyByDefault);
    }
    let default = action_code(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut rules = Rules {
        default,
        machines: machines(seccomp, native),
        notifies: false,
        skipped: Vec::new(),
    };
    let guards_new_calls = guards_new_calls(seccomp);
    for rule in seccomp.syscalls().iter().flatten() {
        let action = action_code(rule.action(), rule.errno_ret())?;
        let cases = cases(rule, action)?;
        for name in rule.names() {
            let known = lookup(name);
            if known.is_none_or(|known| !rules.machines.iter().any(|m| known.exists(m.machine))) {
                if !rules.skipped.contains(name) {
                    rules.skipped.push(name.clone());
                }
                continue;
            }
            let Some(known) = known else { continue };
            if rule.action() == LinuxSeccompAction::ScmpActNotify {
                if name == HAND_OVER_CALL {
                    return Err(CompileError::NotifyOnHandOver { name: name.clone() });
                }
                rules.notifies = true;
            }
            for machine in &mut rules.machines {
                if guards_new_calls && let Some(number) = known.number(machine.machine) {
                    machine.newest = machine.newest.max(Some(number));
                }
                if action != default {
                    machine.add(known, &cases, action, default);
                }
            }
        }
    }
    Ok(rules)
}

fn machines(seccomp: &LinuxSeccomp, native: Machine) -> Vec<MachineRules> {
    let mut machines = vec![native];
    let listed = seccomp.architectures().iter().flatten();
    for machine in listed.filter_map(|arch| Machine::of_arch(*arch, native)) {
        if native.receives(machine) && !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    let empty = |machine| MachineRules {
        machine,
        decisions: BTreeMap::new(),
        newest: None,
    };
    machines.into_iter().map(empty).collect()
}

/// True when calls newer than the filter must be told that they do not exist.
fn guards_new_calls(seccomp: &LinuxSeccomp) -> bool {
    let passes = matches!(
        seccomp.default_action(),
        LinuxSeccompAction::ScmpActAllow
            | LinuxSeccompAction::ScmpActLog
            | LinuxSeccompAction::ScmpActTrace
    );
    !passes && seccomp.default_errno_ret() != Some(ENOSYS)
}

/// A name that some table has.
#[derive(Debug, Clone, Copy)]
struct Known {
    numbers: Option<&'static [u16; 8]>,
    arm_private: Option<u32>,
    multiplexed: Option<(&'static str, u32)>,
}

fn lookup(name: &str) -> Option<Known> {
    let find = |name: &str| {
        CALLS
            .binary_search_by(|(row, _)| (*row).cmp(name))
            .ok()
            .map(|index| &CALLS[index].1)
    };
    let known = Known {
        numbers: find(name),
        arm_private: ARM_PRIVATE
            .iter()
            .find(|(row, _)| *row == name)
            .map(|(_, number)| *number),
        multiplexed: MULTIPLEXED
            .binary_search_by(|(row, ..)| (*row).cmp(name))
            .ok()
            .map(|index| (MULTIPLEXED[index].1, MULTIPLEXED[index].2)),
    };
    (known.numbers.is_some() || known.arm_private.is_some() || known.multiplexed.is_some())
        .then_some(known)
}

impl Known {
    fn number(&self, machine: Machine) -> Option<u32> {
        let listed = self
            .numbers
            .map(|numbers| numbers[machine.column()])
            .filter(|number| *number != NO)
            .map(u32::from);
        match machine {
            Machine::X32 => listed.map(|number| number | X32_BIT),
            Machine::Arm => listed.or(self.arm_private),
            _ => listed,
        }
    }

    fn exists(&self, machine: Machine) -> bool {
        self.number(machine).is_some() || (machine.multiplexes() && self.multiplexed.is_some())
    }
}

impl MachineRules {
    fn add(&mut self, known: Known, cases: &[Case], action: u32, default: u32) {
        if let Some(number) = known.number(self.machine) {
            self.decide(number, cases, action);
        }
        if !self.machine.multiplexes() {
            return;
        }
        let Some((through, selector)) = known.multiplexed else {
            return;
        };
        let stricter = is_stricter(action, default);
        if !cases.is_empty() && !stricter {
            // Its comparisons are of arguments that lie in memory here.
            return;
        }
        let selected = Test {
            argument: 0,
            operator: LinuxSeccompOperator::ScmpCmpMaskedEq,
            // `ipc` takes a version in the upper bits, behind which nobody shall hide.
            mask: if stricter {
                0xffff
            } else {
                u64::from(u32::MAX)
            },
            value: u64::from(selector),
        };
        let case = Case {
            tests: vec![selected],
            action,
        };
        if let Some(number) = lookup(through).and_then(|known| known.number(self.machine)) {
            self.decide(number, &[case], action);
        }
    }

    /// No cases: always `action`.
    fn decide(&mut self, number: u32, cases: &[Case], action: u32) {
        let decision = self
            .decisions
            .entry(number)
            .or_insert_with(|| Decision::Cases(Vec::new()));
        match decision {
            Decision::Always(_) => {}
            Decision::Cases(_) if cases.is_empty() => *decision = Decision::Always(action),
            Decision::Cases(have) => have.extend_from_slice(cases),
        }
    }
}

/// True when the kernel would let `action` prevail over `other`: the order of the codes as signed numbers.
fn is_stricter(action: u32, other: u32) -> bool {
    let rank = |action: u32| (action & 0xffff_0000) ^ 0x8000_0000;
    rank(action) < rank(other)
}

/// The cases of a rule; none when it has no comparisons.
fn cases(rule: &LinuxSyscall, action: u32) -> Result<Vec<Case>, CompileError> {
    let arguments = rule.args().as_deref().unwrap_or_default();
    let tests = arguments
        .iter()
        .map(|argument| test(rule, argument))
        .collect::<Result<Vec<_>, _>>()?;
    let repeats = tests
        .iter()
        .enumerate()
        .any(|(index, test)| tests[..index].iter().any(|t| t.argument == test.argument));
    let case = |tests| Case { tests, action };
    Ok(match (tests.is_empty(), repeats) {
        (true, _) => Vec::new(),
        (false, false) => vec![case(tests)],
        (false, true) => tests.into_iter().map(|test| case(vec![test])).collect(),
    })
}

fn test(rule: &LinuxSyscall, argument: &LinuxSeccompArg) -> Result<Test, CompileError> {
    let index = argument.index();
    let number = u32::try_from(index).ok().filter(|number| *number < 6);
    let Some(number) = number else {
        return Err(CompileError::Argument {
            name: rule.names().first().cloned().unwrap_or_default(),
            index,
        });
    };
    let (mask, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let mask = argument.value();
            (mask, argument.value_two().unwrap_or_default() & mask)
        }
        _ => (u64::MAX, argument.value()),
    };
    Ok(Test {
        argument: number,
        operator: argument.op(),
        mask,
        value,
    })
}
