// SPDX-License-Identifier: Apache-2.0
//! Groups that systemd makes: a transient scope for each container.
//!
//! systemd owns the tree, and asks everybody to take their groups from it. A scope begins with a process that is there
//! already, so the unit is made when the first process joins. It is delegated: what is below is ours, and limits that are
//! no properties of units are written to its files as without systemd. Those that are properties are told as such, too,
//! or the next reload would undo them.
//!
//! `cgroupsPath` is `SLICE:PREFIX:NAME`: the unit `PREFIX-NAME.scope` in `SLICE`. Each part may be empty: the slice is then
//! `system.slice` (`user.slice` for a user's manager), and the name the container's. An annotation
//! `org.systemd.property.NAME` sets a property, in the text form of `busctl`'s variants.
//!
//! In version 1 systemd makes its own hierarchy's group, and the others are made beside it by us.
//!
//! # Source
//! `org.freedesktop.systemd1(5)`, `systemd.resource-control(5)`, `CGROUP_DELEGATION.md` of systemd.

mod bus;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use super::{PlanError, version_2};
use bus::{Body, Bus, Message, Target};

pub use bus::{BusError, Value};

/// Where the manager is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusAddress {
    /// The bus's socket.
    pub path: PathBuf,
    /// True for a user's manager.
    pub user: bool,
}

impl BusAddress {
    /// The system's manager.
    #[must_use]
    pub fn system() -> Self {
        Self {
            path: "/run/dbus/system_bus_socket".into(),
            user: false,
        }
    }

    /// A user's manager, from `DBUS_SESSION_BUS_ADDRESS` and `XDG_RUNTIME_DIR`.
    #[must_use]
    pub fn user(address: Option<&str>, runtime_dir: Option<&str>) -> Option<Self> {
        let listed = address.into_iter().flat_map(|address| address.split(';'));
        let named = listed
            .filter_map(|one| one.strip_prefix("unix:"))
            .find_map(|one| {
                let path = one.split(',').find_map(|pair| pair.strip_prefix("path="))?;
                Some(PathBuf::from(path))
            });
        let path = named.or_else(|| runtime_dir.map(|dir| PathBuf::from(dir).join("bus")))?;
        Some(Self { path, user: true })
    }
}

/// A unit to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitPlan {
    /// Its name.
    pub name: String,
    /// The slice in which it is.
    pub slice: String,
    /// Who makes it.
    pub bus: BusAddress,
    /// What it is told, but for its processes.
    pub properties: Vec<(String, Value)>,
}

/// A unit that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRef {
    /// Its name.
    pub name: String,
    /// Who made it.
    pub bus: BusAddress,
}

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

impl UnitPlan {
    pub(super) fn new(
        spec: &Spec,
        id: &str,
        path: Option<&str>,
        bus: &BusAddress,
        resources: Option<&LinuxResources>,
        unified: bool,
    ) -> Result<Self, PlanError> {
        let path = path.unwrap_or_default();
        let refuse = |problem: &str| PlanError::Path {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let parts: Vec<&str> = if path.is_empty() {
            vec!["", "", ""]
        } else {
            path.split(':').collect()
        };
        let [slice, prefix, name] = parts[..] else {
            return Err(refuse("for systemd it is SLICE:PREFIX:NAME"));
        };
        let default = if bus.user {
            "user.slice"
        } else {
            "system.slice"
        };
        let slice = if slice.is_empty() { default } else { slice };
        if group_of_slice(slice).is_none() {
            return Err(refuse("the first part is no name of a slice"));
        }
        let name = if name.is_empty() { id } else { name };
        let name = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let valid = |letter: char| letter.is_ascii_alphanumeric() || ":-_.\\@".contains(letter);
        if name.len() > 255 || !name.chars().all(valid) {
            return Err(refuse("it makes no name of a unit"));
        }
        let mut all: Vec<(String, Value)> = vec![
            (
                "Description".to_owned(),
                Value::Text(format!("container {id}")),
            ),
            ("Slice".to_owned(), Value::Text(slice.to_owned())),
            ("Delegate".to_owned(), Value::Bool(true)),
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
        ];
        for accounting in [
            "CPUAccounting",
            "MemoryAccounting",
            "IOAccounting",
            "TasksAccounting",
        ] {
            all.push((accounting.to_owned(), Value::Bool(true)));
        }
        if let Some(resources) = resources {
            all.extend(properties(resources, unified));
        }
        for (name, value) in annotated(spec)? {
            all.retain(|(known, _)| *known != name);
            all.push((name, value));
        }
        Ok(Self {
            name,
            slice: slice.to_owned(),
            bus: bus.clone(),
            properties: all,
        })
    }

    /// The group of the unit, below the manager's root.
    pub(super) fn group_path(&self) -> String {
        let slice = group_of_slice(&self.slice).unwrap_or_default();
        if slice.is_empty() {
            self.name.clone()
        } else {
            format!("{slice}/{}", self.name)
        }
    }

    /// The unit, as it will be.
    pub(super) fn reference(&self) -> UnitRef {
        UnitRef {
            name: self.name.clone(),
            bus: self.bus.clone(),
        }
    }

    /// Makes the unit around a process, and waits until it is there.
    ///
    /// # Errors
    /// The bus's or the manager's refusal.
    pub fn start(&self, pid: u32) -> Result<UnitRef, BusError> {
        let mut properties = self.properties.clone();
        properties.push(("PIDs".to_owned(), Value::U32s(vec![pid])));
        let unit = self.reference();
        let mut bus = open(&self.bus)?;
        let mut body = Body::default();
        body.text(&self.name);
        body.text("fail");
        body.properties(&properties);
        body.no_auxiliary_units();
        let start =
            |bus: &mut Bus| bus.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body);
        let answer = match start(&mut bus) {
            Err(error) if error.is_named(UNIT_EXISTS) => {
                // One that failed stays until somebody has seen it.
                unit.reset(&mut bus)?;
                start(&mut bus)?
            }
            other => other?,
        };
        finish(&mut bus, &answer)?;
        Ok(unit)
    }
}

fn open(address: &BusAddress) -> Result<Bus, BusError> {
    let mut bus = Bus::connect(&address.path)?;
    bus.listen("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'")?;
    bus.call(MANAGER, "Subscribe", "", &Body::default())?;
    Ok(bus)
}

/// Waits for the job that an answer names.
fn finish(bus: &mut Bus, answer: &Message) -> Result<(), BusError> {
    let job = answer
        .read()
        .text()
        .ok_or(BusError::Protocol("an answer without a job"))?;
    let result = bus.signal("JobRemoved", |message| {
        let mut body = message.read();
        body.u32()?;
        let (path, _unit, result) = (body.text()?, body.text()?, body.text()?);
        (path == job).then_some(result)
    })?;
    if result == "done" {
        Ok(())
    } else {
        Err(BusError::Job { result })
    }
}

impl UnitRef {
    fn reset(&self, bus: &mut Bus) -> Result<(), BusError> {
        let mut body = Body::default();
        body.text(&self.name);
        match bus.call(MANAGER, "ResetFailedUnit", "s", &body) {
            Err(error) if error.is_named(NO_SUCH_UNIT) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Ends the unit and what runs in it; one that is gone is none.
    ///
    /// # Errors
    /// The bus's or the manager's refusal.
    pub fn stop(&self) -> Result<(), BusError> {
        let mut bus = open(&self.bus)?;
        let mut body = Body::default();
        body.text(&self.name);
        body.text("replace");
        match bus.call(MANAGER, "StopUnit", "ss", &body) {
            Err(error) if error.is_named(NO_SUCH_UNIT) => return Ok(()),
            other => finish(&mut bus, &other?)?,
        }
        self.reset(&mut bus)
    }

    /// Changes properties for as long as the unit lives.
    ///
    /// # Errors
    /// The bus's or the manager's refusal.
    pub fn set(&self, properties: &[(String, Value)]) -> Result<(), BusError> {
        if properties.is_empty() {
            return Ok(());
        }
        let mut bus = Bus::connect(&self.bus.path)?;
        let mut body = Body::default();
        body.text(&self.name);
        body.bool(true);
        body.properties(properties);
        bus.call(MANAGER, "SetUnitProperties", "sba(sv)", &body)
            .map(|_| ())
    }
}

/// `a-b.slice` is `a.slice/a-b.slice`; the root slice is `-.slice`.
fn group_of_slice(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    if name.is_empty() || name.contains('/') || name.split('-').any(str::is_empty) {
        return None;
    }
    let mut path = Vec::new();
    let mut so_far = String::new();
    for part in name.split('-') {
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push(format!("{so_far}.slice"));
    }
    Some(path.join("/"))
}

/// What limits are called as properties.
#[must_use]
pub fn properties(resources: &LinuxResources, unified: bool) -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = Vec::new();
    let mut add = |name: &str, value: Value| all.push((name.to_owned(), value));
    // Less than nothing is no limit, for which systemd has the largest number.
    let bytes = |limit: i64| Value::U64(u64::try_from(limit).unwrap_or(u64::MAX));
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            add(
                if unified { "MemoryMax" } else { "MemoryLimit" },
                bytes(limit),
            );
        }
        if unified {
            if let Some(reservation) = memory.reservation().filter(|limit| *limit != 0) {
                add("MemoryLow", bytes(reservation));
            }
            if let Some(swap) = memory.swap().filter(|swap| *swap != 0)
                && let Ok(swap) = version_2::swap_max(memory.limit(), swap)
            {
                add(
                    "MemorySwapMax",
                    Value::U64(swap.parse().unwrap_or(u64::MAX)),
                );
            }
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            if unified {
                add("CPUWeight", Value::U64(version_2::cpu_weight(shares)));
            } else {
                add("CPUShares", Value::U64(shares));
            }
        }
        let period = cpu.period().filter(|period| *period != 0);
        if let Some(period) = period {
            add("CPUQuotaPeriodUSec", Value::U64(period));
        }
        if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
            add(
                "CPUQuotaPerSecUSec",
                Value::U64(quota_per_second(quota, period.unwrap_or(100_000))),
            );
        }
        if unified {
            for (name, list) in [
                ("AllowedCPUs", cpu.cpus()),
                ("AllowedMemoryNodes", cpu.mems()),
            ] {
                if let Some(mask) = list
                    .as_deref()
                    .and_then(mask)
                    .filter(|mask| !mask.is_empty())
                {
                    add(name, Value::Bytes(mask));
                }
            }
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit() } else { -1 };
        add("TasksMax", bytes(limit));
    }
    if unified
        && let Some(weight) = resources
            .block_io()
            .as_ref()
            .and_then(|io| io.weight())
            .filter(|weight| *weight != 0)
    {
        add("IOWeight", Value::U64(version_2::io_weight(weight)));
    }
    if unified {
        let files: BTreeMap<_, _> = resources.unified().iter().flatten().collect();
        for (name, value) in files
            .into_iter()
            .filter_map(|(file, value)| named_file(file, value))
        {
            all.retain(|(known, _)| *known != name);
            all.push((name.to_owned(), value));
        }
    }
    all
}

/// The property for a file of `unified`, where there is one: without it the next reload would undo what was written.
fn named_file(file: &str, value: &str) -> Option<(&'static str, Value)> {
    let number = |value: &str| match value.trim() {
        "max" => Some(Value::U64(u64::MAX)),
        number => number.parse().ok().map(Value::U64),
    };
    let name = match file {
        "cpu.weight" => "CPUWeight",
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpuset.cpus" => return Some(("AllowedCPUs", Value::Bytes(mask(value)?))),
        "cpuset.mems" => return Some(("AllowedMemoryNodes", Value::Bytes(mask(value)?))),
        "cpu.max" => {
            let (quota, period) = value
                .trim()
                .split_once(' ')
                .unwrap_or((value.trim(), "100000"));
            let quota = if quota == "max" {
                -1
            } else {
                quota.parse().ok()?
            };
            let period = period.trim().parse().ok().filter(|period| *period != 0)?;
            return Some((
                "CPUQuotaPerSecUSec",
                Value::U64(quota_per_second(quota, period)),
            ));
        }
        _ => return None,
    };
    Some((name, number(value)?))
}

/// Processor time in a second, which systemd keeps in steps of ten milliseconds: rounded up, so as not to limit to less.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    const STEP_US: u64 = 10_000;
    let Ok(quota) = u64::try_from(quota) else {
        return u64::MAX;
    };
    let per_second = u128::from(quota) * 1_000_000 / u128::from(period);
    u64::try_from(per_second).map_or(u64::MAX, |number| number.next_multiple_of(STEP_US))
}

/// `0-2,5` as bits, the first in the lowest place; `None` when it is no such list.
fn mask(list: &str) -> Option<Vec<u8>> {
    const HIGHEST: usize = 8191;
    let mut bits = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > HIGHEST {
            return None;
        }
        if bits.len() <= last / 8 {
            bits.resize(last / 8 + 1, 0);
        }
        (first..=last).for_each(|bit| bits[bit / 8] |= 1 << (bit % 8));
    }
    Some(bits)
}

const PROPERTY: &str = "org.systemd.property.";

fn annotated(spec: &Spec) -> Result<Vec<(String, Value)>, PlanError> {
    let mut list: Vec<_> = spec.annotations().iter().flatten().collect();
    list.sort();
    list.into_iter()
        .filter_map(|(key, text)| Some((key, key.strip_prefix(PROPERTY)?, text)))
        .map(|(key, name, text)| {
            let refuse = |problem: &str| PlanError::Annotation {
                name: key.clone(),
                problem: problem.to_owned(),
            };
            let letters = |name: &str| {
                !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphabetic())
            };
            if !letters(name) {
                return Err(refuse("it names no property"));
            }
            let value =
                parse_value(text.trim()).ok_or_else(|| refuse("its value cannot be read"))?;
            // What is given in seconds is set in microseconds.
            Ok(match (name.strip_suffix("Sec"), &value) {
                (Some(stem), Value::U64(_) | Value::F64(_) | Value::I32(_))
                    if !name.ends_with("USec") =>
                {
                    let value = micro(&value).ok_or_else(|| refuse("its value cannot be read"))?;
                    (format!("{stem}USec"), value)
                }
                _ => (name.to_owned(), value),
            })
        })
        .collect()
}

fn micro(value: &Value) -> Option<Value> {
    Some(Value::U64(match value {
        Value::U64(seconds) => seconds.checked_mul(1_000_000)?,
        Value::I32(seconds) => u64::try_from(*seconds).ok()?.checked_mul(1_000_000)?,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was looked at"
        )]
        Value::F64(seconds) if (0.0..1e12).contains(seconds) => (seconds * 1e6) as u64,
        _ => return None,
    }))
}

/// The text form of a variant, as far as units have such values.
fn parse_value(text: &str) -> Option<Value> {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        let items = inner
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        return items
            .map(quoted)
            .collect::<Option<Vec<_>>>()
            .map(Value::Texts);
    }
    if let Some(text) = quoted(text) {
        return Some(Value::Text(text));
    }
    match text.split_once(char::is_whitespace) {
        Some(("uint32", number)) => number.trim().parse().ok().map(Value::U32),
        Some(("uint64", number)) => number.trim().parse().ok().map(Value::U64),
        Some(("int32", number)) => number.trim().parse().ok().map(Value::I32),
        Some(("int64", number)) => number.trim().parse().ok().map(Value::I64),
        Some(("double", number)) => number.trim().parse().ok().map(Value::F64),
        Some(_) => None,
        None if text == "true" || text == "false" => Some(Value::Bool(text == "true")),
        None if text.contains('.') => text.parse().ok().map(Value::F64),
        None => text.parse().ok().map(Value::I32),
    }
}

fn quoted(text: &str) -> Option<String> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(['\\', quote])).then(|| inner.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn spec(resources: &Json, annotations: &Json) -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.2.0", "annotations": annotations, "linux": {"resources": resources},
        }))
        .unwrap()
    }

    fn unit(path: &str, spec: &Spec) -> Result<UnitPlan, PlanError> {
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        UnitPlan::new(
            spec,
            "id",
            Some(path),
            &BusAddress::system(),
            resources,
            true,
        )
    }

    #[test]
    fn path_names_slice_and_scope() {
        let empty = spec(&json!({}), &json!({}));
        for (path, name, group) in [
            ("", "id.scope", "system.slice/id.scope"),
            ("::", "id.scope", "system.slice/id.scope"),
            (
                "machine-a-b.slice:libpod:c",
                "libpod-c.scope",
                "machine.slice/machine-a.slice/machine-a-b.slice/libpod-c.scope",
            ),
            ("-.slice:x:", "x-id.scope", "x-id.scope"),
        ] {
            let unit = unit(path, &empty).unwrap();
            assert_eq!(
                (unit.name.as_str(), unit.group_path().as_str()),
                (name, group),
                "{path}"
            );
        }
        for path in [
            "/a/b",
            "a.slice:b",
            "a.slice/b:c:d",
            "a--b.slice:c:d",
            "a.slice:b:c/d",
            "x:y:z",
        ] {
            assert!(unit(path, &empty).is_err(), "{path}");
        }
    }

    #[test]
    fn limits_are_properties() {
        let resources = json!({
            "memory": {"limit": 1000, "swap": 1500, "reservation": -1},
            "cpu": {"shares": 1024, "quota": 12345, "period": 50000, "cpus": "0-2,9", "mems": "0"},
            "pids": {"limit": 0}, "blockIO": {"weight": 10},
            "unified": {"memory.high": "900", "pids.max": "max", "io.max": "8:0 rbps=1", "memory.low": "7"},
        });
        let spec = spec(&resources, &json!({}));
        let properties = properties(
            spec.linux().as_ref().unwrap().resources().as_ref().unwrap(),
            true,
        );
        let want = [
            ("MemoryMax", Value::U64(1000)),
            ("MemorySwapMax", Value::U64(500)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPeriodUSec", Value::U64(50000)),
            ("CPUQuotaPerSecUSec", Value::U64(250_000)),
            ("AllowedCPUs", Value::Bytes(vec![0b111, 0b10])),
            ("AllowedMemoryNodes", Value::Bytes(vec![1])),
            ("IOWeight", Value::U64(1)),
            ("MemoryHigh", Value::U64(900)),
            ("MemoryLow", Value::U64(7)),
            ("TasksMax", Value::U64(u64::MAX)),
        ];
        assert_eq!(
            properties,
            want.map(|(name, value)| (name.to_owned(), value))
        );
    }

    #[test]
    fn annotations_set_properties() {
        let annotations = json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 5",
            "org.systemd.property.TimeoutStartSec": "1.5",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['a.service', \"b.service\"]",
            "org.systemd.property.Delegate": "false",
            "other": "x",
        });
        let unit = unit("", &spec(&json!({}), &annotations)).unwrap();
        let of = |name: &str| {
            unit.properties
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("TimeoutStopUSec"), [&Value::U64(5)]);
        assert_eq!(of("TimeoutStartUSec"), [&Value::U64(1_500_000)]);
        assert_eq!(
            of("CollectMode"),
            [&Value::Text("inactive-or-failed".to_owned())]
        );
        assert_eq!(
            of("After"),
            [&Value::Texts(vec![
                "a.service".to_owned(),
                "b.service".to_owned()
            ])]
        );
        assert_eq!(of("Delegate"), [&Value::Bool(false)]);
        for (name, text) in [
            ("A b", "1"),
            ("X", "uint64 -1"),
            ("X", "'a'b'"),
            ("X", "string x"),
        ] {
            let annotations = json!({format!("org.systemd.property.{name}"): text});
            assert!(
                super::annotated(&spec(&json!({}), &annotations)).is_err(),
                "{name} {text}"
            );
        }
    }

    #[test]
    fn bus_of_a_user_is_found() {
        let path =
            |address, dir| BusAddress::user(address, dir).map(|bus| bus.path.display().to_string());
        assert_eq!(
            path(Some("unix:abstract=/x;unix:path=/a,guid=1"), None).as_deref(),
            Some("/a")
        );
        assert_eq!(
            path(None, Some("/run/user/5")).as_deref(),
            Some("/run/user/5/bus")
        );
        assert_eq!(path(Some("tcp:host=x"), None), None);
    }

    #[test]
    fn lists_of_processors_are_bits() {
        assert_eq!(mask("0-2,5").unwrap(), [0b10_0111]);
        assert_eq!(mask("8").unwrap(), [0, 1]);
        for list in ["2-1", "x", "0-99999", "-1"] {
            assert_eq!(mask(list), None, "{list}");
        }
    }
}
