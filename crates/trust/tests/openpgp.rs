// SPDX-License-Identifier: Apache-2.0
//! Our verdict on OpenPGP messages beside gpg's, which made them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gantry_oci::Limits;
use gantry_testkit::gpg::Gpg;
use gantry_testkit::openpgp::{self, body, packet};
use gantry_testkit::skip;
use gantry_trust::openpgp::Keyring;
use gantry_trust::sign::{SignError, Signer};
use gantry_trust::{Reason, Refusal};

const TEXT: &[u8] = b"{\"critical\":1}";
const DAY_S: u64 = 24 * 60 * 60;
/// A day in 2024, so that "now" may lie on both sides of it.
const THEN_S: u64 = 1_717_200_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn ring(keys: &[u8]) -> Keyring {
    Keyring::parse(&[Bytes::copy_from_slice(keys)], &Limits::DEFAULT).unwrap()
}

fn verify(keys: &[u8], message: &[u8], now_s: u64) -> Result<Bytes, Refusal> {
    ring(keys)
        .verify(
            &Bytes::copy_from_slice(message),
            at(now_s),
            &Limits::DEFAULT,
        )
        .map(|signed| signed.text)
}

/// Both verdicts must be good, and of the same text.
fn assert_both_accept(what: &str, keys: &[u8], message: &[u8], time_s: u64) {
    assert_eq!(verify(keys, message, time_s).as_deref(), Ok(TEXT), "{what}");
    let theirs = Gpg::judge(keys, message, Some(time_s)).unwrap();
    assert_eq!(theirs.as_deref(), Some(TEXT), "gpg on {what}");
}

/// Ours must be a refusal for `reason`; gpg's a refusal too, unless we are known to ask for more.
fn assert_refused(
    what: &str,
    keys: &[u8],
    message: &[u8],
    time_s: u64,
    reason: Reason,
    gpg_too: bool,
) {
    let refusal = verify(keys, message, time_s).expect_err(what);
    assert_eq!(refusal.reason, reason, "{what}: {refusal}");
    let theirs = Gpg::judge(keys, message, Some(time_s)).unwrap();
    assert_eq!(theirs.is_none(), gpg_too, "gpg on {what}");
}

#[test]
fn keys_of_every_kind_get_gpgs_verdict_but_for_weak_ones() {
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    for (algorithm, verdict) in [
        ("rsa2048", None),
        ("rsa4096", None),
        ("ed25519", None),
        ("nistp256", None),
        ("nistp384", None),
        ("nistp521", None),
        ("dsa2048", None),
        ("dsa3072", None),
        ("rsa1024", Some(Reason::Weak)),
        ("dsa1024", Some(Reason::Weak)),
        ("brainpoolP256r1", Some(Reason::Unsupported)),
    ] {
        let key = gpg
            .make_key(algorithm, algorithm, "sign,cert", "0")
            .unwrap();
        // What gpg takes by itself for these is too weak, so that the hash would be what is refused.
        let options: &[&str] = match verdict {
            Some(Reason::Weak) => &["--digest-algo", "SHA256"],
            _ => &[],
        };
        let message = gpg.sign(&key, TEXT, options).unwrap();
        let keys = gpg.export(&key).unwrap();
        match verdict {
            None => assert_both_accept(algorithm, &keys, &message, now_s()),
            Some(reason) => assert_refused(algorithm, &keys, &message, now_s(), reason, false),
        }
    }
}

#[test]
fn hashes_and_compressions_are_those_of_our_policy() {
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let key = gpg.make_key("a", "rsa2048", "sign,cert", "0").unwrap();
    let keys = gpg.export(&key).unwrap();
    for options in [
        &["--digest-algo", "SHA256"][..],
        &["--digest-algo", "SHA384"],
        &["--digest-algo", "SHA512"],
        &["-z0"],
        &["--compress-algo", "zip"],
        &["--compress-algo", "zlib"],
        &["--set-filename", "x"],
    ] {
        let message = gpg.sign(&key, TEXT, options).unwrap();
        assert_both_accept(&options.join(" "), &keys, &message, now_s());
    }
    for (options, reason, gpg_too) in [
        (&["--digest-algo", "SHA1"][..], Reason::Weak, false),
        (&["--digest-algo", "RIPEMD160"], Reason::Weak, false),
        (&["--digest-algo", "SHA224"], Reason::Weak, false),
        (&["--digest-algo", "MD5"], Reason::Weak, true),
        (&["--compress-algo", "bzip2"], Reason::Unsupported, false),
        (&["--textmode"], Reason::Unsupported, false),
        (&["--set-notation", "!a@b=c"], Reason::Unsupported, true),
    ] {
        let message = gpg.sign(&key, TEXT, options).unwrap();
        assert_refused(
            &options.join(" "),
            &keys,
            &message,
            now_s(),
            reason,
            gpg_too,
        );
    }
    let notation = gpg.sign(&key, TEXT, &["--set-notation", "a@b=c"]).unwrap();
    assert_both_accept(
        "a notation that may be passed over",
        &keys,
        &notation,
        now_s(),
    );
}

#[test]
fn keys_and_signatures_count_while_they_live() {
    let Some(mut gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    gpg.set_time(Some(THEN_S));
    let key = gpg.make_key("a", "ed25519", "sign,cert", "10d").unwrap();
    gpg.set_time(Some(THEN_S + DAY_S));
    let message = gpg.sign(&key, TEXT, &[]).unwrap();
    let short = gpg
        .sign(&key, TEXT, &["--default-sig-expire", "2d"])
        .unwrap();
    let keys = gpg.export(&key).unwrap();
    assert_both_accept("alive", &keys, &message, THEN_S + 2 * DAY_S);
    assert_both_accept("signature alive", &keys, &short, THEN_S + 2 * DAY_S);
    let later = THEN_S + 4 * DAY_S;
    assert_refused(
        "signature over",
        &keys,
        &short,
        later,
        Reason::Expired,
        true,
    );
    let late = THEN_S + 11 * DAY_S;
    assert_refused("key over", &keys, &message, late, Reason::Expired, true);
    assert_refused(
        "key not yet there",
        &keys,
        &message,
        THEN_S - DAY_S,
        Reason::KeyUnfit,
        true,
    );
    // gpg does not mind a signature from the future.
    assert_refused(
        "not yet signed",
        &keys,
        &message,
        THEN_S + DAY_S / 2,
        Reason::Expired,
        false,
    );
    gpg.set_time(Some(THEN_S + 9 * DAY_S));
    gpg.run(&["--quick-set-expire", &key, "30d"], b"").unwrap();
    let renewed = gpg.export(&key).unwrap();
    assert_both_accept("key prolonged", &renewed, &message, late);
    gpg.set_time(Some(THEN_S + 9 * DAY_S + DAY_S / 2));
    gpg.run(&["--quick-set-expire", &key, "1d"], b"").unwrap();
    let cut = gpg.export(&key).unwrap();
    assert_refused("key cut short", &cut, &message, late, Reason::Expired, true);
}

#[test]
fn revocations_count_for_ever_or_from_their_day() {
    let Some(mut gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    for (reason, hard) in [(0, true), (1, true), (2, false), (3, false)] {
        let what = format!("revoked for reason {reason}");
        gpg.set_time(Some(THEN_S));
        let key = gpg.make_key(&what, "ed25519", "sign,cert", "0").unwrap();
        let message = gpg.sign(&key, TEXT, &[]).unwrap();
        let before = gpg.export(&key).unwrap();
        assert_both_accept("before", &before, &message, THEN_S + DAY_S);
        gpg.set_time(Some(THEN_S + 2 * DAY_S));
        gpg.revoke(&key, None, reason).unwrap();
        let keys = gpg.export(&key).unwrap();
        assert_refused(
            &what,
            &keys,
            &message,
            THEN_S + 3 * DAY_S,
            Reason::Revoked,
            true,
        );
        let earlier = verify(&keys, &message, THEN_S + DAY_S);
        assert_eq!(earlier.is_err(), hard, "{what}, asked before");
        // Wherever the revocation stands: here in another copy of the key.
        let both = [Bytes::from(before), Bytes::from(keys)];
        for files in [[0, 1], [1, 0]].map(|order| order.map(|position| both[position].clone())) {
            let refusal = Keyring::parse(&files, &Limits::DEFAULT)
                .unwrap()
                .verify(
                    &message.clone().into(),
                    at(THEN_S + 3 * DAY_S),
                    &Limits::DEFAULT,
                )
                .unwrap_err();
            assert_eq!(refusal.reason, Reason::Revoked, "{what}, in another file");
        }
    }
}

/// Until when our verdict holds, which is the same until then; it must be no later than `end`, when it is another one.
fn holds_until(what: &str, keys: &[u8], message: &[u8], time_s: u64, end: u64) -> u64 {
    let message = Bytes::copy_from_slice(message);
    let judge = |time_s| ring(keys).verify(&message, at(time_s), &Limits::DEFAULT);
    let until = judge(time_s).unwrap().holds_until.expect(what);
    let until_s = until
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(time_s < until_s && until_s <= end, "{what}: {until_s}");
    assert!(judge(until_s - 1).is_ok(), "{what}");
    assert!(judge(end).is_err(), "{what}");
    until_s
}

#[test]
fn a_verdict_holds_no_longer_than_what_it_rests_on() {
    let Some(mut gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let (time, day) = (THEN_S + DAY_S, |days: u64| THEN_S + days * DAY_S);
    gpg.set_time(Some(THEN_S));
    let plain = gpg.make_key("plain", "ed25519", "sign,cert", "0").unwrap();
    let message = gpg.sign(&plain, TEXT, &[]).unwrap();
    let keys = gpg.export(&plain).unwrap();
    let signed = ring(&keys)
        .verify(&message.clone().into(), at(time), &Limits::DEFAULT)
        .unwrap();
    assert_eq!((signed.expires, signed.holds_until), (None, None));

    let options = ["--default-sig-expire", "5d"];
    let brief = gpg.sign(&plain, TEXT, &options).unwrap();
    let until = holds_until("a signature of five days", &keys, &brief, time, day(5));
    assert_eq!(until, day(5));

    let mortal = gpg
        .make_key("mortal", "ed25519", "sign,cert", "10d")
        .unwrap();
    let by_mortal = gpg.sign(&mortal, TEXT, &[]).unwrap();
    let keys = gpg.export(&mortal).unwrap();
    let until = holds_until("a key of ten days", &keys, &by_mortal, time, day(10));
    assert_eq!(until, day(10));

    let primary = gpg.make_key("primary", "ed25519", "cert", "0").unwrap();
    let sub = gpg.add_subkey(&primary, "ed25519", "sign", "20d").unwrap();
    let by_sub = gpg.sign(&format!("{sub}!"), TEXT, &[]).unwrap();
    let keys = gpg.export(&primary).unwrap();
    let until = holds_until("a subkey of twenty days", &keys, &by_sub, time, day(20));
    assert_eq!(until, day(20));

    // What the owner says later counts from then on: the key file may be from the future.
    let before = gpg.export(&mortal).unwrap();
    gpg.set_time(Some(day(4)));
    gpg.run(&["--quick-set-expire", &mortal, "1d"], b"")
        .unwrap();
    let keys = [before, gpg.export(&mortal).unwrap()].concat();
    holds_until(
        "a key that will be cut short",
        &keys,
        &by_mortal,
        time,
        day(5),
    );
    gpg.revoke(&plain, None, 3).unwrap();
    let keys = gpg.export(&plain).unwrap();
    holds_until("a key that will be retired", &keys, &message, time, day(4));
    gpg.revoke(&primary, Some(1), 3).unwrap();
    let keys = gpg.export(&primary).unwrap();
    holds_until(
        "a subkey that will be retired",
        &keys,
        &by_sub,
        time,
        day(4),
    );
}

#[test]
fn a_key_file_signs_only_while_its_key_may() {
    let Some(mut gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let secret = |gpg: &Gpg, key: &str| {
        let options = ["--pinentry-mode", "loopback", "--passphrase", ""];
        let export = ["--export-secret-keys", key];
        let file = gpg.run(&[&options[..], &export].concat(), b"").unwrap();
        Bytes::from(file)
    };
    let sign = |file: &Bytes| {
        let signer = Signer::KeyFile {
            key: file.clone(),
            passphrase: None,
        };
        signer.sign(TEXT, SystemTime::now(), &Limits::DEFAULT)
    };
    let refused = |what: &str, file: &Bytes, reason: Reason| match sign(file) {
        Err(SignError::Useless { source }) => assert_eq!(source.reason, reason, "{what}"),
        other => panic!("{what}: {other:?}"),
    };
    let key = gpg.make_key("good", "ed25519", "sign,cert", "0").unwrap();
    let message = sign(&secret(&gpg, &key)).unwrap();
    let keys = gpg.export(&key).unwrap();
    assert_eq!(verify(&keys, &message, now_s()).as_deref(), Ok(TEXT));
    gpg.revoke(&key, None, 1).unwrap();
    refused("a revoked key", &secret(&gpg, &key), Reason::Revoked);

    gpg.set_time(Some(THEN_S));
    let key = gpg
        .make_key("brief", "ed25519", "sign,cert", "10d")
        .unwrap();
    refused("an expired key", &secret(&gpg, &key), Reason::Expired);

    // Of two subkeys the one that may.
    gpg.set_time(None);
    let key = gpg.make_key("two", "ed25519", "cert", "0").unwrap();
    let first = gpg.add_subkey(&key, "ed25519", "sign", "0").unwrap();
    gpg.add_subkey(&key, "ed25519", "sign", "0").unwrap();
    gpg.revoke(&key, Some(2), 1).unwrap();
    let message = sign(&secret(&gpg, &key)).unwrap();
    let keys = gpg.export(&key).unwrap();
    let signed = ring(&keys)
        .verify(&message, SystemTime::now(), &Limits::DEFAULT)
        .unwrap();
    assert_eq!(signed.signer.to_string(), first);
    gpg.revoke(&key, Some(1), 1).unwrap();
    refused("two revoked subkeys", &secret(&gpg, &key), Reason::Revoked);
    let key = gpg.make_key("none", "ed25519", "cert", "0").unwrap();
    let error = sign(&secret(&gpg, &key)).unwrap_err();
    assert!(matches!(error, SignError::KeyFile { .. }), "{error}");
}

#[test]
fn a_subkey_signs_while_it_is_bound_and_alive() {
    let Some(mut gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    gpg.set_time(Some(THEN_S));
    let key = gpg.make_key("a", "ed25519", "cert", "0").unwrap();
    let signing = gpg.add_subkey(&key, "rsa2048", "sign", "20d").unwrap();
    let message = gpg.sign(&format!("{signing}!"), TEXT, &[]).unwrap();
    let keys = gpg.export(&key).unwrap();
    let time = THEN_S + DAY_S;
    assert_both_accept("a subkey", &keys, &message, time);
    let signed = ring(&keys)
        .verify(&message.clone().into(), at(time), &Limits::DEFAULT)
        .unwrap();
    assert_eq!(
        (signed.key.to_string(), signed.signer.to_string()),
        (key.clone(), signing)
    );
    assert_refused(
        "subkey over",
        &keys,
        &message,
        THEN_S + 21 * DAY_S,
        Reason::Expired,
        true,
    );
    gpg.set_time(Some(THEN_S + 2 * DAY_S));
    gpg.revoke(&key, Some(1), 0).unwrap();
    let revoked = gpg.export(&key).unwrap();
    assert_refused(
        "subkey revoked",
        &revoked,
        &message,
        THEN_S + 3 * DAY_S,
        Reason::Revoked,
        true,
    );

    // The primary key's end is the end of its subkeys.
    gpg.set_time(Some(THEN_S));
    let key = gpg.make_key("b", "ed25519", "cert", "5d").unwrap();
    let signing = gpg.add_subkey(&key, "ed25519", "sign", "0").unwrap();
    let message = gpg.sign(&format!("{signing}!"), TEXT, &[]).unwrap();
    let keys = gpg.export(&key).unwrap();
    assert_both_accept("a subkey of b", &keys, &message, time);
    assert_refused(
        "primary over",
        &keys,
        &message,
        THEN_S + 6 * DAY_S,
        Reason::Expired,
        true,
    );
}

#[test]
fn self_signatures_must_be_strong_too() {
    let Some(mut gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let make = [
        "--passphrase",
        "",
        "--cert-digest-algo",
        "SHA1",
        "--quick-gen-key",
        "a",
        "rsa2048",
        "sign,cert",
        "0",
    ];
    gpg.set_time(Some(THEN_S));
    gpg.run(&make, b"").unwrap();
    let message = gpg.sign("a", TEXT, &[]).unwrap();
    let keys = gpg.export("a").unwrap();
    assert_refused(
        "SHA-1 self-signature",
        &keys,
        &message,
        THEN_S + DAY_S,
        Reason::Weak,
        false,
    );
    gpg.set_time(Some(THEN_S + DAY_S));
    let key = gpg.fingerprints("a").unwrap().remove(0);
    gpg.run(
        &[
            "--cert-digest-algo",
            "SHA256",
            "--quick-set-expire",
            &key,
            "1y",
        ],
        b"",
    )
    .unwrap();
    let renewed = gpg.export("a").unwrap();
    assert_both_accept(
        "a newer, stronger one",
        &renewed,
        &message,
        THEN_S + 2 * DAY_S,
    );
}

/// The packets of what gpg made.
fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    openpgp::packets(bytes).unwrap()
}

#[test]
fn only_one_form_of_message_is_accepted() {
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let key = gpg.make_key("a", "rsa2048", "sign,cert", "0").unwrap();
    let encrypting = gpg.add_subkey(&key, "rsa2048", "encr", "0").unwrap();
    let other = gpg.make_key("b", "rsa2048", "sign,cert", "0").unwrap();
    let keys = gpg.export(&key).unwrap();
    let plain = gpg
        .sign(&key, TEXT, &["-z0", "--set-filename", ""])
        .unwrap();
    let [one_pass, literal, signature] = &packets(&plain)[..] else {
        panic!("not three packets");
    };
    let theirs = gpg.sign(&other, TEXT, &["-z0"]).unwrap();
    let [their_one_pass, _, their_signature] = &packets(&theirs)[..] else {
        panic!("not three packets");
    };
    let mut nested_one_pass = one_pass.clone();
    *nested_one_pass.last_mut().unwrap() = 0;
    let mut other_hash = one_pass.clone();
    other_hash[4] = if other_hash[4] == 8 { 9 } else { 8 };
    let other_text = packet(11, b"b\0\0\0\0\0other");
    let run = |arguments: &[&str]| gpg.run(arguments, TEXT).unwrap();
    let local: &[&str] = &["--local-user", &key];
    let compressed = gpg.sign(&key, TEXT, &[]).unwrap();
    let uncompressed_packet = |content: &[u8]| packet(8, &[&[0], content].concat());

    // What counts: old style, and in a compressed packet of no compression.
    let old_style = [&signature[..], literal].concat();
    for (what, message) in [
        ("as made", plain.clone()),
        ("signature first", old_style.clone()),
        (
            "a packet that compresses nothing",
            uncompressed_packet(&plain),
        ),
    ] {
        assert_both_accept(what, &keys, &message, now_s());
    }

    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("nothing", Vec::new(), Reason::Malformed),
        ("text", TEXT.to_vec(), Reason::Malformed),
        ("literal data unsigned", literal.clone(), Reason::Malformed),
        ("a signature alone", signature.clone(), Reason::Malformed),
        (
            "detached",
            run(&[local, &["--detach-sign"]].concat()),
            Reason::Malformed,
        ),
        (
            "clear text",
            run(&[local, &["--clear-sign"]].concat()),
            Reason::Malformed,
        ),
        (
            "armoured",
            run(&[local, &["--armor", "--sign"]].concat()),
            Reason::Malformed,
        ),
        (
            "encrypted",
            run(&["--recipient", &key, "--encrypt"]),
            Reason::Malformed,
        ),
        (
            "encrypted and signed",
            run(&[local, &["--recipient", &encrypting, "--encrypt", "--sign"]].concat()),
            Reason::Malformed,
        ),
        (
            "symmetric",
            run(&[
                "--passphrase",
                "x",
                "--pinentry-mode",
                "loopback",
                "--symmetric",
            ]),
            Reason::Malformed,
        ),
        ("a public key", keys.clone(), Reason::Malformed),
        (
            "no signature after one-pass",
            [&one_pass[..], literal].concat(),
            Reason::Malformed,
        ),
        (
            "literal data first",
            [&literal[..], signature].concat(),
            Reason::Malformed,
        ),
        (
            "one-pass packets only",
            [&one_pass[..], one_pass].concat(),
            Reason::Malformed,
        ),
        (
            "two signers",
            run(&[
                "--local-user",
                &key,
                "--local-user",
                &other,
                "-z0",
                "--sign",
            ]),
            Reason::Malformed,
        ),
        (
            "two signers, compressed",
            run(&["--local-user", &key, "--local-user", &other, "--sign"]),
            Reason::Malformed,
        ),
        (
            "good and bad, old style",
            [&signature[..], their_signature, literal].concat(),
            Reason::Malformed,
        ),
        (
            "bad and good, old style",
            [&their_signature[..], signature, literal].concat(),
            Reason::Malformed,
        ),
        (
            "twice the same, old style",
            [&signature[..], signature, literal].concat(),
            Reason::Malformed,
        ),
        (
            "signature before and after",
            [&signature[..], one_pass, literal, signature].concat(),
            Reason::Malformed,
        ),
        (
            "one-pass around old style",
            [&one_pass[..], &old_style[..]].concat(),
            Reason::Malformed,
        ),
        (
            "one-pass around one-pass",
            [&one_pass[..], &plain[..], signature].concat(),
            Reason::Malformed,
        ),
        (
            "one-pass that announces another",
            [&nested_one_pass[..], literal, signature].concat(),
            Reason::Malformed,
        ),
        (
            "one-pass of another hash",
            [&other_hash[..], literal, signature].concat(),
            Reason::Malformed,
        ),
        (
            "two texts",
            [&one_pass[..], literal, &other_text, signature].concat(),
            Reason::Malformed,
        ),
        (
            "two texts, old style",
            [&signature[..], literal, &other_text].concat(),
            Reason::Malformed,
        ),
        (
            "two messages",
            [&plain[..], &plain[..]].concat(),
            Reason::Malformed,
        ),
        (
            "a signature after it",
            [&plain[..], signature].concat(),
            Reason::Malformed,
        ),
        (
            "a marker before it",
            [&packet(10, b"PGP")[..], &plain[..]].concat(),
            Reason::Malformed,
        ),
        (
            "padding after it",
            [&plain[..], &packet(21, b"....")[..]].concat(),
            Reason::Malformed,
        ),
        (
            "a trust packet after it",
            [&plain[..], &packet(12, b"..")[..]].concat(),
            Reason::Malformed,
        ),
        (
            "a zero after it",
            [&plain[..], b"\0"].concat(),
            Reason::Malformed,
        ),
        (
            "text after it",
            [&plain[..], b"hello"].concat(),
            Reason::Malformed,
        ),
        (
            "a zero after compressed",
            [&compressed[..], b"\0"].concat(),
            Reason::Malformed,
        ),
        (
            "text after compressed",
            [&compressed[..], TEXT].concat(),
            Reason::Malformed,
        ),
        (
            "signature after compressed literal",
            [&one_pass[..], &uncompressed_packet(literal), signature].concat(),
            Reason::Malformed,
        ),
        (
            "compressed twice",
            uncompressed_packet(&uncompressed_packet(&plain)),
            Reason::Malformed,
        ),
        (
            "compressed and cut",
            compressed[..compressed.len() - 40].to_vec(),
            Reason::Malformed,
        ),
        (
            "unknown compression",
            packet(8, &[&[9], &plain[..]].concat()),
            Reason::Unsupported,
        ),
        ("cut", plain[..plain.len() - 1].to_vec(), Reason::Malformed),
        (
            "another text",
            [&one_pass[..], &other_text, signature].concat(),
            Reason::Bad,
        ),
        (
            "literal data for its eyes only",
            [
                &one_pass[..],
                &packet(11, &[b"m\0\0\0\0\0", TEXT].concat()),
                signature,
            ]
            .concat(),
            Reason::Malformed,
        ),
        (
            "a signature packet with a tail",
            [
                &one_pass[..],
                literal,
                &packet(2, &[body(signature), b"x"].concat()),
            ]
            .concat(),
            Reason::Malformed,
        ),
        (
            "a signature of version 3",
            [
                &packet(
                    2,
                    &[&[3, 5, 0, 0, 0, 0, 0], &[1; 8][..], &[1, 8, 0, 0, 0, 1, 1]].concat(),
                )[..],
                literal,
            ]
            .concat(),
            Reason::Weak,
        ),
        (
            "by a key that is not asked for",
            theirs.clone(),
            Reason::UnknownKey,
        ),
        (
            "their signature under our one-pass",
            [&one_pass[..], literal, their_signature].concat(),
            Reason::UnknownKey,
        ),
    ];
    for (what, message, reason) in cases {
        let refusal = verify(&keys, &message, now_s()).expect_err(what);
        assert_eq!(refusal.reason, reason, "{what}: {refusal}");
    }
    // The issuer in the one-pass packet is nobody's word: the signature names its key.
    let foreign = [&their_one_pass[..], literal, signature].concat();
    assert!(verify(&keys, &foreign, now_s()).is_ok());
}

#[test]
fn no_changed_byte_changes_what_was_signed() {
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let key = gpg.make_key("a", "ed25519", "sign,cert", "0").unwrap();
    let keyring = ring(&gpg.export(&key).unwrap());
    for options in [&["-z0"][..], &[]] {
        let message = gpg.sign(&key, TEXT, options).unwrap();
        let judge =
            |message: Vec<u8>| keyring.verify(&message.into(), SystemTime::now(), &Limits::DEFAULT);
        let whole = judge(message.clone()).unwrap();
        for position in 0..message.len() {
            for change in [1_u8, 0x80, 0xFF] {
                let mut changed = message.clone();
                changed[position] ^= change;
                // File names, dates and hints are not protected; nothing that we give is read from them.
                if let Ok(signed) = judge(changed) {
                    assert_eq!(signed, whole, "byte {position}");
                }
            }
            assert!(
                judge(message[..position].to_vec()).is_err(),
                "cut at {position}"
            );
        }
    }
}

#[test]
fn a_subkey_that_did_not_consent_does_not_sign() {
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    // Somebody claims another's signing subkey as his own: the subkey's packet with a binding from elsewhere.
    let victim = gpg.make_key("victim", "ed25519", "cert", "0").unwrap();
    let signing = gpg.add_subkey(&victim, "ed25519", "sign", "0").unwrap();
    let message = gpg.sign(&format!("{signing}!"), TEXT, &[]).unwrap();
    let thief = gpg.make_key("thief", "ed25519", "cert", "0").unwrap();
    gpg.add_subkey(&thief, "ed25519", "sign", "0").unwrap();
    let (victims, thiefs) = (
        packets(&gpg.export(&victim).unwrap()),
        packets(&gpg.export(&thief).unwrap()),
    );
    let [_, _, _, stolen, stolen_binding] = &victims[..] else {
        panic!("not five packets")
    };
    let [primary, user, certification, _, binding] = &thiefs[..] else {
        panic!("not five packets")
    };
    for (what, binding) in [
        ("own binding", binding),
        ("its old binding", stolen_binding),
    ] {
        let keys = [&primary[..], user, certification, stolen, binding].concat();
        let refusal = verify(&keys, &message, now_s()).expect_err(what);
        assert_eq!(refusal.reason, Reason::KeyUnfit, "{what}: {refusal}");
    }
    let unbound = [&primary[..], user, certification, stolen].concat();
    assert_eq!(
        verify(&unbound, &message, now_s()).unwrap_err().reason,
        Reason::KeyUnfit
    );
    let unowned = [&victims[0][..], &victims[1], stolen, stolen_binding].concat();
    assert_eq!(
        verify(&unowned, &message, now_s()).unwrap_err().reason,
        Reason::KeyUnfit
    );
}

#[test]
fn caps_hold() {
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let key = gpg.make_key("a", "ed25519", "sign,cert", "0").unwrap();
    let keys = Bytes::from(gpg.export(&key).unwrap());
    let bomb = Bytes::from(gpg.sign(&key, &vec![0; 2 << 20], &[]).unwrap());
    assert!(bomb.len() < 10_000);
    let keyring = ring(&keys);
    let reason = |message: &Bytes, limits: &Limits| {
        keyring
            .verify(message, SystemTime::now(), limits)
            .unwrap_err()
            .reason
    };
    assert_eq!(reason(&bomb, &Limits::DEFAULT), Reason::TooLarge);
    let small = Bytes::from(gpg.sign(&key, TEXT, &[]).unwrap());
    let limits = Limits {
        signature_bytes: 10,
        ..Limits::DEFAULT
    };
    assert_eq!(reason(&small, &limits), Reason::TooLarge);
    let limits = Limits {
        key_signatures: 0,
        ..Limits::DEFAULT
    };
    assert_eq!(reason(&small, &limits), Reason::TooLarge);
    for limits in [
        Limits {
            keyring_bytes: 10,
            ..Limits::DEFAULT
        },
        Limits {
            keyring_packets: 2,
            ..Limits::DEFAULT
        },
    ] {
        assert!(Keyring::parse(std::slice::from_ref(&keys), &limits).is_err());
    }
}

#[test]
fn key_files_are_what_gpg_exports() {
    let Some(gpg) = Gpg::new().unwrap() else {
        skip!("gpg is not installed");
    };
    let first = gpg.make_key("a", "ed25519", "sign,cert", "0").unwrap();
    let second = gpg.make_key("b", "rsa2048", "sign,cert", "0").unwrap();
    let armoured = gpg.run(&["--armor", "--export"], b"").unwrap();
    let names = |file: Vec<u8>| -> Vec<String> {
        ring(&file)
            .fingerprints()
            .map(|name| name.to_string())
            .collect()
    };
    assert_eq!(names(armoured.clone()), [first.clone(), second.clone()]);
    let separate = [
        gpg.run(&["--armor", "--export", &second], b"").unwrap(),
        gpg.run(&["--armor", "--export", &first], b"").unwrap(),
    ];
    assert_eq!(names(separate.concat()), [second, first.clone()]);
    let secret = [
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
        "--export-secret-keys",
        &first,
    ];
    for (what, file) in [
        ("a secret key", gpg.run(&secret, b"").unwrap()),
        ("a message", gpg.sign(&first, TEXT, &[]).unwrap()),
        ("text", b"hello".to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert!(
            Keyring::parse(&[file.into()], &Limits::DEFAULT).is_err(),
            "{what}"
        );
    }
}
