//! Valid values of any type that can be deserialized: a deserializer whose format is chance.

use core::fmt;

use rand::Rng;
use rand::rngs::StdRng;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// Items of all sequences, strings and maps of one value together.
const ITEMS_MAX: usize = 400;
/// Tries until a value that its type refuses (a pair ID out of range) is given up.
const TRIES_MAX: usize = 200;

/// The type cannot be made this way, or refused what was made.
#[derive(Debug)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A value of `T`.
///
/// # Panics
/// When `T` refuses everything: its target needs a generator of its own.
pub fn generate<T: DeserializeOwned>(random: &mut StdRng) -> T {
    let mut refusal = None;
    for _ in 0..TRIES_MAX {
        let mut generator = Generator {
            random,
            items: ITEMS_MAX,
        };
        match T::deserialize(&mut generator) {
            Ok(value) => return value,
            Err(refused) => refusal = Some(refused),
        }
    }
    panic!("{}: {refusal:?}", core::any::type_name::<T>())
}

struct Generator<'r> {
    random: &'r mut StdRng,
    items: usize,
}

impl Generator<'_> {
    /// Small, at a turning point, or anything.
    fn number(&mut self) -> u64 {
        match self.random.random_range(0..6) {
            0..=2 => self.random.random_range(0..20),
            3 => {
                let power: u64 = 1 << self.random.random_range(0..64);
                power.wrapping_sub(self.random.random_range(0..2))
            }
            4 => self.random.random(),
            _ => u64::MAX - self.random.random_range(0..3),
        }
    }

    fn length(&mut self) -> usize {
        let most = match self.random.random_range(0..20) {
            0 => 60,
            1..=4 => 12,
            _ => 3,
        };
        let length = self.random.random_range(0..=most).min(self.items);
        self.items -= length;
        length
    }

    fn text(&mut self) -> String {
        let length = self.length();
        let odd = ['\n', '\0', 'ß', '"', '|', '\u{1f525}', '\u{202e}', ' '];
        (0..length)
            .map(|_| match self.random.random_range(0..10) {
                0 => odd[self.random.random_range(0..odd.len())],
                _ => char::from(self.random.random_range(b'!'..=b'~')),
            })
            .collect()
    }
}

macro_rules! numbers {
    ($($deserialize:ident $visit:ident $number:ty),*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            visitor.$visit(self.number() as $number)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Generator<'_> {
    type Error = Refused;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused("needs a self-describing format".to_owned()))
    }

    numbers!(
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128,
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128
    );

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_bool(self.random.random())
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_string(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_string(self.text())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let length = self.length();
        visitor.visit_byte_buf((0..length).map(|_| self.random.random()).collect())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.random.random() {
            visitor.visit_some(self)
        } else {
            visitor.visit_none()
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let left = self.length();
        visitor.visit_seq(Items { of: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_seq(Items { of: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_seq(Items { of: self, left })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let left = self.length();
        visitor.visit_map(Items { of: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let left = fields.len();
        visitor.visit_seq(Items { of: self, left })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let variant = self.random.random_range(0..variants.len()) as u32;
        visitor.visit_enum(Variant { of: self, variant })
    }

    forward_to_deserialize_any! { f32 f64 char identifier ignored_any }
}

struct Items<'a, 'r> {
    of: &'a mut Generator<'r>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        seed.deserialize(&mut *self.of).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, '_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        seed.deserialize(&mut *self.of)
    }
}

struct Variant<'a, 'r> {
    of: &'a mut Generator<'r>,
    variant: u32,
}

impl<'de, 'a, 'r> EnumAccess<'de> for Variant<'a, 'r> {
    type Error = Refused;
    type Variant = Fields<'a, 'r>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Refused> {
        let index: serde::de::value::U32Deserializer<Refused> = self.variant.into_deserializer();
        Ok((seed.deserialize(index)?, Fields(self.of)))
    }
}

struct Fields<'a, 'r>(&'a mut Generator<'r>);

impl<'de> VariantAccess<'de> for Fields<'_, '_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_seq(Items { of: self.0, left })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let left = fields.len();
        visitor.visit_seq(Items { of: self.0, left })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use wire::control::ControlMessage;

    use super::generate;

    #[test]
    fn every_variant_is_made() {
        let mut random = StdRng::seed_from_u64(1);
        let made: BTreeSet<_> = (0..500)
            .map(|_| core::mem::discriminant(&generate::<ControlMessage>(&mut random)))
            .map(|kind| format!("{kind:?}"))
            .collect();
        assert!(made.len() >= 9, "{made:?}");
    }
}
