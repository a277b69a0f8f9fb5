// SPDX-License-Identifier: Apache-2.0
//! The compiler against libseccomp: the same verdict for every call, and for sampled arguments.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use gantry_testkit::skip;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::machine::{ARM_PRIVATE, MULTIPLEXED, X32_BIT};
use super::table::{CALLS, NO};
use super::*;

/// What the kernel shows a filter.
#[derive(Debug, Clone, Copy)]
struct Call {
    machine: Machine,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    /// `struct seccomp_data`, whose words the kernel reads in its own byte order.
    fn word(&self, offset: u32) -> u32 {
        let argument = |index: u32| self.arguments[usize::try_from(index).unwrap()];
        match offset {
            0 => self.number,
            4 => self.machine.audit(),
            16.. => {
                let (index, second) = ((offset - 16) / 8, offset % 8 == 4);
                let high = second != self.machine.is_big_endian();
                let value = argument(index);
                u32::try_from(if high {
                    value >> 32
                } else {
                    value & 0xffff_ffff
                })
                .unwrap()
            }
            _ => panic!("a filter reads the instruction pointer"),
        }
    }
}

/// Runs a classic BPF program as the kernel does.
fn run(program: &[Instruction], call: &Call) -> u32 {
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let instruction = program[at];
        let operand = instruction.operand;
        at += 1;
        let mut branch = |holds: bool| {
            at += usize::from(if holds {
                instruction.jump_true
            } else {
                instruction.jump_false
            });
        };
        match instruction.code {
            0x20 => accumulator = call.word(operand),
            0x54 => accumulator &= operand,
            0x05 => at += usize::try_from(operand).unwrap(),
            0x15 => branch(accumulator == operand),
            0x25 => branch(accumulator > operand),
            0x35 => branch(accumulator >= operand),
            0x45 => branch(accumulator & operand != 0),
            0x06 => return operand,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn parse(document: &Value) -> LinuxSeccomp {
    serde_json::from_value(document.clone()).unwrap()
}

const PYTHON: &str = "/usr/bin/python3";

fn has_libseccomp() -> bool {
    Command::new(PYTHON)
        .args(["-c", "import seccomp"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn word(machine: Machine) -> &'static str {
    machine.arch_name().trim_start_matches("SCMP_ARCH_")
}

/// libseccomp's program for a document, and the names that it does not know.
fn oracle(document: &Value, machine: Machine) -> (Vec<Instruction>, Vec<String>) {
    let request = json!({"seccomp": document, "machine": word(machine)});
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/oci/seccomp/oracle.py");
    let mut child = Command::new(PYTHON)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(request.to_string().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{document}");
    let unknown = stderr.split_whitespace().map(str::to_owned).collect();
    let half = |bytes: [u8; 2]| match machine.is_big_endian() {
        true => u16::from_be_bytes(bytes),
        false => u16::from_le_bytes(bytes),
    };
    let word = |bytes: [u8; 4]| match machine.is_big_endian() {
        true => u32::from_be_bytes(bytes),
        false => u32::from_le_bytes(bytes),
    };
    let program = output
        .stdout
        .chunks_exact(8)
        .map(|bytes| Instruction {
            code: half([bytes[0], bytes[1]]),
            jump_true: bytes[2],
            jump_false: bytes[3],
            operand: word([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    (program, unknown)
}

/// Every number that some name has, those around it, and those around the ends of ranges.
fn numbers(machine: Machine) -> BTreeSet<u32> {
    let listed = CALLS
        .iter()
        .map(|(_, numbers)| numbers[machine.column()])
        .filter(|number| *number != NO)
        .map(u32::from);
    let bit = if machine == Machine::X32 { X32_BIT } else { 0 };
    let mut numbers: BTreeSet<u32> = listed.chain(0..600).map(|number| number | bit).collect();
    let (first, last) = machine.span();
    numbers.extend([bit | 1000, first, last, u32::MAX]);
    if machine == Machine::Arm {
        numbers.extend(ARM_PRIVATE.iter().map(|(_, number)| *number));
    }
    numbers
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Values that a document compares with, and their neighbours.
fn interesting(document: &Value, machine: Machine) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, 2, 0xffff_ffff, u64::MAX, 1 << 32]);
    for rule in document["syscalls"].as_array().into_iter().flatten() {
        for argument in rule["args"].as_array().into_iter().flatten() {
            for value in [&argument["value"], &argument["valueTwo"]] {
                if let Some(value) = value.as_u64() {
                    for near in [value.wrapping_sub(1), value, value.wrapping_add(1), !value] {
                        values.insert(near);
                        values.insert(near ^ (1 << 40));
                    }
                }
            }
        }
    }
    if machine.has_wide_arguments() {
        values.into_iter().collect()
    } else {
        values
            .into_iter()
            .filter(|value| *value <= u64::from(u32::MAX))
            .collect()
    }
}

/// The calls whose verdicts a document's rules can tell apart.
fn sampled_calls(document: &Value, native: Machine) -> Vec<Call> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut calls = Vec::new();
    for machine in Machine::ALL
        .into_iter()
        .filter(|other| native.receives(*other))
    {
        let values = interesting(document, machine);
        for number in numbers(machine) {
            for _ in 0..16 {
                let arguments = std::array::from_fn(|_| *random.of(&values));
                calls.push(Call {
                    machine,
                    number,
                    arguments,
                });
            }
        }
    }
    calls
}

/// The verdict that runc adds to libseccomp's: a call newer than the filter does not exist.
fn with_guard(ours: u32, theirs: u32, call: &Call, rules: &super::rules::Rules) -> u32 {
    let machine = rules.machines.iter().find(|m| m.machine == call.machine);
    let is_newer = machine
        .and_then(|machine| machine.newest)
        .is_some_and(|newest| call.number > newest && call.number < u32::MAX);
    if is_newer {
        assert_eq!(theirs, rules.default, "{call:?}");
        assert_eq!(ours, ERRNO | ENOSYS, "{call:?}");
        return ours;
    }
    theirs
}

fn judge(document: &Value, native: Machine) {
    let (theirs, unknown) = oracle(document, native);
    let mut document = document.clone();
    for rule in document["syscalls"].as_array_mut().into_iter().flatten() {
        let names = rule["names"].as_array_mut().unwrap();
        names.retain(|name| !unknown.iter().any(|unknown| name == unknown));
    }
    let seccomp = parse(&document);
    let ours = compile(&seccomp, native).unwrap().filter;
    let rules = super::rules::resolve(&seccomp, native).unwrap();
    let mut wrong = Vec::new();
    let mut told = 0;
    for call in sampled_calls(&document, native) {
        let (ours, mut theirs) = (run(&ours, &call), run(&theirs, &call));
        if native.is_big_endian() && theirs.swap_bytes() == ours {
            // On a machine of the other byte order, libseccomp leaves some answers in that.
            theirs = ours;
        }
        if ours == theirs {
            told += 1;
        } else if (call.machine, call.number) == (Machine::X32, X32_BIT | 453) {
            // map_shadow_stack: the kernel's header of x32 has it, libseccomp's table has not.
        } else if with_guard(ours, theirs, &call, &rules) != ours {
            wrong.push(format!("{call:x?}: ours {ours:#x}, libseccomp {theirs:#x}"));
        }
    }
    let shown = wrong.len().min(10);
    assert!(
        wrong.is_empty(),
        "{native:?}, {} calls: {}
{document}",
        wrong.len(),
        wrong[..shown].join(
            "
"
        )
    );
    assert!(told > 1000);
}

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn own_profiles_have_the_verdicts_of_libseccomp() {
    if !has_libseccomp() {
        skip!("python3-seccomp is not installed");
    }
    for name in ["seccomp-production.json", "seccomp-compat.json"] {
        judge(&golden(name), Machine::X86_64);
    }
}

/// podman's profile is of another form: rules go with capabilities. This is how it resolves them for `podman run`.
fn podman_profile(profile: &Value) -> Value {
    const CAPABILITIES: [&str; 2] = ["CAP_SYS_CHROOT", "CAP_NET_BIND_SERVICE"];
    let any = |list: &Value, known: &[&str]| {
        list.as_array().is_some_and(|list| {
            list.iter()
                .any(|word| known.contains(&word.as_str().unwrap()))
        })
    };
    let rules = profile["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| {
            let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
            (includes["caps"].is_null() || any(&includes["caps"], &CAPABILITIES))
                && !any(&excludes["caps"], &CAPABILITIES)
                && (includes["arches"].is_null()
                    || any(&includes["arches"], &["amd64", "x32", "x86"]))
                && !any(&excludes["arches"], &["amd64"])
        });
    let rules: Vec<Value> = rules
        .map(|rule| {
            let mut rule = rule.clone();
            for key in ["includes", "excludes", "comment", "errno"] {
                rule.as_object_mut().unwrap().remove(key);
            }
            rule
        })
        .collect();
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

#[test]
fn podmans_profile_has_the_verdicts_of_libseccomp() {
    let Ok(bytes) = std::fs::read("/usr/share/containers/seccomp.json") else {
        skip!("there is no /usr/share/containers/seccomp.json (golang-github-containers-common)");
    };
    if !has_libseccomp() {
        skip!("python3-seccomp is not installed");
    }
    let mut document = podman_profile(&serde_json::from_slice(&bytes).unwrap());
    judge(&document, Machine::X86_64);
    // Without a number of its own for missing calls, the guard for new ones comes in.
    document.as_object_mut().unwrap().remove("defaultErrnoRet");
    judge(&document, Machine::X86_64);
}

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const ACTIONS: [(&str, Option<u32>); 9] = [
    ("SCMP_ACT_KILL_THREAD", None),
    ("SCMP_ACT_KILL_PROCESS", None),
    ("SCMP_ACT_TRAP", None),
    ("SCMP_ACT_ERRNO", Some(7)),
    ("SCMP_ACT_ERRNO", None),
    ("SCMP_ACT_NOTIFY", None),
    ("SCMP_ACT_TRACE", Some(77)),
    ("SCMP_ACT_LOG", None),
    ("SCMP_ACT_ALLOW", None),
];

/// A filter of random rules, of which one call may have several.
///
/// libseccomp (2.5.4) merges those into one tree and loses branches on the way, and it does so for one rule that asks for
/// the order of two arguments. So its verdict counts for one rule a call, with one comparison or with equalities only;
/// the rules of our own profiles and of podman's are several, and are judged by it as they are.
fn random_document(random: &mut Random, native: Machine, several: bool) -> Value {
    let names: Vec<&str> = CALLS
        .iter()
        .filter(|(name, numbers)| {
            let number = numbers[native.column()];
            // Rules for calls that others stand for are carried over by rules of our own.
            number != NO
                && number < 440
                && *name != "write"
                && MULTIPLEXED.iter().all(|(row, ..)| row != name)
        })
        .map(|(name, _)| *name)
        .filter(|name| !["socketcall", "ipc"].contains(name))
        .collect();
    let value = |random: &mut Random| match random.below(4) {
        0 => random.next() % 5,
        1 => random.next() & 0xffff_ffff,
        2 => u64::MAX >> random.below(64),
        _ => random.next(),
    };
    let (default, default_errno) = loop {
        let (action, errno) = *random.of(&ACTIONS);
        if action != "SCMP_ACT_NOTIFY" {
            break (action, errno);
        }
    };
    let mut rules = Vec::new();
    for _ in 0..random.below(60) + 1 {
        let name = *random.of(&names);
        if rules.iter().any(|rule: &Value| rule["names"][0] == name) {
            continue;
        }
        let (action, errno) = *random.of(&ACTIONS);
        let rules_of_call = if several {
            *random.of(&[1, 2, 2, 3, 5])
        } else {
            1
        };
        for _ in 0..rules_of_call {
            let mut arguments = Vec::new();
            let comparisons_max = random.below(3) + 1;
            let operators = if several || comparisons_max == 1 {
                &OPERATORS[..]
            } else {
                &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"][..]
            };
            for index in 0..6 {
                if random.below(3) == 0 && arguments.len() < comparisons_max {
                    arguments.push(json!({
                        "index": index, "op": random.of(operators), "value": value(random), "valueTwo": value(random),
                    }));
                }
            }
            if several && random.below(10) == 0 && !arguments.is_empty() {
                arguments.push(arguments[0].clone());
            }
            let mut rule = json!({"names": [name], "action": action, "args": arguments});
            if let Some(errno) = errno {
                rule["errnoRet"] = errno.into();
            }
            rules.push(rule);
        }
    }
    let architectures: Vec<String> = Machine::ALL
        .into_iter()
        .filter(|other| native.receives(*other) && (*other == native || random.below(2) == 0))
        .map(|machine| machine.arch_name().to_owned())
        .collect();
    json!({
        "defaultAction": default, "defaultErrnoRet": default_errno, "architectures": architectures,
        "listenerPath": "/run/agent", "syscalls": rules,
    })
}

#[test]
fn random_filters_have_the_verdicts_of_libseccomp() {
    if !has_libseccomp() {
        skip!("python3-seccomp is not installed");
    }
    let mut random = Random(20_261_128);
    for native in Machine::ALL {
        if native == Machine::X32 || native == Machine::X86 {
            continue;
        }
        for _ in 0..6 {
            judge(&random_document(&mut random, native, false), native);
        }
    }
}

/// What the rules say when they are read one after the other, comparison by comparison.
fn reading(document: &Value, call: &Call) -> Option<u32> {
    let bit = if call.machine == Machine::X32 {
        X32_BIT
    } else {
        0
    };
    let name = CALLS.iter().find(|(_, numbers)| {
        let number = numbers[call.machine.column()];
        number != NO && u32::from(number) | bit == call.number
    });
    let width = if call.machine.has_wide_arguments() {
        u64::MAX
    } else {
        u64::from(u32::MAX)
    };
    let holds = |argument: &Value| {
        let index = usize::try_from(argument["index"].as_u64().unwrap()).unwrap();
        let have = call.arguments[index] & width;
        let value = argument["value"].as_u64().unwrap();
        let second = argument["valueTwo"].as_u64().unwrap();
        match argument["op"].as_str().unwrap() {
            "SCMP_CMP_NE" => have != value & width,
            "SCMP_CMP_LT" => have < value & width,
            "SCMP_CMP_LE" => have <= value & width,
            "SCMP_CMP_EQ" => have == value & width,
            "SCMP_CMP_GE" => have >= value & width,
            "SCMP_CMP_GT" => have > value & width,
            _ => have & value == value & second & width,
        }
    };
    let (name, _) = name?;
    let rules = || {
        document["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["names"][0] == *name)
    };
    let arguments = |rule: &Value| rule["args"].as_array().unwrap().clone();
    let always = rules().find(|rule| arguments(rule).is_empty());
    let first = || {
        rules().find(|rule| {
            let arguments = arguments(rule);
            let mut indices: Vec<u64> = arguments
                .iter()
                .map(|a| a["index"].as_u64().unwrap())
                .collect();
            indices.dedup();
            indices.sort_unstable();
            let repeats = indices.windows(2).any(|pair| pair[0] == pair[1])
                || indices.len() < arguments.len();
            if repeats {
                arguments.iter().any(holds)
            } else {
                arguments.iter().all(holds)
            }
        })
    };
    let rule = always.or_else(first)?;
    let action = serde_json::from_value(rule["action"].clone()).unwrap();
    let errno = rule["errnoRet"]
        .as_u64()
        .map(|errno| u32::try_from(errno).unwrap());
    Some(action_code(action, errno).unwrap())
}

#[test]
fn random_filters_do_what_their_rules_say() {
    let mut random = Random(42);
    for native in Machine::ALL {
        for _ in 0..4 {
            let document = random_document(&mut random, native, true);
            let seccomp = parse(&document);
            let rules = super::rules::resolve(&seccomp, native).unwrap();
            let program = compile(&seccomp, native).unwrap().filter;
            let calls = sampled_calls(&document, native);
            for call in calls {
                let Some(machine) = rules.machines.iter().find(|m| m.machine == call.machine)
                else {
                    continue;
                };
                let otherwise = match machine.newest {
                    Some(newest) if call.number > newest && call.number != u32::MAX => {
                        ERRNO | ENOSYS
                    }
                    _ => rules.default,
                };
                let want = reading(&document, &call).unwrap_or(otherwise);
                assert_eq!(run(&program, &call), want, "{call:x?}\n{document}");
            }
        }
    }
}

fn filter(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
}

fn verdict(document: &Value, machine: Machine, name: &str, arguments: &[u64]) -> u32 {
    let row = CALLS.iter().find(|(row, _)| *row == name).unwrap();
    let bit = if machine == Machine::X32 { X32_BIT } else { 0 };
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    let call = Call {
        machine,
        number: u32::from(row.1[machine.column()]) | bit,
        arguments: six,
    };
    let native = if machine == Machine::S390x {
        machine
    } else {
        Machine::X86_64
    };
    run(&compile(&parse(document), native).unwrap().filter, &call)
}

const ALLOW: u32 = 0x7fff_0000;

#[test]
fn first_of_several_rules_that_match_decides_unless_one_has_no_comparison() {
    let equal = |value: u64| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
    let any = json!([{"index": 0, "value": 0, "op": "SCMP_CMP_GE"}]);
    let rules = json!([
        {"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": equal(1)},
        {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": any},
        {"names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": equal(1)},
        {"names": ["close"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["close"], "action": "SCMP_ACT_LOG"},
    ]);
    let document = filter(rules);
    let verdict = |name, value| verdict(&document, Machine::X86_64, name, &[value]);
    assert_eq!(verdict("dup", 1), ERRNO | 5);
    assert_eq!(verdict("dup", 2), ALLOW);
    assert_eq!(verdict("close", 1), ALLOW);
}

#[test]
fn calls_behind_a_multiplexer_are_refused_there_too_and_allowed_only_without_comparisons() {
    let unix = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let document = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": unix},
            {"names": ["bind", "shmat"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["connect"], "action": "SCMP_ACT_KILL_PROCESS", "args": unix},
        ],
    });
    for (machine, name, selector, want) in [
        (Machine::X86, "socketcall", 1, ERRNO | EPERM),
        (Machine::X86, "socketcall", 2, ALLOW),
        (Machine::X86, "socketcall", 3, 0x8000_0000),
        (Machine::X86, "ipc", 21, ALLOW),
        (Machine::X86, "ipc", 21 | 1 << 16, ERRNO | EPERM),
        (Machine::S390x, "socketcall", 2, ALLOW),
        (Machine::S390x, "socketcall", 4, ERRNO | EPERM),
    ] {
        let got = verdict(&document, machine, name, &[selector]);
        assert_eq!(got, want, "{machine:?} {name} {selector}");
    }
}

#[test]
fn call_newer_than_the_filter_does_not_exist() {
    let newer = |document: &Value| {
        let call = Call {
            machine: Machine::X86_64,
            number: 1000,
            arguments: [0; 6],
        };
        run(
            &compile(&parse(document), Machine::X86_64).unwrap().filter,
            &call,
        )
    };
    let mut document = filter(json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]));
    assert_eq!(newer(&document), ERRNO | ENOSYS);
    for (action, want) in [("SCMP_ACT_ALLOW", ALLOW), ("SCMP_ACT_LOG", 0x7ffc_0000)] {
        document["defaultAction"] = action.into();
        assert_eq!(newer(&document), want, "{action}");
    }
}

#[test]
fn what_cannot_be_expressed_is_an_error() {
    let allow = |names: &[&str]| json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]);
    let far = json!([{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]);
    let many: Vec<Value> = (0..5000)
        .map(|value| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]))
        .map(|args| json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": args}))
        .collect();
    let refused = |document: Value| compile(&parse(&document), Machine::X86_64).unwrap_err();
    let write = "write".to_owned();
    assert_eq!(
        refused(json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        CompileError::NotifyByDefault
    );
    assert_eq!(refused(filter(allow(&["read"]))), CompileError::NoListener);
    assert_eq!(
        refused(filter(allow(&["read", "write"]))),
        CompileError::NotifyOnHandOver { name: write }
    );
    assert!(matches!(
        refused(filter(
            json!([{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": far}])
        )),
        CompileError::Argument { index: 6, .. }
    ));
    assert_eq!(
        refused(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096})),
        CompileError::Errno { errno: 4096 }
    );
    assert!(matches!(
        refused(filter(many.into())),
        CompileError::TooLong { .. }
    ));
}

#[test]
fn flags_listener_and_unknown_names_are_reported() {
    let document = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/run/agent", "listenerMetadata": "mine",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_MIPS", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            {"names": ["mkdir", "no_such_call", "riscv_hwprobe", "fstatat64"], "action": "SCMP_ACT_NOTIFY"},
        ],
    });
    let program = compile(&parse(&document), Machine::X86_64).unwrap();
    let flags = FilterFlags::TSYNC
        .with(FilterFlags::TSYNC_ESRCH)
        .with(FilterFlags::NEW_LISTENER)
        .with(FilterFlags::WAIT_KILLABLE_RECV);
    assert_eq!(program.flags, flags);
    assert_eq!(program.skipped, ["no_such_call", "riscv_hwprobe"]);
    let listener = program.listener.unwrap();
    assert_eq!(listener.metadata.as_deref(), Some("mine"));

    let mut without = document;
    without["syscalls"] = json!([]);
    let program = compile(&parse(&without), Machine::X86_64).unwrap();
    assert_eq!(
        (program.flags, program.listener),
        (FilterFlags::TSYNC, None)
    );
}

#[test]
fn tables_are_sorted() {
    assert!(CALLS.is_sorted_by(|left, right| left.0 < right.0));
    assert!(MULTIPLEXED.is_sorted_by(|left, right| left.0 < right.0));
    assert!(CALLS.len() > 450);
}

#[test]
fn every_path_of_a_filter_is_short() {
    // Allowed calls are most of what programs make; the kernel walks this path where it cannot cache the answer.
    let program = compile(&parse(&golden("seccomp-production.json")), Machine::X86_64).unwrap();
    let mut longest = 0;
    for number in 0..470 {
        let call = Call {
            machine: Machine::X86_64,
            number,
            arguments: [0; 6],
        };
        let mut steps = 0;
        let (mut at, mut accumulator) = (0, 0);
        while program.filter[at].code != 0x06 && program.filter[at].operand != 16 {
            let Instruction {
                code,
                jump_true,
                jump_false,
                operand,
            } = program.filter[at];
            at += 1;
            steps += 1;
            match code {
                0x20 => accumulator = call.word(operand),
                0x05 => at += usize::try_from(operand).unwrap(),
                0x15 => {
                    at += usize::from(if accumulator == operand {
                        jump_true
                    } else {
                        jump_false
                    })
                }
                0x35 => {
                    at += usize::from(if accumulator >= operand {
                        jump_true
                    } else {
                        jump_false
                    })
                }
                _ => break,
            }
        }
        longest = longest.max(steps);
    }
    assert!(longest <= 16, "{longest} of {}", program.filter.len());
}

#[test]
fn no_refused_family_hides_behind_the_upper_half_of_its_argument() {
    const AF_ALG: u64 = 38;
    const AF_VSOCK: u64 = 40;
    for profile in ["seccomp-production.json", "seccomp-compat.json"] {
        let document = golden(profile);
        for family in [AF_ALG, AF_VSOCK] {
            for upper in [0, 1 << 32, 1 << 40, u64::MAX << 32] {
                let got = verdict(
                    &document,
                    Machine::X86_64,
                    "socket",
                    &[family | upper, 5, 0],
                );
                assert_ne!(got, ALLOW, "{profile} {family} {upper:#x}");
            }
        }
    }
}
