// SPDX-License-Identifier: Apache-2.0
//! Images in layouts, and images chosen from an index.

use gantry_oci::{ManifestDigest, Platform};
use gantry_testkit::image::{self, INDEX};

use super::*;

/// skopeo's verdict on a source, by a policy and signatures in a lookaside directory.
fn skopeo_copies(world: &World, policy: &str, source: &str, lookaside: &Path) -> bool {
    let dir = world.dir.join("judge");
    fs::remove_dir_all(&dir).ok();
    let output = skopeo_copy(world, &dir, policy, source, lookaside);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() || said.contains("Source image rejected"),
        "{said}"
    );
    output.status.success()
}

#[test]
fn layouts_get_skopeos_verdict() {
    judges!();
    let world = World::new();
    let layout = world.dir.join("a/layout");
    fs::create_dir_all(&layout).unwrap();
    let from = format!("dir:{}", world.images[0].dir.display());
    let to = format!("oci:{}:v1", layout.display());
    tool::text("skopeo", ["--insecure-policy", "copy", "-q", &from, &to]).unwrap();
    let path = layout.display().to_string();
    let scopes = [
        path.clone(),
        format!("{path}:v1"),
        layout.parent().unwrap().display().to_string(),
        world.dir.path().display().to_string(),
        format!("{path}x"),
        path[..path.len() - 1].to_owned(),
        String::new(),
    ];
    let mut dice = Dice(0x6c61_796f_7574);
    let mut admitted = 0;
    for number in 0..40 {
        let verdict = |dice: &mut Dice| match dice.roll(5) {
            0..=1 => json!([{"type": "insecureAcceptAnything"}]),
            2..=3 => json!([{"type": "reject"}]),
            _ => requirements(&world, dice),
        };
        let mut oci = serde_json::Map::new();
        for _ in 0..dice.roll(4) {
            oci.insert(dice.one(&scopes).clone(), verdict(&mut dice));
        }
        let policy = json!({"default": verdict(&mut dice), "transports": {"oci": oci}}).to_string();
        let parsed = Policy::parse(Bytes::from(policy.clone()), &Limits::DEFAULT).unwrap();
        let question = Question {
            subject: &Subject::path(PathTransport::Oci, &layout),
            manifest: &world.images[0].manifest,
            chosen_from: None,
            signatures: &[],
            now: SystemTime::now(),
            circumstances: Circumstances::default(),
        };
        let ours = evaluate(
            &parsed.load_keys(&Limits::DEFAULT),
            &Extra::default(),
            &question,
        )
        .admitted;
        let skopeos = skopeo_copies(&world, &policy, &to, &world.dir.join("none"));
        assert_eq!(ours, skopeos, "case {number}: {policy}");
        admitted += usize::from(ours);
    }
    assert!((5..35).contains(&admitted), "{admitted} of 40 admitted");
}

#[test]
fn an_image_of_an_index_gets_skopeos_verdict_unless_the_index_is_signed() {
    judges!();
    let world = World::new();
    let host = world.registry.address();
    let manifest = &world.images[0].manifest;
    // The first is for this machine, so that skopeo chooses it.
    let entry = |image: &Image, architecture: &str| {
        let mut entry = serde_json::to_value(image.manifest.descriptor()).unwrap();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let here = Platform::host();
    let text = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&world.images[0], &here.architecture), entry(&world.images[1], "s390x")]});
    let index = UnverifiedManifest::new(Bytes::from(text.to_string()), None, None);
    let index = index.verify(None, &Limits::DEFAULT).unwrap();
    let layout = world.dir.join("index");
    let mut blobs = vec![text.to_string().into_bytes()];
    for image in &world.images {
        for file in fs::read_dir(&image.dir).unwrap() {
            blobs.push(fs::read(file.unwrap().path()).unwrap());
        }
    }
    let top = image::descriptor(INDEX, &blobs[0]);
    image::write_layout(&layout, &top, &blobs).unwrap();
    let name = format!("{host}/ns/app:multi");
    let (from, to) = (
        format!("oci:{}", layout.display()),
        format!("docker://{name}"),
    );
    let push = [
        "--insecure-policy",
        "copy",
        "-q",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &to,
    ];
    tool::text("skopeo", push).unwrap();

    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {host: [
        {"type": "signedBy", "keyType": "GPGKeys", "keyPath": world.dir.join("alice.gpg")}]}}})
    .to_string();
    let prepared = Policy::parse(Bytes::from(policy.clone()), &Limits::DEFAULT)
        .unwrap()
        .load_keys(&Limits::DEFAULT);
    let digests = [
        *manifest.digest(),
        *index.digest(),
        *world.images[1].manifest.digest(),
    ];
    let statement = |digest: &ManifestDigest| {
        let payload = json!({
            "critical": {"type": "atomic container signature",
                         "image": {"docker-manifest-digest": digest.to_string()},
                         "identity": {"docker-reference": name}},
            "optional": {},
        });
        sign(
            &world.dir.join("gpg"),
            "alice",
            payload.to_string().as_bytes(),
        )
    };
    // Each way to sign some of image, index and the other image, and each of them under each one's digest.
    for signed in 0..8_u8 {
        for under in 0..3 {
            let lookaside = world.dir.join("lookaside");
            fs::remove_dir_all(&lookaside).ok();
            let below = lookaside.join(format!("ns/app@sha256={}", digests[under].hex()));
            fs::create_dir_all(&below).unwrap();
            let chosen = (0..3).filter(|bit| signed & (1 << bit) != 0);
            let signatures: Vec<Bytes> = chosen.map(|bit| statement(&digests[bit])).collect();
            for (number, signature) in signatures.iter().enumerate() {
                fs::write(below.join(format!("signature-{}", number + 1)), signature).unwrap();
            }
            let skopeos = skopeo_copies(&world, &policy, &to, &lookaside);
            // Found are those of the image and of its index.
            let found: Vec<FoundSignature> = match under {
                2 => Vec::new(),
                _ => signatures
                    .into_iter()
                    .map(|bytes| FoundSignature {
                        blob: SignatureBlob {
                            format: "simple-signing".into(),
                            bytes,
                        },
                        place: "lookaside".into(),
                    })
                    .collect(),
            };
            let question = Question {
                subject: &Subject::docker(&Reference::parse_normalized(&name).unwrap()),
                manifest,
                chosen_from: Some(&index),
                signatures: &found,
                now: SystemTime::now(),
                circumstances: Circumstances::default(),
            };
            let ours = evaluate(&prepared, &Extra::default(), &question).admitted;
            // docs/trust.md: a signature of the index is one of all that it lists; skopeo looks at one digest's alone.
            let by_index = under < 2 && (signed & 2 != 0 || (signed & 1 != 0 && under == 1));
            assert_eq!(
                ours,
                skopeos || by_index,
                "signed {signed:03b} under {under}: skopeo says {skopeos}"
            );
            assert!(ours || !skopeos);
        }
    }
}
