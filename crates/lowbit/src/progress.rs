/// Told what a long command does.
pub trait Progress: Sync {
    /// `done` of `total` parts of a stage are done; `total` is 0 where it is not known.
    fn step(&self, stage: &str, done: usize, total: usize);
    /// Something that a person should know.
    fn note(&self, text: &str);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str, _: usize, _: usize) {}
    fn note(&self, _: &str) {}
}
