// SPDX-License-Identifier: Apache-2.0
//! The values of flags: one parser each, from text to what stands in the document.

use serde_json::{Value, json};

type Parsed = Result<Value, String>;

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number that fits"))
}

pub(super) fn text(text: &str) -> Parsed {
    Ok(text.into())
}

pub(super) fn boolean(text: &str) -> Parsed {
    match text {
        "true" => Ok(true.into()),
        "false" => Ok(false.into()),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn signed(text: &str) -> Parsed {
    Ok(number::<i64>(text)?.into())
}

pub(super) fn unsigned(text: &str) -> Parsed {
    Ok(number::<u64>(text)?.into())
}

pub(super) fn id(text: &str) -> Parsed {
    Ok(number::<u32>(text)?.into())
}

/// Octal after a zero, as in C.
pub(super) fn mode(text: &str) -> Parsed {
    let octal = text.strip_prefix('0').filter(|rest| !rest.is_empty());
    let value = match octal {
        Some(digits) => u32::from_str_radix(digits.trim_start_matches('o'), 8)
            .map_err(|_| format!("{text:?} is not an octal number"))?,
        None => number(text)?,
    };
    Ok(value.into())
}

pub(super) fn object(text: &str) -> Parsed {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("it is not a JSON object".into()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

pub(super) fn mount(text: &str) -> Parsed {
    let mount = object(text)?;
    match mount["destination"].is_string() {
        true => Ok(mount),
        false => Err("the mount has no destination".into()),
    }
}

pub(super) fn destination(text: &str) -> Parsed {
    Ok(json!({ "destination": text }))
}

pub(super) fn hook(text: &str) -> Parsed {
    let hook = object(text)?;
    match hook["path"].is_string() {
        true => Ok(hook),
        false => Err("the hook has no path".into()),
    }
}

pub(super) fn device_path(text: &str) -> Parsed {
    Ok(json!({ "path": text }))
}

fn fields<const N: usize>(text: &str, form: &str) -> Result<[String; N], String> {
    let parts: Vec<_> = text.split(':').map(str::to_owned).collect();
    parts
        .try_into()
        .map_err(|_| format!("{text:?} is not {form}"))
}

/// `WIDTH:HEIGHT`
pub(super) fn console(text: &str) -> Parsed {
    let [width, height] = fields(text, "WIDTH:HEIGHT")?;
    Ok(json!({ "width": number::<u16>(&width)?, "height": number::<u16>(&height)? }))
}

/// `RLIMIT_NAME:HARD:SOFT`
pub(super) fn rlimit(text: &str) -> Parsed {
    let [kind, hard, soft] = fields(text, "RLIMIT:HARD:SOFT")?;
    Ok(json!({ "type": kind, "hard": number::<u64>(&hard)?, "soft": number::<u64>(&soft)? }))
}

pub(super) fn type_only(text: &str) -> Parsed {
    Ok(json!({ "type": text }))
}

/// `TYPE[:PATH]`
pub(super) fn namespace(text: &str) -> Parsed {
    let (kind, path) = text.split_once(':').unwrap_or((text, ""));
    let known = [
        "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
    ];
    if !known.contains(&kind) {
        return Err(format!("namespaces are {}", known.join(", ")));
    }
    Ok(match path {
        "" => json!({ "type": kind }),
        path => json!({ "type": kind, "path": path }),
    })
}

/// `HOST:CONTAINER:SIZE`
pub(super) fn mapping(text: &str) -> Parsed {
    let [host, container, size] = fields(text, "HOSTID:CONTAINERID:SIZE")?;
    Ok(json!({
        "hostID": number::<u32>(&host)?,
        "containerID": number::<u32>(&container)?,
        "size": number::<u32>(&size)?,
    }))
}

/// `TYPE:MAJOR:MINOR:PATH[:fileMode=…][:uid=…][:gid=…]`
pub(super) fn device(text: &str) -> Parsed {
    let mut parts = text.split(':');
    let (Some(kind), Some(major), Some(minor), Some(path)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("expected TYPE:MAJOR:MINOR:PATH[:OPTION…]".into());
    };
    let mut device = json!({
        "type": kind, "path": path,
        "major": number::<u32>(major)?, "minor": number::<u32>(minor)?,
    });
    for part in parts {
        match part.split_once('=') {
            Some(("fileMode", value)) => device["fileMode"] = mode(value)?,
            Some((name @ ("uid" | "gid"), value)) => device[name] = id(value)?,
            _ => return Err(format!("{part:?} is none of fileMode=, uid=, gid=")),
        }
    }
    Ok(device)
}

/// `allow|deny[,type=…][,major=…][,minor=…][,access=…]`
pub(super) fn device_rule(text: &str) -> Parsed {
    let mut parts = text.split(',');
    let mut rule = match parts.next() {
        Some("allow") => json!({ "allow": true }),
        Some("deny") => json!({ "allow": false }),
        _ => return Err("expected allow or deny first".into()),
    };
    for part in parts {
        match part.split_once('=') {
            Some((name @ ("type" | "access"), value)) => rule[name] = value.into(),
            Some((name @ ("major" | "minor"), value)) => rule[name] = signed(value)?,
            _ => {
                return Err(format!(
                    "{part:?} is none of type=, major=, minor=, access="
                ));
            }
        }
    }
    Ok(rule)
}

/// `MAJOR:MINOR:NUMBER`, with -1 as nothing.
fn of_device(text: &str, member: &str) -> Parsed {
    let [major, minor, value] = fields(text, "MAJOR:MINOR:NUMBER")?;
    let value = match value.as_str() {
        "-1" => Value::Null,
        value => unsigned(value)?,
    };
    Ok(json!({ "major": number::<i64>(&major)?, "minor": number::<i64>(&minor)?, member: value }))
}

pub(super) fn rate(text: &str) -> Parsed {
    of_device(text, "rate")
}

pub(super) fn weight(text: &str) -> Parsed {
    of_device(text, "weight")
}

pub(super) fn leaf_weight(text: &str) -> Parsed {
    of_device(text, "leafWeight")
}

/// `PAGESIZE:LIMIT`
pub(super) fn huge_pages(text: &str) -> Parsed {
    let [size, limit] = fields(text, "PAGESIZE:LIMIT")?;
    Ok(json!({ "pageSize": size, "limit": number::<u64>(&limit)? }))
}

pub(super) fn page_size(text: &str) -> Parsed {
    Ok(json!({ "pageSize": text }))
}

/// `NAME:PRIORITY`, with -1 as nothing.
pub(super) fn priority(text: &str) -> Parsed {
    let (name, value) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} is not NAME:PRIORITY"))?;
    let value = match value {
        "-1" => Value::Null,
        value => id(value)?,
    };
    Ok(json!({ "name": name, "priority": value }))
}

/// `KEY=VALUE`
pub(super) fn pair(text: &str) -> Parsed {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok(json!({ key: value }))
}

/// `(r)shared`, `(r)slave`, `(r)private`, `(r)unbindable`
pub(super) fn propagation(text: &str) -> Parsed {
    let bare = text.strip_prefix('r').unwrap_or(text);
    if ["shared", "slave", "private", "unbindable"].contains(&bare) {
        Ok(text.into())
    } else {
        Err("modes are (r)shared, (r)slave, (r)private, (r)unbindable".into())
    }
}
