// SPDX-License-Identifier: Apache-2.0
//! One OpenPGP certificate: a primary key, its users, its subkeys, and what
//! the primary key says of them. Whether one of the keys may sign *now* is
//! decided here.
//!
//! # Source
//! RFC 9580 §5.2.1 "Signature Types", §5.2.3 "Signature Subpackets", §10.1
//! "Transferable Public Keys". Where it leaves a choice, the stricter one is
//! taken.

use std::time::SystemTime;

use bytes::Bytes;
use gantry_oci::Limits;
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    PublicKey, PublicSubkey, RevocationCode, Signature, SignatureType, SubpacketData, UserId,
};
use pgp::types::{EcdsaPublicParams, KeyDetails, PublicParams, Tag, VerifyingKey};

use super::packet::{Packet, header, parse_signature, tag};
use super::{CLOCK_SKEW_S, Fingerprint, seconds};
use crate::refusal::{Reason, Refusal};

/// The smallest modulus of RSA and DSA keys that is believed, in bits.
const LEAST_BITS: usize = 2048;

/// A certificate as it was read; nothing of it was verified yet.
#[derive(Debug)]
pub(super) struct Certificate {
    primary: PublicKey,
    primary_bits: Option<usize>,
    direct: Vec<Signature>,
    users: Vec<User>,
    subkeys: Vec<Subkey>,
}

#[derive(Debug)]
struct User {
    id: UserId,
    signatures: Vec<Signature>,
}

#[derive(Debug)]
struct Subkey {
    key: PublicSubkey,
    bits: Option<usize>,
    signatures: Vec<Signature>,
}

/// One key of a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key<'a> {
    Primary(&'a Certificate),
    Sub(
        &'a Certificate,
        &'a PublicSubkey,
        Option<usize>,
        &'a [Signature],
    ),
}

/// Where signatures go while the packets of a certificate pass by.
enum Place {
    Direct,
    User,
    Subkey,
    /// Behind a part that is not read: a photograph, an unknown key.
    Nowhere,
}

impl Certificate {
    /// Reads the certificates of a file. A certificate whose primary key
    /// cannot be read is passed over, as is what the format adds in future;
    /// secret keys are an error.
    pub(super) fn read_all(packets: impl IntoIterator<Item = Packet>) -> Result<Vec<Self>, String> {
        let mut certificates: Vec<Self> = Vec::new();
        let mut place = Place::Nowhere;
        let mut current: Option<Self> = None;
        for packet in packets {
            match packet.tag {
                tag::SECRET_KEY | tag::SECRET_SUBKEY => {
                    return Err("a secret key is in it".into());
                }
                tag::PUBLIC_KEY => {
                    certificates.extend(current.take());
                    current = Self::start(&packet.body);
                    place = Place::Direct;
                }
                other => {
                    if let Some(certificate) = &mut current {
                        certificate.add(other, &packet.body, &mut place);
                    }
                }
            }
        }
        certificates.extend(current);
        Ok(certificates)
    }

    fn start(body: &Bytes) -> Option<Self> {
        let mut reader = &body[..];
        let primary = PublicKey::try_from_reader(header(Tag::PublicKey, body), &mut reader).ok()?;
        reader.is_empty().then(|| Self {
            primary,
            primary_bits: modulus_bits(body),
            direct: Vec::new(),
            users: Vec::new(),
            subkeys: Vec::new(),
        })
    }

    fn add(&mut self, tag: u8, body: &Bytes, place: &mut Place) {
        let mut reader = &body[..];
        match tag {
            tag::USER_ID => {
                let id = UserId::try_from_reader(header(Tag::UserId, body), &mut reader);
                *place = id.map_or(Place::Nowhere, |id| {
                    self.users.push(User {
                        id,
                        signatures: Vec::new(),
                    });
                    Place::User
                });
            }
            tag::PUBLIC_SUBKEY => {
                let key =
                    PublicSubkey::try_from_reader(header(Tag::PublicSubkey, body), &mut reader);
                *place = match key {
                    Ok(key) if reader.is_empty() => {
                        self.subkeys.push(Subkey {
                            key,
                            bits: modulus_bits(body),
                            signatures: Vec::new(),
                        });
                        Place::Subkey
                    }
                    _ => Place::Nowhere,
                };
            }
            tag::USER_ATTRIBUTE => *place = Place::Nowhere,
            tag::SIGNATURE => {
                if let Some(signature) = parse_signature(body) {
                    self.place(signature, place);
                }
            }
            _ => {}
        }
    }

    fn place(&mut self, signature: Signature, place: &Place) {
        // A revocation of the whole counts wherever it stands.
        let whole = signature.typ() == Some(SignatureType::KeyRevocation);
        let list = match place {
            _ if whole => Some(&mut self.direct),
            Place::Direct => Some(&mut self.direct),
            Place::User => self.users.last_mut().map(|user| &mut user.signatures),
            Place::Subkey => self.subkeys.last_mut().map(|key| &mut key.signatures),
            Place::Nowhere => None,
        };
        if let Some(list) = list {
            list.push(signature);
        }
    }

    /// Takes over what another copy of the same certificate has.
    pub(super) fn merge(&mut self, other: Self) {
        self.direct.extend(other.direct);
        for user in other.users {
            match self
                .users
                .iter_mut()
                .find(|known| known.id.id() == user.id.id())
            {
                Some(known) => known.signatures.extend(user.signatures),
                None => self.users.push(user),
            }
        }
        for subkey in other.subkeys {
            let name = subkey.key.fingerprint();
            match self
                .subkeys
                .iter_mut()
                .find(|known| known.key.fingerprint() == name)
            {
                Some(known) => known.signatures.extend(subkey.signatures),
                None => self.subkeys.push(subkey),
            }
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        fingerprint_of(&self.primary)
    }

    /// All its keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let subkeys = self
            .subkeys
            .iter()
            .map(|subkey| Key::Sub(self, &subkey.key, subkey.bits, &subkey.signatures));
        std::iter::once(Key::Primary(self)).chain(subkeys)
    }

    /// The first moment after `now_s` at which anything begins or ends that is said here of a key, by whomever:
    /// until then [`Key::check_fit`] answers as it does now.
    pub(super) fn next_change(&self, now_s: u64) -> Option<u64> {
        let primary_s = u64::from(self.primary.created_at().as_secs());
        let of_users = self.users.iter().flat_map(|user| &user.signatures);
        let of_primary = self.direct.iter().chain(of_users);
        let of_primary = of_primary.map(|signature| (primary_s, signature));
        let of_subkeys = self.subkeys.iter().flat_map(|subkey| {
            let created_s = u64::from(subkey.key.created_at().as_secs());
            let signatures = subkey.signatures.iter();
            signatures.map(move |signature| (created_s, signature))
        });
        of_primary
            .chain(of_subkeys)
            .flat_map(|(key_created_s, signature)| moments(key_created_s, signature))
            .filter(|moment| *moment > now_s)
            .min()
    }

    /// The self-signatures among `signatures` that `verifies` accepts and
    /// whose time has come, the newest first, one of `types`.
    fn newest<'a>(
        &self,
        signatures: impl IntoIterator<Item = &'a Signature>,
        types: &[SignatureType],
        verifies: impl Fn(&Signature) -> bool,
        now_s: u64,
        limits: &Limits,
    ) -> Result<Option<&'a Signature>, Refusal> {
        let mut own: Vec<(u64, &Signature)> = signatures
            .into_iter()
            .filter(|signature| signature.typ().is_some_and(|typ| types.contains(&typ)))
            .filter(|signature| may_be_by(signature, &self.primary))
            .filter_map(|signature| Some((created_s(signature)?, signature)))
            .filter(|(created_s, signature)| {
                *created_s <= now_s + CLOCK_SKEW_S && !is_over(signature, *created_s, now_s)
            })
            .collect();
        if own.len() > limits.key_signatures {
            return Err(Refusal::new(
                Reason::TooLarge,
                format!("key {} signed itself too often", self.fingerprint()),
            ));
        }
        own.sort_by_key(|(created_s, _)| std::cmp::Reverse(*created_s));
        Ok(own
            .into_iter()
            .map(|(_, signature)| signature)
            .find(|signature| verifies(signature)))
    }

    /// Judges the primary key at `now`; gives the signature that says most
    /// recently what it is for and until when.
    fn check_primary(&self, now_s: u64, limits: &Limits) -> Result<&Signature, Refusal> {
        let name = self.fingerprint();
        check_strength(&self.primary, self.primary_bits)?;
        let verifies_key = |signature: &Signature| signature.verify_key(&self.primary).is_ok();
        let direct = self.newest(
            &self.direct,
            &[SignatureType::Key],
            verifies_key,
            now_s,
            limits,
        )?;
        let revoked = self
            .direct
            .iter()
            .filter(|signature| signature.typ() == Some(SignatureType::KeyRevocation))
            .take(limits.key_signatures)
            .any(|signature| {
                let own = may_be_by(signature, &self.primary) && verifies_key(signature);
                (own || is_by_designated(signature, direct))
                    && counts_as_revocation(signature, now_s)
            });
        if revoked {
            return Err(Refusal::new(
                Reason::Revoked,
                format!("key {name} was revoked"),
            ));
        }
        let mut latest = direct;
        for user in &self.users {
            if let Some(certification) = self.certification(user, now_s, limits)? {
                if latest.and_then(created_s) <= created_s(certification) {
                    latest = Some(certification);
                }
            }
        }
        let latest = latest.ok_or_else(|| {
            Refusal::new(
                Reason::KeyUnfit,
                format!("key {name} has no valid self-signature"),
            )
        })?;
        check_self_signature(latest, &name)?;
        check_life(&self.primary, latest, now_s)?;
        Ok(latest)
    }

    /// The newest self-certification of a user, unless the user was revoked
    /// after it.
    fn certification<'a>(
        &self,
        user: &'a User,
        now_s: u64,
        limits: &Limits,
    ) -> Result<Option<&'a Signature>, Refusal> {
        use SignatureType as T;
        let verifies = |signature: &Signature| {
            signature
                .verify_certification(&self.primary, Tag::UserId, &user.id)
                .is_ok()
        };
        let certifications = [
            T::CertGeneric,
            T::CertPersona,
            T::CertCasual,
            T::CertPositive,
        ];
        let newest = |types: &[T]| self.newest(&user.signatures, types, verifies, now_s, limits);
        let certified = newest(&certifications)?;
        let revoked = newest(&[T::CertRevocation])?;
        Ok(certified.filter(|certified| {
            revoked.is_none_or(|revoked| created_s(revoked) < created_s(certified))
        }))
    }

    fn check_subkey(
        &self,
        key: &PublicSubkey,
        bits: Option<usize>,
        signatures: &[Signature],
        now_s: u64,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let name = fingerprint_of(key);
        check_strength(key, bits)?;
        let verifies =
            |signature: &Signature| signature.verify_subkey_binding(&self.primary, key).is_ok();
        let revoked = signatures
            .iter()
            .filter(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation))
            .take(limits.key_signatures)
            .any(|signature| {
                may_be_by(signature, &self.primary)
                    && counts_as_revocation(signature, now_s)
                    && verifies(signature)
            });
        if revoked {
            return Err(Refusal::new(
                Reason::Revoked,
                format!("subkey {name} was revoked"),
            ));
        }
        let unfit = |why: &str| Refusal::new(Reason::KeyUnfit, format!("subkey {name} {why}"));
        let binding = self
            .newest(
                signatures,
                &[SignatureType::SubkeyBinding],
                verifies,
                now_s,
                limits,
            )?
            .ok_or_else(|| unfit("is not bound to its primary key"))?;
        check_self_signature(binding, &name)?;
        check_life(key, binding, now_s)?;
        if !may_sign(binding) {
            return Err(unfit("is not for signing"));
        }
        let back = subpackets(binding, true)
            .find_map(|data| match data {
                SubpacketData::EmbeddedSignature(back) => Some(back),
                _ => None,
            })
            .filter(|back| back.verify_primary_key_binding(key, &self.primary).is_ok())
            .ok_or_else(|| unfit("did not sign its primary key back"))?;
        check_self_signature(back, &name)?;
        let back_s = created_s(back).unwrap_or(u64::MAX);
        if back_s > now_s + CLOCK_SKEW_S || is_over(back, back_s, now_s) {
            return Err(unfit("signed its primary key back for another time"));
        }
        Ok(())
    }
}

impl Key<'_> {
    pub(super) fn certificate(&self) -> &Certificate {
        match self {
            Self::Primary(certificate) | Self::Sub(certificate, ..) => certificate,
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Primary(certificate) => certificate.fingerprint(),
            Self::Sub(_, key, ..) => fingerprint_of(*key),
        }
    }

    pub(super) fn created_s(&self) -> u64 {
        let created = match self {
            Self::Primary(certificate) => certificate.primary.created_at(),
            Self::Sub(_, key, ..) => key.created_at(),
        };
        u64::from(created.as_secs())
    }

    /// Whether the signature says that this key made it.
    pub(super) fn is_named_by(&self, signature: &Signature) -> bool {
        match self {
            Self::Primary(certificate) => is_named(signature, &certificate.primary),
            Self::Sub(_, key, ..) => is_named(signature, *key),
        }
    }

    /// Whether the numbers are large enough; asked before any is computed with.
    pub(super) fn check_strength(&self) -> Result<(), Refusal> {
        match self {
            Self::Primary(certificate) => {
                check_strength(&certificate.primary, certificate.primary_bits)
            }
            Self::Sub(_, key, bits, _) => check_strength(*key, *bits),
        }
    }

    /// Whether the key made this signature of `text`.
    pub(super) fn made(&self, signature: &Signature, text: &[u8]) -> bool {
        match self {
            Self::Primary(certificate) => signature.verify(&certificate.primary, text).is_ok(),
            Self::Sub(_, key, ..) => signature.verify(*key, text).is_ok(),
        }
    }

    /// Whether the key, and the certificate that it stands in, may sign now.
    pub(super) fn check_fit(&self, now: SystemTime, limits: &Limits) -> Result<(), Refusal> {
        let now_s = seconds(now);
        let latest = self.certificate().check_primary(now_s, limits)?;
        match self {
            Self::Primary(_) if may_sign(latest) => Ok(()),
            Self::Primary(certificate) => Err(Refusal::new(
                Reason::KeyUnfit,
                format!("key {} is not for signing", certificate.fingerprint()),
            )),
            Self::Sub(certificate, key, bits, signatures) => {
                certificate.check_subkey(key, *bits, signatures, now_s, limits)
            }
        }
    }
}

fn fingerprint_of(key: &impl KeyDetails) -> Fingerprint {
    Fingerprint(key.fingerprint().as_bytes().into())
}

/// The parts of a signature that it protects; with `all`, also the others,
/// which are to be believed only where they prove themselves.
pub(super) fn subpackets(signature: &Signature, all: bool) -> impl Iterator<Item = &SubpacketData> {
    signature.config().into_iter().flat_map(move |config| {
        let unhashed = config.unhashed_subpackets().filter(move |_| all);
        config
            .hashed_subpackets()
            .chain(unhashed)
            .map(|part| &part.data)
    })
}

/// When it was made, in its own protected words.
pub(super) fn created_s(signature: &Signature) -> Option<u64> {
    subpackets(signature, false).find_map(|data| match data {
        SubpacketData::SignatureCreationTime(time) => Some(u64::from(time.as_secs())),
        _ => None,
    })
}

/// When a signature about a key that was made at `key_created_s` begins to hold, ends, and lets the key end, and when
/// those do that are embedded in it.
fn moments(key_created_s: u64, signature: &Signature) -> Vec<u64> {
    let mut moments = Vec::new();
    if let Some(created_s) = created_s(signature) {
        // Self-signatures are believed a little early, revocations on time.
        moments.extend([created_s.saturating_sub(CLOCK_SKEW_S), created_s]);
        moments.extend(expires_s(signature, created_s));
    }
    for data in subpackets(signature, true) {
        match data {
            SubpacketData::KeyExpirationTime(after) if after.as_secs() != 0 => {
                moments.push(key_created_s + u64::from(after.as_secs()));
            }
            // What is embedded in it embeds nothing that is looked at.
            SubpacketData::EmbeddedSignature(back) => {
                let created_s = created_s(back);
                moments.extend(created_s.map(|created_s| created_s.saturating_sub(CLOCK_SKEW_S)));
                moments.extend(created_s.and_then(|created_s| expires_s(back, created_s)));
            }
            _ => {}
        }
    }
    moments
}

/// When it ends, if ever: the earliest that it says.
pub(super) fn expires_s(signature: &Signature, created_s: u64) -> Option<u64> {
    let ends = subpackets(signature, false).filter_map(|data| match data {
        SubpacketData::SignatureExpirationTime(after) if after.as_secs() != 0 => {
            Some(created_s + u64::from(after.as_secs()))
        }
        _ => None,
    });
    ends.min()
}

fn is_over(signature: &Signature, created_s: u64, now_s: u64) -> bool {
    expires_s(signature, created_s).is_some_and(|end| end <= now_s)
}

/// Whether every issuer that the signature names is this key, and one is named.
fn is_named(signature: &Signature, key: &impl KeyDetails) -> bool {
    let mut named = false;
    for data in subpackets(signature, true) {
        let same = match data {
            SubpacketData::IssuerFingerprint(fingerprint) => *fingerprint == key.fingerprint(),
            SubpacketData::IssuerKeyId(id) => *id == key.legacy_key_id(),
            _ => continue,
        };
        if !same {
            return false;
        }
        named = true;
    }
    named
}

/// Whether a self-signature may be by this key: it names it, or nobody.
fn may_be_by(signature: &Signature, key: &PublicKey) -> bool {
    let names_nobody = !subpackets(signature, true).any(|data| {
        matches!(
            data,
            SubpacketData::IssuerFingerprint(_) | SubpacketData::IssuerKeyId(_)
        )
    });
    names_nobody || is_named(signature, key)
}

/// Whether a revocation names a key that the owner let revoke this one. It is
/// believed unverified: the revoker's key is seldom at hand, and a wrong
/// revocation in a key file only makes us refuse.
fn is_by_designated(revocation: &Signature, direct: Option<&Signature>) -> bool {
    let Some(direct) = direct else { return false };
    subpackets(direct, false).any(|data| match data {
        SubpacketData::RevocationKey(designated) => {
            subpackets(revocation, true).any(|data| match data {
                SubpacketData::IssuerFingerprint(issuer) => {
                    issuer.as_bytes() == &designated.fingerprint[..]
                }
                SubpacketData::IssuerKeyId(issuer) => {
                    designated.fingerprint.ends_with(issuer.as_ref())
                }
                _ => false,
            })
        }
        _ => false,
    })
}

/// A key that was retired or replaced is revoked from then on; one that was
/// revoked for any other reason always was.
fn counts_as_revocation(signature: &Signature, now_s: u64) -> bool {
    let soft = subpackets(signature, false).any(|data| {
        matches!(
            data,
            SubpacketData::RevocationReason(
                RevocationCode::KeySuperseded | RevocationCode::KeyRetired,
                _
            )
        )
    });
    !soft || created_s(signature).is_none_or(|created_s| created_s <= now_s)
}

/// Whether a binding says that its key signs data. A key whose binding says
/// nothing may not.
fn may_sign(binding: &Signature) -> bool {
    subpackets(binding, false)
        .any(|data| matches!(data, SubpacketData::KeyFlags(flags) if flags.sign()))
}

fn check_life(key: &impl KeyDetails, binding: &Signature, now_s: u64) -> Result<(), Refusal> {
    let created_s = u64::from(key.created_at().as_secs());
    let name = fingerprint_of(key);
    if created_s > now_s + CLOCK_SKEW_S {
        return Err(Refusal::new(
            Reason::Expired,
            format!("key {name} is not yet valid"),
        ));
    }
    let ends = subpackets(binding, false).filter_map(|data| match data {
        SubpacketData::KeyExpirationTime(after) if after.as_secs() != 0 => {
            Some(created_s + u64::from(after.as_secs()))
        }
        _ => None,
    });
    match ends.min() {
        Some(end) if end <= now_s => Err(Refusal::new(
            Reason::Expired,
            format!("key {name} has expired"),
        )),
        _ => Ok(()),
    }
}

/// What holds for every signature that we believe: a hash that is strong, and
/// nothing critical that we do not understand.
pub(super) fn check_form(signature: &Signature, what: &str) -> Result<(), Refusal> {
    match signature.hash_alg() {
        Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512) => {}
        other => {
            let name = other.map_or_else(|| "none".to_owned(), |hash| hash.to_string());
            return Err(Refusal::new(
                Reason::Weak,
                format!("{what} uses the hash {name}; only SHA-256, SHA-384 and SHA-512 count"),
            ));
        }
    }
    let not_understood = signature.config().is_some_and(|config| {
        config.hashed_subpackets().any(|part| {
            part.is_critical
                && matches!(
                    part.data,
                    SubpacketData::Notation(_)
                        | SubpacketData::Experimental(..)
                        | SubpacketData::Other(..)
                        | SubpacketData::RegularExpression(_)
                        | SubpacketData::SignatureTarget(..)
                )
        })
    });
    if not_understood {
        return Err(Refusal::new(
            Reason::Unsupported,
            format!("{what} has a critical part that is not understood"),
        ));
    }
    Ok(())
}

fn check_self_signature(signature: &Signature, name: &Fingerprint) -> Result<(), Refusal> {
    check_form(signature, &format!("the self-signature of key {name}"))
}

fn check_strength(key: &impl VerifyingKey, bits: Option<usize>) -> Result<(), Refusal> {
    let name = fingerprint_of(key);
    match key.algorithm() {
        PublicKeyAlgorithm::RSA | PublicKeyAlgorithm::RSASign | PublicKeyAlgorithm::DSA => {
            match bits {
                Some(LEAST_BITS..) => Ok(()),
                _ => Err(Refusal::new(
                    Reason::Weak,
                    format!("key {name} has fewer than {LEAST_BITS} bits"),
                )),
            }
        }
        PublicKeyAlgorithm::ECDSA
            if matches!(
                key.public_params(),
                PublicParams::ECDSA(EcdsaPublicParams::Unsupported { .. })
            ) =>
        {
            Err(Refusal::new(
                Reason::Unsupported,
                format!("key {name} is on a curve that is not supported"),
            ))
        }
        PublicKeyAlgorithm::ECDSA
        | PublicKeyAlgorithm::EdDSALegacy
        | PublicKeyAlgorithm::Ed25519
        | PublicKeyAlgorithm::Ed448 => Ok(()),
        PublicKeyAlgorithm::RSAEncrypt
        | PublicKeyAlgorithm::ElgamalEncrypt
        | PublicKeyAlgorithm::ECDH
        | PublicKeyAlgorithm::X25519
        | PublicKeyAlgorithm::X448 => Err(Refusal::new(
            Reason::KeyUnfit,
            format!("key {name} is of a kind that cannot sign"),
        )),
        other => Err(Refusal::new(
            Reason::Unsupported,
            format!("key {name} is of the unsupported kind {other:?}"),
        )),
    }
}

/// The true length of the first number of a key packet, if it has one: the
/// modulus of RSA, the prime of DSA.
fn modulus_bits(body: &[u8]) -> Option<usize> {
    let at = match body.first()? {
        4 => 6,
        6 => 10,
        _ => return None,
    };
    let claimed = usize::from(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let bytes = body.get(at + 2..at + 2 + claimed.div_ceil(8))?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let top = usize::try_from(bytes[first].leading_zeros()).ok()?;
    Some((bytes.len() - first) * 8 - top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_do_not_make_a_key_longer() {
        let body =
            |length: [u8; 2], number: &[u8]| [&[4, 0, 0, 0, 0, 1][..], &length, number].concat();
        assert_eq!(modulus_bits(&body([0, 16], &[0x80, 1])), Some(16));
        assert_eq!(modulus_bits(&body([0, 16], &[0, 1])), Some(1));
        assert_eq!(modulus_bits(&body([0, 16], &[0, 0])), None);
        assert_eq!(modulus_bits(&body([8, 0], &[1])), None);
        assert_eq!(modulus_bits(&[3, 0, 0]), None);
    }
}
