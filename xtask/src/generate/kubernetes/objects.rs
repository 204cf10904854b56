//! Objects as the Kubernetes API takes them.

use super::sources::Service;
use serde_json::{Value, json};

/// Where the services are.
pub(super) const SERVICES: &str = "devops-mcp";
/// Where everything that watches them is.
pub(super) const MONITORING: &str = "devops-mcp-monitoring";
/// Where the one thing is that reads the nodes' files.
pub(super) const LOGS: &str = "devops-mcp-logs";

/// The namespace of a component.
pub(super) fn namespace_of(component: &str) -> &'static str {
    match component {
        "rest-api" | "mcp-server" | "worker" => SERVICES,
        "otel-collector-logs" => LOGS,
        _ => MONITORING,
    }
}

/// What selects a component's pods.
pub(super) fn selector(component: &str) -> Value {
    json!({"app.kubernetes.io/name": component})
}

/// An object with the labels of a component; `rest` are its fields besides the metadata.
pub(super) fn object(
    (api_version, kind): (&str, &str),
    namespace: &str,
    name: &str,
    component: &str,
    rest: Value,
) -> Value {
    let mut object = rest;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    object["metadata"] = json!({"name": name, "namespace": namespace, "labels": labels(component)});
    object
}

fn labels(component: &str) -> Value {
    json!({"app.kubernetes.io/name": component, "app.kubernetes.io/part-of": "devops-mcp"})
}

pub(super) fn config_map(namespace: &str, name: &str, component: &str, data: &Value) -> Value {
    object(
        ("v1", "ConfigMap"),
        namespace,
        name,
        component,
        json!({"data": data}),
    )
}

/// A variable from the ConfigMap `settings`.
pub(super) fn setting(variable: &str, key: &str) -> Value {
    json!({"name": variable, "valueFrom": {"configMapKeyRef": {"name": "settings", "key": key}}})
}

/// A variable with a value.
pub(super) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// A volume and its place in the container.
pub(super) struct Volume {
    name: &'static str,
    path: &'static str,
    read_only: bool,
    /// None: claimed by the StatefulSet.
    source: Option<Value>,
}

impl Volume {
    /// Keys of ConfigMaps as files: ConfigMap, key, path below the folder.
    pub(super) fn config(path: &'static str, files: &[(&str, &str, &str)]) -> Self {
        let source = |(name, key, path): &(&str, &str, &str)| json!({"configMap": {"name": name, "items": [{"key": key, "path": path}]}});
        let sources: Vec<Value> = files.iter().map(source).collect();
        Self::read("config", path, json!({"projected": {"sources": sources}}))
    }

    /// A Secret as files, for the pod's group alone; `more` are fields of the source besides.
    pub(super) fn secret(path: &'static str, secret: &str, more: Value) -> Self {
        let mut source = more;
        source["secretName"] = json!(secret);
        source["defaultMode"] = json!(0o440);
        Self::read("secrets", path, json!({"secret": source}))
    }

    /// Read only, from any source.
    pub(super) fn read(name: &'static str, path: &'static str, source: Value) -> Self {
        Self {
            name,
            path,
            read_only: true,
            source: Some(source),
        }
    }

    /// Written to, and gone with the pod.
    pub(super) fn scratch(name: &'static str, path: &'static str, limit: &str) -> Self {
        Self::written(name, path, json!({"emptyDir": {"sizeLimit": limit}}))
    }

    /// Written to.
    pub(super) fn written(name: &'static str, path: &'static str, source: Value) -> Self {
        Self {
            name,
            path,
            read_only: false,
            source: Some(source),
        }
    }

    /// The StatefulSet's claim.
    pub(super) fn claimed(path: &'static str) -> Self {
        Self {
            name: "data",
            path,
            read_only: false,
            source: None,
        }
    }
}

/// A program of one container.
pub(super) struct Component {
    pub(super) name: &'static str,
    pub(super) image: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Value>,
    pub(super) ports: &'static [(&'static str, u16)],
    /// Asked over HTTP: the port, the path that says it is alive, the one that says it is ready.
    pub(super) health: (&'static str, &'static str, &'static str),
    /// The image's user and group, said here because the restricted level wants a number and volumes are given to it.
    pub(super) user: u32,
    /// Requested: CPU, memory.
    pub(super) requests: (&'static str, &'static str),
    pub(super) volumes: Vec<Volume>,
    /// Changes when its configuration does, so that the pods are made anew; None where it reads changes by itself.
    pub(super) checksum: Option<String>,
    /// Whether it asks the API server anything; else it has no token.
    pub(super) asks_api_server: bool,
    pub(super) memory_limit: String,
    /// How long it may take to stop, in seconds.
    pub(super) grace: u64,
}

impl Component {
    /// As the compose file has it; what that does not know is filled in by the caller.
    pub(super) fn of(name: &'static str, service: &Service) -> Self {
        Self {
            name,
            image: service.image.clone(),
            args: with_public_url(&service.command),
            env: Vec::new(),
            ports: &[],
            health: ("http", "/", "/"),
            user: 65534,
            requests: ("10m", "32Mi"),
            volumes: Vec::new(),
            checksum: None,
            asks_api_server: false,
            memory_limit: service.memory.clone(),
            grace: service.grace,
        }
    }

    /// One pod with a volume of its own. All at once: a pod that cannot start must not keep its cure waiting.
    pub(super) fn stateful_set(&self, storage: &str) -> Value {
        let claim = json!({
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
        });
        let spec = json!({
            "replicas": 1, "serviceName": self.name, "podManagementPolicy": "Parallel",
            "volumeClaimTemplates": [claim],
        });
        self.workload("StatefulSet", spec)
    }

    /// One pod; the next is ready before the last one goes.
    pub(super) fn deployment(&self) -> Value {
        let strategy =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        self.workload("Deployment", json!({"replicas": 1, "strategy": strategy}))
    }

    /// One on each node, whatever that is tainted with.
    pub(super) fn daemon_set(&self) -> Value {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}});
        let mut set = self.workload("DaemonSet", json!({"updateStrategy": strategy}));
        set["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        set
    }

    /// Who it is to the API server, and who it might be given rights as.
    pub(super) fn account(&self) -> Value {
        let rest = json!({"automountServiceAccountToken": false});
        let namespace = namespace_of(self.name);
        object(("v1", "ServiceAccount"), namespace, self.name, self.name, rest)
    }

    /// A Service for some of the ports.
    pub(super) fn service(&self, ports: &[&str]) -> Value {
        let served = self.ports.iter().filter(|(name, _)| ports.contains(name));
        let ports: Vec<Value> = served
            .map(|(name, port)| json!({"name": name, "port": port, "targetPort": name}))
            .collect();
        let spec = json!({"spec": {"selector": selector(self.name), "ports": ports}});
        object(
            ("v1", "Service"),
            namespace_of(self.name),
            self.name,
            self.name,
            spec,
        )
    }

    fn workload(&self, kind: &str, mut spec: Value) -> Value {
        let mut metadata = json!({"labels": labels(self.name)});
        if let Some(checksum) = &self.checksum {
            metadata["annotations"] = json!({"checksum/config": checksum});
        }
        spec["selector"] = json!({"matchLabels": selector(self.name)});
        spec["template"] = json!({"metadata": metadata, "spec": self.pod()});
        let namespace = namespace_of(self.name);
        object(
            ("apps/v1", kind),
            namespace,
            self.name,
            self.name,
            json!({"spec": spec}),
        )
    }

    fn pod(&self) -> Value {
        let volumes = self.volumes.iter().filter_map(|volume| {
            let mut source = volume.source.clone()?;
            source["name"] = json!(volume.name);
            Some(source)
        });
        json!({
            "serviceAccountName": self.name,
            "automountServiceAccountToken": self.asks_api_server,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": self.user, "runAsGroup": self.user, "fsGroup": self.user,
                "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": self.grace,
            "containers": [self.container()],
            "volumes": volumes.collect::<Vec<_>>(),
        })
    }

    fn container(&self) -> Value {
        let ports = self.ports.iter();
        let ports = ports.map(|(name, port)| json!({"name": name, "containerPort": port}));
        let mounts = self.volumes.iter().map(
            |volume| json!({"name": volume.name, "mountPath": volume.path, "readOnly": volume.read_only}),
        );
        let (port, alive, ready) = self.health;
        let probe = |path: &str, period: u32, failures: u32| {
            json!({
                "httpGet": {"port": port, "path": path}, "periodSeconds": period, "timeoutSeconds": 5,
                "failureThreshold": failures,
            })
        };
        let (cpu, memory) = self.requests;
        json!({
            "name": self.name,
            "image": self.image,
            "args": self.args,
            "env": self.env,
            "ports": ports.collect::<Vec<_>>(),
            "startupProbe": probe(alive, 2, 150),
            "readinessProbe": probe(ready, 5, 3),
            "livenessProbe": probe(alive, 10, 6),
            "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": self.memory_limit}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts.collect::<Vec<_>>(),
        })
    }
}

/// The arguments with the address that people reach the program at (the variable PUBLIC_URL), instead of compose's.
fn with_public_url(args: &[String]) -> Vec<String> {
    let url = |arg: &String| match arg.split_once('=') {
        Some((name @ "--web.external-url", _)) => format!("{name}=$(PUBLIC_URL)"),
        _ => arg.clone(),
    };
    args.iter().map(url).collect()
}

/// A short hash (FNV-1a) of texts, the same in every build: it tells a change, nobody is kept out by it.
pub(super) fn checksum(texts: &[&str]) -> String {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
