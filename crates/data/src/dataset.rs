//! Samples for all inputs of a model, with labels and split.

use std::path::Path;

use crate::array::{Array, InputSpec};
use crate::descriptor::{Descriptor, Input};
use crate::digest::{self, Named};
use crate::error::{DataError, Result, format};
use crate::fit::Transform;
use crate::labels;
use crate::pb;
use crate::source::Source;
use crate::split::Split;
use crate::store::{Store, array_names, extension};

/// Samples that fit a model's inputs, loaded one by one on demand. Every method takes `&self` and may be called from many threads.
#[derive(Debug)]
pub struct Dataset {
    specs: Vec<InputSpec>,
    sources: Vec<Source>,
    labels: Option<Vec<i64>>,
    split: Split,
    files: Vec<Named>,
}

impl Dataset {
    /// Opens a `.toml` descriptor, a `.npz` or `.npy` file, or a folder of `input_N.pb`, and checks it against the model's `inputs`.
    ///
    /// A `.npz` holds an array for each input under its name; for a model of one input `x`, or the only array, will do. A folder is one
    /// sample, or one for each subfolder such as `test_data_set_0`.
    ///
    /// # Errors
    /// Whatever can be found out without reading the samples: files that are missing or damaged, shapes that do not fit the inputs, counts
    /// that differ, bad ranges, no sample at all.
    ///
    /// # Panics
    /// Where `inputs` is empty.
    pub fn open(path: &Path, inputs: &[InputSpec]) -> Result<Self> {
        assert!(!inputs.is_empty(), "a model without inputs takes no data");
        if path.is_dir() {
            return Self::folder(path, inputs);
        }
        match extension(path).as_str() {
            "toml" => Self::described(path, inputs),
            "npz" => Self::archive(path, inputs),
            "npy" => Self::array(path, inputs),
            _ => Err(unknown(path)),
        }
    }

    /// `samples` random samples that depend on `seed` and the inputs' shapes alone.
    ///
    /// Floating-point inputs are standard normal, `u8` and `i8` inputs uniform over their codes, other integers and booleans 0 or 1.
    /// There are no labels and no evaluation split.
    ///
    /// # Panics
    /// Where `inputs` is empty or `samples` is 0.
    #[must_use]
    pub fn random(inputs: &[InputSpec], seed: u64, samples: usize) -> Self {
        assert!(
            !inputs.is_empty() && samples > 0,
            "random data needs an input and a sample"
        );
        let source = |input| Source::Random {
            seed,
            input,
            len: samples,
        };
        Self {
            specs: inputs.to_vec(),
            sources: (0..inputs.len()).map(source).collect(),
            labels: None,
            split: Split::whole(samples),
            files: Vec::new(),
        }
    }

    /// Number of samples, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.sources[0].len()
    }

    /// Sample `index`: one array for each input of the model, in the model's order and of exactly its shape.
    ///
    /// # Errors
    /// A file cannot be read or decoded, an image's size does not fit, a value is not finite.
    ///
    /// # Panics
    /// Where `index` is not below [`len`](Self::len).
    pub fn sample(&self, index: usize) -> Result<Vec<Array>> {
        assert!(index < self.len(), "sample {index} of {}", self.len());
        let pairs = self.sources.iter().zip(&self.specs);
        pairs
            .map(|(source, spec)| source.sample(spec, index))
            .collect()
    }

    /// The class of each sample, where the data is labelled; as many as there are samples.
    #[must_use]
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// Which samples calibrate, evaluate and tune.
    #[must_use]
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// SHA-256, in lower-case hexadecimal, of what `sha256sum` prints for the descriptor and the files it names; `None` for random samples.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn sha256(&self) -> Result<Option<String>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        digest::of_files(&self.files).map(Some)
    }

    fn described(path: &Path, inputs: &[InputSpec]) -> Result<Self> {
        let descriptor = Descriptor::open(path)?;
        let root = path.parent().unwrap_or(Path::new(""));
        let mut files = vec![Named::last(path)];
        let mut sources = Vec::new();
        for (spec, input) in pair(path, &descriptor, inputs)? {
            let (source, named) = Source::described(&descriptor, input, spec, root)?;
            sources.push(source);
            files.extend(named);
        }
        let labels = descriptor.labels.as_ref();
        let labelled = labels.map(|spec| labels::load(spec, root)).transpose()?;
        if let Some(name) = labels.and_then(|spec| spec.file.as_ref().or(spec.csv.as_ref())) {
            files.push(Named {
                name: name.clone(),
                path: root.join(name),
            });
        }
        let mut seen = std::collections::HashSet::new();
        files.retain(|file| seen.insert(file.path.clone()));
        let mut data = Self::checked(path, inputs, sources, files)?;
        data.set_labels(path, labelled)?;
        if let Some(text) = &descriptor.split {
            data.split = Split::parse(text, data.len())?;
        }
        Ok(data)
    }

    fn archive(path: &Path, inputs: &[InputSpec]) -> Result<Self> {
        let names = array_names(path)?;
        let has = |name: &str| names.iter().any(|have| have == name);
        let open = |spec: &InputSpec| {
            let name = if !has(&spec.name) && inputs.len() == 1 {
                has("x").then_some("x")
            } else {
                Some(spec.name.as_str())
            };
            Source::stored(Store::npz(path, name)?, &Transform::identity(), spec)
        };
        let sources = inputs.iter().map(open).collect::<Result<_>>()?;
        Self::checked(path, inputs, sources, vec![Named::last(path)])
    }

    fn array(path: &Path, inputs: &[InputSpec]) -> Result<Self> {
        let [spec] = inputs else {
            return Err(misnamed(
                path,
                "holds one array, and the model has several inputs; give a .npz or a .toml",
                inputs,
            ));
        };
        let source = Source::stored(Store::npy(path)?, &Transform::identity(), spec)?;
        Self::checked(path, inputs, vec![source], vec![Named::last(path)])
    }

    fn folder(path: &Path, inputs: &[InputSpec]) -> Result<Self> {
        let samples = pb::samples(path, inputs.len())?;
        let column = |input: usize| samples.iter().map(|files| files[input].clone()).collect();
        let sources = (0..inputs.len()).map(column).map(Source::Tensors).collect();
        let named = |file: &std::path::PathBuf| Named {
            name: file
                .strip_prefix(path)
                .unwrap_or(file)
                .to_string_lossy()
                .into_owned(),
            path: file.clone(),
        };
        let files = samples.iter().flatten().map(named).collect();
        let data = Self::checked(path, inputs, sources, files)?;
        data.sample(0)?;
        Ok(data)
    }

    fn checked(
        path: &Path,
        inputs: &[InputSpec],
        sources: Vec<Source>,
        files: Vec<Named>,
    ) -> Result<Self> {
        let len = sources[0].len();
        if len == 0 {
            return Err(format(path, "holds no sample; at least one is needed"));
        }
        for (source, spec) in sources.iter().zip(inputs) {
            same_count(
                format!("`{}`, input `{}`", path.display(), spec.name),
                source.len(),
                len,
            )?;
        }
        Ok(Self {
            specs: inputs.to_vec(),
            sources,
            labels: None,
            split: Split::whole(len),
            files,
        })
    }

    fn set_labels(&mut self, path: &Path, labels: Option<Vec<i64>>) -> Result<()> {
        if let Some(labels) = &labels {
            same_count(
                format!("`{}`, labels", path.display()),
                labels.len(),
                self.len(),
            )?;
        }
        self.labels = labels;
        Ok(())
    }
}

fn same_count(what: String, found: usize, wanted: usize) -> Result<()> {
    if found != wanted {
        return Err(DataError::Count {
            what,
            found,
            wanted,
        });
    }
    Ok(())
}

/// Each input of the model with its part of the descriptor; `x` stands for the only input.
fn pair<'a>(
    path: &Path,
    descriptor: &'a Descriptor,
    inputs: &'a [InputSpec],
) -> Result<Vec<(&'a InputSpec, &'a Input)>> {
    let alias = |name: &str| inputs.len() == 1 && name == "x";
    let known = |name: &String| alias(name) || inputs.iter().any(|spec| spec.name == *name);
    if let Some(name) = descriptor.input.keys().find(|name| !known(name)) {
        return Err(misnamed(
            path,
            &format!("describes [input.{name}], which the model does not have; rename it"),
            inputs,
        ));
    }
    if inputs.len() == 1 && descriptor.input.len() > 1 {
        return Err(misnamed(
            path,
            "describes the only input twice; keep one",
            inputs,
        ));
    }
    let find = |spec: &'a InputSpec| {
        let input = descriptor.input.get(&spec.name);
        let input = input.or_else(|| descriptor.input.get("x").filter(|_| alias("x")));
        let missing = || {
            misnamed(
                path,
                &format!("lacks [input.{}]; add it", spec.name),
                inputs,
            )
        };
        Ok((spec, input.ok_or_else(missing)?))
    };
    inputs.iter().map(find).collect()
}

fn misnamed(path: &Path, message: &str, inputs: &[InputSpec]) -> DataError {
    DataError::Inputs {
        path: path.to_path_buf(),
        message: message.into(),
        inputs: inputs.iter().map(|spec| spec.name.clone()).collect(),
    }
}

fn unknown(path: &Path) -> DataError {
    match std::fs::metadata(path) {
        Err(source) => DataError::Read {
            path: path.to_path_buf(),
            source,
        },
        Ok(_) => DataError::UnknownKind {
            path: path.to_path_buf(),
            found: format!("its ending is `.{}`", extension(path)),
        },
    }
}
