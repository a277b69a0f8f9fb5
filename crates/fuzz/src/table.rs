// SPDX-License-Identifier: Apache-2.0
//! Truth tables: scopes and identities by rules that are written down a second time, as plainly as can be.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use gantry_image::{ManifestBytes, UnverifiedManifest};
use gantry_oci::{Limits, Reference};
use gantry_trust::extra::Circumstances;
use gantry_trust::identity::SignedIdentity;
use gantry_trust::{Authority, Extra, NoMemory, Policy, Question, Subject};
use serde_json::json;

const HOSTS: [&str; 5] = [
    "a.example",
    "a.example:5000",
    "b.a.example",
    "docker.io",
    "localhost",
];
const PATHS: [&str; 6] = ["x", "x/y", "x/y/z", "xx", "x/yy", "library/x"];
const POINTERS: [&str; 5] = ["", ":v1", ":v2", ":latest", DIGEST];
const DIGEST: &str = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Bytes as choices.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn of<T: Copy>(&mut self, these: &[T]) -> T {
        let number = usize::from(self.0.next().copied().unwrap_or(0));
        these[number % these.len()]
    }

    fn name(&mut self) -> [&'static str; 3] {
        [self.of(&HOSTS), self.of(&PATHS), self.of(&POINTERS)]
    }
}

/// A repository of one component at Docker's is the library's.
fn normal([host, path, pointer]: [&'static str; 3]) -> [&'static str; 3] {
    match (host, path) {
        ("docker.io", "x") => [host, "library/x", pointer],
        ("docker.io", "xx") => [host, "library/xx", pointer],
        _ => [host, path, pointer],
    }
}

/// The scopes of an image, from the word of the manual page: the reference, the repository, each namespace, the host,
/// wildcards, the transport.
fn scopes_of([host, path, pointer]: [&str; 3]) -> Vec<String> {
    let pointer = if pointer.is_empty() {
        ":latest"
    } else {
        pointer
    };
    let mut scopes = vec![format!("{host}/{path}{pointer}")];
    let mut rest = path;
    loop {
        scopes.push(format!("{host}/{rest}"));
        match rest.rfind('/') {
            Some(end) => rest = &rest[..end],
            None => break,
        }
    }
    scopes.push(host.to_owned());
    let mut name = host.split(':').next().unwrap_or_default();
    while let Some(dot) = name.find('.') {
        name = &name[dot + 1..];
        scopes.push(format!("*.{name}"));
    }
    scopes.push(String::new());
    scopes
}

fn manifest() -> ManifestBytes {
    let text = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let manifest = UnverifiedManifest::new(Bytes::from_static(text.as_bytes()), None, None);
    manifest
        .verify(None, &Limits::DEFAULT)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A policy of acceptances and rejections: admitted is what the table says.
pub(crate) fn scopes(data: &[u8]) {
    let mut choices = Choices(data.iter());
    let image = choices.name();
    let verdict = |accepted| {
        if accepted {
            "insecureAcceptAnything"
        } else {
            "reject"
        }
    };
    let default: bool = choices.of(&[false, true]);
    let mut table: BTreeMap<String, bool> = BTreeMap::new();
    for _ in 0..choices.of(&[0, 1, 2, 3, 5, 8]) {
        let scopes = scopes_of(choices.name());
        let scope = &scopes[usize::from(choices.of(&[0_u8, 1, 2, 3, 4, 5, 6, 7])) % scopes.len()];
        table.insert(scope.clone(), choices.of(&[false, true]));
    }
    let held = scopes_of(normal(image))
        .into_iter()
        .find_map(|scope| table.get(&scope).copied());
    let docker: serde_json::Map<_, _> = table
        .iter()
        .map(|(scope, accepted)| (scope.clone(), json!([{"type": verdict(*accepted)}])))
        .collect();
    let text = json!({"default": [{"type": verdict(default)}], "transports": {"docker": docker}})
        .to_string();
    let policy = Policy::parse(text.clone().into(), &Limits::DEFAULT);
    let policy = policy
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .load_keys(&Limits::DEFAULT);
    let name = image.concat_with_slash();
    let reference =
        Reference::parse_normalized(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let question = Question {
        subject: &Subject::docker(&reference.or_latest()),
        manifest: &manifest(),
        chosen_from: None,
        signatures: &[],
        now: SystemTime::UNIX_EPOCH,
        circumstances: Circumstances::default(),
    };
    let admitted = Authority::new(policy, Extra::default())
        .admit(&question, &NoMemory)
        .is_ok();
    assert_eq!(admitted, held.unwrap_or(default), "{name} under {text}");
}

trait Name {
    fn concat_with_slash(&self) -> String;
}

impl Name for [&str; 3] {
    fn concat_with_slash(&self) -> String {
        format!("{}/{}{}", self[0], self[1], self[2])
    }
}

/// Whether a signature's name is for an image, from the word of the manual page.
fn is_for(rule: usize, image: [&str; 3], signed: [&str; 3], other: [&str; 3]) -> bool {
    let full = |name: [&'_ str; 3]| {
        if name[2].is_empty() {
            format!("{}/{}:latest", name[0], name[1])
        } else {
            name.concat_with_slash()
        }
    };
    let repository = |name: [&str; 3]| format!("{}/{}", name[0], name[1]);
    let pointed = !signed[2].is_empty();
    match rule {
        // matchRepoDigestOrExact
        0 if image[2] == DIGEST => pointed && repository(image) == repository(signed),
        0 | 1 => pointed && full(image) == full(signed),
        // matchRepository
        2 => repository(image) == repository(signed),
        // exactReference
        3 => pointed && full(other) == full(signed),
        // exactRepository
        _ => repository(other) == repository(signed),
    }
}

/// Each rule of identity against its table.
pub(crate) fn identity(data: &[u8]) {
    let mut choices = Choices(data.iter());
    let (image, signed, mut other) = (choices.name(), choices.name(), choices.name());
    if other[2].is_empty() {
        other[2] = ":v1";
    }
    let rule = usize::from(choices.of(&[0_u8, 1, 2, 3, 4]));
    let text = match rule {
        0 => json!({"type": "matchRepoDigestOrExact"}),
        1 => json!({"type": "matchExact"}),
        2 => json!({"type": "matchRepository"}),
        3 => json!({"type": "exactReference", "dockerReference": other.concat_with_slash()}),
        _ => {
            json!({"type": "exactRepository", "dockerRepository": format!("{}/{}", other[0], other[1])})
        }
    };
    let parsed = SignedIdentity::parse_json(&text.to_string());
    let parsed = parsed.unwrap_or_else(|error| panic!("{text}: {error}"));
    let name = image.concat_with_slash();
    let reference =
        Reference::parse_normalized(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let signed_name = signed.concat_with_slash();
    let accepted = parsed.accepts(Some(&reference), &signed_name).is_ok();
    assert_eq!(
        accepted,
        is_for(rule, normal(image), normal(signed), normal(other)),
        "{name} signed as {signed_name} under {text}"
    );
}
