//! Installs the server programs on Debian and Ubuntu, where that needs nobody's password.

use super::{postgres_programs, redis_program};
use crate::process::on_path;
use rustix::process::geteuid;
use std::process::Command;

/// Run as root. Debian starts a server as soon as it is installed; a `policy-rc.d` that forbids it keeps
/// the ports free, and is taken away again.
const SCRIPT: &str = r#"
set -e
export DEBIAN_FRONTEND=noninteractive
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get -q update
apt-get -q -y install --no-install-recommends "$@"
"#;

/// Installs what is missing of PostgreSQL and Redis; an error says why it cannot.
pub(crate) fn install() -> Result<(), String> {
    let mut packages = Vec::new();
    if postgres_programs().is_none() {
        packages.push("postgresql");
    }
    if redis_program().is_none() {
        packages.push("redis-server");
    }
    if packages.is_empty() {
        return Ok(());
    }
    if on_path("apt-get").is_none() {
        return Err("this system has no apt-get".to_owned());
    }
    let mut command = if geteuid().is_root() {
        Command::new("sh")
    } else if passwordless_sudo() {
        let mut command = Command::new("sudo");
        command.args(["-n", "sh"]);
        command
    } else {
        return Err("installing needs root, or sudo without a password".to_owned());
    };
    println!("Installing {} by apt-get …", packages.join(" and "));
    command.args(["-c", SCRIPT, "install"]).args(&packages);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("apt-get failed (see above)".to_owned()),
        Err(error) => Err(format!("starting {:?}: {error}", command.get_program())),
    }
}

fn passwordless_sudo() -> bool {
    Command::new("sudo")
        .args(["-n", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
}
