//! The log daemon of a machine: it sees every message of every channel, writes the recording, or replays one.

use std::process::ExitCode;

fn main() -> ExitCode {
    reprise_child::run("log-daemon", log_daemon::body)
}
