// SPDX-License-Identifier: Apache-2.0
//! Which devices a container may use: from the document's list to version 1's lists or a program for version 2.
//!
//! Each access (read, write, make the node) is decided by itself: by the last rule that names the device and the access,
//! and refused where there is none. After the document's rules come those for the devices that every container has. The
//! kernel's own lists mean the same except in one corner, which `version_1` refuses to paper over.
//!
//! # Source
//! runtime-spec "Allowed Device List"; `Documentation/admin-guide/cgroup-v1/devices.rst`, `cgroup-v2.rst` "Device controller".

use gantry_sys::bpf::Instruction;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use super::PlanError;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Granted or refused.
    pub allow: bool,
    /// Block, character, or both.
    pub kind: DeviceKind,
    /// The major number; none for all.
    pub major: Option<u32>,
    /// The minor number; none for all.
    pub minor: Option<u32>,
    /// The accesses: [`MKNOD`], [`READ`], [`WRITE`].
    pub access: u8,
}

/// Kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// To make the node; the kernel's number for it (`BPF_DEVCG_ACC_MKNOD`).
pub const MKNOD: u8 = 1;
/// To read.
pub const READ: u8 = 2;
/// To write.
pub const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// What every container may use: its standard devices, terminals, and making nodes that it may not use.
const EVERYBODYS: [(DeviceKind, Option<u32>, Option<u32>, u8); 11] = [
    (DeviceKind::Character, None, None, MKNOD),
    (DeviceKind::Block, None, None, MKNOD),
    (DeviceKind::Character, Some(1), Some(3), ALL), // null
    (DeviceKind::Character, Some(1), Some(5), ALL), // zero
    (DeviceKind::Character, Some(1), Some(7), ALL), // full
    (DeviceKind::Character, Some(1), Some(8), ALL), // random
    (DeviceKind::Character, Some(1), Some(9), ALL), // urandom
    (DeviceKind::Character, Some(5), Some(0), ALL), // tty
    (DeviceKind::Character, Some(5), Some(1), ALL), // console
    (DeviceKind::Character, Some(5), Some(2), ALL), // ptmx
    (DeviceKind::Character, Some(136), None, ALL),  // pts/*
];

impl DeviceRule {
    fn covers_everything(&self) -> bool {
        self.kind == DeviceKind::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == ALL
    }

    /// True when some device is named by both.
    fn meets(&self, other: &Self) -> bool {
        let number = |left: Option<u32>, right: Option<u32>| {
            left.is_none() || right.is_none() || left == right
        };
        let kind = self.kind == other.kind
            || self.kind == DeviceKind::All
            || other.kind == DeviceKind::All;
        kind && number(self.major, other.major)
            && number(self.minor, other.minor)
            && self.access & other.access != 0
    }

    fn same_device(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// As version 1's files take it: `c 1:3 rwm`.
    fn line(&self) -> String {
        let number = |number: Option<u32>| {
            number.map_or_else(|| "*".to_owned(), |number| number.to_string())
        };
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .into_iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, letter)| letter)
            .collect();
        format!(
            "{kind} {}:{} {access}",
            number(self.major),
            number(self.minor)
        )
    }
}

/// The rules of a document, with everybody's unless it begins with all devices; those that a later one makes moot are left out.
pub(super) fn rules(listed: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, PlanError> {
    let mut rules = listed.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    rules.retain(|rule| rule.access != 0);
    let everything = rules.iter().rposition(DeviceRule::covers_everything);
    rules.drain(..everything.unwrap_or(0));
    if rules
        .first()
        .is_some_and(|rule| rule.covers_everything() && rule.allow)
    {
        return Ok(rules);
    }
    rules.extend(EVERYBODYS.map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access,
    }));
    Ok(rules)
}

fn rule(listed: &LinuxDeviceCgroup) -> Result<DeviceRule, PlanError> {
    let refuse = |problem: &str| PlanError::Device {
        rule: format!("{listed:?}"),
        problem: problem.to_owned(),
    };
    let number = |number: Option<i64>| match number {
        // Runtimes take -1 for all.
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| refuse("a number is out of range")),
    };
    let access = match listed.access().as_deref() {
        None => ALL,
        Some(letters) => letters.chars().try_fold(0, |access, letter| {
            Ok(access
                | match letter {
                    'r' => READ,
                    'w' => WRITE,
                    'm' => MKNOD,
                    _ => return Err(refuse("access is of r, w and m")),
                })
        })?,
    };
    let kind = match listed.typ() {
        None | Some(LinuxDeviceType::A) => DeviceKind::All,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Character,
        Some(LinuxDeviceType::P) => return Err(refuse("a FIFO is no device")),
    };
    Ok(DeviceRule {
        allow: listed.allow(),
        kind,
        major: number(listed.major())?,
        minor: number(listed.minor())?,
        access,
    })
}

/// What to write to a version 1 group, in order: file and line.
///
/// # Errors
/// A refusal of part of what an earlier rule grants: the kernel would take it and not heed it.
pub(super) fn version_1(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>, PlanError> {
    let allows_by_default = rules
        .first()
        .is_some_and(|rule| rule.covers_everything() && rule.allow);
    let rest = match rules.split_first() {
        Some((first, rest)) if first.covers_everything() => rest,
        _ => rules,
    };
    let mut lines = Vec::new();
    if !allows_by_default {
        lines.push(("devices.deny", "a".to_owned()));
    }
    for (index, rule) in rest.iter().enumerate() {
        // What differs from the default is an exception, which only the same words take back.
        let partial = rest[..index].iter().find(|earlier| {
            earlier.allow != rule.allow && earlier.meets(rule) && !earlier.same_device(rule)
        });
        if rule.allow == allows_by_default
            && let Some(earlier) = partial
        {
            return Err(PlanError::Device {
                rule: rule.line(),
                problem: format!(
                    "version 1 of control groups cannot take back part of {:?}",
                    earlier.line()
                ),
            });
        }
        let file = if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        // "a" with numbers is everything to the kernel.
        for kind in kinds(rule.kind) {
            lines.push((file, DeviceRule { kind, ..*rule }.line()));
        }
    }
    Ok(lines)
}

fn kinds(kind: DeviceKind) -> impl Iterator<Item = DeviceKind> {
    let list = match kind {
        DeviceKind::All => [Some(DeviceKind::Block), Some(DeviceKind::Character)],
        other => [Some(other), None],
    };
    list.into_iter().flatten()
}

// The kernel hands over `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
const ANSWER: u8 = 0;

/// The program for a version 2 group: 1 to grant, 0 to refuse.
///
/// It goes through the rules from the last to the first; granted accesses are struck out of those wanted, and a rule that
/// refuses one of the rest ends it.
pub(super) fn version_2(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        load(KIND, 0),
        // The kind is in the lower half, the accesses in the upper.
        alu(0xb4 | 0x08, WANTED, KIND, 0), // mov32 wanted, kind
        alu(0x74, WANTED, 0, 16),          // rsh32 wanted, 16
        alu(0x54, KIND, 0, 0xffff),        // and32 kind, 0xffff
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let effect = if rule.allow {
            vec![
                alu(0x54, WANTED, 0, i32::from(ALL & !rule.access)),
                jump(0x56, WANTED, 0, 2), // if wanted is not empty, next
                alu(0xb4, ANSWER, 0, 1),
                exit(),
            ]
        } else {
            vec![
                alu(0xb4 | 0x08, SCRATCH, WANTED, 0),
                alu(0x54, SCRATCH, 0, i32::from(rule.access)),
                jump(0x16, SCRATCH, 0, 2), // if none of them is wanted, next
                alu(0xb4, ANSWER, 0, 0),
                exit(),
            ]
        };
        let kind = match rule.kind {
            DeviceKind::All => None,
            DeviceKind::Block => Some((KIND, 1)),
            DeviceKind::Character => Some((KIND, 2)),
        };
        let tests = [
            kind,
            rule.major.map(|number| (MAJOR, number)),
            rule.minor.map(|number| (MINOR, number)),
        ];
        let tests: Vec<(u8, u32)> = tests.into_iter().flatten().collect();
        for (index, (register, number)) in tests.iter().enumerate() {
            let past = tests.len() - 1 - index + effect.len();
            let past = i16::try_from(past).expect("a rule is a few instructions");
            code.push(jump(0x56, *register, number.cast_to_operand(), past)); // if it is another, next
        }
        code.extend(effect);
    }
    code.push(alu(0xb4, ANSWER, 0, 0));
    code.push(exit());
    code
}

trait CastToOperand {
    fn cast_to_operand(self) -> i32;
}

impl CastToOperand for u32 {
    /// Operands are signed; a 32-bit comparison does not see it.
    fn cast_to_operand(self) -> i32 {
        i32::from_ne_bytes(self.to_ne_bytes())
    }
}

fn registers(destination: u8, source: u8) -> u8 {
    if cfg!(target_endian = "little") {
        source << 4 | destination
    } else {
        destination << 4 | source
    }
}

fn load(destination: u8, offset: i16) -> Instruction {
    Instruction {
        code: 0x61, // BPF_LDX | BPF_MEM | BPF_W
        registers: registers(destination, CONTEXT),
        offset,
        operand: 0,
    }
}

fn alu(code: u8, destination: u8, source: u8, operand: i32) -> Instruction {
    Instruction {
        code,
        registers: registers(destination, source),
        offset: 0,
        operand,
    }
}

fn jump(code: u8, register: u8, operand: i32, offset: i16) -> Instruction {
    Instruction {
        code,
        registers: registers(register, 0),
        offset,
        operand,
    }
}

fn exit() -> Instruction {
    alu(0x95, 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn listed(rules: &Value) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_value(rules.clone()).unwrap()
    }

    /// What the list says, access by access.
    fn granted(rules: &[DeviceRule], kind: DeviceKind, major: u32, minor: u32, wanted: u8) -> bool {
        [MKNOD, READ, WRITE]
            .into_iter()
            .filter(|bit| wanted & bit != 0)
            .all(|bit| {
                let one = DeviceRule {
                    allow: true,
                    kind,
                    major: Some(major),
                    minor: Some(minor),
                    access: bit,
                };
                rules
                    .iter()
                    .rev()
                    .find(|rule| rule.meets(&one))
                    .is_some_and(|rule| rule.allow)
            })
    }

    /// Runs the instructions that [`version_2`] uses.
    fn run(program: &[Instruction], kind: DeviceKind, major: u32, minor: u32, wanted: u8) -> bool {
        let kind = if kind == DeviceKind::Block { 1 } else { 2 };
        let context = [u32::from(wanted) << 16 | kind, major, minor];
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let instruction = program[at];
            let (to, from) = (
                usize::from(instruction.registers & 15),
                usize::from(instruction.registers >> 4),
            );
            let operand = u32::from_ne_bytes(instruction.operand.to_ne_bytes());
            at += 1;
            match instruction.code {
                0x61 => registers[to] = context[usize::try_from(instruction.offset / 4).unwrap()],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = operand,
                0x74 => registers[to] >>= operand,
                0x54 => registers[to] &= operand,
                0x56 if registers[to] != operand => {
                    at += usize::try_from(instruction.offset).unwrap()
                }
                0x16 if registers[to] == operand => {
                    at += usize::try_from(instruction.offset).unwrap()
                }
                0x56 | 0x16 => {}
                0x95 => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// What the kernel makes of version 1's lines.
    fn kernel_1(
        lines: &[(&str, String)],
        kind: DeviceKind,
        major: u32,
        minor: u32,
        wanted: u8,
    ) -> bool {
        let mut allows = true;
        let mut exceptions: Vec<(String, u8)> = Vec::new();
        for (file, line) in lines {
            let allow = *file == "devices.allow";
            if line == "a" {
                allows = allow;
                exceptions.clear();
                continue;
            }
            let (device, letters) = line.rsplit_once(' ').unwrap();
            let access: u8 = letters
                .chars()
                .map(|l| {
                    [(MKNOD, 'm'), (READ, 'r'), (WRITE, 'w')]
                        .into_iter()
                        .find(|(_, c)| *c == l)
                        .unwrap()
                        .0
                })
                .sum();
            let have = exceptions.iter_mut().find(|(name, _)| name == device);
            match (allow == allows, have) {
                (true, Some((_, bits))) => *bits &= !access,
                (true, None) => {}
                (false, Some((_, bits))) => *bits |= access,
                (false, None) => exceptions.push((device.to_owned(), access)),
            }
        }
        let letter = if kind == DeviceKind::Block { 'b' } else { 'c' };
        let names = |device: &str| {
            let (kind, numbers) = device.split_once(' ').unwrap();
            let (left, right) = numbers.split_once(':').unwrap();
            kind.starts_with(letter)
                && (left == "*" || left == major.to_string())
                && (right == "*" || right == minor.to_string())
        };
        let named = || exceptions.iter().filter(|(device, _)| names(device));
        if allows {
            !named().any(|(_, bits)| bits & wanted != 0)
        } else {
            // The kernel wants one exception for all; here each access is its own question.
            [MKNOD, READ, WRITE]
                .into_iter()
                .filter(|bit| wanted & bit != 0)
                .all(|bit| named().any(|(_, bits)| bits & bit != 0))
        }
    }

    fn cases() -> Vec<Value> {
        vec![
            json!([]),
            json!([{"allow": false, "access": "rwm"}]),
            json!([{"allow": true, "access": "rwm"}]),
            json!([{"allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm"}]),
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]),
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "r"},
                   {"allow": true, "type": "b", "major": 8, "access": "w"}]),
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"},
                   {"allow": false, "type": "c", "major": 10, "minor": 200, "access": "w"}]),
            json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"}]),
            json!([{"allow": true, "access": "rwm"}, {"allow": false, "major": 8, "access": "rw"}]),
            json!([{"allow": true, "type": "c", "major": 4_000_000_000_u32, "minor": 1, "access": "m"}]),
        ]
    }

    fn requests() -> impl Iterator<Item = (DeviceKind, u32, u32, u8)> {
        let numbers = [
            (1, 3),
            (1, 4),
            (5, 1),
            (8, 0),
            (8, 1),
            (10, 200),
            (10, 229),
            (136, 7),
            (4_000_000_000, 1),
        ];
        [DeviceKind::Block, DeviceKind::Character]
            .into_iter()
            .flat_map(move |kind| {
                numbers.into_iter().flat_map(move |(major, minor)| {
                    (1..=ALL).map(move |wanted| (kind, major, minor, wanted))
                })
            })
    }

    #[test]
    fn both_versions_grant_what_the_list_says() {
        for case in cases() {
            let rules = rules(&listed(&case)).unwrap();
            let (lines, program) = (version_1(&rules).unwrap(), version_2(&rules));
            for (kind, major, minor, wanted) in requests() {
                let want = granted(&rules, kind, major, minor, wanted);
                let request = format!("{kind:?} {major}:{minor} {wanted:03b}\n{case}\n{lines:?}");
                assert_eq!(
                    run(&program, kind, major, minor, wanted),
                    want,
                    "2: {request}"
                );
                assert_eq!(
                    kernel_1(&lines, kind, major, minor, wanted),
                    want,
                    "1: {request}"
                );
            }
        }
    }

    #[test]
    fn what_version_1_would_not_heed_is_refused() {
        let case = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "access": "rwm"},
            {"allow": false, "type": "c", "major": 10, "minor": 200, "access": "w"}]);
        let rules = rules(&listed(&case)).unwrap();
        let error = version_1(&rules).unwrap_err().to_string();
        assert!(
            error.contains("c 10:200 w") && error.contains("c 10:* rwm"),
            "{error}"
        );
        assert!(!run(
            &version_2(&rules),
            DeviceKind::Character,
            10,
            200,
            WRITE
        ));
        assert!(run(
            &version_2(&rules),
            DeviceKind::Character,
            10,
            200,
            READ
        ));
    }

    #[test]
    fn rules_that_are_none_are_refused() {
        for (case, why) in [
            (json!([{"allow": true, "access": "x"}]), "of r, w and m"),
            (json!([{"allow": true, "type": "p"}]), "FIFO"),
            (json!([{"allow": true, "major": -2}]), "out of range"),
        ] {
            let error = rules(&listed(&case)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    /// The kernel's verifier is the judge, on the hierarchy of version 2 that is mounted somewhere.
    #[test]
    fn privileged_kernel_accepts_the_programs() {
        if !gantry_testkit::skip::is_root() {
            gantry_testkit::skip!("loading programs needs root");
        }
        for case in cases() {
            let program = version_2(&rules(&listed(&case)).unwrap());
            match gantry_sys::bpf::load_device_program(&program) {
                Ok(_) => {}
                Err(error) if error.is(gantry_sys::Errno::PERM) => {
                    gantry_testkit::skip!("this kernel does not let us load programs")
                }
                Err(error) => panic!("{error:?} {case}"),
            }
        }
    }
}
