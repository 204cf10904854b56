//! Lines on the terminal, each with the name of who says it.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};

const WIDTH: usize = 10;

/// Prints lines with a name before them, in colour on a terminal.
#[derive(Clone, Copy)]
pub(super) struct Console {
    colour: bool,
}

impl Console {
    /// Standard output as it is.
    pub(super) fn new() -> Self {
        Self {
            colour: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// One line of this program's own.
    pub(super) fn say(self, line: &str) {
        self.line("dev", line);
    }

    fn line(self, who: &str, line: &str) {
        let colour = match who {
            "rest-api" => 34,
            "mcp-server" => 35,
            "worker" => 36,
            "dev" => 32,
            _ => 33,
        };
        let line = if self.colour {
            format!("\u{1b}[{colour}m{who:>WIDTH$} │\u{1b}[0m {line}\n")
        } else {
            format!("{who:>WIDTH$} | {line}\n")
        };
        print(&line); // one write a line, so that lines of several threads don't mix
    }

    /// Prints what comes until its end.
    pub(super) fn relay(self, who: &str, output: impl Read) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            self.line(who, String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
}

/// Prints text; that nobody reads it any more is no reason to stop services.
pub(super) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _closed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
