//! Checks that the types of the columns fit what binary COPY sends.
//!
//! Binary COPY does not convert: a column of another type reads the bytes of a line as its binary form. Eight bytes of text
//! are a valid `bigint`, and would be stored as a number. So the types are checked on every connection, and a column
//! that does not fit is refused by name before a line is sent.

use tokio_postgres::Client;

use crate::plain::harmless;

/// The names and types of the table's columns, if the table exists. Domains are resolved to their base types.
const LOOK: &str = "\
    WITH RECURSIVE base(attname, oid) AS ( \
        SELECT attname, atttypid FROM pg_catalog.pg_attribute \
        WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped \
        UNION ALL \
        SELECT base.attname, t.typbasetype FROM base JOIN pg_catalog.pg_type t USING (oid) WHERE t.typtype = 'd' \
    ) \
    SELECT base.attname::text, t.typname::text FROM base JOIN pg_catalog.pg_type t USING (oid) WHERE t.typtype <> 'd'";

/// The binary form of a line for the column `line`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LineColumn {
    /// The bytes.
    #[default]
    Bytes,
    /// The version of the binary form, 1, and the bytes.
    Jsonb,
}

const NUMBER: &[&str] = &["int8"];
const TEXT: &[&str] = &["text", "varchar", "bpchar", "citext"];
const LINE: &[&str] = &["text", "varchar", "bpchar", "citext", "json", "jsonb", "xml", "bytea"];

/// The types that each column may have, and their names in SQL.
const EXPECTED: [(&str, &[&str], &str); 5] = [
    ("seq", NUMBER, "bigint"),
    ("source", TEXT, "text"),
    ("source_offset", NUMBER, "bigint"),
    ("part", TEXT, "text"),
    ("line", LINE, "text, varchar, json, jsonb, xml or bytea"),
];

/// Checks the columns of `table`, whose name is quoted. The inner error names the columns that do not fit, and which types they
/// must have.
///
/// # Errors
/// If the server answers with an error.
pub(super) async fn look(
    client: &Client,
    table: &str,
) -> Result<Result<LineColumn, String>, tokio_postgres::Error> {
    let rows = client.query(LOOK, &[&table]).await?;
    let columns: Vec<(String, String)> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>()?;
    Ok(judge(table, &columns))
}

/// A table that does not exist has no columns: COPY then reports it in the server's words.
fn judge(table: &str, columns: &[(String, String)]) -> Result<LineColumn, String> {
    if columns.is_empty() {
        return Ok(LineColumn::default());
    }
    let type_of = |name: &str| columns.iter().find(|(column, _)| column == name).map(|(_, of)| of.as_str());
    let mut wrong = Vec::new();
    for (name, takes, called) in EXPECTED {
        match type_of(name) {
            Some(found) if takes.contains(&found) => {}
            Some(found) => {
                wrong.push(format!("column {name} is {}, and has to be {called}", harmless(found)))
            }
            None => wrong.push(format!("there is no column {name}, which has to be {called}")),
        }
    }
    if !wrong.is_empty() {
        return Err(format!("the columns of {} do not fit: {}", harmless(table), wrong.join("; ")));
    }
    Ok(if type_of("line") == Some("jsonb") { LineColumn::Jsonb } else { LineColumn::Bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, of: &str) -> Vec<(String, String)> {
        let types = [
            ("seq", "int8"),
            ("source", "text"),
            ("source_offset", "int8"),
            ("part", "text"),
            ("line", "text"),
        ];
        types
            .into_iter()
            .map(|(column, fits)| (column.to_owned(), if column == name { of } else { fits }.to_owned()))
            .collect()
    }

    #[test]
    fn a_column_of_another_type_is_named() {
        for of in ["text", "varchar", "json", "bytea", "citext"] {
            assert_eq!(judge("t", &with("line", of)), Ok(LineColumn::Bytes), "{of}");
        }
        assert_eq!(judge("t", &with("line", "jsonb")), Ok(LineColumn::Jsonb));
        // Each of these would read eight bytes of text as a number.
        for of in ["int8", "int4", "float8", "timestamptz", "uuid"] {
            let refused = judge("t", &with("line", of)).unwrap_err();
            assert!(refused.contains(&format!("column line is {of}, and has to be text")), "{refused}");
        }
        assert!(
            judge("t", &with("seq", "int4"))
                .unwrap_err()
                .contains("column seq is int4, and has to be bigint")
        );
        let missing = judge("t", &with("part", "text")[..3]).unwrap_err();
        assert!(missing.contains("no column part") && missing.contains("no column line"), "{missing}");
        assert_eq!(judge("t", &[]), Ok(LineColumn::Bytes), "the server reports a table that does not exist");
    }
}
