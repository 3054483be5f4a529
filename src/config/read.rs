//! Decides how a tree becomes settings: a serde `Deserializer` whose errors have a place, a code and help.
//!
//! The innermost place wins. An error in one value does not hide those in others: the value is left out and the whole is read again.
//! Does not know the settings themselves; what a value means is said where its type is.

mod key;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt::Display;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Visitor};

use self::key::KeyReader;
use super::diagnostic::{Diagnostic, Place};
use super::keys::not_supported;
use super::read_error::{ReadError, What, address, in_words, short};
use super::suggest;
use super::types::{AT, TEXT_OR_LIST};
use super::yaml::{Key, Node, Scalar, Value};
use crate::relay::targets::members::SHORT_OR_LONG;

/// Enough to mend a file by; each costs another reading of the same entry.
const MOST_ERRORS: usize = 50;

/// Reads an entry that is called `name`, whose name stands at `place`. Tells everything that is wrong with it; then there is no value.
pub fn read<T: for<'de> Deserialize<'de>>(name: &str, place: &Place, node: &Node, errors: &mut Vec<Diagnostic>) -> Option<T> {
    let left_out = RefCell::new(HashSet::new());
    let before = errors.len();
    for _ in 0..MOST_ERRORS {
        let error = match T::deserialize(Reader { node, left_out: &left_out }) {
            Ok(value) => return (errors.len() == before).then_some(value),
            Err(error) => error,
        };
        let culprit = error.0.culprit;
        if let Some(diagnostic) = error.placed(place, &node.place, Some(name)).into_diagnostic() {
            errors.push(diagnostic);
        }
        match culprit {
            Some(culprit) if left_out.borrow_mut().insert(culprit) => {}
            // The entry as a whole, or no way on.
            _ => break,
        }
    }
    None
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    left_out: &'a RefCell<HashSet<usize>>,
}

struct Entries<'a, 's> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
    left_out: &'a RefCell<HashSet<usize>>,
    skipped: &'s Cell<bool>,
}

struct Items<'a, 's> {
    items: std::slice::Iter<'a, Node>,
    left_out: &'a RefCell<HashSet<usize>>,
    skipped: &'s Cell<bool>,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn scalar(&self, expected: &dyn Display) -> Result<&'a Scalar, ReadError> {
        self.no_null()?;
        match &self.node.value {
            Value::Scalar(scalar) => Ok(scalar),
            Value::List(_) | Value::Map(_) => Err(self.wrong(expected)),
        }
    }

    fn no_null(&self) -> Result<(), ReadError> {
        if !self.node.is_null() {
            return Ok(());
        }
        Err(ReadError::of(What::NoValue { whom: None }))
    }

    fn wrong(&self, expected: &dyn Display) -> ReadError {
        let found = match &self.node.value {
            Value::Scalar(scalar) if scalar.plain => format!("`{}`", short(&scalar.text)),
            Value::Scalar(scalar) => format!("the text `{}`", short(&scalar.text)),
            Value::List(_) | Value::Map(_) => self.node.kind().to_owned(),
        };
        ReadError::new("wrong-type", format!("found {found}: expected {expected}"))
    }

    fn whole(&self, least: i128, most: i128) -> Result<i128, ReadError> {
        let expected = format!("a whole number from {least} to {most}");
        let scalar = self.scalar(&expected)?;
        let text = scalar.text.as_str();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.wrong(&expected));
        }
        if !scalar.plain && !scalar.interpolated {
            return Err(self.wrong(&expected).help("remove the quotes: what is quoted is text"));
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(self.wrong(&expected).help("remove the leading zero: some readers of YAML take such a number for an octal one"));
        }
        match text.parse::<i128>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(ReadError::new("out-of-range", format!("`{}` is out of range: expected {expected}", short(text)))),
        }
    }

    fn list<V: Visitor<'a>>(self, items: &'a [Node], visitor: V) -> Result<V::Value, ReadError> {
        let skipped = Cell::new(false);
        let result = visitor.visit_seq(Items { items: items.iter(), left_out: self.left_out, skipped: &skipped });
        hush(result, &skipped)
    }

    fn map<V: Visitor<'a>>(self, entries: &'a [(Key, Node)], visitor: V) -> Result<V::Value, ReadError> {
        let skipped = Cell::new(false);
        let result = visitor.visit_map(Entries { entries: entries.iter(), value: None, left_out: self.left_out, skipped: &skipped });
        hush(result, &skipped)
    }
}

/// What is wrong only because something was left out has been told.
fn hush<T>(result: Result<T, ReadError>, skipped: &Cell<bool>) -> Result<T, ReadError> {
    result.map_err(|mut error| {
        error.0.silent |= skipped.get() && error.0.culprit.is_none();
        error
    })
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty,)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            let number = self.whole(<$type>::MIN.into(), <$type>::MAX.into())?;
            visitor.$visit(<$type>::try_from(number).map_err(|_| self.wrong(&"a whole number"))?)
        }
    )* };
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    /// What type a value has follows from its look; only the claims of tests are read this way.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.no_null()?;
        match &self.node.value {
            Value::List(items) => self.list(items, visitor),
            Value::Map(entries) => self.map(entries, visitor),
            Value::Scalar(scalar) => {
                let text = scalar.text.as_str();
                let digits = text.strip_prefix('-').unwrap_or(text);
                let canonical = !digits.starts_with('0') || digits.len() == 1 || digits.starts_with("0.");
                match text {
                    _ if !scalar.plain => visitor.visit_str(text),
                    "true" => visitor.visit_bool(true),
                    "false" => visitor.visit_bool(false),
                    _ if !canonical || !digits.starts_with(|c: char| c.is_ascii_digit()) => visitor.visit_str(text),
                    _ => match (text.parse::<u64>(), text.parse::<i64>(), text.parse::<f64>()) {
                        (Ok(number), _, _) => visitor.visit_u64(number),
                        (_, Ok(number), _) => visitor.visit_i64(number),
                        (_, _, Ok(number)) if number.is_finite() => visitor.visit_f64(number),
                        _ => visitor.visit_str(text),
                    },
                }
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let scalar = self.scalar(&"`true` or `false`")?;
        match scalar.text.as_str() {
            "true" if scalar.plain || scalar.interpolated => visitor.visit_bool(true),
            "false" if scalar.plain || scalar.interpolated => visitor.visit_bool(false),
            "true" | "false" => Err(self.wrong(&"`true` or `false`").help("remove the quotes: what is quoted is text")),
            _ => Err(self.wrong(&"`true` or `false`")),
        }
    }

    whole_numbers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let scalar = self.scalar(&"a number")?;
        let is_number = scalar.plain && scalar.text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        match scalar.text.parse::<f64>() {
            Ok(number) if is_number && number.is_finite() => visitor.visit_f64(number),
            _ => Err(self.wrong(&"a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let expected = in_words(&(&visitor as &dyn Expected).to_string());
        let scalar = self.scalar(&expected)?;
        visitor.visit_str(&scalar.text).map_err(|error: ReadError| match &error.0.what {
            What::Told { message, .. } if message.starts_with("invalid socket address") || message.starts_with("invalid IP address") => {
                ReadError::new("bad-value", format!("found `{}`: expected {expected}", short(&scalar.text)))
            }
            What::Told { .. } | What::Missing { .. } | What::Unknown { .. } | What::NoValue { .. } => error,
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    /// What is written is there: a key without a value is a mistake, never `None`.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.no_null()?;
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ReadError> {
        Err(self.wrong(&"nothing"))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        self.no_null()?;
        match name {
            AT => {
                self.node.place.clone().announce();
                visitor.visit_newtype_struct(self)
            }
            SHORT_OR_LONG => match &self.node.value {
                Value::Scalar(_) => visitor.visit_newtype_struct(self),
                Value::Map(entries) => self.map(entries, visitor),
                Value::List(_) => Err(self.wrong(&(&visitor as &dyn Expected).to_string())),
            },
            TEXT_OR_LIST => match &self.node.value {
                Value::Scalar(scalar) => visitor
                    .visit_str(&scalar.text)
                    .map_err(|error: ReadError| error.help(format!("a list of one is written `[{}]`", short(&scalar.text)))),
                Value::List(items) => self.list(items, visitor),
                Value::Map(_) => Err(self.wrong(&(&visitor as &dyn Expected).to_string())),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.no_null()?;
        match &self.node.value {
            Value::List(items) => self.list(items, visitor),
            Value::Scalar(scalar) => {
                Err(self.wrong(&"a list, such as `[a, b]`").help(format!("a list of one is written `[{}]`", short(&scalar.text))))
            }
            Value::Map(_) => Err(self.wrong(&"a list, such as `[a, b]`")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.no_null()?;
        match &self.node.value {
            Value::Map(entries) => self.map(entries, visitor),
            Value::Scalar(_) | Value::List(_) => Err(self.wrong(&"a mapping, such as `{ name: value }`")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.no_null()?;
        match &self.node.value {
            Value::Map(entries) => self.map(entries, visitor),
            Value::Scalar(_) | Value::List(_) => {
                let known: Vec<String> = keys.iter().take(6).map(|key| format!("`{key}`")).collect();
                let more = if keys.len() > 6 { ", ..." } else { "" };
                let word = if keys.len() == 1 { "the key" } else { "keys such as" };
                Err(self.wrong(&format!("a mapping with {word} {}{more}", known.join(", "))))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, words: &'static [&'static str], visitor: V) -> Result<V::Value, ReadError> {
        let all = || words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let expected = if words.len() == 1 { all() } else { format!("one of {}", all()) };
        let scalar = self.scalar(&expected)?;
        if let Some(help) = not_supported(&scalar.text, words) {
            return Err(ReadError::new("not-supported", format!("`{}` is not supported: expected {expected}", scalar.text)).help(help));
        }
        if !words.contains(&scalar.text.as_str()) {
            let error = ReadError::new("unknown-word", format!("found `{}`: expected {expected}", short(&scalar.text)));
            return Err(match suggest::nearest(&scalar.text, words.iter().copied()) {
                Some(word) => error.help(format!("did you mean `{word}`?")),
                None => error,
            });
        }
        visitor.visit_enum(StrDeserializer::<ReadError>::new(&scalar.text))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}

// === impl Entries, Items ===

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        for (key, node) in self.entries.by_ref() {
            if self.left_out.borrow().contains(&address(node)) {
                self.skipped.set(true);
                continue;
            }
            self.value = Some((key, node));
            return seed
                .deserialize(KeyReader(key))
                .map(Some)
                .map_err(|e: ReadError| e.placed(&key.place, &key.place, None).caused_by(node));
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        let (key, node) = self.value.take().ok_or_else(|| ReadError::new("bad-value", "a value without a key"))?;
        seed.deserialize(Reader { node, left_out: self.left_out })
            .map_err(|e| e.placed(&key.place, &node.place, Some(&key.text)).caused_by(node).below(&key.text))
    }
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        for node in self.items.by_ref() {
            if self.left_out.borrow().contains(&address(node)) {
                self.skipped.set(true);
                continue;
            }
            let reader = Reader { node, left_out: self.left_out };
            return seed.deserialize(reader).map(Some).map_err(|e| e.placed(&node.place, &node.place, None).caused_by(node));
        }
        Ok(None)
    }
}
