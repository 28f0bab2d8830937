//! A network that finds anomalies by how badly it reconstructs them: the area under the curve, averaged over machines.
//!
//! The archive that its descriptor names holds `x` (windows), `clip` (the recording of each window, below 0 where it is
//! for calibration), and for each recording `anomaly` (0 or 1) and `machine`. A recording's score is the mean squared
//! error of its windows.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use crate::tables::{Bench, Model};

pub(super) struct Anomalies {
    /// Windows of recordings, one after another.
    windows: Vec<f32>,
    /// Values of a window.
    width: usize,
    /// The recording of each window.
    clips: Vec<usize>,
    anomaly: Vec<bool>,
    machine: Vec<Vec<u8>>,
}

impl Anomalies {
    /// What the data of a descriptor tells, where it is of this kind.
    pub(super) fn of(descriptor: &Path) -> Result<Option<Self>> {
        let text = std::fs::read_to_string(descriptor)?;
        let named = text.lines().find_map(|l| l.trim().strip_prefix("file"));
        let file = named.and_then(|l| l.split('"').nth(1)).unwrap_or_default();
        let path = descriptor.with_file_name(file);
        if !file.ends_with(".npz") {
            return Ok(None);
        }
        let context = || format!("cannot read {}", path.display());
        let mut archive = ZipArchive::new(File::open(&path).with_context(context)?)?;
        if archive.index_for_name("anomaly.npy").is_none() {
            return Ok(None);
        }
        let mut array = |name: &str| Array::read(&mut archive, name).with_context(context);
        let (x, clip) = (array("x")?, array("clip")?);
        let (anomaly, machine) = (array("anomaly")?, array("machine")?);
        let width = x.elements.len() / clip.elements.len().max(1);
        let kept: Vec<(usize, &[Vec<u8>])> = clip
            .elements
            .iter()
            .zip(x.elements.chunks_exact(width))
            .filter_map(|(c, x)| Some((usize::try_from(integer(c)).ok()?, x)))
            .collect();
        let windows: Result<Vec<f32>> = kept.iter().flat_map(|k| k.1).map(|x| float(x)).collect();
        Ok(Some(Self {
            windows: windows?,
            width,
            clips: kept.iter().map(|k| k.0).collect(),
            anomaly: anomaly.elements.iter().map(|a| integer(a) == 1).collect(),
            machine: machine.elements,
        }))
    }

    /// Area that the object in `out` loses to the float model.
    pub(super) fn lost(
        &self,
        bench: &Bench,
        model: &Model,
        out: &Path,
        folder: &Path,
    ) -> Result<f64> {
        let input = folder.join("windows.npy");
        std::fs::write(&input, npy(&self.windows, self.width))?;
        let area = |network: &Path, name: &str| -> Result<f64> {
            let results = folder.join(name);
            bench.lowbit(&[
                "run".as_ref(),
                network.as_os_str(),
                "--input".as_ref(),
                input.as_os_str(),
                "--output".as_ref(),
                results.as_os_str(),
            ])?;
            Ok(self.area(&only_npy(&results)?))
        };
        Ok(area(&model.onnx, "float")? - area(out, "object")?)
    }

    /// Area under the curve of reconstructions, averaged over machines.
    fn area(&self, found: &[f32]) -> f64 {
        let clips = self.anomaly.len();
        let (mut sums, mut counts) = (vec![0.0; clips], vec![0.0f64; clips]);
        let pairs = self
            .windows
            .chunks_exact(self.width)
            .zip(found.chunks_exact(self.width));
        for (&clip, (x, y)) in self.clips.iter().zip(pairs) {
            let square = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
            sums[clip] += x.iter().zip(y).map(square).sum::<f64>() / self.width as f64;
            counts[clip] += 1.0;
        }
        let scores: Vec<f64> = sums
            .iter()
            .zip(&counts)
            .map(|(s, n)| s / n.max(1.0))
            .collect();
        let machines: BTreeSet<&Vec<u8>> = self.machine.iter().collect();
        let areas = machines.iter().filter_map(|&m| {
            let own = (0..clips).filter(|&c| &self.machine[c] == m);
            area(
                &own.map(|c| (scores[c], self.anomaly[c]))
                    .collect::<Vec<_>>(),
            )
        });
        let areas: Vec<f64> = areas.collect();
        areas.iter().sum::<f64>() / areas.len().max(1) as f64
    }
}

/// Share of pairs of an anomaly and another whose scores are in order; equal scores count half.
fn area(scores: &[(f64, bool)]) -> Option<f64> {
    let of = |kind: bool| scores.iter().filter(move |s| s.1 == kind).map(|s| s.0);
    let pairs = of(true).count() * of(false).count();
    let order = |a: f64, b: f64| match a.total_cmp(&b) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let sum: f64 = of(true)
        .flat_map(|a| of(false).map(move |b| order(a, b)))
        .sum();
    (pairs > 0).then(|| sum / pairs as f64)
}

/// An array in NumPy's format, its elements as bytes.
struct Array {
    elements: Vec<Vec<u8>>,
}

impl Array {
    fn read(archive: &mut ZipArchive<File>, name: &str) -> Result<Self> {
        let mut bytes = Vec::new();
        archive
            .by_name(&format!("{name}.npy"))?
            .read_to_end(&mut bytes)?;
        Self::parse(&bytes).with_context(|| format!("array '{name}'"))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let text = String::from_utf8_lossy(&bytes[10..header]);
        let kind = text.split('\'').nth(3).unwrap_or_default();
        let digits: usize = kind
            .trim_start_matches(|c: char| !c.is_ascii_digit())
            .parse()?;
        // characters are counted in fours of bytes
        let size = if kind.contains('U') {
            4 * digits
        } else {
            digits
        };
        if size == 0
            || !bytes.starts_with(b"\x93NUMPY\x01")
            || text.contains("'fortran_order': True")
        {
            bail!("only rows of NumPy's format 1 can be read");
        }
        let elements = bytes[header..].chunks_exact(size).map(<[u8]>::to_vec);
        Ok(Self {
            elements: elements.collect(),
        })
    }
}

/// A little-endian integer of at most 8 bytes.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.len() > 1 && bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(all)
}

/// A float of 2 or 4 bytes.
fn float(bytes: &[u8]) -> Result<f32> {
    match *bytes {
        [a, b] => Ok(half::f16::from_le_bytes([a, b]).to_f32()),
        [a, b, c, d] => Ok(f32::from_le_bytes([a, b, c, d])),
        _ => bail!(
            "windows have elements of {} bytes; 2 or 4 can be read",
            bytes.len()
        ),
    }
}

/// Rows in NumPy's format.
fn npy(values: &[f32], width: usize) -> Vec<u8> {
    let rows = values.len() / width.max(1);
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let header = format!("{text:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// The values of the only array in a folder.
fn only_npy(folder: &Path) -> Result<Vec<f32>> {
    let files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "npy"))
        .collect();
    let [file] = &files[..] else {
        bail!(
            "{} holds {} arrays, expected one",
            folder.display(),
            files.len()
        );
    };
    let array = Array::parse(&std::fs::read(file)?)?;
    array.elements.iter().map(|x| float(x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_share_of_pairs_in_order() {
        let scores = [(0.9, true), (0.5, true), (0.5, false), (0.1, false)];
        assert_eq!(area(&scores), Some(3.5 / 4.0));
        assert_eq!(area(&scores[..2]), None);
    }

    #[test]
    fn worse_reconstructions_of_anomalies_are_found() {
        let windows: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let a = Anomalies {
            windows: windows.clone(),
            width: 2,
            clips: vec![0, 0, 1, 1, 2, 3],
            anomaly: vec![false, true, true, false],
            machine: [b"a", b"a", b"b", b"b"].map(|m| m.to_vec()).to_vec(),
        };
        let mut found = windows;
        found[5] += 1.0;
        found[11] += 2.0;
        assert_eq!(a.area(&found), 0.5);
    }

    #[test]
    fn arrays_are_read_as_they_are_written() {
        let values = [1.5f32, -2.0, 3.25, 0.0];
        let array = Array::parse(&npy(&values, 2)).unwrap();
        let back: Vec<f32> = array.elements.iter().map(|x| float(x).unwrap()).collect();
        assert_eq!(back, values);
        assert_eq!(
            (integer(&[0xff, 0xff]), integer(&[200]), integer(&[1, 1])),
            (-1, 200, 257)
        );
    }
}
