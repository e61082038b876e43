//! `--display`: whether there is a screen, and where viewers connect to it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::sys::socket::{setsockopt, sockopt};

/// Display 0's port.
const FIRST_PORT: u16 = 5900;

/// What `--display` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum DisplayArg {
    /// No screen: the board is as its own device tree says.
    #[default]
    None,
    /// A screen that nobody watches.
    Headless,
    /// A VNC server at an address of this host.
    Vnc(SocketAddr),
    /// A VNC server at a Unix socket.
    VncUnix(PathBuf),
}

/// Reads `vnc=ADDRESS:N`, `vnc=unix:PATH`, `headless` or `none`.
///
/// # Errors
/// What is wrong with it and what to do, in words.
pub(crate) fn parse(text: &str) -> Result<DisplayArg, String> {
    const FORMS: &str = "say vnc=127.0.0.1:0, vnc=unix:PATH, headless or none";
    match (text, text.strip_prefix("vnc=")) {
        ("none", _) => Ok(DisplayArg::None),
        ("headless", _) => Ok(DisplayArg::Headless),
        (_, Some(at)) => match at.strip_prefix("unix:") {
            Some("") => Err(format!("`{text}` names no socket; {FORMS}")),
            Some(path) => Ok(DisplayArg::VncUnix(path.into())),
            None => address(at).map(DisplayArg::Vnc),
        },
        _ => Err(format!("`{text}` is no display; {FORMS}")),
    }
}

/// An address and the number of a display, as all VNC programs have it: display N is port 5900 + N.
fn address(text: &str) -> Result<SocketAddr, String> {
    let number = |text: &str| text.parse::<u16>().ok()?.checked_add(FIRST_PORT);
    let at = text.rsplit_once(':').and_then(|(host, display)| {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Some(SocketAddr::new(if host == "localhost" { "127.0.0.1" } else { host }.parse().ok()?, number(display)?))
    });
    let at =
        at.ok_or_else(|| format!("`{text}` is no address and display; say it as 127.0.0.1:0, which is port 5900"))?;
    if !at.ip().is_loopback() {
        return Err(format!(
            "`{text}` is no loopback address, and viewers give no password; say 127.0.0.1:0 and forward the port with ssh"
        ));
    }
    Ok(at)
}

/// Where viewers connect.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    /// The name of a Unix socket, which goes with it.
    path: Option<PathBuf>,
}

impl DisplayArg {
    /// Whether there is to be a screen.
    pub(crate) fn is_on(&self) -> bool {
        *self != Self::None
    }

    /// Opens what viewers connect to.
    ///
    /// # Errors
    /// What is wrong and what to do, in words.
    pub(crate) fn listen(&self) -> Result<Option<Listener>, String> {
        let (socket, path): (OwnedFd, _) = match self {
            Self::None | Self::Headless => return Ok(None),
            Self::Vnc(at) => {
                let fix = match at.port() {
                    FIRST_PORT.. => "give another display, or end what uses this one",
                    _ => "give a display from 0",
                };
                let socket = listen_tcp(*at).map_err(|e| format!("--display: {at}: {e}; {fix}"))?;
                (socket.into(), None)
            }
            Self::VncUnix(path) => {
                let bad = |e| format!("--display: {}: {e}; give a path where a socket can be made", path.display());
                let socket = UnixListener::bind(path).map_err(bad)?;
                socket.set_nonblocking(true).map_err(bad)?;
                (socket.into(), Some(path.clone()))
            }
        };
        Ok(Some(Listener { socket, path }))
    }
}

fn listen_tcp(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(at)?;
    socket.set_nonblocking(true)?;
    // The connections have it too.
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    Ok(socket)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.path.as_ref().map(std::fs::remove_file) {
            tracing::debug!("the display's socket: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_said() {
        assert_eq!(parse("none"), Ok(DisplayArg::None));
        assert_eq!(parse("headless"), Ok(DisplayArg::Headless));
        assert_eq!(parse("vnc=127.0.0.1:0"), Ok(DisplayArg::Vnc("127.0.0.1:5900".parse().unwrap())));
        assert_eq!(parse("vnc=localhost:7"), Ok(DisplayArg::Vnc("127.0.0.1:5907".parse().unwrap())));
        assert_eq!(parse("vnc=[::1]:1"), Ok(DisplayArg::Vnc("[::1]:5901".parse().unwrap())));
        assert_eq!(parse("vnc=unix:a b"), Ok(DisplayArg::VncUnix("a b".into())));
        for (text, says) in [
            ("sdl", "`sdl` is no display; say vnc="),
            ("vnc=", "`` is no address and display"),
            ("vnc=unix:", "names no socket"),
            ("vnc=127.0.0.1", "`127.0.0.1` is no address and display"),
            ("vnc=127.0.0.1:65000", "is no address and display"),
            ("vnc=0.0.0.0:0", "is no loopback address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_unix_socket_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vnc");
        let listener = DisplayArg::VncUnix(path.clone()).listen().unwrap().unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        assert!(DisplayArg::VncUnix(path.clone()).listen().unwrap_err().contains("give a path"));
        drop(listener);
        assert!(!path.exists());
    }
}
