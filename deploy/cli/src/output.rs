//! Printing results: tables for people, JSON for programs.

use std::io::{self, Write as _};

use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use crate::args::Format;
use crate::error::CliError;

/// Where results go, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints `value` as JSON, or as what `text` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => text(value),
            Format::Json => serde_json::to_string_pretty(value)
                .map_err(|error| CliError::Output(error.into()))?,
        };
        match writeln!(io::stdout(), "{}", text.trim_end()) {
            // Whoever read has seen enough, as in `potemkin devices | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(CliError::Output),
        }
    }
}

/// A table whose columns marked `>` are aligned to the right.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|name| {
        let (name, alignment) = split_alignment(name);
        Cell::new(name).set_alignment(alignment)
    }));
    for (index, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            column.set_cell_alignment(split_alignment(name).1);
        }
    }
    table
}

fn split_alignment(name: &str) -> (&str, CellAlignment) {
    match name.strip_prefix('>') {
        Some(name) => (name, CellAlignment::Right),
        None => (name, CellAlignment::Left),
    }
}

/// The table without blanks at the ends of lines; if it has no rows, what to say instead.
pub(crate) fn render(table: &Table, if_empty: &str) -> String {
    if table.is_empty() {
        return if_empty.to_owned();
    }
    table.trim_fmt()
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 hexadecimal digits as an id.
pub(crate) fn parse_id(text: &str) -> Result<[u8; 16], String> {
    let error = || "an id has 32 hexadecimal digits".to_owned();
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(error());
    }
    u128::from_str_radix(text, 16)
        .map(u128::to_be_bytes)
        .map_err(|_| error())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn id_is_read_as_it_is_written() {
        let text = "00ff0000000000000000000000000001";

        let id = parse_id(text).unwrap();

        assert_eq!(id[..2], [0x00, 0xff]);
        assert_eq!(hex(&id), text);
    }

    #[test]
    fn ids_of_other_length_or_alphabet_are_refused() {
        for text in ["", "00ff", "+0ff0000000000000000000000000001", "zz"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn table_aligns_marked_columns_to_the_right() {
        let mut table = table(&["NAME", ">COUNT"]);
        table.add_row(["a", "1"]);
        table.add_row(["long", "100"]);

        assert_eq!(
            render(&table, "nothing"),
            "NAME  COUNT\na         1\nlong    100"
        );
    }

    #[test]
    fn table_without_rows_is_a_sentence() {
        assert_eq!(render(&table(&["NAME"]), "nothing"), "nothing");
    }
}
