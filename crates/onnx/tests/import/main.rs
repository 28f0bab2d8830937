//! The importer on real models, beside other readers and runtimes, and on hostile files.

mod bytes;
mod hostile;
mod model;
mod readers;
mod zoo;
