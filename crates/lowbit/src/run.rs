//! `lowbit run`: a model or an object on given inputs.

use std::path::{Path, PathBuf};

use lowbit_data::{Array, read_npy, read_npy_codes, read_pb, read_pb_codes, write_npy};
use lowbit_ir::eval::run as interpret;
use lowbit_report::Port;
use rayon::prelude::*;

use crate::Error;
use crate::artefact::{Artefact, is_artefact};
use crate::model::{Model, Shapes, tensor};
use crate::object::{Runner, codes, decode, element_bytes, encode, port_bytes};
use crate::whole::fill_folder;

/// Inputs by name (`""` for the only or next one) and file.
pub type Inputs = Vec<(String, PathBuf)>;

/// Runs and writes `FOLDER/<output name>.npy` for each output. An array of an input's shape is one run, a longer first
/// axis that many. With `raw`, integer codes go in and come out. Returns the files.
///
/// # Errors
/// A file cannot be read or written, or does not fit.
pub fn run(
    path: &Path,
    inputs: &Inputs,
    shapes: &Shapes,
    folder: &Path,
    raw: bool,
) -> Result<Vec<PathBuf>, Error> {
    if is_artefact(path) {
        object(path, inputs, folder, raw)
    } else {
        float(path, inputs, shapes, folder, raw)
    }
}

/// Assigns files to inputs in order.
fn assign<'a>(names: &[String], inputs: &'a Inputs) -> Result<Vec<&'a Path>, Error> {
    if let Some((name, _)) = inputs
        .iter()
        .find(|(n, _)| !n.is_empty() && !names.contains(n))
    {
        return Err(Error::Usage(format!(
            "there is no input '{name}'; the model has {}",
            names.join(", ")
        )));
    }
    let mut unnamed = inputs.iter().filter(|(n, _)| n.is_empty());
    let files: Result<Vec<&Path>, Error> = names
        .iter()
        .map(|name| {
            let named = inputs.iter().find(|(n, _)| n == name);
            let file = named.or_else(|| unnamed.next()).map(|(_, f)| f.as_path());
            file.ok_or_else(|| Error::Usage(format!("no --input is given for '{name}'")))
        })
        .collect();
    match unnamed.next() {
        Some((_, f)) => Err(Error::Usage(format!(
            "{} is given for no input",
            f.display()
        ))),
        None => files,
    }
}

/// How many runs an array holds.
fn runs(name: &str, found: &[usize], shape: &[usize]) -> Result<usize, Error> {
    let one: usize = shape.iter().product();
    let total: usize = found.iter().product();
    let stacked = found.len() == shape.len() && found.get(1..) == shape.get(1..)
        || found.get(1..) == Some(shape);
    if found == shape || (stacked && one > 0 && total.is_multiple_of(one) && total > 0) {
        return Ok(total / one.max(1));
    }
    Err(Error::Other(format!(
        "input '{name}': the array has shape {found:?}, the model takes {shape:?}"
    )))
}

fn is_pb(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "pb")
}

fn reals(path: &Path) -> Result<Array, Error> {
    Ok(if is_pb(path) {
        read_pb(path)?
    } else {
        read_npy(path)?
    })
}

fn same(counts: &[usize]) -> Result<usize, Error> {
    match counts {
        [] => Ok(1),
        [first, rest @ ..] if rest.iter().all(|c| c == first) => Ok(*first),
        _ => Err(Error::Other(format!(
            "the inputs hold {counts:?} runs; they must hold the same number"
        ))),
    }
}

fn float(
    path: &Path,
    inputs: &Inputs,
    shapes: &Shapes,
    folder: &Path,
    raw: bool,
) -> Result<Vec<PathBuf>, Error> {
    if raw {
        return Err(Error::Usage(
            "--codes is for a compiled folder; a model takes real values".into(),
        ));
    }
    let model = Model::open(path, shapes)?;
    let graph = &model.graph;
    let names: Vec<String> = graph
        .inputs()
        .iter()
        .map(|&v| graph.value(v).name.clone())
        .collect();
    let arrays: Result<Vec<Array>, Error> =
        assign(&names, inputs)?.into_iter().map(reals).collect();
    let arrays = arrays?;
    let counts: Result<Vec<usize>, Error> = graph
        .inputs()
        .iter()
        .zip(&names)
        .zip(&arrays)
        .map(|((&v, n), a)| runs(n, &a.shape, graph.shape(v)))
        .collect();
    let results: Result<Vec<Vec<Vec<f64>>>, Error> = (0..same(&counts?)?)
        .into_par_iter()
        .map(|sample| {
            let tensors: Vec<_> = graph
                .inputs()
                .iter()
                .zip(&arrays)
                .map(|(&v, a)| {
                    let n = graph.ty(v).elements();
                    let part = Array {
                        shape: graph.shape(v).to_vec(),
                        data: a.data[sample * n..][..n].to_vec(),
                    };
                    tensor(part, graph.ty(v).dtype)
                })
                .collect();
            let outputs =
                interpret(graph, &tensors).map_err(|error| Error::Eval { sample, error })?;
            Ok(outputs.iter().map(lowbit_ir::Tensor::to_f64).collect())
        })
        .collect();
    let ports: Vec<(String, Vec<usize>)> = graph
        .outputs()
        .iter()
        .map(|o| (o.name.clone(), graph.shape(o.value).to_vec()))
        .collect();
    write(folder, &ports, &results?, |path, shape, x| {
        Ok(write_npy(
            path,
            shape,
            &x.iter().map(|&x| x as f32).collect::<Vec<f32>>(),
        )?)
    })
}

fn object(path: &Path, inputs: &Inputs, folder: &Path, raw: bool) -> Result<Vec<PathBuf>, Error> {
    let artefact = Artefact::open(path)?;
    let report = &artefact.report;
    let runner = Runner::new(&artefact.object, report)?;
    let names: Vec<String> = report.model.inputs.iter().map(|p| p.name.clone()).collect();
    let mut counts = Vec::new();
    let mut bytes = Vec::new();
    for (port, file) in report.model.inputs.iter().zip(assign(&names, inputs)?) {
        let (shape, all) = encoded(port, file, raw)?;
        counts.push(runs(&port.name, &shape, &port.shape)?);
        bytes.push(all);
    }
    let samples: Vec<Vec<Vec<u8>>> = (0..same(&counts)?)
        .map(|i| {
            let part = |(port, all): (&Port, &Vec<u8>)| {
                all[i * port_bytes(port)..][..port_bytes(port)].to_vec()
            };
            report.model.inputs.iter().zip(&bytes).map(part).collect()
        })
        .collect();
    let outputs = runner.run(&samples)?;
    let ports: Vec<(String, Vec<usize>)> = report
        .model
        .outputs
        .iter()
        .map(|p| (p.name.clone(), p.shape.clone()))
        .collect();
    let values: Vec<Vec<Vec<f64>>> = outputs
        .iter()
        .map(|sample| {
            let pairs = report.model.outputs.iter().zip(sample);
            pairs
                .map(|(p, b)| {
                    if raw {
                        codes(p, b).iter().map(|&q| q as f64).collect()
                    } else {
                        decode(p, b)
                    }
                })
                .collect()
        })
        .collect();
    write(folder, &ports, &values, |path, shape, x| {
        if raw {
            write_npy(
                path,
                shape,
                &x.iter().map(|&x| x as i32).collect::<Vec<i32>>(),
            )?;
        } else {
            write_npy(
                path,
                shape,
                &x.iter().map(|&x| x as f32).collect::<Vec<f32>>(),
            )?;
        }
        Ok(())
    })
}

/// Shape and codes of a file for a port.
fn encoded(port: &Port, file: &Path, raw: bool) -> Result<(Vec<usize>, Vec<u8>), Error> {
    if !raw {
        let array = reals(file)?;
        let wide: Vec<f64> = array.data.iter().map(|&x| x.into()).collect();
        return Ok((array.shape, encode(port, &wide)));
    }
    let array = if is_pb(file) {
        read_pb_codes(file)?
    } else {
        read_npy_codes(file)?
    };
    if let Some(q) = array.data.iter().find(|q| !(0..=255).contains(*q)) {
        return Err(Error::Other(format!(
            "input '{}': code {q} is not in 0…255",
            port.name
        )));
    }
    let width = element_bytes(port);
    Ok((
        array.shape,
        array
            .data
            .iter()
            .flat_map(|q| q.to_le_bytes()[..width].to_vec())
            .collect(),
    ))
}

fn write(
    folder: &Path,
    ports: &[(String, Vec<usize>)],
    runs: &[Vec<Vec<f64>>],
    save: impl Fn(&Path, &[usize], &[f64]) -> Result<(), Error>,
) -> Result<Vec<PathBuf>, Error> {
    let files = file_names(ports.iter().map(|(name, _)| name.as_str()));
    fill_folder(folder, |beside| {
        ports
            .iter()
            .zip(&files)
            .enumerate()
            .map(|(k, ((_, shape), file))| {
                let all: Vec<f64> = runs.iter().flat_map(|r| r[k].iter().copied()).collect();
                save(&beside.join(file), &stacked(runs.len(), shape), &all)?;
                Ok(file.clone())
            })
            .collect()
    })
}

/// A file for each output: its name with `_` for what a file system may refuse, and a number behind it where another has
/// the same.
fn file_names<'a>(outputs: impl Iterator<Item = &'a str>) -> Vec<String> {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let mut files: Vec<String> = Vec::new();
    for output in outputs {
        let safe = |c: char| if allowed(c) { c } else { '_' };
        let stem: String = output.chars().map(safe).collect();
        let numbered = (2..).map(|n| format!("{stem}_{n}.npy"));
        let mut names = std::iter::once(format!("{stem}.npy")).chain(numbered);
        let free = names.find(|n| !files.iter().any(|f| f.eq_ignore_ascii_case(n)));
        files.push(free.expect("there is no end of numbers"));
    }
    files
}

/// Shape of several runs: along the first axis where that is 1, else along a new one.
fn stacked(runs: usize, shape: &[usize]) -> Vec<usize> {
    match (runs, shape.first()) {
        (1, _) => shape.to_vec(),
        (n, Some(1)) => [&[n], &shape[1..]].concat(),
        (n, _) => [&[n], shape].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_one_file_name_are_kept_apart() {
        let files = file_names(["a/b", "a_b", "a:b", "c"].into_iter());
        assert_eq!(files, ["a_b.npy", "a_b_2.npy", "a_b_3.npy", "c.npy"]);
    }
}
