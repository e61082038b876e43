//! Where a writer writes to: a directory, or in tests something that runs full.

use crate::{MANIFEST_FILE, SEGMENTS_DIR, inputs::temp_name};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What a [`Writer`](crate::Writer) needs of the world. Names are relative to the recording.
pub trait Medium {
    /// Makes the manifest and holds whatever shows readers that the recording is being written.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one.
    fn begin(&mut self, manifest: &[u8]) -> io::Result<()>;
    /// Goes on with a segment that is there already, behind its first `bytes` bytes; what lies behind them is cut off.
    ///
    /// # Errors
    /// The system's.
    fn old_segment(&mut self, name: &str, bytes: u64) -> io::Result<()>;
    /// Begins a new segment file; later [`append`](Medium::append)s go there.
    ///
    /// # Errors
    /// The system's.
    fn new_segment(&mut self, name: &str) -> io::Result<()>;
    /// Appends to the segment, in one call to the system if it takes everything at once.
    ///
    /// # Errors
    /// The system's; some of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Puts a whole file in place at once.
    ///
    /// # Errors
    /// The system's; the old file is still there then.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Waits until what was appended is on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory.
#[derive(Debug)]
pub struct DirMedium {
    dir: PathBuf,
    segment: Option<File>,
    /// Locked exclusively as long as the recording is being written.
    live: Option<Flock<File>>,
    /// The manifest is there already and must be the same.
    adopt: bool,
}

impl DirMedium {
    /// The recording at `dir`. Nothing is touched yet.
    pub fn new(dir: &Path) -> DirMedium {
        DirMedium { dir: dir.to_owned(), segment: None, live: None, adopt: false }
    }

    /// The recording at `dir`, whose manifest and folders somebody else has made.
    pub fn adopt(dir: &Path) -> DirMedium {
        DirMedium { adopt: true, ..DirMedium::new(dir) }
    }

    /// Locks the manifest that is there, if it is the one that is meant.
    fn take_over(&mut self, manifest: &[u8]) -> io::Result<()> {
        let path = self.dir.join(MANIFEST_FILE);
        if fs::read(&path)? != manifest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the manifest in place is another one"));
        }
        self.live = Some(lock(File::options().read(true).write(true).open(&path)?)?);
        Ok(())
    }
}

impl Medium for DirMedium {
    fn begin(&mut self, manifest: &[u8]) -> io::Result<()> {
        if self.adopt {
            return self.take_over(manifest);
        }
        fs::create_dir_all(self.dir.join(SEGMENTS_DIR))?;
        let path = self.dir.join(MANIFEST_FILE);
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let temp = self.dir.join(temp_name());
        let mut file = File::options().read(true).write(true).create_new(true).open(&temp)?;
        // Written and locked before it can be seen, so nobody ever takes a live recording for a dead one.
        let done = file.write_all(manifest).and_then(|()| lock(file)).and_then(|live| {
            fs::rename(&temp, &path)?;
            self.live = Some(live);
            Ok(())
        });
        if done.is_err() {
            let _best_effort = fs::remove_file(&temp);
        }
        done
    }

    fn old_segment(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let file = File::options().append(true).open(self.dir.join(name))?;
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
        }
        self.segment = Some(file);
        Ok(())
    }

    fn new_segment(&mut self, name: &str) -> io::Result<()> {
        self.segment = Some(File::options().append(true).create_new(true).open(self.dir.join(name))?);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.segment.as_mut().ok_or(io::ErrorKind::NotFound)?.write_all(bytes)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temp = self.dir.join(temp_name());
        let done = fs::write(&temp, bytes).and_then(|()| fs::rename(&temp, self.dir.join(name)));
        if done.is_err() {
            let _best_effort = fs::remove_file(&temp);
        }
        done
    }

    fn sync(&mut self) -> io::Result<()> {
        self.segment.as_ref().map_or(Ok(()), File::sync_data)
    }
}

fn lock(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e.into())
}

/// True while a [`DirMedium`] writes the recording whose manifest this is.
pub(crate) fn is_live(manifest: &Path) -> bool {
    let Ok(file) = File::open(manifest) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::errno::Errno::EWOULDBLOCK)))
}
