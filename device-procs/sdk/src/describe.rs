//! A saved state as JSON text, for people: the names that `serde` knows of its fields, and of long lists only the beginning.
//!
//! Floating-point numbers that JSON has no form for become text. Nothing here is read back by a device.

use std::fmt::{self, Display, Write as _};

use serde::ser::{self, Serialize};

/// Elements of a list that are shown; the number of the others stands behind them.
pub const SHOWN: usize = 64;

/// A value as JSON text.
///
/// # Errors
/// The value's own `Serialize` fails.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Failed> {
    let mut writer = Writer { out: String::new() };
    value.serialize(&mut writer)?;
    Ok(writer.out)
}

/// Why a value has no JSON text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

impl ser::Error for Failed {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[derive(Debug)]
struct Writer {
    out: String,
}

impl Writer {
    fn put(&mut self, value: impl Display) {
        write!(self.out, "{value}").expect("a String takes all");
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.out.extend(['\\', c]),
                c if u32::from(c) < 0x20 => self.put(format_args!("\\u{:04x}", u32::from(c))),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn list(&mut self, open: &str, close: &'static str) -> List<'_> {
        self.out.push_str(open);
        List { writer: self, close, seen: 0 }
    }

    /// A variant with something in it: an object with the variant's name as its only key.
    fn variant(&mut self, name: &str) {
        self.out.push('{');
        self.text(name);
        self.out.push(':');
    }
}

/// A list or an object that is being written.
#[derive(Debug)]
struct List<'a> {
    writer: &'a mut Writer,
    close: &'static str,
    seen: usize,
}

impl List<'_> {
    fn comma(&mut self) {
        if self.seen > 0 {
            self.writer.out.push(',');
        }
        self.seen += 1;
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        if self.seen >= SHOWN {
            self.seen += 1;
            return Ok(());
        }
        self.comma();
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Failed> {
        self.comma();
        self.writer.text(name);
        self.writer.out.push(':');
        value.serialize(&mut *self.writer)
    }

    fn finish(self) {
        if self.seen > SHOWN && self.close.starts_with(']') {
            self.writer.put(format_args!(",\"... {} more\"", self.seen - SHOWN));
        }
        self.writer.out.push_str(self.close);
    }
}

/// What is the same in JSON as in Rust.
macro_rules! shown_as_they_are {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, v: $type) -> Result<(), Failed> {
            self.put(v);
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Failed;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = List<'a>;
    type SerializeTupleVariant = List<'a>;
    type SerializeMap = List<'a>;
    type SerializeStruct = List<'a>;
    type SerializeStructVariant = List<'a>;

    shown_as_they_are! {
        serialize_bool: bool,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    }

    fn serialize_f32(self, v: f32) -> Result<(), Failed> {
        self.serialize_f64(v.into())
    }

    fn serialize_f64(self, v: f64) -> Result<(), Failed> {
        if v.is_finite() {
            self.put(v)
        } else {
            self.text(&v.to_string())
        }
        Ok(())
    }

    fn serialize_char(self, v: char) -> Result<(), Failed> {
        self.text(v.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, v: &str) -> Result<(), Failed> {
        self.text(v);
        Ok(())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), Failed> {
        let mut list = self.list("[", "]");
        v.iter().try_for_each(|byte| list.element(byte))?;
        list.finish();
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Failed> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failed> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Failed> {
        self.put("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Failed> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Failed> {
        self.text(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Failed> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        self.variant(variant);
        value.serialize(&mut *self)?;
        self.out.push('}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, Failed> {
        Ok(self.list("[", "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'a>, Failed> {
        Ok(self.list("[", "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'a>, Failed> {
        Ok(self.list("[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'a>, Failed> {
        self.variant(variant);
        Ok(self.list("[", "]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<List<'a>, Failed> {
        Ok(self.list("{", "}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<List<'a>, Failed> {
        Ok(self.list("{", "}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'a>, Failed> {
        self.variant(variant);
        Ok(self.list("{", "}}"))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Failed> {
        self.text(&value.to_string());
        Ok(())
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),*) => {$(
        impl ser::$trait for List<'_> {
            type Ok = ();
            type Error = Failed;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
                self.element(value)
            }

            fn end(self) -> Result<(), Failed> {
                self.finish();
                Ok(())
            }
        }
    )*};
}

elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! fields {
    ($($trait:ident),*) => {$(
        impl ser::$trait for List<'_> {
            type Ok = ();
            type Error = Failed;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Failed> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Failed> {
                self.finish();
                Ok(())
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for List<'_> {
    type Ok = ();
    type Error = Failed;

    /// JSON's keys are text: any other key is shown as the text that its value would be.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        let key = json(key)?;
        self.comma();
        if key.starts_with('"') {
            self.writer.put(&key)
        } else {
            self.writer.text(&key)
        }
        self.writer.out.push(':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Failed> {
        self.finish();
        Ok(())
    }
}

/// Values by name, in their order.
pub(crate) struct Named<'a, T>(pub(crate) Vec<(&'a str, T)>);

impl<T: Serialize> Serialize for Named<'_, T> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<T> fmt::Debug for Named<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    enum State {
        V1(Inner),
        Pair(u8, char),
        Fields { a: Option<u32> },
        Unit,
    }

    #[derive(Serialize)]
    struct Inner {
        level: bool,
        text: String,
        none: Option<u8>,
        some: Option<i16>,
        map: BTreeMap<u32, &'static str>,
        long: Vec<u8>,
        nothing: (),
        f: (f32, f64),
    }

    #[test]
    fn a_state_is_shown_with_its_names() {
        let state = State::V1(Inner {
            level: true,
            text: "a \"b\"\\\n".into(),
            none: None,
            some: Some(-3),
            map: [(1, "one"), (2, "two")].into(),
            long: vec![7; SHOWN + 2],
            nothing: (),
            f: (0.5, f64::NAN),
        });
        let sevens = vec!["7"; SHOWN].join(",");
        let expected = format!(
            r#"{{"V1":{{"level":true,"text":"a \"b\"\\\u000a","none":null,"some":-3,"map":{{"1":"one","2":"two"}},"long":[{sevens},"... 2 more"],"nothing":null,"f":[0.5,"NaN"]}}}}"#
        );
        assert_eq!(json(&state), Ok(expected));
        assert_eq!(json(&State::Pair(1, 'x')), Ok(r#"{"Pair":[1,"x"]}"#.into()));
        assert_eq!(json(&State::Fields { a: Some(u32::MAX) }), Ok(r#"{"Fields":{"a":4294967295}}"#.into()));
        assert_eq!(json(&[State::Unit]), Ok(r#"["Unit"]"#.into()));
        assert_eq!(json(&Named(vec![("irq", true), ("dma", false)])), Ok(r#"{"irq":true,"dma":false}"#.into()));
        // Exactly as many as are shown: nothing is left out.
        assert_eq!(json(&vec![7; SHOWN]), Ok(format!("[{sevens}]")));
    }
}
