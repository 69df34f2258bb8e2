//! Reading columns into closed types. A value without meaning is an error, never a default.

use std::str::FromStr;

use domain::Timestamp;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::SqlError;

/// A column as text that parses.
pub(crate) fn parsed<T: FromStr>(row: &AnyRow, column: &'static str) -> Result<T, SqlError> {
    let value: String = row.try_get(column)?;
    value.parse().map_err(|_| SqlError::Meaningless { column, value })
}

pub(crate) fn parsed_opt<T: FromStr>(row: &AnyRow, column: &'static str) -> Result<Option<T>, SqlError> {
    let value: Option<String> = row.try_get(column)?;
    value.map(|value| value.parse().map_err(|_| SqlError::Meaningless { column, value })).transpose()
}

pub(crate) fn text(row: &AnyRow, column: &'static str) -> Result<String, SqlError> {
    Ok(row.try_get(column)?)
}

pub(crate) fn text_opt(row: &AnyRow, column: &'static str) -> Result<Option<String>, SqlError> {
    Ok(row.try_get(column)?)
}

pub(crate) fn int(row: &AnyRow, column: &'static str) -> Result<i64, SqlError> {
    Ok(row.try_get(column)?)
}

/// A count or a size.
pub(crate) fn natural<T: TryFrom<i64>>(row: &AnyRow, column: &'static str) -> Result<T, SqlError> {
    let value = int(row, column)?;
    T::try_from(value).map_err(|_| SqlError::Meaningless { column, value: value.to_string() })
}

pub(crate) fn natural_opt<T: TryFrom<i64>>(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<T>, SqlError> {
    let value: Option<i64> = row.try_get(column)?;
    value
        .map(|value| {
            T::try_from(value).map_err(|_| SqlError::Meaningless { column, value: value.to_string() })
        })
        .transpose()
}

pub(crate) fn float(row: &AnyRow, column: &'static str) -> Result<f64, SqlError> {
    Ok(row.try_get(column)?)
}

pub(crate) fn float_opt(row: &AnyRow, column: &'static str) -> Result<Option<f64>, SqlError> {
    Ok(row.try_get(column)?)
}

pub(crate) fn instant(row: &AnyRow, column: &'static str) -> Result<Timestamp, SqlError> {
    Ok(Timestamp::from_unix_ms(int(row, column)?))
}

pub(crate) fn instant_opt(row: &AnyRow, column: &'static str) -> Result<Option<Timestamp>, SqlError> {
    let value: Option<i64> = row.try_get(column)?;
    Ok(value.map(Timestamp::from_unix_ms))
}

/// A JSON column.
pub(crate) fn json<T>(column: &'static str, text: &str) -> Result<T, SqlError>
where
    T: for<'de> serde::Deserialize<'de>,
{
    serde_json::from_str(text)
        .map_err(|_| SqlError::Meaningless { column, value: text.chars().take(80).collect() })
}

/// A text that came from outside, from a film or a child that died over it. PostgreSQL has no place for NUL in
/// a text and would refuse the whole row.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

/// What a BIGINT takes; no size or count that this program meets is larger.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `$from, $from+1, …` for `count` values: the one place where the text of a statement depends on data,
/// and only on how much of it there is.
pub(crate) fn placeholders(from: usize, count: usize) -> String {
    (from..from + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}
