//! A page of tables: rows that were not measured again stay as they are, and so does what people write below them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::markdown;

/// A table with the text above it.
pub(crate) struct Section {
    /// Markdown, with empty lines around it.
    pub(crate) above: &'static str,
    /// Headings of the columns, the model first.
    pub(crate) head: Vec<String>,
    /// Cells at the start of a row that tell which row it is.
    pub(crate) keys: usize,
}

/// What starts the part of a page that people write.
const NOTES: &str = "\n## Notes\n";

/// A page of `docs/`, which is written after each row.
pub(crate) struct Page {
    path: PathBuf,
    sections: Vec<Section>,
    rows: Vec<Vec<Vec<String>>>,
    /// What people wrote below the tables.
    notes: String,
}

impl Page {
    /// The page with the rows that it has on disk, where they have the same columns.
    pub(crate) fn read(path: &Path, sections: Vec<Section>) -> Self {
        let mut page = Self {
            path: path.into(),
            sections,
            rows: Vec::new(),
            notes: String::new(),
        };
        page.load();
        page
    }

    /// What is on disk now: another run may have put rows there, a person notes.
    fn load(&mut self) {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let mut rest: Vec<&str> = text.lines().collect();
        let heads = self.sections.iter().map(|s| &s.head);
        self.rows = heads.map(|head| take(&mut rest, head)).collect();
        self.notes = text.find(NOTES).map_or("", |at| &text[at..]).into();
    }

    /// Puts a row in the place of the one with the same keys, else behind the others of its model, and writes the page.
    pub(crate) fn put(&mut self, section: usize, row: Vec<String>) -> Result<()> {
        self.load();
        let keys = self.sections[section].keys;
        let rows = &mut self.rows[section];
        match rows.iter().position(|r| r[..keys] == row[..keys]) {
            Some(at) => rows[at] = row,
            None => {
                let at = rows.iter().position(|r| r[0] > row[0]);
                rows.insert(at.unwrap_or(rows.len()), row);
            }
        }
        std::fs::write(&self.path, self.text())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Puts a cell into the row of a model, whose other cells stay, or say – where there was no row, and writes the page.
    pub(crate) fn set(
        &mut self,
        section: usize,
        model: &str,
        column: usize,
        cell: String,
    ) -> Result<()> {
        self.load();
        let known = self.rows[section].iter().find(|r| r[0] == model).cloned();
        let mut row = known.unwrap_or_else(|| {
            let rest = self.sections[section].head.len() - 1;
            [vec![model.into()], vec!["–".into(); rest]].concat()
        });
        row[column] = cell;
        self.put(section, row)
    }

    /// The page in Markdown.
    pub(crate) fn text(&self) -> String {
        let section = |(s, rows): (&Section, &Vec<Vec<String>>)| {
            let all: Vec<_> = std::iter::once(&s.head).chain(rows).cloned().collect();
            s.above.to_owned() + &markdown(&all)
        };
        let tables: String = self.sections.iter().zip(&self.rows).map(section).collect();
        tables + &self.notes
    }
}

/// Names as the cells of a heading.
pub(crate) fn head<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(String::from).collect()
}

/// The text of an error as a cell.
pub(crate) fn failure(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let last = text.lines().last().unwrap_or_default();
    // which layers need most is no matter of a cell
    let last = last.split(", most of it in").next().unwrap_or_default();
    last.replace('|', " ")
}

/// The rows below the first line that has these headings; lines up to their end are taken away.
fn take(lines: &mut Vec<&str>, head: &[String]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|c| c.trim().to_owned()).collect()
    };
    let Some(at) = lines.iter().position(|l| cells(l) == head) else {
        return Vec::new();
    };
    let below = lines.split_off(at);
    let end = below.iter().position(|l| !l.starts_with('|'));
    let (table, rest) = below.split_at(end.unwrap_or(below.len()));
    *lines = rest.to_vec();
    table.iter().skip(2).map(|l| cells(l)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Vec<Section> {
        let section = |above, keys| Section {
            above,
            head: head(["model", "bits", "loss"]),
            keys,
        };
        vec![section("# First\n\n", 1), section("\n## Second\n\n", 2)]
    }

    #[test]
    fn rows_that_are_not_measured_again_stay() {
        let path = std::env::temp_dir().join(format!("lowbit-page-{}.md", std::process::id()));
        let row = |text: &str| head(text.split(' '));
        let mut page = Page::read(&path, sections());
        page.put(0, row("b 4 .1")).unwrap();
        page.put(1, row("b 6 .2")).unwrap();
        page.put(1, row("b 4 .3")).unwrap();
        let notes = "\n## Notes\n\n- of | bars\n";
        std::fs::write(&path, page.text() + notes).unwrap();
        // of two runs at once neither takes the other's rows away
        let [mut page, mut other] = [(), ()].map(|()| Page::read(&path, sections()));
        other.put(0, row("a 4 .4")).unwrap();
        page.put(0, row("b 5 .5")).unwrap();
        page.put(1, row("c 4 .6")).unwrap();
        page.put(1, row("b 6 .7")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let table = "| model | bits | loss |\n| --- | ---: | ---: |\n";
        assert_eq!(
            text,
            format!(
                "# First\n\n{table}| a | 4 | .4 |\n| b | 5 | .5 |\n\
                 \n## Second\n\n{table}| b | 6 | .7 |\n| b | 4 | .3 |\n| c | 4 | .6 |\n{notes}"
            )
        );
    }

    #[test]
    fn a_row_fills_cell_by_cell() {
        let path = std::env::temp_dir().join(format!("lowbit-cells-{}.md", std::process::id()));
        let mut page = Page::read(&path, sections());
        page.set(0, "a", 2, ".1".into()).unwrap();
        let first = page.rows[0].clone();
        let mut page = Page::read(&path, sections());
        page.set(0, "a", 1, "4".into()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(first, [head(["a", "–", ".1"])]);
        assert_eq!(page.rows[0], [head(["a", "4", ".1"])]);
    }
}
