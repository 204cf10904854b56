//! Certificates for tests, made by openssl, and where services find them: as Kubernetes mounts a Secret.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Who signs certificates.
pub(crate) struct Authority {
    directory: PathBuf,
    own: Pair,
}

impl Authority {
    /// A new one, which keeps its files in `directory`.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let directory = directory.join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let own = make(
            &directory,
            "ca",
            &["-days", "3650", "-subj", &format!("/CN={name}")],
        );
        Self { directory, own }
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> &str {
        &self.own.certificate
    }

    /// A certificate for these DNS names, good for a day.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let names = format!("subjectAltName={}", names.join(","));
        let (certificate, key) = (self.path("ca.crt"), self.path("ca.key"));
        let arguments = [
            ["-CA", &certificate],
            ["-CAkey", &key],
            ["-days", "1"],
            ["-subj", "/CN=test"],
            ["-addext", &names],
            ["-addext", "basicConstraints=critical,CA:FALSE"],
            ["-addext", "extendedKeyUsage=serverAuth,clientAuth"],
        ];
        make(&self.directory, "leaf", arguments.as_flattened())
    }

    /// The same certificate, but out of date a second from now.
    pub(crate) fn expire(&self, pair: &Pair) -> Pair {
        let [certificate, key, request] =
            ["crt", "key", "csr"].map(|suffix| self.path(&format!("expiring.{suffix}")));
        fs::write(&certificate, &pair.certificate).expect("a file");
        fs::write(&key, &pair.key).expect("a file");
        let all = ["-copy_extensions", "copyall"];
        let asked = [
            "x509",
            "-x509toreq",
            "-in",
            &certificate,
            "-key",
            &key,
            "-out",
            &request,
        ];
        openssl(&[&asked[..], &all].concat());
        let (ca, ca_key) = (self.path("ca.crt"), self.path("ca.key"));
        let signed = [
            "x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-days", "0",
        ];
        Pair {
            certificate: openssl(&[&signed[..], &all].concat()),
            key: pair.key.clone(),
        }
    }

    fn path(&self, file: &str) -> String {
        self.directory.join(file).display().to_string()
    }
}

/// What openssl prints.
fn openssl(arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    let done = command.args(arguments).output().expect("openssl is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn make(directory: &Path, name: &str, arguments: &[&str]) -> Pair {
    let file = |suffix| directory.join(format!("{name}.{suffix}")).display().to_string();
    let (certificate, key) = (file("crt"), file("key"));
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let out = ["-keyout", &key, "-out", &certificate];
    openssl(&[&new, arguments, &out].concat());
    let read = |file| fs::read_to_string(file).expect("openssl wrote it");
    Pair {
        certificate: read(&certificate),
        key: read(&key),
    }
}

/// A mounted Secret: its files are links into a folder that is swapped as a whole.
pub(crate) struct Secret(PathBuf);

impl Secret {
    /// Mounts one at `directory`.
    pub(crate) fn mount(directory: PathBuf, pair: &Pair, ca: &str) -> Self {
        fs::create_dir_all(&directory).expect("a directory");
        let secret = Self(directory);
        secret.swap(pair, ca);
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(file), secret.path(file)).expect("a link");
        }
        secret
    }

    /// Puts something else in, at once.
    pub(crate) fn swap(&self, pair: &Pair, ca: &str) {
        let version = (0..)
            .map(|version| format!("..{version}"))
            .find(|version| !self.0.join(version).exists())
            .expect("a number");
        fs::create_dir(self.0.join(&version)).expect("a directory");
        for (file, text) in [
            ("tls.crt", &*pair.certificate),
            ("tls.key", &*pair.key),
            ("ca.crt", ca),
        ] {
            fs::write(self.0.join(&version).join(file), text).expect("a file");
        }
        let new = self.0.join("..data_tmp");
        symlink(&version, &new).expect("a link");
        fs::rename(&new, self.0.join("..data")).expect("a swap");
    }

    /// Where one of its files is.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}
