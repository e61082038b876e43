//! The host's side of a guest's work over a network: the guest's is `network` in `tests/guests/linux/run`.

use crate::{Rig, Run, guest, md5};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use xtask::guest::Guest;

/// Which board.
#[derive(Debug, Clone)]
pub enum Board {
    /// The Versatile Express with a Cortex-A15, or a machine file that is like it.
    A15(PathBuf),
    /// The one with a Cortex-A9.
    A9,
}

/// One port of this host's loopback gives data to whoever comes, another one takes data and answers with its MD5 sum.
#[derive(Debug)]
pub struct Host {
    get: u16,
    put: u16,
    sum: String,
}

/// A listener on this host's loopback, and what is done with those who come, each in a thread of its own.
fn listen(act: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for guest in listener.incoming().flatten() {
            let act = act.clone();
            std::thread::spawn(move || act(guest));
        }
    });
    port
}

impl Host {
    /// Listens; `size` bytes go each way.
    ///
    /// # Panics
    /// If it can't.
    pub fn new(rig: &Rig, size: usize) -> Self {
        let file = rig.image("sent.bin", size);
        let (data, sum) = (std::fs::read(&file).expect("readable"), md5(&file));
        let get = listen(move |mut guest| {
            let _ = guest.write_all(&data);
            let _ = guest.shutdown(Shutdown::Write);
            let _ = guest.read_to_end(&mut Vec::new());
        });
        let taken = rig.path("taken");
        let count = AtomicU32::new(0);
        let put = listen(move |mut guest| {
            let mut data = Vec::new();
            let _ = guest.read_to_end(&mut data);
            let file = taken.with_extension(count.fetch_add(1, Ordering::Relaxed).to_string());
            std::fs::write(&file, data).expect("written");
            let _ = guest.write_all(md5(&file).as_bytes());
        });
        Self { get, put, sum }
    }

    /// Linux with the modules of the cards, on a clock that goes with the world's; the guest's command line says where the host listens.
    pub fn machine(&self, rig: &Rig, board: &Board, append: &str) -> Command {
        let guest = Guest { initrd: guest().virtio_initrd.clone(), ..guest().clone() };
        let append = format!("{} get={} put={} {append}", xtask::demo::APPEND, self.get, self.put);
        let args = match board {
            Board::A9 => xtask::demo::linux_a9_args(&guest, &append),
            Board::A15(config) => {
                let mut args = xtask::demo::linux_args(&guest, &append);
                args[1] = config.display().to_string();
                args
            }
        };
        let mut c = rig.supervisor();
        c.args(args).args(["--clock", "realtime"]);
        c
    }

    /// Checks what the guest has shown of its work, each line behind `prefix`.
    ///
    /// # Panics
    /// If something is missing.
    pub fn check(&self, run: &Run, prefix: &str) {
        let text = run.ended.text();
        for what in [
            "lease inet addr:10.0.2.15",
            "10 packets transmitted, 10 packets received",
            // What came is what was sent, and what was sent has arrived.
            &format!("{}  g", self.sum),
            &format!("put {}", self.sum),
        ] {
            assert!(text.lines().any(|l| l.starts_with(&format!("{prefix}{what}"))), "no {prefix}{what}: {text}");
        }
    }
}
