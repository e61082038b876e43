//! Talks to a machine's console through pipes: waits for text, types, waits for the end.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What has come from the machine so far.
#[derive(Default)]
struct Heard {
    bytes: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

/// A running machine whose stdin and stdout are ours. Its stderr is collected too. Dropped, it is killed.
pub struct Console {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Arc<Heard>,
    err: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
    /// Where in the output the next [`Console::expect`] begins to look.
    seen: usize,
}

/// What a machine left behind.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it wrote to stdout: the guest's console.
    pub stdout: Vec<u8>,
    /// Its messages.
    pub stderr: String,
}

impl Ended {
    /// The console as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

fn collect(mut from: impl Read + Send + 'static, echo: bool) -> (Arc<Heard>, JoinHandle<()>) {
    let heard = Arc::new(Heard::default());
    let into = heard.clone();
    let thread = std::thread::spawn(move || {
        let mut buf = [0; 65536];
        loop {
            let n = match from.read(&mut buf) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            if echo {
                let mut o = std::io::stdout().lock();
                let _ = o.write_all(&buf[..n]).and_then(|()| o.flush());
            }
            into.bytes.lock().expect("no panic while held").0.extend_from_slice(&buf[..n]);
            into.more.notify_all();
        }
        into.bytes.lock().expect("no panic while held").1 = true;
        into.more.notify_all();
    });
    (heard, thread)
}

impl Console {
    /// Starts `command`; `echo` copies the guest's console to our stdout.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(command: &mut Command, echo: bool) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        let (out, a) = collect(child.stdout.take().expect("piped"), echo);
        let (err, b) = collect(child.stderr.take().expect("piped"), false);
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, out, err, readers: vec![a, b], seen: 0 })
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the console says `what` after the place where the last such wait ended.
    ///
    /// # Errors
    /// The machine ends first, or `guard` passes: that only keeps a hung machine from hanging the caller.
    pub fn expect(&mut self, what: &str, guard: Duration) -> Result<()> {
        let until = Instant::now() + guard;
        let mut held = self.out.bytes.lock().expect("no panic while held");
        // What was searched is not searched again: a guest that shows much would wait for its reader.
        let mut from = self.seen;
        loop {
            let at = held.0[from..].windows(what.len()).position(|w| w == what.as_bytes());
            if let Some(at) = at {
                self.seen = from + at + what.len();
                return Ok(());
            }
            from = from.max((held.0.len() + 1).saturating_sub(what.len()));
            let left = until.saturating_duration_since(Instant::now());
            if held.1 || left.is_zero() {
                let why = if held.1 { "the machine ended" } else { "the machine is silent" };
                let tail = String::from_utf8_lossy(&held.0[held.0.len().saturating_sub(2000)..]).into_owned();
                drop(held);
                bail!("waiting for {what:?}: {why}; its console ends with\n{tail}\nand it said\n{}", self.messages());
            }
            held =
                self.out.more.wait_timeout(held, left.min(Duration::from_millis(500))).expect("no panic while held").0;
        }
    }

    /// Types.
    ///
    /// # Errors
    /// The machine does not read any more.
    pub fn send(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the console's input is closed")?;
        stdin.write_all(text.as_ref()).and_then(|()| stdin.flush()).context("typing into the console")
    }

    /// Ends the machine's input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// What the machine has said on stderr so far.
    pub fn messages(&self) -> String {
        String::from_utf8_lossy(&self.err.bytes.lock().expect("no panic while held").0).into_owned()
    }

    /// What the console has shown so far.
    pub fn output(&self) -> Vec<u8> {
        self.out.bytes.lock().expect("no panic while held").0.clone()
    }

    /// Waits until the machine ends by itself.
    ///
    /// # Errors
    /// `guard` passes.
    pub fn wait(mut self, guard: Duration) -> Result<Ended> {
        let until = Instant::now() + guard;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > until {
                bail!("the machine does not end; it said\n{}", self.messages());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        for r in self.readers.drain(..) {
            let _ = r.join();
        }
        Ok(Ended { status, stdout: self.output(), stderr: self.messages() })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Only our own child, and only if it is still there.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
