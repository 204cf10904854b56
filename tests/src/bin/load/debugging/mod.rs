//! What the debugging facilities cost while nobody asks, and while somebody does.
//!
//! The same rest-api runs several times, with each facility by itself, with all and with none. They take turns at the
//! same rate; no request is sampled, which makes requests cheap and what is added to them visible. What it costs to use
//! the facilities is measured with all of them on, as they are by default.

mod pages;
mod report;
mod usage;

pub(crate) use report::{aims, table};

use crate::{
    driver::{self, Phase},
    procfs,
    subject::{self, Subject},
    subjects,
    swallow::Swallow,
};
use e2e::{Backend, Stack, stack::REST_API};
use http::Method;
use pages::{Cost, Page};
use std::{collections::BTreeMap, time::Duration};
use usage::{Admin, Usage};

/// Which facilities are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Facilities {
    /// None.
    Off,
    /// The ring of recent requests.
    Requests,
    /// Sampled allocations.
    Heap,
    /// Tracked tasks.
    Tasks,
    /// All: the default.
    All,
}

impl Facilities {
    const EVERY: [Self; 5] = [Self::Off, Self::Requests, Self::Heap, Self::Tasks, Self::All];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "all off",
            Self::Requests => "recent requests kept",
            Self::Heap => "allocations sampled",
            Self::Tasks => "tasks tracked",
            Self::All => "all on (the default)",
        }
    }

    /// Each facility's switch, and whether it is on.
    fn settings(self) -> [(&'static str, bool); 3] {
        let on = |own| self == own || self == Self::All;
        [
            ("MONITORING__RECENT_REQUESTS__ENABLED", on(Self::Requests)),
            ("MONITORING__PROFILING__HEAP", on(Self::Heap)),
            ("MONITORING__TASKS__ENABLED", on(Self::Tasks)),
        ]
    }
}

/// What has a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    /// These facilities, and nobody asks.
    AtRest(Facilities),
    /// All facilities, used in this way meanwhile.
    InUse(Usage),
}

impl Case {
    fn every() -> Vec<Self> {
        let at_rest = Facilities::EVERY.into_iter().map(Self::AtRest);
        at_rest.chain(Usage::EVERY.into_iter().map(Self::InUse)).collect()
    }

    fn facilities(self) -> Facilities {
        match self {
            Self::AtRest(facilities) => facilities,
            Self::InUse(_) => Facilities::All,
        }
    }
}

/// A service with some facilities on.
struct Place {
    stack: Stack,
    subject: Subject,
    admin: Admin,
}

/// Every server, and what was measured so far.
pub(crate) struct Debugging {
    // Takes the spans of debugged requests for as long as it lives.
    _collector: Swallow,
    places: BTreeMap<Facilities, Place>,
    cases: Vec<Case>,
    phases: BTreeMap<Case, Vec<Phase>>,
    /// What the service held in memory after each turn, bytes.
    resident: BTreeMap<Case, Vec<u64>>,
    pages: BTreeMap<Page, Vec<Cost>>,
    rate: f64,
}

impl Debugging {
    /// Starts a service with each set of facilities.
    pub(crate) async fn start(concurrency: usize, rate: f64) -> anyhow::Result<Self> {
        let collector = Swallow::start().await?;
        let mut places = BTreeMap::new();
        for facilities in Facilities::EVERY {
            places.insert(facilities, place(facilities, &collector, concurrency).await?);
        }
        Ok(Self {
            _collector: collector,
            places,
            cases: Case::every(),
            phases: BTreeMap::new(),
            resident: BTreeMap::new(),
            pages: BTreeMap::new(),
            rate,
        })
    }

    /// Gives each case its turn, then asks for each page once, while there is nothing else to do.
    pub(crate) async fn round(&mut self, turn: Duration) -> anyhow::Result<()> {
        for case in self.cases.clone() {
            let place = &self.places[&case.facilities()];
            let measured = driver::steady(&place.subject, turn, self.rate);
            let phase = match case {
                Case::AtRest(_) => measured.await?,
                Case::InUse(usage) => usage.during(&place.admin, turn, measured).await?,
            };
            self.phases.entry(case).or_default().push(phase);
            let pid = place.stack.process(REST_API).pid()?;
            let resident = procfs::memory(pid)?.resident;
            self.resident.entry(case).or_default().push(resident);
        }
        // In another order each time: whoever comes after a costly one must not always be the same.
        self.cases.rotate_left(3);
        let place = &self.places[&Facilities::All];
        for page in Page::EVERY {
            let cost = page.cost(&place.admin, &place.subject).await?;
            self.pages.entry(page).or_default().push(cost);
        }
        Ok(())
    }
}

async fn place(facilities: Facilities, collector: &Swallow, concurrency: usize) -> anyhow::Result<Place> {
    let mut builder = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .otlp(&collector.url())
        .set(REST_API, "MONITORING__TRACING__SAMPLE_RATIO", "0")
        .set(REST_API, "RATE_LIMIT__PER_SECOND", "10000000")
        .set(REST_API, "RATE_LIMIT__BURST", "10000000");
    for (key, on) in facilities.settings() {
        builder = builder.set(REST_API, key, if on { "true" } else { "false" });
    }
    let stack = builder.start().await?;
    let key = stack.tenant("load", "all").await?;
    let context = subjects::context(&stack, &key).await?;
    let request = stack
        .rest(&key)
        .request(Method::GET, &format!("/api/v1/contexts/{context}"));
    let subject = Subject::new(
        facilities.name().to_owned(),
        subject::repeated(&request, concurrency)?,
        vec![stack.process(REST_API).pid()?],
        |answer| Ok(answer.expect(200)?["name"].is_string()),
    )
    .await?;
    let admin = Admin::new(&stack.http(REST_API), request);
    Ok(Place {
        stack,
        subject,
        admin,
    })
}
