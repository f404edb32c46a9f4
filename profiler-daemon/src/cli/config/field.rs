//! One value of the file, read as what its key wants.

use std::ops::RangeInclusive;

use clap::ValueEnum;
use toml::Spanned;
use toml::de::DeValue;

/// Something wrong at a place in the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Byte offset.
    pub(super) at: usize,
    /// What, and what would be right.
    pub(super) message: String,
}

/// All that is wrong with one value.
pub(super) type Problems = Vec<Problem>;

/// A value and the full name of its key.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Field<'a> {
    /// A problem with the value.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problems {
        vec![Problem { at: self.value.span().start, message: message.into() }]
    }

    fn wrong_type(&self, expected: &str) -> Problems {
        let found = self.value.get_ref().type_str();
        self.problem(format!("`{}`: expected {expected}, found {found}", self.key))
    }

    /// The value as a string.
    pub(super) fn string(&self, expected: &str) -> Result<&'a str, Problems> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong_type(expected))
    }

    /// The value as a string that `read` understands.
    pub(super) fn parsed<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Problems> {
        let text = self.string(expected)?;
        read(text).ok_or_else(|| {
            let found = text.escape_debug();
            self.problem(format!("`{}`: expected {expected}, found \"{found}\"", self.key))
        })
    }

    /// The value as one of the names of `T`.
    pub(super) fn one_of<T: ValueEnum>(&self) -> Result<T, Problems> {
        let names: Vec<_> = T::value_variants()
            .iter()
            .filter_map(|v| Some(format!("\"{}\"", v.to_possible_value()?.get_name())))
            .collect();
        self.parsed(&alternatives(&names), |text| T::from_str(text, false).ok())
    }

    /// The value as true or false.
    pub(super) fn boolean(&self) -> Result<bool, Problems> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// The value as an integer in `range`.
    pub(super) fn integer(&self, range: &RangeInclusive<u32>) -> Result<u32, Problems> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.get_ref().as_integer() else {
            return Err(self.wrong_type(&expected));
        };
        u32::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| {
                let found = integer.as_str();
                self.problem(format!("`{}`: expected {expected}, found {found}", self.key))
            })
    }

    /// The value as an array of strings, each with where it stands.
    pub(super) fn strings(&self, expected: &str) -> Result<Vec<Field<'a>>, Problems> {
        let array = self.value.get_ref().as_array().ok_or_else(|| self.wrong_type(expected))?;
        let fields = array.iter().map(|value| Field { key: self.key, value });
        let (fine, wrong): (Vec<_>, Vec<_>) =
            fields.partition(|field| field.value.get_ref().is_str());
        if wrong.is_empty() {
            return Ok(fine);
        }
        Err(wrong.iter().flat_map(|field| field.wrong_type(expected)).collect())
    }
}

/// `a, b or c`.
pub(super) fn alternatives<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
