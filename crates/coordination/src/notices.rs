//! Notices from replica to replica: hints that something changed. One may be lost, so whoever listens must
//! also look by itself now and then.

use crate::redis_link::{Background, Link, RETRY};
use async_trait::async_trait;
use deadpool_redis::redis::{Client, Msg, RedisResult, aio::PubSub};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::broadcast, time};
use uuid::Uuid;

/// How many notices a slow listener may fall behind before the oldest are dropped for it.
const BACKLOG: usize = 256;
/// How often the subscription is tried for life: a connection may die without a word.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Sends and receives notices.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Tells every subscriber of `topic`, on every replica, this one included.
    async fn publish(&self, topic: &str, payload: &str);

    /// Listens to `topic`. Topics come from the code, never from a client.
    fn subscribe(&self, topic: &str) -> broadcast::Receiver<String>;
}

/// Notices within this process.
#[derive(Default)]
pub struct InProcess(Mutex<HashMap<String, broadcast::Sender<String>>>);

impl InProcess {
    fn deliver(&self, topic: &str, payload: &str) {
        let topics = self.0.lock();
        if let Some(sender) = topics.get(topic) {
            // An error says that nobody listens any more, which is fine.
            let _ = sender.send(payload.to_owned());
        }
    }

    fn receiver(&self, topic: &str) -> broadcast::Receiver<String> {
        let mut topics = self.0.lock();
        topics.retain(|_, sender| sender.receiver_count() > 0);
        topics
            .entry(topic.to_owned())
            .or_insert_with(|| broadcast::channel(BACKLOG).0)
            .subscribe()
    }
}

#[async_trait]
impl Notices for InProcess {
    async fn publish(&self, topic: &str, payload: &str) {
        self.deliver(topic, payload);
    }

    fn subscribe(&self, topic: &str) -> broadcast::Receiver<String> {
        self.receiver(topic)
    }
}

/// Notices over Redis. Listeners in this process are told directly, so that Redis is needed for the others
/// only; what comes back from Redis with our own mark is left out.
pub(crate) struct Shared {
    link: Link,
    mark: String,
    local: Arc<InProcess>,
    _listener: Background,
}

impl Shared {
    pub(crate) fn new(client: Client, link: Link) -> Self {
        let local = Arc::new(InProcess::default());
        let mark = Uuid::now_v7().simple().to_string();
        let every = PING_INTERVAL.max(link.settings().connect_timeout);
        let listener = Listener {
            client,
            channels: channel(&link, ""),
            connect_timeout: link.settings().connect_timeout,
            mark: mark.clone(),
            local: local.clone(),
        };
        Self {
            link,
            mark,
            local,
            _listener: Background::spawn_every("redis notices", every, listener.run()),
        }
    }
}

fn channel(link: &Link, topic: &str) -> String {
    format!("{}notice:{topic}", link.settings().prefix)
}

#[async_trait]
impl Notices for Shared {
    async fn publish(&self, topic: &str, payload: &str) {
        self.local.deliver(topic, payload);
        let mut command = deadpool_redis::redis::cmd("PUBLISH");
        command
            .arg(channel(&self.link, topic))
            .arg(format!("{}{payload}", self.mark));
        // A hint that does not arrive is counted, and no more: listeners look by themselves, too.
        let _ = self.link.run::<()>("PUBLISH", &command).await;
    }

    fn subscribe(&self, topic: &str) -> broadcast::Receiver<String> {
        self.local.receiver(topic)
    }
}

/// Takes notices of other replicas in. It has a connection of its own, as a subscribed one takes no commands.
struct Listener {
    client: Client,
    /// What the channels of all topics begin with.
    channels: String,
    connect_timeout: Duration,
    mark: String,
    local: Arc<InProcess>,
}

impl Listener {
    async fn run(self) {
        loop {
            // The link says when Redis is away; here it would only be said twice.
            match time::timeout(self.connect_timeout, self.connect()).await {
                Ok(Ok(subscription)) => self.listen(subscription).await,
                Ok(Err(error)) => tracing::debug!(reason = %error, "cannot subscribe to notices"),
                Err(_) => tracing::debug!(reason = "timed out", "cannot subscribe to notices"),
            }
            time::sleep(RETRY).await;
        }
    }

    async fn connect(&self) -> RedisResult<PubSub> {
        let mut subscription = self.client.get_async_pubsub().await?;
        let pattern = format!("{}*", self.channels.replace(['*', '?', '[', '\\'], "?"));
        subscription.psubscribe(pattern).await?;
        Ok(subscription)
    }

    /// Returns when the connection is lost.
    async fn listen(&self, subscription: PubSub) {
        let (mut sink, mut stream) = subscription.split();
        let mut pulse = time::interval(PING_INTERVAL);
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => self.take(&message),
                    None => return,
                },
                _ = pulse.tick() => match time::timeout(self.connect_timeout, sink.ping::<deadpool_redis::redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return,
                },
            }
        }
    }

    fn take(&self, message: &Msg) {
        let Ok(payload) = message.get_payload::<String>() else {
            return;
        };
        let Some(topic) = message.get_channel_name().strip_prefix(&self.channels) else {
            return;
        };
        // Every sender's mark is as long as ours.
        if let Some((mark, payload)) = payload.split_at_checked(self.mark.len())
            && mark != self.mark
        {
            self.local.deliver(topic, payload);
        }
    }
}
