//! Maps a generated object into the process and calls it.
