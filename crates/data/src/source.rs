//! Where the samples of one input come from.

use std::path::{Path, PathBuf};

use crate::array::{Array, InputSpec};
use crate::descriptor::{Descriptor, Input};
use crate::digest::Named;
use crate::error::{DataError, Result, format, read};
use crate::fit::{Fit, Transform};
use crate::image::{Framing, is_image};
use crate::pb::read_pb;
use crate::random;
use crate::store::Store;
use crate::table::Table;

/// The samples of one input, read when they are asked for.
#[derive(Debug)]
pub(crate) enum Source {
    Stored {
        store: Store,
        fit: Fit,
        row: usize,
        len: usize,
    },
    Images {
        files: Vec<PathBuf>,
        framing: Framing,
        transform: Transform,
    },
    Tensors(Vec<PathBuf>),
    Random {
        seed: u64,
        input: usize,
        len: usize,
    },
}

impl Source {
    /// Rows of an array as samples; an array of exactly the model's shape, or of several of them on its first axis, is cut into whole inputs.
    pub(crate) fn stored(store: Store, transform: &Transform, spec: &InputSpec) -> Result<Self> {
        let misfit = |found: &[usize], hint| shape_error(spec, found, hint);
        let Some((&rows, stored)) = store.shape().split_first() else {
            return Err(misfit(&[], "a single number holds no samples".into()));
        };
        let (batch, inner) = spec
            .shape
            .split_first()
            .map_or((1, &[][..]), |(&n, inner)| (n, inner));
        let whole = batch > 1 && stored == inner && rows % batch == 0;
        let found = if whole { &spec.shape } else { stored };
        let fit = Fit::new(transform, found, &spec.shape).map_err(|hint| misfit(found, hint))?;
        let row = found.iter().product();
        let len = if whole { rows / batch } else { rows };
        Ok(Self::Stored {
            store,
            fit,
            row,
            len,
        })
    }

    /// The input of a descriptor that lies in the folder `root`, with the files it reads.
    pub(crate) fn described(
        descriptor: &Descriptor,
        input: &Input,
        spec: &InputSpec,
        root: &Path,
    ) -> Result<(Self, Vec<Named>)> {
        let transform = Transform::new(input);
        if let Some(file) = &input.file {
            let path = root.join(file);
            let store = Store::open(&path, input.array.as_deref())?;
            let named = Named {
                name: file.clone(),
                path,
            };
            return Ok((Self::stored(store, &transform, spec)?, vec![named]));
        }
        let folder = input.images.as_deref().unwrap_or_default();
        let (files, named) = images(descriptor, folder, root)?;
        let framing = Framing::new(input);
        if let Some(shape) = framing.shape() {
            Fit::new(&transform, &shape, &spec.shape)
                .map_err(|hint| shape_error(spec, &shape, hint))?;
        }
        Ok((
            Self::Images {
                files,
                framing,
                transform,
            },
            named,
        ))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Stored { len, .. } | Self::Random { len, .. } => *len,
            Self::Images { files, .. } | Self::Tensors(files) => files.len(),
        }
    }

    /// Sample `index` in the shape of the model's input, every value finite.
    pub(crate) fn sample(&self, spec: &InputSpec, index: usize) -> Result<Array> {
        let array = self.load(spec, index)?;
        match array.data.iter().position(|value| !value.is_finite()) {
            Some(element) => Err(DataError::NotFinite {
                input: spec.name.clone(),
                sample: index,
                element,
                value: array.data[element],
            }),
            None => Ok(array),
        }
    }

    fn load(&self, spec: &InputSpec, index: usize) -> Result<Array> {
        let fit = |transform: &Transform, shape: &[usize]| {
            Fit::new(transform, shape, &spec.shape).map_err(|hint| shape_error(spec, shape, hint))
        };
        match self {
            Self::Stored {
                store, fit, row, ..
            } => Ok(fit.apply(store.f32(index * row, *row)?)),
            Self::Images {
                files,
                framing,
                transform,
            } => {
                let (values, shape) = framing.load(&files[index])?;
                Ok(fit(transform, &shape)?.apply(values))
            }
            Self::Tensors(files) => {
                let tensor = read_pb(&files[index])?;
                Ok(fit(&Transform::identity(), &tensor.shape)?.apply(tensor.data))
            }
            Self::Random { seed, input, .. } => Ok(random::sample(spec, *seed, index, *input)),
        }
    }
}

fn shape_error(spec: &InputSpec, found: &[usize], hint: String) -> DataError {
    DataError::Shape {
        input: spec.name.clone(),
        found: found.to_vec(),
        wanted: spec.shape.clone(),
        hint,
    }
}

/// The image files of a folder: in the order of the CSV with the labels, of the folder's own `labels.csv`, or of their names.
fn images(
    descriptor: &Descriptor,
    folder: &str,
    root: &Path,
) -> Result<(Vec<PathBuf>, Vec<Named>)> {
    let path = root.join(folder);
    let own = format!("{folder}/labels.csv");
    let labels = descriptor.labels.as_ref();
    let table = labels.and_then(|labels| labels.csv.clone());
    let table = table.or_else(|| root.join(&own).is_file().then_some(own));
    let Some(table) = table else {
        let names = listed(&path)?;
        let named = names.iter().map(|name| image(folder, name, root));
        let named: Vec<_> = named.collect();
        return Ok((named.iter().map(|file| file.path.clone()).collect(), named));
    };
    let rows = Table::open(&root.join(&table))?;
    let mut named = vec![Named {
        path: root.join(&table),
        name: table,
    }];
    let mut files = Vec::new();
    for (line, name) in rows.column("file")? {
        let file = image(folder, name, root);
        if !file.path.is_file() {
            return Err(format(
                rows.path(),
                format!("line {line}: there is no image `{}`", file.path.display()),
            ));
        }
        files.push(file.path.clone());
        named.push(file);
    }
    Ok((files, named))
}

fn image(folder: &str, name: &str, root: &Path) -> Named {
    Named {
        name: format!("{folder}/{name}"),
        path: root.join(folder).join(name),
    }
}

fn listed(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read(folder))? {
        let path = entry.map_err(read(folder))?.path();
        if is_image(&path) {
            let name = path.file_name().unwrap_or_default();
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
