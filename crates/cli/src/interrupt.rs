use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Lets signals end the process only when no file is half-written. Where handlers cannot be had, the system's stay.
pub(crate) fn leave_files_whole() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let _writing = lowbit::writing();
            // the parent sees that a signal ended us; an error leaves the signal without effect, and there may be another
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}
