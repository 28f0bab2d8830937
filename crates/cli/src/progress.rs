use std::io::IsTerminal;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};

/// Progress on standard error: a bar on a terminal, a line a stage elsewhere.
pub(crate) struct Stderr {
    bar: Option<ProgressBar>,
    stage: Mutex<String>,
    quiet: bool,
}

impl Stderr {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:16} {bar:32} {pos}/{len} {eta}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            stage: Mutex::new(String::new()),
            quiet: std::env::var_os("LOWBIT_QUIET").is_some(),
        }
    }

    /// Removes the bar.
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl lowbit::Progress for Stderr {
    fn step(&self, stage: &str, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message(stage.to_string());
            bar.set_length(total.max(1) as u64);
            bar.set_position(done as u64);
            return;
        }
        let mut last = self
            .stage
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != stage && !self.quiet {
            eprintln!("lowbit: {stage}");
            *last = stage.into();
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("lowbit: note: {text}")),
            None => eprintln!("lowbit: note: {text}"),
        }
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        self.done();
    }
}
