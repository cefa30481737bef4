//! Going over the fields of a row in one order, to learn the schema, to write, or to read.

use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::{DeviceId, VerifierId};
use specfleet_engine::record::{FinishReason, Provenance, Source};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::EnergyPart;

use crate::error::instead;
use crate::limits::Population;
use crate::schema::{ColumnKind, ExportColumn};
use crate::values::{ColumnValues, NO_WORD, ValueBatch};

/// A value that does not fit its field: the column, and what is wrong.
#[derive(Debug)]
pub(crate) struct Misfit {
    pub(crate) column: &'static str,
    pub(crate) why: String,
}

pub(crate) const NS: &str = "ns";

pub(crate) const NJ: &str = "nJ";

/// Name, unit and meaning of a column.
#[derive(Clone, Copy)]
pub(crate) struct Spec(pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static str);

/// Whatever goes over the fields of a row.
pub(crate) trait Visit: Sized {
    fn integer(&mut self, spec: Spec, value: &mut i64) -> Result<(), Misfit>;
    /// The same of a column that may be missing: then it is `instead`.
    fn added_integer(&mut self, spec: Spec, value: &mut i64, _instead: i64) -> Result<(), Misfit> {
        self.integer(spec, value)
    }
    fn maybe_integer(&mut self, spec: Spec, value: &mut Option<i64>) -> Result<(), Misfit>;
    fn float(&mut self, spec: Spec, value: &mut f32) -> Result<(), Misfit>;
    fn boolean(&mut self, spec: Spec, derived: bool, value: &mut bool) -> Result<(), Misfit>;
    /// `derived` words may be missing, and are not read back.
    fn word<K: AsRef<str>>(&mut self, spec: Spec, derived: bool, known: &[K], code: &mut u32) -> Result<(), Misfit>;
    fn integers(&mut self, spec: Spec, value: &mut Vec<u32>) -> Result<(), Misfit>;
    fn floats(&mut self, spec: Spec, value: &mut Vec<f32>) -> Result<(), Misfit>;

    fn whole<W: Whole>(&mut self, spec: Spec, value: &mut W) -> Result<(), Misfit> {
        let mut raw = value.to_raw();
        self.integer(spec, &mut raw)?;
        *value = W::from_raw(raw).ok_or_else(|| out_of_range(spec, raw))?;
        Ok(())
    }

    /// A column that exports of earlier versions lack: there it is `instead`.
    fn whole_since<W: Whole>(&mut self, spec: Spec, value: &mut W, instead: W) -> Result<(), Misfit> {
        let mut raw = value.to_raw();
        self.added_integer(spec, &mut raw, instead.to_raw())?;
        *value = W::from_raw(raw).ok_or_else(|| out_of_range(spec, raw))?;
        Ok(())
    }

    fn maybe<W: Whole>(&mut self, spec: Spec, value: &mut Option<W>) -> Result<(), Misfit> {
        let mut raw = value.map(Whole::to_raw);
        self.maybe_integer(spec, &mut raw)?;
        *value = raw.map(|raw| W::from_raw(raw).ok_or_else(|| out_of_range(spec, raw))).transpose()?;
        Ok(())
    }

    fn named<N: NamedFields>(&mut self, spec: Spec, value: &mut N) -> Result<(), Misfit> {
        let mut code = value.code();
        self.word(spec, false, N::WORDS, &mut code)?;
        *value = N::ALL[code as usize];
        Ok(())
    }
}

fn out_of_range(Spec(column, ..): Spec, raw: i64) -> Misfit {
    Misfit { column, why: format!("{raw} is out of range") }
}

/// Integers of the records. All are written as 64 bits; those of 64 bits keep their bits, so that 2^63 and more appear
/// negative. No import takes such a value.
pub(crate) trait Whole: Copy {
    fn to_raw(self) -> i64;
    fn from_raw(raw: i64) -> Option<Self>;
}

macro_rules! whole {
    ($($type:ty: $to:expr, $from:expr;)*) => {
        $(impl Whole for $type {
            #[inline]
            fn to_raw(self) -> i64 {
                let to: fn($type) -> i64 = $to;
                to(self)
            }

            #[inline]
            fn from_raw(raw: i64) -> Option<Self> {
                let from: fn(i64) -> Option<$type> = $from;
                from(raw)
            }
        })*
    };
}

whole! {
    u16: i64::from, |raw| raw.try_into().ok();
    u32: i64::from, |raw| raw.try_into().ok();
    u64: |value| value as i64, |raw| Some(raw as u64);
    Time: |time| time.0 as i64, |raw| Some(Time(raw as u64));
    Span: |span| span.0 as i64, |raw| Some(Span(raw as u64));
    DeviceId: |id| id.0.into(), |raw| raw.try_into().ok().map(DeviceId);
    VerifierId: |id| id.0.into(), |raw| raw.try_into().ok().map(VerifierId);
}

/// Enumerations of the records, by the words that stand for them.
pub(crate) trait NamedFields: Copy + PartialEq + 'static {
    const ALL: &'static [Self];
    const WORDS: &'static [&'static str];

    fn code(self) -> u32;
}

macro_rules! named {
    ($($type:ident { $($variant:ident $word:literal,)* })*) => {
        $(impl NamedFields for $type {
            const ALL: &'static [$type] = &[$($type::$variant,)*];
            const WORDS: &'static [&'static str] = &[$($word,)*];

            #[inline]
            fn code(self) -> u32 {
                // Variants are numbered in the order of their declaration, which is the order here; a test looks.
                match self { $($type::$variant => $type::$variant as u32,)* }
            }
        })*
    };
}

named! {
    Source {
        Skipped "skipped", Accepted "accepted", Replaced "replaced", Bonus "bonus", Verifier "verifier",
        Fallback "fallback", Refused "refused",
    }
    GateReason {
        Never "never", Always "always", NotDrawn "not-drawn", Drawn "drawn", Certain "certain", Uncertain "uncertain",
        Unimportant "unimportant", Important "important", TooDear "too-dear", Worth "worth",
    }
    Provenance { Measured "measured", Modelled "modelled", Constant "constant", }
    FinishReason {
        Stop "stop", Length "length", Failed "failed", Battery "battery", Left "left", Dropped "dropped",
    }
    EnergyPart {
        Device "device", Radio "radio", Cloud "cloud", CloudPaper "cloud-paper", CloudIdle "cloud-idle",
    }
}

pub(crate) struct Learn {
    pub(crate) columns: Vec<ExportColumn>,
    pub(crate) values: Vec<Option<ColumnValues>>,
}

impl Learn {
    fn add(
        &mut self,
        Spec(name, unit, meaning): Spec,
        kind: ColumnKind,
        nullable: bool,
        derived: bool,
        known: Vec<String>,
    ) {
        let column = ExportColumn { name, kind, nullable, derived, added: false, unit, meaning };
        self.values.push(Some(ColumnValues::new(&column, known)));
        self.columns.push(column);
    }
}

impl Visit for Learn {
    fn integer(&mut self, spec: Spec, _: &mut i64) -> Result<(), Misfit> {
        self.add(spec, ColumnKind::Integer, false, false, Vec::new());
        Ok(())
    }
    fn added_integer(&mut self, spec: Spec, value: &mut i64, _: i64) -> Result<(), Misfit> {
        self.integer(spec, value)?;
        self.columns.iter_mut().last().into_iter().for_each(|column| column.added = true);
        Ok(())
    }
    fn maybe_integer(&mut self, spec: Spec, _: &mut Option<i64>) -> Result<(), Misfit> {
        self.add(spec, ColumnKind::Integer, true, false, Vec::new());
        Ok(())
    }
    fn float(&mut self, spec: Spec, _: &mut f32) -> Result<(), Misfit> {
        self.add(spec, ColumnKind::Float, true, false, Vec::new());
        Ok(())
    }
    fn boolean(&mut self, spec: Spec, derived: bool, _: &mut bool) -> Result<(), Misfit> {
        self.add(spec, ColumnKind::Boolean, false, derived, Vec::new());
        Ok(())
    }
    fn word<K: AsRef<str>>(&mut self, spec: Spec, derived: bool, known: &[K], _: &mut u32) -> Result<(), Misfit> {
        let known = known.iter().map(|word| word.as_ref().to_owned()).collect();
        self.add(spec, ColumnKind::Text, derived, derived, known);
        Ok(())
    }
    fn integers(&mut self, spec: Spec, _: &mut Vec<u32>) -> Result<(), Misfit> {
        self.add(spec, ColumnKind::Integers, false, false, Vec::new());
        Ok(())
    }
    fn floats(&mut self, spec: Spec, _: &mut Vec<f32>) -> Result<(), Misfit> {
        self.add(spec, ColumnKind::Floats, false, false, Vec::new());
        Ok(())
    }
}

/// Appends a row to a batch.
pub(crate) struct Append<'a>(std::slice::IterMut<'a, Option<ColumnValues>>);

impl<'a> Append<'a> {
    pub(crate) fn to(batch: &'a mut ValueBatch) -> Append<'a> {
        Append(batch.columns.iter_mut())
    }

    /// The next column. A batch to write has every column, of the kind that is visited: both come from one function.
    pub(crate) fn next(&mut self) -> &mut ColumnValues {
        self.0.next().and_then(Option::as_mut).expect("invariant: a batch is learnt from the visit that fills it")
    }
}

/// What a visit finds in a column of another kind than it made: never.
fn other_kind() -> ! {
    unreachable!("a batch is learnt from the visit that fills it")
}

impl Visit for Append<'_> {
    fn integer(&mut self, _: Spec, value: &mut i64) -> Result<(), Misfit> {
        let ColumnValues::Integers(values) = self.next() else { other_kind() };
        values.push(*value);
        Ok(())
    }
    fn maybe_integer(&mut self, _: Spec, value: &mut Option<i64>) -> Result<(), Misfit> {
        let ColumnValues::MaybeIntegers(values) = self.next() else { other_kind() };
        values.push(*value);
        Ok(())
    }
    fn float(&mut self, _: Spec, value: &mut f32) -> Result<(), Misfit> {
        let ColumnValues::Floats(values) = self.next() else { other_kind() };
        values.push(*value);
        Ok(())
    }
    fn boolean(&mut self, _: Spec, _: bool, value: &mut bool) -> Result<(), Misfit> {
        let ColumnValues::Booleans(values) = self.next() else { other_kind() };
        values.push(*value);
        Ok(())
    }
    fn word<K: AsRef<str>>(&mut self, _: Spec, _: bool, known: &[K], code: &mut u32) -> Result<(), Misfit> {
        let ColumnValues::Words { codes, .. } = self.next() else { other_kind() };
        // An index that no list of the run explains has no name.
        codes.push(if (*code as usize) < known.len() { *code } else { NO_WORD });
        Ok(())
    }
    fn integers(&mut self, _: Spec, value: &mut Vec<u32>) -> Result<(), Misfit> {
        let ColumnValues::IntegerLists(lists) = self.next() else { other_kind() };
        lists.push(value.iter().map(|value| i64::from(*value)));
        Ok(())
    }
    fn floats(&mut self, _: Spec, value: &mut Vec<f32>) -> Result<(), Misfit> {
        let ColumnValues::FloatLists(lists) = self.next() else { other_kind() };
        lists.push(value.iter().copied());
        Ok(())
    }
}

/// Reads a row of a batch, and refuses values that no row of the run can have. Derived columns may be missing, and so may
/// those that came later.
pub(crate) struct TakeFields<'a> {
    columns: std::slice::Iter<'a, Option<ColumnValues>>,
    row: usize,
    population: &'a Population,
}

impl<'a> TakeFields<'a> {
    pub(crate) fn from(batch: &'a ValueBatch, row: usize, population: &'a Population) -> TakeFields<'a> {
        TakeFields { columns: batch.columns.iter(), row, population }
    }

    fn next(&mut self) -> Option<&'a ColumnValues> {
        self.columns.next().and_then(Option::as_ref)
    }
}

impl Visit for TakeFields<'_> {
    fn integer(&mut self, spec: Spec, value: &mut i64) -> Result<(), Misfit> {
        let Some(ColumnValues::Integers(values)) = self.next() else { other_kind() };
        *value = values[self.row];
        self.population.check(spec, *value)
    }
    fn added_integer(&mut self, spec: Spec, value: &mut i64, instead: i64) -> Result<(), Misfit> {
        *value = match self.next() {
            Some(ColumnValues::Integers(values)) => values[self.row],
            None => instead,
            Some(_) => other_kind(),
        };
        self.population.check(spec, *value)
    }
    fn maybe_integer(&mut self, spec: Spec, value: &mut Option<i64>) -> Result<(), Misfit> {
        let Some(ColumnValues::MaybeIntegers(values)) = self.next() else { other_kind() };
        *value = values[self.row];
        value.map_or(Ok(()), |value| self.population.check(spec, value))
    }
    fn float(&mut self, _: Spec, value: &mut f32) -> Result<(), Misfit> {
        let Some(ColumnValues::Floats(values)) = self.next() else { other_kind() };
        *value = values[self.row];
        Ok(())
    }
    fn boolean(&mut self, _: Spec, derived: bool, value: &mut bool) -> Result<(), Misfit> {
        match self.next() {
            Some(ColumnValues::Booleans(values)) => *value = values[self.row],
            None if derived => {}
            _ => other_kind(),
        }
        Ok(())
    }
    fn word<K: AsRef<str>>(&mut self, spec: Spec, derived: bool, known: &[K], code: &mut u32) -> Result<(), Misfit> {
        let found = self.next();
        if derived {
            return Ok(());
        }
        let Some(ColumnValues::Words { codes, known: words }) = found else { other_kind() };
        let Some(word) = words.get(codes[self.row] as usize) else {
            return Err(Misfit { column: spec.0, why: "a value is missing".to_owned() });
        };
        // Readers put the words of a file behind those that are known.
        match known.iter().position(|known| known.as_ref() == word) {
            Some(place) => *code = place as u32,
            None => {
                let instead = instead(word, known.iter().map(AsRef::as_ref));
                return Err(Misfit { column: spec.0, why: format!("{word:?} is unknown; {instead}") });
            }
        }
        Ok(())
    }
    fn integers(&mut self, spec: Spec, value: &mut Vec<u32>) -> Result<(), Misfit> {
        let Some(ColumnValues::IntegerLists(lists)) = self.next() else { other_kind() };
        let list = lists.get(self.row).iter();
        let list = list.map(|raw| u32::try_from(*raw).map_err(|_| out_of_range(spec, *raw)));
        *value = list.collect::<Result<_, _>>()?;
        Ok(())
    }
    fn floats(&mut self, _: Spec, value: &mut Vec<f32>) -> Result<(), Misfit> {
        let Some(ColumnValues::FloatLists(lists)) = self.next() else { other_kind() };
        *value = lists.get(self.row).to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<N: NamedFields + serde::Serialize + std::fmt::Debug>() {
        for (place, value) in N::ALL.iter().enumerate() {
            assert_eq!(value.code() as usize, place, "{value:?}");
        }
        assert_eq!(N::ALL.len(), N::WORDS.len());
    }

    #[test]
    fn words_stand_for_the_variant_of_their_place() {
        check::<Source>();
        check::<GateReason>();
        check::<Provenance>();
        check::<FinishReason>();
        check::<EnergyPart>();
        for (value, word) in Source::ALL.iter().zip(Source::WORDS) {
            assert_eq!(serde_json::to_value(value).expect("a word"), *word);
        }
    }
}
