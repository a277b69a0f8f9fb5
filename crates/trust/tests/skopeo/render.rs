// SPDX-License-Identifier: Apache-2.0
//! What `gantry trust render` writes is a policy that skopeo reads, and by which it admits all that we admit.

use gantry_trust::extra;
use gantry_trust::prepared::Real;

use super::*;

/// What we render of a policy and these rules, and our verdict by policy and rules.
fn rendered(world: &World, case: &Case, rules: &str) -> Option<(Case, bool)> {
    let limits = Limits::DEFAULT;
    let policy = Policy::parse(Bytes::from(case.policy.clone()), &limits).ok()?;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("10.toml"), rules).unwrap();
    let extra = extra::load_dirs(&[dir.path().to_owned()], &Real { limits }, &limits).unwrap();
    let text = serde_json::to_string(&extra::render(&policy, &extra).policy).unwrap();
    let (admitted, _) = judged(world, case, &policy.load_keys(&limits), &extra);
    let case = Case {
        policy: text,
        reference: case.reference.clone(),
        image: case.image,
        signatures: case.signatures.clone(),
    };
    Some((case, admitted))
}

#[test]
fn skopeo_reads_what_we_render() {
    judges!();
    let world = World::new();
    let (host, keys) = (world.registry.address(), |who: &str| {
        world.dir.join(format!("{who}.gpg"))
    });
    let both = format!(
        "[[rule]]\nscope = \"{host}/ns\"\nsigners = {{ at-least = 2, keys = [{:?}, {:?}] }}\n",
        keys("alice"),
        keys("bob")
    );
    let revoked = format!(
        "[revoked]\ndigests = [\"{}\"]\n",
        world.images[0].manifest.digest()
    );
    let cases = usize::try_from(setting("GANTRY_TRUST_CASES", 200)).unwrap() / 4;
    let mut dice = Dice(setting("GANTRY_TRUST_SEED", 0x7265_6e64_6572) | 1);
    let (mut asked, mut admitted) = (0, 0);
    while asked < cases {
        let case = Case::generate(&world, &mut dice);
        // Without rules the verdict is the same; with rules skopeo refuses nothing that we admit.
        let (rules, same) = *dice.one(&[("", true), (&both, false), (&revoked, false)]);
        let Some((floor, ours)) = rendered(&world, &case, rules) else {
            continue;
        };
        let (skopeos, said) = skopeos(&world, &floor, asked);
        let report = format!(
            "{}\n{rules}\nrendered {}\nours {ours}, skopeo {skopeos}: {said}",
            case.policy, floor.policy
        );
        assert!(!said.contains("invalid policy"), "{report}");
        let explained = is_explained(&said, ours);
        assert!(explained || ours == skopeos || (!same && !ours), "{report}");
        asked += 1;
        admitted += usize::from(ours);
    }
    assert!(admitted * 20 > cases, "{admitted} of {cases} admitted");
}
