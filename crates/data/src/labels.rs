//! Class labels, from an array or a column of a table.

use std::path::Path;

use crate::descriptor::Labels;
use crate::error::{DataError, Result, format};
use crate::npy::damaged;
use crate::store::Store;
use crate::table::Table;

/// Reads the labels that a descriptor in the folder `root` names, its offset added.
pub(crate) fn load(spec: &Labels, root: &Path) -> Result<Vec<i64>> {
    let (path, mut labels) = match (&spec.file, &spec.csv) {
        (Some(file), _) => {
            let path = root.join(file);
            let labels = from_array(&path, spec.array.as_deref())?;
            (path, labels)
        }
        (None, csv) => {
            let path = root.join(csv.as_deref().unwrap_or_default());
            let column = spec.column.as_deref().unwrap_or_default();
            let labels = from_table(&Table::open(&path)?, column)?;
            (path, labels)
        }
    };
    for label in &mut labels {
        let moved = label.checked_add(spec.offset);
        *label = moved.ok_or_else(|| format(&path, "a label plus `offset` exceeds 64 bits"))?;
    }
    Ok(labels)
}

fn from_array(path: &Path, array: Option<&str>) -> Result<Vec<i64>> {
    let store = Store::open(path, array)?;
    let is_list = store.shape().iter().skip(1).all(|&axis| axis == 1);
    if store.shape().is_empty() || !is_list {
        let why = format!(
            "has the shape {:?}; labels are one number a sample",
            store.shape()
        );
        return Err(damaged(path, array.unwrap_or_default(), &why));
    }
    store.i64(0, store.len())
}

fn from_table(table: &Table, column: &str) -> Result<Vec<i64>> {
    let parse = |(line, cell): (u64, &str)| {
        cell.trim().parse().map_err(|_| {
            let message =
                format!("line {line}: column `{column}` holds {cell:?}, which is no whole number");
            DataError::Format {
                path: table.path().to_path_buf(),
                message,
            }
        })
    };
    table.column(column)?.into_iter().map(parse).collect()
}
