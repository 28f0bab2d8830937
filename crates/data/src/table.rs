//! CSV tables with a header line: file names and labels.

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result, format};

/// A table in memory.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    header: Vec<String>,
    rows: Vec<csv::StringRecord>,
}

impl Table {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fault = |error: csv::Error| match error.into_kind() {
            csv::ErrorKind::Io(source) => DataError::Read {
                path: path.to_path_buf(),
                source,
            },
            other => format(path, format!("is no table with a header line: {other:?}")),
        };
        let mut reader = csv::Reader::from_path(path).map_err(fault)?;
        let header = reader.headers().map_err(fault)?;
        let header = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').to_string())
            .collect();
        let rows = reader.records().collect::<Result<_, _>>().map_err(fault)?;
        Ok(Self {
            path: path.to_path_buf(),
            header,
            rows,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The cells of a column with their line numbers in the file.
    pub(crate) fn column(&self, name: &str) -> Result<Vec<(u64, &str)>> {
        let at = self.header.iter().position(|have| have == name);
        let at = at.ok_or_else(|| DataError::Missing {
            path: self.path.clone(),
            what: "column",
            name: name.into(),
            present: self.header.clone(),
        })?;
        let line = |row: &csv::StringRecord| row.position().map_or(0, csv::Position::line);
        Ok(self.rows.iter().map(|row| (line(row), &row[at])).collect())
    }
}
