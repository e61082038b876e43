//! What the supervisor says, heard by a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use reprise_channel::{Abort, Doorbell, SpinPolicy, wait_many};
use reprise_child::Control;
use reprise_child::control::{SwapNote, ToChild, Totals};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    go: AtomicBool,
    exit: AtomicBool,
    finish: Mutex<Option<Totals>>,
    swaps: Mutex<Vec<SwapNote>>,
    /// Rings at each change.
    pub(crate) bell: Doorbell,
}

/// Starts the thread. A lost supervisor ends the process.
pub(crate) fn listen(mut control: Control) -> Result<Arc<Signals>> {
    let signals = Arc::new(Signals::default());
    let shared = Arc::clone(&signals);
    let body = move || loop {
        match control.receive() {
            Ok(ToChild::Go) => shared.go.store(true, Ordering::SeqCst),
            Ok(ToChild::Exit) => shared.exit.store(true, Ordering::SeqCst),
            Ok(ToChild::Finish(totals)) => *shared.finish.lock().expect("no holder panics") = Some(totals),
            Ok(ToChild::Swapped(swap)) => shared.swaps.lock().expect("no holder panics").push(swap),
            Ok(other) => tracing::warn!("the supervisor said {other:?}, which is not for the log daemon"),
            Err(_) => std::process::exit(1),
        }
        shared.bell.ring();
    };
    std::thread::Builder::new().name("control".into()).spawn(body).context("starting the control thread")?;
    Ok(signals)
}

impl Signals {
    /// The totals, once the supervisor has said that nothing more will come.
    pub(crate) fn finish(&self) -> Option<Totals> {
        self.finish.lock().expect("no holder panics").clone()
    }

    /// Plugins that took the place of others, since this was last asked.
    pub(crate) fn swaps(&self) -> Vec<SwapNote> {
        std::mem::take(&mut *self.swaps.lock().expect("no holder panics"))
    }

    /// Waits for [`ToChild::Go`].
    pub(crate) fn wait_go(&self) -> Result<()> {
        self.wait_for(&self.go)
    }

    /// Waits for [`ToChild::Exit`].
    pub(crate) fn wait_exit(&self) -> Result<()> {
        self.wait_for(&self.exit)
    }

    fn wait_for(&self, flag: &AtomicBool) -> Result<()> {
        while !flag.load(Ordering::SeqCst) {
            wait_many(&[], &SpinPolicy::SLEEP, &Abort::default().or_rung(&self.bell))
                .context("waiting for the supervisor")?;
        }
        Ok(())
    }
}
