# SPDX-License-Identifier: Apache-2.0
"""Makes with libseccomp the filter of a document, the way runc does: the judge of our own compiler.

Reads {"seccomp": …, "machine": …} from standard input and writes the program. Names that this libseccomp does not know
are listed on standard error, for the caller to leave out as well.
"""
import json
import sys

import seccomp as lib

request = json.load(sys.stdin)
document = request["seccomp"]


def arch(word):
    return getattr(lib.Arch, word.removeprefix("SCMP_ARCH_"))


def action(word, number):
    number = 1 if number is None else number
    return {
        "SCMP_ACT_KILL": lib.KILL,
        "SCMP_ACT_KILL_THREAD": lib.KILL,
        "SCMP_ACT_KILL_PROCESS": lib.KILL_PROCESS,
        "SCMP_ACT_TRAP": lib.TRAP,
        "SCMP_ACT_ERRNO": lib.ERRNO(number),
        "SCMP_ACT_TRACE": lib.TRACE(number),
        "SCMP_ACT_NOTIFY": lib.NOTIFY,
        "SCMP_ACT_LOG": lib.LOG,
        "SCMP_ACT_ALLOW": lib.ALLOW,
    }[word]


OPERATORS = {
    "SCMP_CMP_NE": lib.NE,
    "SCMP_CMP_LT": lib.LT,
    "SCMP_CMP_LE": lib.LE,
    "SCMP_CMP_EQ": lib.EQ,
    "SCMP_CMP_GE": lib.GE,
    "SCMP_CMP_GT": lib.GT,
    "SCMP_CMP_MASKED_EQ": lib.MASKED_EQ,
}


def comparison(argument):
    operator = OPERATORS[argument["op"]]
    if operator == lib.MASKED_EQ:
        return lib.Arg(argument["index"], operator, argument["value"], argument.get("valueTwo", 0))
    return lib.Arg(argument["index"], operator, argument["value"])


default = action(document["defaultAction"], document.get("defaultErrnoRet"))
program = lib.SyscallFilter(default)
program.set_attr(lib.Attr.CTL_NNP, 0)
native = arch(request["machine"])
if native != lib.Arch.NATIVE and native != lib.system_arch():
    program.remove_arch(lib.Arch())
    program.add_arch(native)
for word in document.get("architectures") or []:
    if not program.exist_arch(arch(word)):
        program.add_arch(arch(word))
for rule in document.get("syscalls") or []:
    what = action(rule["action"], rule.get("errnoRet"))
    if what == default:
        continue
    arguments = rule.get("args") or []
    indices = [argument["index"] for argument in arguments]
    repeats = len(set(indices)) < len(indices)
    groups = [[argument] for argument in arguments] if repeats else [arguments]
    for name in rule["names"]:
        # A name that exists on some machine has a number of its own kind here, below zero; -1 is none at all.
        number = lib.resolve_syscall(lib.Arch(), name)
        if number == -1:
            print(name, file=sys.stderr)
            continue
        for group in groups:
            program.add_rule(what, name, *[comparison(argument) for argument in group])
program.export_bpf(sys.stdout)
