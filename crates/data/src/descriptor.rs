//! The TOML descriptor as written: names of keys, and which may stand together.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{DataError, Result, read};

/// A whole descriptor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Descriptor {
    pub(crate) input: BTreeMap<String, Input>,
    pub(crate) labels: Option<Labels>,
    pub(crate) split: Option<SplitText>,
}

/// `[input.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    pub(crate) file: Option<String>,
    pub(crate) array: Option<String>,
    pub(crate) images: Option<String>,
    pub(crate) layout: Option<Layout>,
    pub(crate) scale: Option<f64>,
    pub(crate) mean: Option<Numbers>,
    pub(crate) std: Option<Numbers>,
    pub(crate) resize: Option<u32>,
    pub(crate) crop: Option<u32>,
    pub(crate) channels: Option<Channels>,
}

/// Where the channel axis of a stored sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Layout {
    #[serde(rename = "NHWC")]
    ChannelsLast,
    #[serde(rename = "NCHW")]
    ChannelsFirst,
}

/// Order of an image's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Channels {
    #[serde(rename = "RGB")]
    Rgb,
    #[serde(rename = "BGR")]
    Bgr,
}

/// One number, or one a channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a number, or a list with one number a channel")]
pub(crate) enum Numbers {
    One(f64),
    Each(Vec<f64>),
}

impl Numbers {
    pub(crate) fn values(&self) -> Vec<f32> {
        match self {
            Self::One(value) => vec![*value as f32],
            Self::Each(values) => values.iter().map(|&v| v as f32).collect(),
        }
    }
}

/// `[labels]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Labels {
    pub(crate) file: Option<String>,
    pub(crate) array: Option<String>,
    pub(crate) csv: Option<String>,
    pub(crate) column: Option<String>,
    #[serde(default)]
    pub(crate) offset: i64,
}

/// `[split]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitText {
    pub(crate) calibrate: String,
    pub(crate) evaluate: Option<String>,
    pub(crate) tune: Option<String>,
}

impl Descriptor {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(read(path))?;
        let fault = |message: String| DataError::Descriptor {
            path: path.to_path_buf(),
            message,
        };
        let descriptor: Self = toml::from_str(&text).map_err(|error| fault(error.to_string()))?;
        descriptor.check().map_err(fault)?;
        Ok(descriptor)
    }

    fn check(&self) -> Result<(), String> {
        if self.input.is_empty() {
            return Err("no [input.NAME] is given; name the model's input there".into());
        }
        for (name, input) in &self.input {
            input
                .check()
                .map_err(|why| format!("[input.{name}]: {why}"))?;
        }
        let labels = self.labels.as_ref().map_or(Ok(()), Labels::check);
        labels.map_err(|why| format!("[labels]: {why}"))
    }
}

impl Input {
    fn check(&self) -> Result<(), String> {
        match (&self.file, &self.images) {
            (Some(_), Some(_)) => return Err("`file` and `images` are both given; keep one".into()),
            (None, None) => return Err("neither `file` nor `images` is given".into()),
            (Some(_), None) => self.check_file()?,
            (None, Some(_)) => self.check_images()?,
        }
        let scale = self.scale.iter().map(|&v| v as f32).collect();
        finite("scale", scale)?;
        finite(
            "mean",
            self.mean.as_ref().map(Numbers::values).unwrap_or_default(),
        )?;
        let std = self.std.as_ref().map(Numbers::values).unwrap_or_default();
        if std.contains(&0.0) {
            return Err("`std` is 0, and samples are divided by it".into());
        }
        finite("std", std)
    }

    fn check_file(&self) -> Result<(), String> {
        let images_only = [
            ("resize", self.resize.is_some()),
            ("crop", self.crop.is_some()),
            ("channels", self.channels.is_some()),
        ];
        match images_only.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("`{key}` is for `images`, and `file` is given")),
            None => Ok(()),
        }
    }

    fn check_images(&self) -> Result<(), String> {
        if self.array.is_some() {
            return Err("`array` is for `file`, and `images` is given".into());
        }
        if self.layout == Some(Layout::ChannelsFirst) {
            return Err("`layout` is for `file`; decoded images are always \"NHWC\"".into());
        }
        if self.resize == Some(0) || self.crop == Some(0) {
            return Err("`resize` and `crop` must be at least 1".into());
        }
        Ok(())
    }
}

impl Labels {
    fn check(&self) -> Result<(), String> {
        match (&self.file, &self.csv) {
            (Some(_), Some(_)) => Err("`file` and `csv` are both given; keep one".into()),
            (None, None) => Err("neither `file` nor `csv` is given".into()),
            (None, Some(_)) if self.column.is_none() => {
                Err("`csv` needs `column`, the name of its column of labels".into())
            }
            (None, Some(_)) if self.array.is_some() => {
                Err("`array` is for `file`, and `csv` is given".into())
            }
            (Some(_), None) if self.column.is_some() => {
                Err("`column` is for `csv`, and `file` is given".into())
            }
            _ => Ok(()),
        }
    }
}

fn finite(key: &str, values: Vec<f32>) -> Result<(), String> {
    match values.iter().find(|v| !v.is_finite()) {
        Some(value) => Err(format!("`{key}` holds {value}; it must be finite")),
        None => Ok(()),
    }
}
