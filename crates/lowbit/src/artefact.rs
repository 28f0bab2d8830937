//! What lies in an output folder.

use std::path::Path;

use lowbit_report::{Plan, Report, read_report, report_page, to_json};

use crate::Error;
use crate::header::header;
use crate::whole::write_all;

/// The files of a compiled model.
pub struct Artefact {
    /// The object's bytes.
    pub object: Vec<u8>,
    /// The facts about it.
    pub report: Report,
}

impl Artefact {
    /// Reads a folder that `compile` wrote.
    ///
    /// # Errors
    /// It holds no report, or not the object that the report describes.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let artefact = Self::open_unchecked(folder)?;
        if !artefact.is_whole() {
            return Err(Error::Other(format!(
                "{}.o in {} is not the object that report.json describes; compile the model again",
                artefact.report.model.name,
                folder.display()
            )));
        }
        Ok(artefact)
    }

    /// Reads a folder without holding the object against the report's digest.
    pub(crate) fn open_unchecked(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("report.json");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::Other(format!(
                "{} is no folder that lowbit compile wrote: cannot read its report.json: {e}",
                folder.display()
            ))
        })?;
        let report = read_report(&text).map_err(|e| {
            Error::Other(format!(
                "{} is no report of this version: {e}; compile the model again",
                path.display()
            ))
        })?;
        let path = folder.join(format!("{}.o", report.model.name));
        let object = std::fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
        Ok(Self { object, report })
    }

    /// Whether the object is the one that the report describes.
    pub(crate) fn is_whole(&self) -> bool {
        crate::model::sha256(&self.object) == self.report.reproduce.object_sha256
    }

    /// Writes all files beside their places, then renames them: a failure leaves what was there before.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn write(&self, folder: &Path, plan: &Plan) -> Result<(), Error> {
        self.write_with(folder, plan, Vec::new())
    }

    /// Writes all files as [`Artefact::write`] does, and more of them by name.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn write_with(
        &self,
        folder: &Path,
        plan: &Plan,
        more: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        let name = &self.report.model.name;
        let files = [
            (format!("{name}.o"), self.object.clone()),
            (format!("{name}.h"), header(&self.report).into_bytes()),
            ("plan.json".into(), to_json(plan).into_bytes()),
            ("report.json".into(), to_json(&self.report).into_bytes()),
            ("report.html".into(), report_page(&self.report).into_bytes()),
        ];
        write_all(folder, files.into_iter().chain(more))?;
        Ok(())
    }
}

/// Whether a path is a folder that `compile` wrote, as opposed to a model.
pub fn is_artefact(path: &Path) -> bool {
    path.is_dir()
}

/// The name of an object: the file's stem with every character outside `[A-Za-z0-9_]` made `_`.
pub fn object_name(model: &Path) -> String {
    let stem = model
        .file_stem()
        .map_or_else(|| "net".into(), |s| s.to_string_lossy().into_owned());
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        format!("m_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers() {
        assert_eq!(
            object_name(Path::new("a/mobilenetv1_0.25_224.onnx")),
            "mobilenetv1_0_25_224"
        );
        assert_eq!(object_name(Path::new("7net.onnx")), "m_7net");
    }
}
