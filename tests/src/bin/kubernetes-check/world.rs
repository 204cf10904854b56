//! Everything that stands in a cluster together.

use crate::{
    objects::{Object, Pod},
    sources::Sources,
};

/// What a way to deploy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is shipped like this.
    Whole,
    /// An overlay of somebody's own is to complete it.
    Part,
    /// Made small, and with parts that only tests have.
    Tests,
}

/// The objects of one way to deploy: an overlay's, and the monitoring's.
pub(crate) struct World<'a> {
    /// What a person would call it.
    pub(crate) name: String,
    pub(crate) purpose: Purpose,
    pub(crate) objects: Vec<Object>,
    /// What the objects are made from.
    pub(crate) sources: &'a Sources,
}

impl World<'_> {
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind() == kind)
    }

    pub(crate) fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        let mut objects = self.objects.iter();
        objects
            .find(|object| object.kind() == kind && object.namespace() == namespace && object.name() == name)
    }

    /// What objects make: one for each template.
    pub(crate) fn pods(&self) -> impl Iterator<Item = Pod<'_>> {
        self.objects.iter().filter_map(Object::pod)
    }

    /// The pods of a namespace with this `app.kubernetes.io/name`.
    pub(crate) fn app(&self, namespace: &str, app: &str) -> Option<Pod<'_>> {
        self.pods()
            .find(|pod| pod.namespace() == namespace && pod.app() == app)
    }
}
