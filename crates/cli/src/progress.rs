use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Least time between two plain lines of one stage.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether the time of each stage is told.
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Tells the time of each stage from now on.
pub(crate) fn be_verbose() {
    VERBOSE.store(true, Ordering::Relaxed);
}

/// Progress on standard error: a bar on a terminal; elsewhere a line where a stage begins, and one now and then in a long
/// one. `LOWBIT_QUIET` leaves all of it out but notes.
pub(crate) struct Stderr {
    bar: Option<ProgressBar>,
    plain: Mutex<Plain>,
    quiet: bool,
    stage: Mutex<Option<(String, Instant)>>,
}

struct Plain {
    seen: HashSet<String>,
    last: Instant,
}

impl Plain {
    /// The line to print, if there is one to print now.
    fn line(&mut self, stage: &str, done: usize, total: usize) -> Option<String> {
        let is_new = !self.seen.contains(stage);
        if !is_new && self.last.elapsed() < PAUSE {
            return None;
        }
        if is_new {
            self.seen.insert(stage.into());
        }
        self.last = Instant::now();
        Some(match total {
            0 => stage.into(),
            _ if done == 0 => format!("{stage} ({total})"),
            _ => format!("{stage} ({done} of {total})"),
        })
    }
}

impl Stderr {
    pub(crate) fn new() -> Self {
        let quiet = std::env::var_os("LOWBIT_QUIET").is_some();
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner().with_style(style(0));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            plain: Mutex::new(Plain {
                seen: HashSet::new(),
                last: Instant::now(),
            }),
            quiet,
            stage: Mutex::new(None),
        }
    }

    /// Tells how long the stage before took, where another begins.
    fn entered(&self, stage: Option<&str>) {
        let mut current = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().map(|(name, _)| name.as_str()) == stage {
            return;
        }
        let next = stage.map(|name| (name.to_owned(), Instant::now()));
        if let Some((name, since)) = std::mem::replace(&mut *current, next)
            && VERBOSE.load(Ordering::Relaxed)
        {
            self.tell(&format!("{name}: {:.2} s", since.elapsed().as_secs_f64()));
        }
    }

    fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("lowbit: {text}")),
            None => eprintln!("lowbit: {text}"),
        }
    }

    /// Removes the bar.
    pub(crate) fn done(&self) {
        self.entered(None);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A stage whose extent is not known has no bar to show.
fn style(total: usize) -> ProgressStyle {
    let template = match total {
        0 => "{spinner:.cyan} {msg:18} {elapsed:.dim}",
        _ => "{spinner:.cyan} {msg:18} {bar:32.cyan/dim} {pos}/{len}  {eta:.dim}",
    };
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

impl lowbit::Progress for Stderr {
    fn step(&self, stage: &str, done: usize, total: usize) {
        self.entered(Some(stage));
        if let Some(bar) = &self.bar {
            if bar.message() != stage {
                bar.set_style(style(total));
                bar.set_message(stage.to_string());
                bar.reset_eta();
            }
            bar.set_length(total.max(1) as u64);
            bar.set_position(done as u64);
        } else if !self.quiet {
            let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(line) = plain.line(stage, done, total) {
                eprintln!("lowbit: {line}");
            }
        }
    }

    fn note(&self, text: &str) {
        self.tell(&format!("note: {text}"));
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        self.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_sparse() {
        let mut plain = Plain {
            seen: HashSet::new(),
            last: Instant::now(),
        };
        let lines: Vec<String> = (0..1000)
            .flat_map(|i| {
                [
                    plain.line("one", i, 1000),
                    plain.line("other", 0, 0),
                    plain.line("one", i + 1, 1000),
                ]
            })
            .flatten()
            .collect();
        assert_eq!(lines, ["one (1000)", "other"]);
        plain.last -= PAUSE;
        assert_eq!(plain.line("one", 5, 1000).unwrap(), "one (5 of 1000)");
    }
}
