// SPDX-License-Identifier: Apache-2.0
//! Flags that change more than one place: capabilities, mappings and the system call filter.

use serde_json::{Value, json};

use super::edit::{Edit, list, place};
use super::values;
use crate::capability::Capability;

type Done = Result<(), String>;

const SETS: [&str; 5] = [
    "ambient",
    "bounding",
    "effective",
    "inheritable",
    "permitted",
];

fn names(text: &str) -> Result<Vec<String>, String> {
    text.split(',')
        .map(|word| {
            Capability::find(word.trim())
                .map(Capability::name)
                .ok_or_else(|| format!("{word:?} is no capability"))
        })
        .collect()
}

/// Adds to sets of capabilities, and keeps them sorted.
fn add(document: &mut Value, sets: &[&str], text: &str) -> Done {
    for name in names(text)? {
        for set in sets {
            let list = list(document, &format!("/process/capabilities/{set}"))?;
            if !list.contains(&name.as_str().into()) {
                list.push(name.as_str().into());
                list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
        }
    }
    Ok(())
}

fn drop(document: &mut Value, sets: &[&str], text: &str) -> Done {
    for name in names(text)? {
        for set in sets {
            list(document, &format!("/process/capabilities/{set}"))?
                .retain(|old| old.as_str() != Some(&name));
        }
    }
    Ok(())
}

/// One function for each set, since a table holds plain functions.
macro_rules! capability_flags {
    ($($add:ident, $drop:ident, $sets:expr;)*) => {$(
        pub(super) fn $add(document: &mut Value, text: &str) -> Done {
            add(document, &$sets, text)
        }

        pub(super) fn $drop(document: &mut Value, text: &str) -> Done {
            drop(document, &$sets, text)
        }
    )*};
}

capability_flags! {
    cap_add, cap_drop, SETS;
    cap_add_ambient, cap_drop_ambient, ["ambient"];
    cap_add_bounding, cap_drop_bounding, ["bounding"];
    cap_add_effective, cap_drop_effective, ["effective"];
    cap_add_inheritable, cap_drop_inheritable, ["inheritable"];
    cap_add_permitted, cap_drop_permitted, ["permitted"];
}

pub(super) fn cap_drop_all(document: &mut Value, text: &str) -> Done {
    if text != "false" {
        *place(document, "/process/capabilities")? = json!({
            "ambient": [], "bounding": [], "effective": [], "inheritable": [], "permitted": [],
        });
    }
    Ok(())
}

fn map(document: &mut Value, pointer: &str, text: &str) -> Done {
    Edit::Put(values::mapping).apply(document, pointer, text)?;
    let namespaces = list(document, "/linux/namespaces")?;
    if namespaces.iter().all(|known| known["type"] != "user") {
        namespaces.push(json!({ "type": "user" }));
    }
    Ok(())
}

pub(super) fn map_uids(document: &mut Value, text: &str) -> Done {
    map(document, "/linux/uidMappings", text)
}

pub(super) fn map_gids(document: &mut Value, text: &str) -> Done {
    map(document, "/linux/gidMappings", text)
}

/// Documents are for Linux.
pub(super) fn system(_: &mut Value, text: &str) -> Done {
    match text {
        "linux" => Ok(()),
        _ => Err("documents are made for linux only".into()),
    }
}

fn action(word: &str) -> Result<String, String> {
    const WORDS: [&str; 8] = [
        "allow",
        "errno",
        "kill",
        "kill_process",
        "kill_thread",
        "log",
        "trace",
        "trap",
    ];
    let lower = word.to_ascii_lowercase();
    let bare = lower.strip_prefix("scmp_act_").unwrap_or(&lower);
    match WORDS.contains(&bare) {
        true => Ok(format!("SCMP_ACT_{}", bare.to_ascii_uppercase())),
        false => Err(format!("actions are {}", WORDS.join(", "))),
    }
}

const FILTER: &str = "/linux/seccomp";
const RULES: &str = "/linux/seccomp/syscalls";

pub(super) fn seccomp_default_force(document: &mut Value, text: &str) -> Done {
    let action = action(text)?;
    let filter = place(document, FILTER)?;
    if filter.is_null() {
        *filter = json!({});
    }
    let members = filter
        .as_object_mut()
        .ok_or("the filter is not an object")?;
    if action != "SCMP_ACT_ERRNO" && action != "SCMP_ACT_TRACE" {
        members.remove("defaultErrnoRet");
    }
    members.insert("defaultAction".into(), action.into());
    Ok(())
}

pub(super) fn seccomp_default(document: &mut Value, text: &str) -> Done {
    seccomp_default_force(document, text)?;
    let action = action(text)?;
    list(document, RULES)?.retain(|rule| rule["action"].as_str() != Some(&action));
    Ok(())
}

pub(super) fn seccomp_arch(document: &mut Value, text: &str) -> Done {
    for word in text.split(',') {
        let upper = word.to_ascii_uppercase();
        let bare = upper.strip_prefix("SCMP_ARCH_").unwrap_or(&upper);
        let name = match bare {
            "AMD64" => "X86_64",
            "386" => "X86",
            "ARM64" => "AARCH64",
            other => other,
        };
        let architectures = list(document, "/linux/seccomp/architectures")?;
        let value = Value::from(format!("SCMP_ARCH_{name}"));
        if !architectures.contains(&value) {
            architectures.push(value);
        }
    }
    Ok(())
}

/// Takes a name out of the rules that hold whatever the arguments are, or out of all.
fn forget(document: &mut Value, name: &str, all: bool) -> Done {
    let rules = list(document, RULES)?;
    for rule in &mut *rules {
        let plain = rule["args"].as_array().is_none_or(Vec::is_empty);
        if (all || plain)
            && let Some(names) = rule.get_mut("names").and_then(Value::as_array_mut)
        {
            names.retain(|known| known.as_str() != Some(name));
        }
    }
    rules.retain(|rule| {
        rule["names"]
            .as_array()
            .is_none_or(|names| !names.is_empty())
    });
    Ok(())
}

/// `NAME[,NAME…]` or `NAME:INDEX:VALUE:VALUETWO:OP`
fn rule(document: &mut Value, action: &str, text: &str) -> Done {
    if document.pointer(FILTER).is_none() {
        return Err("the document has no filter; --linux-seccomp-default makes one".into());
    }
    // libseccomp takes no rule that says what the default action says already.
    let filter = document.pointer(FILTER).unwrap_or(&Value::Null);
    let is_default = filter["defaultAction"] == action && filter.get("defaultErrnoRet").is_none();
    let parts: Vec<_> = text.split(':').collect();
    match parts[..] {
        [names] => {
            for name in names.split(',').filter(|name| !name.is_empty()) {
                forget(document, name, false)?;
                if is_default {
                    continue;
                }
                let rules = list(document, RULES)?;
                let plain = |rule: &&mut Value| {
                    rule["action"] == action
                        && rule["args"].as_array().is_none_or(Vec::is_empty)
                        && rule.get("errnoRet").is_none()
                };
                let known = rules.iter_mut().find(plain);
                match known.and_then(|rule| rule.get_mut("names").and_then(Value::as_array_mut)) {
                    Some(names) => names.push(name.into()),
                    None => rules.push(json!({ "names": [name], "action": action })),
                }
            }
            Ok(())
        }
        [name, index, value, value_two, op] => {
            let op = op.to_ascii_uppercase();
            let op = op.strip_prefix("SCMP_CMP_").unwrap_or(&op);
            let argument = json!({
                "index": values::id(index)?,
                "value": values::unsigned(value)?,
                "valueTwo": values::unsigned(value_two)?,
                "op": format!("SCMP_CMP_{op}"),
            });
            let new = json!({ "names": [name], "action": action, "args": [argument] });
            list(document, RULES)?.push(new);
            Ok(())
        }
        _ => Err("expected NAME[,NAME…] or NAME:INDEX:VALUE:VALUETWO:OP".into()),
    }
}

macro_rules! rule_flags {
    ($($function:ident, $action:expr;)*) => {$(
        pub(super) fn $function(document: &mut Value, text: &str) -> Done {
            rule(document, $action, text)
        }
    )*};
}

rule_flags! {
    seccomp_allow, "SCMP_ACT_ALLOW";
    seccomp_errno, "SCMP_ACT_ERRNO";
    seccomp_kill, "SCMP_ACT_KILL";
    seccomp_trace, "SCMP_ACT_TRACE";
    seccomp_trap, "SCMP_ACT_TRAP";
}

pub(super) fn seccomp_remove(document: &mut Value, text: &str) -> Done {
    text.split(',')
        .try_for_each(|name| forget(document, name, true))
}

/// The filter alone is the document.
pub(super) fn seccomp_only(document: &mut Value, text: &str) -> Done {
    if text != "false" {
        *document = document.pointer(FILTER).cloned().unwrap_or(Value::Null);
    }
    Ok(())
}
