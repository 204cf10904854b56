//! A snapshot for people, laid out as Go's goroutine profile is.

use super::{Group, Snapshot, State, Task};
use std::{fmt::Write as _, time::Duration};

impl Snapshot {
    /// One block for each place where tasks are spawned, then what the runtime says.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = format!("tasks: total {}\n", self.tasks.len());
        for group in self.groups() {
            write_group(&mut page, &group);
        }
        self.write_rest(&mut page);
        page
    }

    /// Every task by itself, longest in its state first, then what the runtime says.
    #[must_use]
    pub fn text_of_each(&self) -> String {
        let mut page = format!("tasks: total {}\n", self.tasks.len());
        let mut tasks: Vec<_> = self.tasks.iter().collect();
        tasks.sort_by_key(|task| std::cmp::Reverse(task.since));
        for task in tasks {
            write_task(&mut page, task);
        }
        self.write_rest(&mut page);
        page
    }

    // Writing to a String does not fail.
    fn write_rest(&self, page: &mut String) {
        if !self.enabled {
            page.push_str("\nTasks are not tracked: monitoring.tasks.enabled is false.\n");
        }
        if !self.requests.is_empty() {
            page.push_str("\nrequests being polled:\n");
            for request in &self.requests {
                let _ = writeln!(page, "#\t{}, for {}", request.kind, short(request.polled_for));
            }
        }
        if let Some(runtime) = &self.runtime {
            let _ = writeln!(
                page,
                "\nruntime: {} workers, {} tasks alive, global queue {}",
                runtime.workers, runtime.alive_tasks, runtime.global_queue_depth
            );
        }
        if let Some(count) = self.spawned_by_libraries() {
            let _ = writeln!(page, "spawned by libraries: {count}");
        }
    }
}

fn write_group(page: &mut String, group: &Group) {
    let tasks = &group.tasks;
    let _ = writeln!(page, "\n{} @ {}  {}", tasks.len(), place(group), group.name);
    page.push_str("#\tstates:");
    for state in [State::New, State::Running, State::Idle] {
        let count = tasks.iter().filter(|task| task.state == state).count();
        if count > 0 {
            let _ = write!(page, " {count} {state}");
        }
    }
    let stuck = tasks.iter().filter(|task| task.is_stuck()).count();
    if stuck > 0 {
        let _ = write!(page, ", {stuck} STUCK");
    }
    let longest = |state| {
        let such = tasks.iter().filter(|task| task.state == state);
        such.map(|task| task.since).max()
    };
    let oldest = tasks.iter().map(|task| task.age).max().unwrap_or_default();
    let _ = write!(page, "\n#\toldest {}", short(oldest));
    if let Some(idle) = longest(State::Idle) {
        let _ = write!(page, ", longest idle {}", short(idle));
    }
    if let Some(running) = longest(State::Running) {
        let _ = write!(page, ", longest poll in progress {}", short(running));
    }
    let (polls, busy) = (
        tasks.iter().map(|task| task.polls).sum::<u64>(),
        tasks.iter().map(|task| task.busy).sum::<Duration>(),
    );
    let _ = writeln!(page, "\n#\t{polls} polls, busy {}", short(busy));
    if let Some(every) = tasks.iter().find_map(|task| task.every) {
        let _ = writeln!(page, "#\tpolled every {} at least", short(every));
    }
}

fn write_task(page: &mut String, task: &Task) {
    let stuck = if task.is_stuck() { ", STUCK" } else { "" };
    let _ = write!(
        page,
        "\ntask [{}, {}{stuck}]: {}\n\t{}:{}\n\tage {}, {} polls, busy {}\n",
        task.state,
        short(task.since),
        task.name,
        task.location.file(),
        task.location.line(),
        short(task.age),
        task.polls,
        short(task.busy),
    );
}

fn place(group: &Group) -> String {
    format!("{}:{}", group.location.file(), group.location.line())
}

/// Three or four digits and a unit are enough.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time < Duration::from_millis(1) => format!("{}µs", time.as_micros()),
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}
