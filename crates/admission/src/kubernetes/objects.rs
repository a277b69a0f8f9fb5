// SPDX-License-Identifier: Apache-2.0
//! The images that an object of the cluster would run.
//!
//! # Source
//! Kubernetes API v1.36: `core/v1`, `apps/v1`, `batch/v1`.

use serde_json::Value;

/// The kinds that hold pods, and where their pod's `spec` is.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("", "Pod", &["spec"]),
    ("", "PodTemplate", &["template", "spec"]),
    ("", "ReplicationController", TEMPLATE),
    ("apps", "DaemonSet", TEMPLATE),
    ("apps", "Deployment", TEMPLATE),
    ("apps", "ReplicaSet", TEMPLATE),
    ("apps", "StatefulSet", TEMPLATE),
    (
        "batch",
        "CronJob",
        &["spec", "jobTemplate", "spec", "template", "spec"],
    ),
    ("batch", "Job", TEMPLATE),
];

const TEMPLATE: &[&str] = &["spec", "template", "spec"];

/// The lists of containers in a pod's `spec`.
const CONTAINERS: &[&str] = &["initContainers", "containers", "ephemeralContainers"];

/// The images of an object, in order, each as often as it occurs.
///
/// # Errors
/// A sentence: the kind holds no pods that are known of, or the object is not made as its kind says.
pub fn images(group: &str, kind: &str, object: &Value) -> Result<Vec<String>, String> {
    let (_, _, path) = KINDS
        .iter()
        .find(|(known_group, known, _)| *known_group == group && *known == kind)
        .ok_or_else(|| {
            format!("objects of the kind {kind:?} of {group:?} are not known to hold pods")
        })?;
    let mut spec = object;
    for name in *path {
        spec = match member(spec, name)? {
            Some(inner) => inner,
            // A replication controller may have no template, and runs nothing then.
            None if *name == "template" => return Ok(Vec::new()),
            None => return Err(format!("the {kind} has no {}", path.join("."))),
        };
    }
    pod_images(spec)
}

fn pod_images(spec: &Value) -> Result<Vec<String>, String> {
    let mut images = Vec::new();
    for list in CONTAINERS {
        for container in items(spec, list)? {
            images.push(text(container, "image", list)?);
        }
    }
    for volume in items(spec, "volumes")? {
        if let Some(image) = member(volume, "image")? {
            images.push(text(image, "reference", "volumes")?);
        }
    }
    Ok(images)
}

fn member<'a>(object: &'a Value, name: &str) -> Result<Option<&'a Value>, String> {
    let object = object
        .as_object()
        .ok_or_else(|| format!("what should have {name:?} is no object"))?;
    Ok(object.get(name).filter(|value| !value.is_null()))
}

fn items<'a>(object: &'a Value, name: &str) -> Result<&'a [Value], String> {
    match member(object, name)? {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("{name:?} is no list")),
    }
}

fn text(object: &Value, name: &str, list: &str) -> Result<String, String> {
    match member(object, name)? {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        _ => Err(format!("an entry of {list} has no {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(image: &str) -> Value {
        json!({"containers": [{"name": "c", "image": image}]})
    }

    #[test]
    fn every_kind_that_holds_pods_is_read() {
        for (group, kind, object) in [
            ("", "Pod", json!({"spec": pod("a")})),
            ("", "PodTemplate", json!({"template": {"spec": pod("a")}})),
            (
                "",
                "ReplicationController",
                json!({"spec": {"template": {"spec": pod("a")}}}),
            ),
            (
                "apps",
                "Deployment",
                json!({"spec": {"template": {"spec": pod("a")}}}),
            ),
            (
                "apps",
                "DaemonSet",
                json!({"spec": {"template": {"spec": pod("a")}}}),
            ),
            (
                "apps",
                "StatefulSet",
                json!({"spec": {"template": {"spec": pod("a")}}}),
            ),
            (
                "apps",
                "ReplicaSet",
                json!({"spec": {"template": {"spec": pod("a")}}}),
            ),
            (
                "batch",
                "Job",
                json!({"spec": {"template": {"spec": pod("a")}}}),
            ),
            (
                "batch",
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod("a")}}}}}),
            ),
        ] {
            assert_eq!(images(group, kind, &object), Ok(vec!["a".into()]), "{kind}");
        }
    }

    #[test]
    fn every_place_in_a_pod_is_read() {
        let object = json!({"spec": {
            "containers": [{"image": "c"}, {"image": "d"}],
            "initContainers": [{"image": "i", "restartPolicy": "Always"}],
            "ephemeralContainers": [{"image": "e", "targetContainerName": "c"}],
            "volumes": [{"name": "x", "emptyDir": {}}, {"name": "v", "image": {"reference": "v"}}],
        }});
        assert_eq!(
            images("", "Pod", &object),
            Ok(["i", "c", "d", "e", "v"].map(Into::into).to_vec())
        );
    }

    #[test]
    fn what_is_not_as_it_should_be_is_refused() {
        for (group, kind, object) in [
            ("", "ConfigMap", json!({})),
            ("apps", "Pod", json!({"spec": pod("a")})),
            ("", "Deployment", json!({"spec": pod("a")})),
            ("", "Pod", json!({})),
            ("", "Pod", json!(null)),
            ("", "Pod", json!({"spec": []})),
            ("", "Pod", json!({"spec": {"containers": {}}})),
            ("", "Pod", json!({"spec": {"containers": [1]}})),
            ("", "Pod", json!({"spec": {"containers": [{"name": "c"}]}})),
            ("", "Pod", json!({"spec": {"containers": [{"image": ""}]}})),
            ("", "Pod", json!({"spec": {"volumes": [{"image": {}}]}})),
            ("apps", "Deployment", json!({"spec": {"template": {}}})),
            ("batch", "CronJob", json!({"spec": {}})),
        ] {
            assert!(images(group, kind, &object).is_err(), "{kind} {object}");
        }
    }
}
