//! Constant load on the services through their Services, from inside of the cluster: `cluster load`.
//!
//! Requests are sent when they are due, whether those before are answered or not, on connections of this module's own
//! ([`wire`]), and each once. What comes of them is told by one line of JSON a second ([`ledger::Second`]), which the
//! host reads from the pod's log.

mod calls;
mod endpoint;
pub(crate) mod ledger;
mod session;
pub(crate) mod watch;
mod wire;
mod world;

use anyhow::Context;
use ledger::{Ledger, Second};
use session::Session;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use world::World;

/// How long requests under way are waited for at the end: less than the pod's grace.
const SETTLES: Duration = Duration::from_secs(4);

/// Constant load, until SIGTERM.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// rest-api's Service.
    #[arg(long, default_value = "rest-api:8080")]
    rest: String,
    /// A Service of mcp-server without affinity: for the newer protocol.
    #[arg(long, default_value = "mcp-server-any:8080")]
    mcp: String,
    /// A Service of mcp-server with affinity: for sessions of the older protocol.
    #[arg(long, default_value = "mcp-server:8080")]
    legacy: String,
    /// Turns a second. A turn is one to three requests.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Connections that are open to each Service at least.
    #[arg(long, default_value_t = 6)]
    connections: usize,
    /// Sessions of the older protocol.
    #[arg(long, default_value_t = 3)]
    sessions: usize,
    /// Part of what its tenant and its tools are called.
    #[arg(long, default_value = "load")]
    pod: String,
    /// Where workers reach the endpoint of the tools.
    #[arg(long, env = "TARGET_HOST")]
    advertise: String,
    /// Where that endpoint listens.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

/// Loads the services until SIGTERM.
///
/// # Errors
/// When it cannot begin.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let key = world::tenant(&args.pod)
        .await
        .context("making the load's tenant")?;
    let ledger = Arc::new(Ledger::new(&args.pod, 0));
    endpoint::start(args.listen, Arc::clone(&ledger)).await?;
    let world = Arc::new(World::new(&args, key, Arc::clone(&ledger)));
    world
        .sweep()
        .await
        .context("removing what an earlier load left")?;
    let advertised = format!("{}:{}", args.advertise, args.listen.port());
    world.prepare(&advertised, &args.pod).await?;
    // What was prepared is not load.
    ledger.close(false);

    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for number in 0..args.sessions {
        let session = Session::new(Arc::clone(&world), &args.legacy, &args.pod);
        clients.spawn(session.run(number as f64 / args.sessions as f64, stop.clone()));
    }
    clients.spawn(turns(world, args.pod, args.rate, stop.clone()));
    let mut second = interval(Duration::from_secs(1));
    second.tick().await;
    loop {
        tokio::select! {
            _ = second.tick() => tell(&ledger.close(false))?,
            _ = term.recv() => break,
        }
    }
    stop.cancel();
    // What is not answered by then is told as it stands: it was never counted.
    let _ = timeout(SETTLES, async { while clients.join_next().await.is_some() {} }).await;
    tell(&ledger.close(true))
}

/// Begins a turn whenever one is due.
async fn turns(world: Arc<World>, pod: String, rate: f64, stop: CancellationToken) {
    let mut due = interval(Duration::from_secs_f64(1.0 / rate));
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (pod, mut under_way) = (Arc::new(pod), JoinSet::new());
    for turn in 0.. {
        if stop.run_until_cancelled(due.tick()).await.is_none() {
            break;
        }
        let (world, pod) = (Arc::clone(&world), Arc::clone(&pod));
        under_way.spawn(async move { world.turn(turn, &pod).await });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

fn tell(second: &Second) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(second)?);
    Ok(())
}
