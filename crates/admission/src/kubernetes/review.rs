// SPDX-License-Identifier: Apache-2.0
//! The two forms of review that an API server sends, and their answers.
//!
//! # Source
//! Kubernetes `imagepolicy.k8s.io/v1alpha1` `ImageReview`; `admission.k8s.io/v1` `AdmissionReview`.

use std::collections::HashSet;

use gantry_oci::strict_json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::objects;
use crate::decision::Answer;

/// Deeper than any object that an API server accepts.
const DEPTH: usize = 100;

const IMAGE_POLICY: &str = "imagepolicy.k8s.io/v1alpha1";
const ADMISSION: &str = "admission.k8s.io/v1";

/// What a review asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// To be repeated in the answer.
    pub uid: Option<String>,
    /// What is to be made or changed, for the journal.
    pub subject: String,
    /// Who wants it.
    pub user: Option<String>,
    /// Where.
    pub namespace: Option<String>,
    /// The images that it would run and did not run before; or why they cannot be told.
    pub images: Result<Vec<String>, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<T> {
    api_version: String,
    kind: String,
    /// Of an `AdmissionReview`.
    request: Option<T>,
    /// Of an `ImageReview`.
    spec: Option<T>,
}

#[derive(Deserialize)]
struct ImageReviewSpec {
    #[serde(default)]
    containers: Vec<ImageReviewContainer>,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct ImageReviewContainer {
    #[serde(default)]
    image: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionRequest {
    uid: String,
    kind: GroupVersionKind,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    operation: String,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    #[serde(default)]
    group: String,
    kind: String,
}

#[derive(Deserialize, Default)]
struct UserInfo {
    #[serde(default)]
    username: String,
}

fn envelope<T: for<'de> Deserialize<'de>>(
    body: &[u8],
    api_version: &str,
    kind: &str,
) -> Result<Envelope<T>, String> {
    strict_json::check(body, DEPTH).map_err(|error| error.to_string())?;
    let envelope: Envelope<T> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if envelope.api_version != api_version || envelope.kind != kind {
        return Err(format!("this is no {kind} of {api_version}"));
    }
    Ok(envelope)
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Reads an `ImageReview`.
///
/// # Errors
/// What is none.
pub fn read_image_review(body: &[u8]) -> Result<Review, String> {
    let review = envelope::<ImageReviewSpec>(body, IMAGE_POLICY, "ImageReview")?;
    let spec = review.spec.ok_or("the review asks nothing")?;
    let images = spec.containers.into_iter().map(|container| {
        some(container.image).ok_or_else(|| "a container names no image".to_owned())
    });
    Ok(Review {
        uid: None,
        subject: "pod".to_owned(),
        user: None,
        namespace: some(spec.namespace),
        images: images.collect(),
    })
}

/// Reads an `AdmissionReview`.
///
/// Of an update only the images count that were not there before: whoever takes a finalizer from a pod, or scales
/// a deployment, runs nothing new by that, and a pod that is refused today must be possible to remove.
///
/// # Errors
/// What is none.
pub fn read_admission_review(body: &[u8]) -> Result<Review, String> {
    let review = envelope::<AdmissionRequest>(body, ADMISSION, "AdmissionReview")?;
    let request = review.request.ok_or("the review asks nothing")?;
    let sub = request
        .sub_resource
        .filter(|sub| !sub.is_empty())
        .map_or_else(String::new, |sub| format!("/{sub}"));
    let (group, kind) = (&request.kind.group, &request.kind.kind);
    let images = match request.operation.as_str() {
        // Nothing is run by these.
        "DELETE" | "CONNECT" => Ok(Vec::new()),
        "CREATE" => objects::images(group, kind, &request.object),
        "UPDATE" => new_images(group, kind, &request.object, &request.old_object),
        other => Err(format!("the operation {other:?} is not known")),
    };
    Ok(Review {
        uid: Some(request.uid),
        subject: format!("{} {kind}{sub} {}", request.operation, request.name),
        user: some(request.user_info.username),
        namespace: some(request.namespace),
        images,
    })
}

fn new_images(group: &str, kind: &str, object: &Value, old: &Value) -> Result<Vec<String>, String> {
    let images = objects::images(group, kind, object)?;
    let before: HashSet<String> = if old.is_null() {
        HashSet::new()
    } else {
        objects::images(group, kind, old)?.into_iter().collect()
    };
    Ok(images
        .into_iter()
        .filter(|image| !before.contains(image))
        .collect())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageReviewAnswer<'a> {
    api_version: &'static str,
    kind: &'static str,
    status: ImageReviewStatus<'a>,
}

#[derive(Serialize)]
struct ImageReviewStatus<'a> {
    allowed: bool,
    reason: &'a str,
}

/// The answer to an `ImageReview`.
pub fn answer_image_review(answer: &Answer) -> impl Serialize + '_ {
    ImageReviewAnswer {
        api_version: IMAGE_POLICY,
        kind: "ImageReview",
        status: ImageReviewStatus {
            allowed: answer.allowed,
            reason: &answer.reason,
        },
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionAnswer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: AdmissionResponse<'a>,
}

#[derive(Serialize)]
struct AdmissionResponse<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    code: u16,
}

/// The answer to an `AdmissionReview`.
pub fn answer_admission_review<'a>(uid: &'a str, answer: &'a Answer) -> impl Serialize + 'a {
    let status = (!answer.allowed).then_some(Status {
        status: "Failure",
        message: &answer.reason,
        reason: "Forbidden",
        code: 403,
    });
    let warned = answer.allowed && !answer.admitted;
    AdmissionAnswer {
        api_version: ADMISSION,
        kind: "AdmissionReview",
        response: AdmissionResponse {
            uid,
            allowed: answer.allowed,
            status,
            warnings: if warned {
                vec![format!(
                    "not admitted by the signature policy: {}",
                    answer.reason
                )]
            } else {
                Vec::new()
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image_review(value: &Value) -> Result<Review, String> {
        read_image_review(value.to_string().as_bytes())
    }

    fn admission_review(request: Value) -> Result<Review, String> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        read_admission_review(review.to_string().as_bytes())
    }

    fn pod(image: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "image": image}]}})
    }

    fn pod_request(operation: &str, object: Value, old: Value) -> Value {
        json!({
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "p", "namespace": "n", "operation": operation,
            "userInfo": {"username": "admin", "groups": ["system:authenticated"]},
            "object": object, "oldObject": old, "dryRun": false, "options": null,
        })
    }

    #[test]
    fn an_image_review_is_read() {
        let review = image_review(&json!({
            "apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "metadata": {"creationTimestamp": null},
            "spec": {
                "containers": [{"image": "a"}, {"image": "b:1"}],
                "annotations": {"mycluster.image-policy.k8s.io/ticket-1234": "break-glass"},
                "namespace": "n",
            },
            "status": {"allowed": false},
        }))
        .unwrap();
        assert_eq!(review.images, Ok(vec!["a".into(), "b:1".into()]));
        assert_eq!(review.namespace.as_deref(), Some("n"));
    }

    #[test]
    fn an_admission_review_is_read() {
        let review = admission_review(pod_request("CREATE", pod("a"), Value::Null)).unwrap();
        assert_eq!(review.images, Ok(vec!["a".into()]));
        assert_eq!(
            review.uid.as_deref(),
            Some("705ab4f5-6393-11e8-b7cc-42010a800002")
        );
        assert_eq!(review.user.as_deref(), Some("admin"));
        assert_eq!(review.namespace.as_deref(), Some("n"));
        assert_eq!(review.subject, "CREATE Pod p");
    }

    #[test]
    fn an_update_is_judged_by_what_it_adds() {
        let images = |object, old| {
            admission_review(pod_request("UPDATE", object, old))
                .unwrap()
                .images
        };
        assert_eq!(images(pod("a"), pod("a")), Ok(vec![]));
        assert_eq!(images(pod("b"), pod("a")), Ok(vec!["b".into()]));
        assert_eq!(images(pod("a"), Value::Null), Ok(vec!["a".into()]));
        assert!(images(pod("a"), json!({})).is_err());
    }

    #[test]
    fn deletion_and_connection_run_nothing() {
        for operation in ["DELETE", "CONNECT"] {
            let review = admission_review(pod_request(operation, Value::Null, pod("a"))).unwrap();
            assert_eq!(review.images, Ok(vec![]), "{operation}");
        }
        let review = admission_review(pod_request("PATCH", pod("a"), Value::Null)).unwrap();
        assert!(review.images.is_err());
    }

    #[test]
    fn other_documents_are_refused() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}"#,
            r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":
                {"uid":"u","kind":{"group":"","kind":"Pod"},"operation":"DELETE"}}"#,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":
                {"uid":"u","uid":"v","kind":{"group":"","kind":"Pod"},"operation":"DELETE"}}"#,
        ] {
            assert!(read_admission_review(body.as_bytes()).is_err(), "{body}");
            assert!(read_image_review(body.as_bytes()).is_err(), "{body}");
        }
        assert!(
            image_review(&json!({"apiVersion": IMAGE_POLICY, "kind": "Pod", "spec": {}})).is_err()
        );
    }

    #[test]
    fn answers_have_the_shape_that_is_specified() {
        let refused = Answer {
            allowed: false,
            admitted: false,
            reason: "no".into(),
        };
        let audited = Answer {
            allowed: true,
            ..refused.clone()
        };
        let value =
            |answer: &Answer| serde_json::to_value(answer_admission_review("u", answer)).unwrap();
        assert_eq!(
            value(&refused),
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
                "uid": "u", "allowed": false,
                "status": {"status": "Failure", "message": "no", "reason": "Forbidden", "code": 403},
            }})
        );
        assert_eq!(
            value(&audited)["response"],
            json!({"uid": "u", "allowed": true,
                "warnings": ["not admitted by the signature policy: no"]})
        );
        assert_eq!(
            serde_json::to_value(answer_image_review(&refused)).unwrap(),
            json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
                "status": {"allowed": false, "reason": "no"}})
        );
    }
}
