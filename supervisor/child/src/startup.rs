//! How a child process begins and ends.

use std::panic;
use std::process::ExitCode;

use anyhow::Context;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::control::{Blame, FromChild, Start, ToChild};
use crate::sandbox::Policy;
use crate::socket::{Control, ControlError};

/// A child process that has had its start message.
#[derive(Debug)]
pub struct Child {
    /// The socket to the supervisor.
    pub control: Control,
    /// What the child is to be.
    pub start: Start,
}

impl Child {
    /// The sandbox that fits this child.
    pub fn policy(&self) -> Policy {
        Policy::for_start(&self.start)
    }
}

/// Runs a child: sees that it dies with its supervisor, takes the start message, sets up logging and panics, then calls `body`. What `body`
/// fails with goes to the supervisor as [`FromChild::Fatal`]; a lost supervisor ends the process silently.
pub fn run(program: &'static str, body: impl FnOnce(Child) -> anyhow::Result<()>) -> ExitCode {
    let control = match begin() {
        Ok(control) => control,
        Err(e) => {
            eprintln!("{program}: {e:#}; it is started by `supervisor`, not by hand");
            return ExitCode::from(2);
        }
    };
    let mut first = match control.try_clone() {
        Ok(clone) => clone,
        Err(e) => return fail(&control, &anyhow::Error::new(e)),
    };
    let start = match first.receive() {
        Ok(ToChild::Start(start)) => *start,
        Ok(other) => return fail(&control, &anyhow::anyhow!("the first control message is {other:?}, not Start")),
        Err(ControlError::Closed) => return ExitCode::from(1),
        Err(e) => return fail(&control, &anyhow::Error::new(e).context("the supervisor's first message")),
    };
    let name = start.common().name.clone();
    log_to_stderr(&start.common().log_filter);
    report_panics(&control, &name);
    let span = tracing::error_span!("process", %name);
    let _entered = span.enter();
    match body(Child { control: first, start }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&control, &e),
    }
}

/// Before the start message: parent death, signals, socket.
fn begin() -> anyhow::Result<Control> {
    let control = Control::inherited().context("descriptor 3 is no control socket")?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    // The terminal sends SIGINT to the supervisor and its children alike; it is for the supervisor to end them.
    // A write to a closed pipe or beyond a limit is to be an error like any other.
    for ignored in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGXFSZ] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { signal(ignored, SigHandler::SigIgn) }.context("signal")?;
    }
    Ok(control)
}

fn log_to_stderr(filter: &str) {
    let filter =
        tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).without_time();
    // A second call in one process (a test) keeps the first subscriber.
    let _ = subscriber.try_init();
}

/// A panic anywhere in the process reaches the supervisor, then ends the process.
fn report_panics(control: &Control, name: &str) {
    let Ok(control) = control.try_clone() else { return };
    let name = name.to_owned();
    panic::set_hook(Box::new(move |info| {
        let text = format!("{name}: internal error: {info}");
        tracing::error!("{text}");
        // The supervisor sees the exit in any case.
        let _ = control.send(&FromChild::Fatal { text, blame: Blame::Other });
        if std::thread::current().name() != Some("main") {
            std::process::exit(1);
        }
    }));
}

fn fail(control: &Control, error: &anyhow::Error) -> ExitCode {
    if let Some(ControlError::Closed) = error.downcast_ref::<ControlError>() {
        return ExitCode::from(1);
    }
    let config = error.downcast_ref::<ConfigFault>().map(|fault| Blame::Config(fault.at.0, fault.at.1));
    let plugin = error.downcast_ref::<PluginFault>().map(|_| Blame::Plugin);
    let port = error.downcast_ref::<PortFault>().map(|_| Blame::Port);
    let blame = config.or(plugin).or(port).unwrap_or(Blame::Other);
    // The supervisor sees the exit in any case.
    let _ = control.send(&FromChild::Fatal { text: format!("{error:#}"), blame });
    ExitCode::from(1)
}

/// A `body` that fails with this (as the error itself, not as a context) says that the device's plugin is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PluginFault(pub String);

/// A `body` that fails with this (as the error itself, not as a context) says that the device has no port of a name that is to lead out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PortFault(pub String);

/// A `body` that fails with this (as the error itself, not as a context) says that the device's configuration is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConfigFault {
    /// What is wrong.
    pub text: String,
    /// (line, column) in the configuration's own text, from 1; (0, 0) for all of it.
    pub at: (u32, u32),
}
