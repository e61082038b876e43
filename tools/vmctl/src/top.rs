//! `vmctl top`: rates, from two looks at a machine's status.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use reprise_child::operator::{Answer, Command, Status};
use serde::Serialize;

use crate::cli::TopOptions;
use crate::{client, show};

/// What happened between two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Rates {
    machine: String,
    uuid: String,
    mode: String,
    state: String,
    /// Instructions since its start.
    instructions: Option<u64>,
    /// Guest time in ns.
    guest_ns: Option<u64>,
    /// Wall time in ms.
    wall_ms: u64,
    /// Million instructions a second.
    mips: Option<f64>,
    /// Guest time over wall time.
    speed: Option<f64>,
    /// Bytes of log a second, and all of them.
    log_rate: Option<f64>,
    log_bytes: Option<u64>,
    log_restarts: u64,
    devices: Vec<DeviceRates>,
}

/// The same of a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct DeviceRates {
    name: String,
    plugin: String,
    /// Requests a second: times that the CPU left the guest for it.
    requests: f64,
    /// Requests that wait for it now.
    waiting: u64,
    total: u64,
    restarts: u64,
}

impl Rates {
    fn between(old: &Status, new: &Status) -> Self {
        // Both by the machine's clock, so that a late answer spoils nothing.
        let seconds = (new.wall_ms.saturating_sub(old.wall_ms).max(1)) as f64 / 1000.0;
        let rate = |old: Option<u64>, new: Option<u64>| Some(new?.saturating_sub(old?) as f64 / seconds);
        let device = |d: &reprise_child::operator::DeviceStatus| {
            let before = old.devices.iter().find(|o| o.name == d.name).map_or(0, |o| o.sent);
            DeviceRates {
                name: d.name.clone(),
                plugin: d.plugin.clone(),
                requests: d.sent.saturating_sub(before) as f64 / seconds,
                waiting: d.sent.saturating_sub(d.completed),
                total: d.sent,
                restarts: d.restarts,
            }
        };
        Self {
            machine: new.machine.clone(),
            uuid: new.uuid.clone(),
            mode: new.mode.clone(),
            state: new.state.clone(),
            instructions: new.instructions,
            guest_ns: new.guest_ns,
            wall_ms: new.wall_ms,
            mips: rate(old.instructions, new.instructions).map(|n| n / 1e6),
            speed: rate(old.guest_ns, new.guest_ns).map(|n| n / 1e9),
            log_rate: rate(old.log_bytes, new.log_bytes),
            log_bytes: new.log_bytes,
            log_restarts: new.log_restarts,
            devices: new.devices.iter().map(device).collect(),
        }
    }

    /// The lines above the devices.
    fn head(&self) -> Vec<String> {
        let number = |n: Option<f64>| n.map_or_else(|| "-".into(), |n| format!("{n:.1}"));
        let count = self.instructions.map_or_else(|| "-".into(), |n| n.to_string());
        let guest = self.guest_ns.map_or_else(|| "-".into(), show::seconds);
        let log = match (self.log_rate, self.log_bytes) {
            (Some(rate), Some(all)) => format!("{}/s, {} so far", show::bytes(rate as u64), show::bytes(all)),
            _ => "none".into(),
        };
        vec![
            format!("{}  {}  {}  {}", self.machine, self.mode, self.state, self.uuid),
            format!(
                "{} MIPS  guest/wall {}  {count} instructions  {guest} s of guest time, {:.3} s of wall time",
                number(self.mips),
                number(self.speed),
                self.wall_ms as f64 / 1000.0
            ),
            format!("log {log}, {} restarts", self.log_restarts),
        ]
    }

    /// The devices, the busiest first.
    fn rows(&self) -> Vec<[String; 6]> {
        let mut devices: Vec<&DeviceRates> = self.devices.iter().collect();
        devices.sort_by(|a, b| b.requests.total_cmp(&a.requests).then(b.total.cmp(&a.total)));
        let row = |d: &&DeviceRates| {
            [
                d.name.clone(),
                d.plugin.clone(),
                format!("{:.0}", d.requests),
                d.waiting.to_string(),
                d.total.to_string(),
                d.restarts.to_string(),
            ]
        };
        devices.iter().map(row).collect()
    }
}

const COLUMNS: [&str; 6] = ["device", "plugin", "requests/s", "waiting", "requests", "restarts"];
const WIDTHS: [u16; 6] = [16, 16, 11, 8, 14, 9];

fn look(socket: &Path) -> Result<Status> {
    match client::ask(socket, &Command::Status)? {
        Answer::Status(status) => Ok(status),
        other => bail!("the machine answers {other:?}"),
    }
}

/// Shows a machine until the user has enough, or it ends.
///
/// # Errors
/// The machine has ended, or the terminal refuses.
pub(crate) fn run(socket: &Path, options: &TopOptions, json: bool) -> Result<()> {
    if json || options.once {
        let old = look(socket)?;
        std::thread::sleep(options.interval);
        let rates = Rates::between(&old, &look(socket)?);
        match json {
            true => println!("{}", serde_json::to_string(&rates)?),
            false => print!("{}", text(&rates)),
        }
        return Ok(());
    }
    let mut terminal = ratatui::try_init()?;
    let result = live(&mut terminal, socket, options.interval);
    ratatui::restore();
    result
}

/// The same as on the screen, as plain lines.
fn text(rates: &Rates) -> String {
    let mut lines = rates.head();
    for row in std::iter::once(COLUMNS.map(str::to_owned)).chain(rates.rows()) {
        let cells: Vec<String> =
            row.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:<width$}", width = usize::from(width))).collect();
        lines.push(cells.join(" ").trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

fn live(terminal: &mut DefaultTerminal, socket: &Path, interval: Duration) -> Result<()> {
    let mut old = look(socket)?;
    let mut rates = Rates::between(&old, &old);
    loop {
        terminal.draw(|frame| draw(frame, &rates))?;
        if wants_to_leave(interval)? {
            return Ok(());
        }
        let new = look(socket)?;
        rates = Rates::between(&old, &new);
        old = new;
    }
}

/// Waits for the next look; true if the user has enough.
fn wants_to_leave(interval: Duration) -> Result<bool> {
    let until = Instant::now() + interval;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !event::poll(left)? {
            return Ok(false);
        }
        let Event::Key(key) = event::read()? else { return Ok(false) };
        let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
            return Ok(true);
        }
    }
}

fn draw(frame: &mut Frame<'_>, rates: &Rates) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(4), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    let mut lines: Vec<Line<'_>> = rates.head().into_iter().map(Line::from).collect();
    lines[0] = lines[0].clone().bold();
    frame.render_widget(Paragraph::new(lines), head);
    let header = Row::new(COLUMNS).style(Style::new().add_modifier(Modifier::REVERSED));
    let table = Table::new(rates.rows().into_iter().map(Row::new), WIDTHS.map(Constraint::Length)).header(header);
    frame.render_widget(table, body);
    frame.render_widget(Paragraph::new("q quits").dim(), foot);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn status(wall_ms: u64, instructions: u64, sent: [u64; 2]) -> Status {
        let device = |(name, sent): (&str, u64)| reprise_child::operator::DeviceStatus {
            name: name.into(),
            plugin: "pl011".into(),
            version: "1".into(),
            gone: false,
            at: 0,
            size: 0x1000,
            backend: "null".into(),
            ports: Vec::new(),
            pid: Some(1),
            restarts: 2,
            sent,
            completed: sent - 3,
        };
        Status {
            machine: "m".into(),
            uuid: "u".into(),
            pid: 1,
            mode: "record".into(),
            engine: "jit".into(),
            state: "running".into(),
            cpu: "cortex-a15".into(),
            cores: 1,
            memory: 1 << 20,
            clock: "warp".into(),
            wall_ms,
            instructions: Some(instructions),
            guest_ns: Some(2 * instructions),
            cpu_pid: None,
            log_pid: None,
            log_restarts: 0,
            recording: None,
            log_bytes: Some(wall_ms * 1024),
            devices: ["uart0", "uart1"].into_iter().zip(sent).map(device).collect(),
        }
    }

    #[test]
    fn rates_are_of_the_machine_s_own_time() {
        let rates = Rates::between(&status(1000, 0, [3, 3]), &status(3000, 4_000_000, [13, 203]));
        assert_eq!((rates.mips, rates.speed, rates.log_rate), (Some(2.0), Some(0.004), Some(1_024_000.0)));
        let rows = rates.rows();
        assert_eq!(rows[0], ["uart1", "pl011", "100", "3", "203", "2"], "the busiest is first");
        assert_eq!(rows[1][2], "5");
        assert!(
            text(&rates).contains("2.0 MIPS  guest/wall 0.0  4000000 instructions  0.008 s of guest time, 3.000 s")
        );
    }

    #[test]
    fn it_is_drawn() {
        let rates = Rates::between(&status(1000, 0, [3, 3]), &status(3000, 4_000_000, [13, 203]));
        let mut terminal = Terminal::new(TestBackend::new(80, 10)).unwrap();
        terminal.draw(|frame| draw(frame, &rates)).unwrap();
        let screen = terminal.backend().to_string();
        for what in ["record  running", "log 1000.0 KiB/s", "requests/s", "uart1", "q quits"] {
            assert!(screen.contains(what), "{what}: {screen}");
        }
    }
}
