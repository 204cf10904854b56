//! A flame graph as an SVG without a script: any browser shows it, and nothing in it can run.

use crate::profiles::Frame;
use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

/// Sizes in pixels.
const WIDTH: f64 = 1200.0;
const ROW: usize = 17;
const TOP: usize = 40;
/// What is narrower cannot be seen.
const NARROWEST: f64 = 0.3;
/// What a letter takes.
const LETTER: f64 = 7.0;

/// A function, called in the same way each time.
#[derive(Default)]
struct Node {
    count: u64,
    callees: BTreeMap<String, Node>,
}

impl Node {
    fn depth(&self) -> usize {
        1 + self.callees.values().map(Node::depth).max().unwrap_or(0)
    }
}

/// A picture of stacks: the width is how often, the row above is who called, the colour says which crate. Threads are the
/// highest row, as a browser shows a picture's top first and stacks of tasks are deep. What a box stands for in full shows
/// when the pointer rests on it.
pub(super) fn draw<'a>(title: &str, stacks: impl Iterator<Item = (Vec<Frame>, &'a str, u64)>) -> String {
    let mut root = Node::default();
    for (frames, thread, count) in stacks {
        root.count += count;
        let callers = frames.into_iter().rev().map(|frame| frame.function);
        let mut node = &mut root;
        for name in std::iter::once(thread.to_owned()).chain(callers) {
            node = node.callees.entry(name).or_default();
            node.count += count;
        }
    }
    let height = TOP + ROW * root.depth() + 10;
    let mut picture = Picture {
        text: String::new(),
        height,
        samples: root.count,
    };
    // Writing to a string cannot fail.
    let _ = picture.draw(title, &root);
    picture.text
}

struct Picture {
    text: String,
    height: usize,
    samples: u64,
}

impl Picture {
    fn draw(&mut self, title: &str, root: &Node) -> fmt::Result {
        let height = self.height;
        write!(
            self.text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\">\n\
             <style>text{{font:12px monospace}}rect{{stroke:#fff;stroke-width:.5}}g:hover rect{{fill:#fff2a8}}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"10\" y=\"24\">{}: {} samples</text>\n",
            Escaped(title),
            self.samples
        )?;
        if self.samples == 0 {
            writeln!(self.text, "<text x=\"10\" y=\"46\">No CPU time was used.</text>")?;
        }
        self.row(root, 0.0, 0)?;
        self.text.push_str("</svg>\n");
        Ok(())
    }

    /// What `node` called, from `left` on, by name: two pictures of the same program can be compared.
    fn row(&mut self, node: &Node, left: f64, depth: usize) -> fmt::Result {
        let mut x = left;
        for (name, callee) in &node.callees {
            let width = WIDTH * callee.count as f64 / self.samples as f64;
            if width >= NARROWEST {
                self.frame(name, callee.count, x, width, depth)?;
                self.row(callee, x, depth + 1)?;
            }
            x += width;
        }
        Ok(())
    }

    fn frame(&mut self, name: &str, count: u64, x: f64, width: f64, depth: usize) -> fmt::Result {
        let y = TOP + ROW * depth;
        let share = 100.0 * count as f64 / self.samples as f64;
        let room = (width / LETTER) as usize;
        write!(
            self.text,
            "<g><title>{} ({count} samples, {share:.2}%)</title>\
             <rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{ROW}\" fill=\"{}\"/>",
            Escaped(name),
            colour(name)
        )?;
        if room >= 3 {
            let short: String = name.chars().take(room).collect();
            write!(
                self.text,
                "<text x=\"{:.1}\" y=\"{}\">{}</text>",
                x + 3.0,
                y + ROW - 5,
                Escaped(&short)
            )?;
        }
        self.text.push_str("</g>\n");
        Ok(())
    }
}

/// Warm, and the same for all functions of a crate.
fn colour(name: &str) -> String {
    let start = name.find(|c: char| c.is_alphanumeric()).unwrap_or(0);
    let of = name[start..].split("::").next().unwrap_or(name);
    let hash = of.bytes().fold(5381_u32, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(byte))
    });
    format!("hsl({} 75% 68%)", hash % 55)
}

/// Text as XML wants it; what XML cannot hold becomes a `?`.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                c if c.is_control() => f.write_char('?')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        Frame {
            function: function.to_owned(),
            file: String::new(),
            line: 0,
        }
    }

    #[test]
    fn width_is_how_often_and_names_are_text() {
        let leaf_first = |names: [&str; 2]| names.map(frame).to_vec();
        let stacks = [
            (leaf_first(["app::parse::<u8>", "app::main"]), "worker", 3),
            (leaf_first(["app::write", "app::main"]), "worker", 1),
        ];
        let picture = draw("CPU & more", stacks.into_iter());
        assert!(picture.contains("CPU &amp; more: 4 samples"), "{picture}");
        let parse = picture
            .lines()
            .find(|line| line.contains("app::parse::&lt;u8&gt; (3 samples, 75.00%)"));
        assert!(
            parse.is_some_and(|line| line.contains("width=\"900.0\"")),
            "{picture}"
        );
        assert_eq!(picture.matches("<g>").count(), 4, "the thread and main once");
        assert!(draw("idle", std::iter::empty()).contains("No CPU time"));
    }
}
