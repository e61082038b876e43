//! A log-daemon that dies while a machine is recorded is replaced, and nobody else notices: the rings keep what it had not taken, and its staging
//! memory what it had.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use reprise_child::control::{STAGING_BYTES, STAGING_PROGRESS, SwapNote, Totals};

/// How many daemons may die one after the other without having taken anything.
const IN_A_ROW: u32 = 8;
/// How long the second waits that dies so; each further one twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What is known of the daemons of a recording.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    staging: Option<OwnedFd>,
    /// The machine runs: from here on a dead daemon is replaced.
    pub(crate) running: bool,
    /// Deaths since anything was taken, and how much had been taken then.
    in_a_row: u32,
    progress: u64,
    /// When the next daemon is to start.
    pub(crate) due: Option<Instant>,
    /// The last words of a daemon.
    pub(crate) words: Option<String>,
    /// What the daemon was told at the end of the machine.
    pub(crate) totals: Option<Totals>,
    /// Swaps that no daemon has noted yet.
    pub(crate) swaps: Vec<SwapNote>,
    /// Successors so far.
    pub(crate) revived: u64,
    /// CPU time of those that died.
    pub(crate) cpu_seconds: f64,
}

impl Keeper {
    /// The staging memory; made when it is first asked for.
    pub(crate) fn staging(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.staging.is_none() {
            let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
            let fd = memfd_create("reprise-staging", flags)?;
            nix::unistd::ftruncate(&fd, STAGING_BYTES as i64)?;
            let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
            fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
            self.staging = Some(fd);
        }
        Ok(self.staging.as_ref().expect("just made").as_fd())
    }

    /// A daemon has died. Says whether there will be another; `due` is set then.
    pub(crate) fn died(&mut self, cpu_seconds: f64) -> bool {
        self.cpu_seconds += cpu_seconds;
        let progress = self.taken();
        if progress != self.progress {
            (self.progress, self.in_a_row) = (progress, 0);
        }
        self.in_a_row += 1;
        if self.in_a_row > IN_A_ROW {
            return false;
        }
        let wait = match self.in_a_row {
            1 => Duration::ZERO,
            n => (FIRST_WAIT * (1 << (n - 2))).min(LONGEST_WAIT),
        };
        self.due = Some(Instant::now() + wait);
        true
    }

    /// How much all daemons together have taken.
    pub(crate) fn taken(&self) -> u64 {
        let mut word = [0; 8];
        let Some(fd) = &self.staging else { return 0 };
        match nix::sys::uio::pread(fd, &mut word, STAGING_PROGRESS as i64) {
            Ok(8) => u64::from_le_bytes(word),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_that_take_nothing_are_not_replaced_for_ever() {
        let mut keeper = Keeper::default();
        let fd = keeper.staging().unwrap().try_clone_to_owned().unwrap();
        let waits = |keeper: &mut Keeper| {
            let mut waits = Vec::new();
            while keeper.died(0.5) {
                waits.push(keeper.due.take().unwrap().saturating_duration_since(Instant::now()));
            }
            waits
        };
        let first = waits(&mut keeper);
        assert_eq!(first.len(), IN_A_ROW as usize);
        assert!(first[0].is_zero() && first.iter().max().unwrap() <= &LONGEST_WAIT);
        assert!(!keeper.died(0.5));
        nix::sys::uio::pwrite(&fd, &7u64.to_le_bytes(), STAGING_PROGRESS as i64).unwrap();
        assert_eq!(waits(&mut keeper).len(), IN_A_ROW as usize, "something was taken");
        assert!(nix::unistd::ftruncate(&fd, 0).is_err(), "its size is sealed");
    }
}
