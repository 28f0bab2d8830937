//! Threads that share the parts of layers.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Looks before a thread sleeps: tens of microseconds, longer than a layer takes to come after another.
const SPINS: u32 = 20_000;

type Task<'a> = &'a (dyn Fn(i32) + Sync);

/// A pool of threads that spin between layers, so that a layer of some microseconds is worth handing out. The caller is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    /// The current work; `None` between two. Its lifetime ends when `for_each` returns.
    work: Mutex<Option<(Task<'static>, i32)>>,
    wake: Condvar,
    /// Number of the work: a thread that sees a new one takes parts of it.
    round: AtomicUsize,
    next: AtomicI32,
    done: AtomicI32,
    /// Threads that may still look at the current work.
    inside: AtomicUsize,
    stop: AtomicBool,
}

impl Shared {
    fn take_parts(&self, task: Task<'_>, parts: i32) {
        let guard = Abort;
        loop {
            let part = self.next.fetch_add(1, Ordering::AcqRel);
            if part >= parts {
                break;
            }
            task(part);
            self.done.fetch_add(1, Ordering::AcqRel);
        }
        std::mem::forget(guard);
    }

    /// Waits for another round than `seen`, or for the end.
    fn another(&self, seen: usize) -> usize {
        let found = |now: usize| now != seen || self.stop.load(Ordering::Acquire);
        for _ in 0..SPINS {
            let now = self.round.load(Ordering::Acquire);
            if found(now) {
                return now;
            }
            std::hint::spin_loop();
        }
        let mut work = self.work.lock().expect("no thread panics with the lock");
        loop {
            let now = self.round.load(Ordering::Acquire);
            if found(now) {
                return now;
            }
            work = self
                .wake
                .wait(work)
                .expect("no thread panics with the lock");
        }
    }

    fn help(&self) {
        let mut seen = 0;
        loop {
            seen = self.another(seen);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let work = *self.work.lock().expect("no thread panics with the lock");
            if let Some((task, parts)) = work {
                self.take_parts(task, parts);
            }
            self.inside.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller among them.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut pool = Self {
            shared,
            threads: Vec::new(),
        };
        for _ in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().spawn(move || shared.help())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Calls `task` once with every number below `parts`, and waits for all. A panic of `task` ends the process.
    pub fn for_each(&mut self, task: Task<'_>, parts: i32) {
        let shared = &self.shared;
        // SAFETY: no thread has the task once `inside` is 0 and all parts are done, which this waits for; a panic ends the process
        let lasting = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        shared.next.store(0, Ordering::Release);
        shared.done.store(0, Ordering::Release);
        shared.inside.store(self.threads.len(), Ordering::Release);
        {
            let mut work = shared.work.lock().expect("no thread panics with the lock");
            *work = Some((lasting, parts));
            shared.round.fetch_add(1, Ordering::AcqRel);
            shared.wake.notify_all();
        }
        shared.take_parts(task, parts);
        let busy = || {
            let done = shared.done.load(Ordering::Acquire);
            done < parts || shared.inside.load(Ordering::Acquire) > 0
        };
        let mut spins = 0;
        while busy() {
            spins += 1;
            match spins < SPINS {
                true => std::hint::spin_loop(),
                // more threads than cores: the one that is waited for may need this core
                false => std::thread::yield_now(),
            }
        }
        *shared.work.lock().expect("no thread panics with the lock") = None;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        drop(self.shared.work.lock());
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "tasks end the process where they panic");
        }
    }
}

/// Ends the process where a task panics: other threads may still run parts of it.
struct Abort;

impl Drop for Abort {
    fn drop(&mut self) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_run_once_in_every_round() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).expect("threads start");
            for parts in (0..200).chain([1000]) {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                let task = |k: i32| {
                    counts[k as usize].fetch_add(1, Ordering::Relaxed);
                };
                pool.for_each(&task, parts);
                let once = |c: &AtomicUsize| c.load(Ordering::Relaxed) == 1;
                assert!(counts.iter().all(once), "{threads} threads, {parts} parts");
            }
        }
    }
}
