//! Watched contexts: every change of one is told, and that it is gone.

use super::{Events, Fake, not_found};
use proto::v1;
use std::sync::atomic::Ordering;
use tonic::{Request, Response, Status};

/// A watch, counted.
struct Open(Fake);

impl Open {
    fn new(fake: &Fake) -> Self {
        fake.watches.fetch_add(1, Ordering::SeqCst);
        Self(fake.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    /// Another item in the context `id`.
    pub(crate) fn touch(&self, id: &str) {
        if let Some((context, _)) = self.contexts.lock().get_mut(id) {
            context.version += 1;
        }
        self.changed.send_replace(());
    }

    /// The context `id` is gone.
    pub(crate) fn remove(&self, id: &str) {
        self.contexts.lock().remove(id);
        self.changed.send_replace(());
    }

    pub(super) fn watch_context(
        &self,
        request: &Request<v1::GetContextRequest>,
    ) -> Result<Response<Events<v1::Context>>, Status> {
        let id = request.get_ref().id.clone();
        self.context(request.metadata(), &id)?;
        let (fake, caller) = (self.clone(), request.metadata().clone());
        let open = Open::new(self);
        let states = async_stream::try_stream! {
            let _open = open;
            let mut changed = fake.changed.subscribe();
            let mut shown = None;
            loop {
                changed.borrow_and_update();
                let (context, _) = fake.context(&caller, &id).map_err(|_| not_found())?;
                if shown.replace(context.version) != Some(context.version) {
                    yield context;
                }
                if changed.changed().await.is_err() {
                    break;
                }
            }
        };
        Ok(Response::new(Box::pin(states)))
    }
}
