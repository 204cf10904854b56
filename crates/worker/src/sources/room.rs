//! Room for what sources answer. Read, JSON takes ten to twenty times as much memory, and callers choose how much they
//! ask for: a worker holds no more than so many bytes of answers at once, whoever asked for them.

use serde_json::Value;
use std::{ops::Deref, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many bytes of answers a worker holds at once. Read, these are 160 MiB, and 320 MiB where they are many series of
/// one sample; a worker has 512 MiB.
pub(super) const TOTAL: usize = 16 << 20;

/// What all answers share.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    free: Arc<Semaphore>,
    total: usize,
}

impl Space {
    /// Of so many bytes.
    pub(crate) fn new(total: usize) -> Self {
        let free = Arc::new(Semaphore::new(total));
        Self { free, total }
    }

    /// Waits for room for so many bytes, in the order in which it was asked for. Whoever waits must hold none: two that
    /// wait for each other's would go on until their time is over.
    pub(super) async fn take(&self, bytes: usize) -> Room {
        let bytes = u32::try_from(bytes.min(self.total)).unwrap_or(u32::MAX);
        let taken = self.free.clone().acquire_many_owned(bytes).await;
        Room(taken.expect("nobody closes it"))
    }
}

/// Room that was taken; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

impl Room {
    /// For how many bytes it is.
    pub(super) fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// Gives back what is more than so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let spare = self.bytes().saturating_sub(bytes);
        drop(self.0.split(spare));
    }
}

/// What a source answered, with the room that it takes. Make something smaller of it before something else is asked.
#[derive(Debug, Default)]
pub struct Answered {
    value: Value,
    room: Option<Room>,
}

impl Answered {
    pub(super) fn new(value: Value, room: Room) -> Self {
        let room = Some(room);
        Self { value, room }
    }

    /// What is made of it; the room is given back then.
    pub fn read<T>(self, made: impl FnOnce(Value) -> T) -> T {
        let Self { value, room } = self;
        let made = made(value);
        drop(room);
        made
    }

    /// A part of it, which keeps the room.
    pub(crate) fn part(mut self, pointer: &str) -> Self {
        self.value = take(&mut self.value, pointer);
        self
    }
}

impl Deref for Answered {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

/// Takes a part out of a value, rather than copying it; `null` where it has none.
pub(crate) fn take(value: &mut Value, pointer: &str) -> Value {
    value.pointer_mut(pointer).map(Value::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outcome::Code,
        sources::{Kind, Sources, Who},
        tools::observe::testing::{Fake, settings},
    };
    use domain::Scopes;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    const KIB: usize = 1 << 10;

    #[tokio::test]
    async fn room_is_as_large_as_what_takes_it() {
        let space = Space::new(100);
        let mut room = space.take(1000).await;
        assert_eq!(
            room.bytes(),
            100,
            "what is too large for all of it takes all of it"
        );
        room.shrink(30);
        assert_eq!((room.bytes(), space.free.available_permits()), (30, 70));
        room.shrink(50);
        assert_eq!(room.bytes(), 30);
        drop(room);
        assert_eq!(space.free.available_permits(), 100);
    }

    #[tokio::test]
    async fn answers_wait_for_room_until_those_before_them_are_read() {
        let fake = Fake::start().await;
        let answer = json!({ "data": { "result": ["x".repeat(100 * KIB)], "other": 1 } });
        fake.on("/large", answer).on("/small", json!([]));
        let space = Space::new(150 * KIB);
        let settings = settings([
            ("one", Kind::Prometheus, &fake.url),
            ("two", Kind::Loki, &fake.url),
        ]);
        let sources = Sources::within(&settings, "tests", &space).unwrap();
        let scopes = Scopes::all();
        let who = Who {
            tenant: "platform",
            key_name: "key",
            scopes: &scopes,
        };
        let one = sources.pick(Kind::Prometheus, None, &who).unwrap();
        let two = sources.pick(Kind::Loki, None, &who).unwrap();

        let held = one.get("/large", &[]).await.unwrap().part("/data/result");
        assert_eq!(held[0].as_str().map(str::len), Some(100 * KIB));
        two.get("/small", &[]).await.unwrap();
        // Another source, and no room.
        let failure = two.get("/large", &[]).await.unwrap_err();
        assert_eq!(failure.code, Code::Timeout);
        held.read(drop);
        let held = two.get("/large", &[]).await.unwrap();
        assert!(space.free.available_permits() < 50 * KIB);
        drop(held);
        assert_eq!(space.free.available_permits(), 150 * KIB);

        // What is not of use takes none.
        fake.on_status("/failed", 500, "x".repeat(100 * KIB));
        one.get("/failed", &[]).await.unwrap_err();
        fake.on_status("/endless", 200, "x".repeat(2 << 20));
        one.get("/endless", &[]).await.unwrap_err();
        assert_eq!(space.free.available_permits(), 150 * KIB);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_tell_its_length_takes_what_it_has_in_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let body = format!("\"{}\"", "x".repeat(200 * KIB));
        let length = body.len();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let _ = client.read(&mut [0; 4096]).await;
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
            client.write_all(answer.as_bytes()).await.unwrap();
        });
        let space = Space::new(1 << 20);
        let sources = Sources::within(&settings([("main", Kind::Loki, &url)]), "tests", &space).unwrap();
        let scopes = Scopes::all();
        let who = Who {
            tenant: "platform",
            key_name: "key",
            scopes: &scopes,
        };
        let access = sources.pick(Kind::Loki, None, &who).unwrap();
        let held = access.get("/", &[]).await.unwrap();
        assert_eq!(space.free.available_permits(), (1 << 20) - length);
        drop(held);
        assert_eq!(space.free.available_permits(), 1 << 20);
    }

    #[test]
    fn a_part_is_taken_wherever_it_is_not() {
        let mut value = json!({ "data": [1] });
        assert_eq!(take(&mut value, "/data/result"), Value::Null);
        assert_eq!(take(&mut json!([]), "/data"), Value::Null);
        assert_eq!(take(&mut value, "/data"), json!([1]));
        assert_eq!(value, json!({ "data": null }));
    }
}
