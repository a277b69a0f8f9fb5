// SPDX-License-Identifier: Apache-2.0
//! A check that a JSON text means the same to every reader: no member twice
//! in one object, no nesting past a limit, nothing after the value.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Checks `data`; the error is serde's, with line and column.
///
/// # Errors
/// What is no JSON, a member that occurs twice, nesting deeper than `depth`, bytes after the value.
pub fn check(data: &[u8], depth: usize) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(data);
    Strict { depth }.deserialize(&mut deserializer)?;
    deserializer.end()
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| E::custom("nesting is too deep"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        while access.next_element_seed(deeper)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!(
                    "member {:?} occurs twice",
                    crate::digest::excerpt(&key)
                )));
            }
            access.next_value_seed(deeper)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn json_with_one_meaning_passes() {
        for good in [r#"{"a":1,"b":{"a":null}}"#, "[1,2.5,-3,true,\"x\"]", " {} "] {
            assert!(check(good.as_bytes(), 8).is_ok(), "{good}");
        }
    }

    #[test]
    fn json_with_two_meanings_is_refused() {
        let deep = "[".repeat(9) + &"]".repeat(9);
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"[{"x":0,"\u0078":0}]"#,
            "{} {}",
            "{}x",
            "",
            "{",
            "[NaN]",
            "\u{feff}{}",
            "// c\n{}",
            &deep,
        ] {
            assert!(check(bad.as_bytes(), 8).is_err(), "{bad:?} was accepted");
        }
    }
}
