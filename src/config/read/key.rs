//! Reads the key of an entry as what a mapping has for keys: text, with its place where that is wanted.

use serde::Deserializer;
use serde::de::Visitor;
use serde::forward_to_deserialize_any;

use super::super::read_error::ReadError;
use super::super::types::AT;
use super::super::yaml::Key;

pub(super) struct KeyReader<'a>(pub(super) &'a Key);

// === impl KeyReader ===

impl<'de> Deserializer<'de> for KeyReader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_str(&self.0.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        if name != AT {
            return visitor.visit_str(&self.0.text);
        }
        self.0.place.clone().announce();
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
