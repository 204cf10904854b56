//! jemalloc's own controls of profiles, which its crate's typed interface leaves out.
#![expect(
    unsafe_code,
    reason = "jemalloc's options are reached by name; that name and type fit is said by its manual, for each call below"
)]

use nix::{
    NixPath,
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};
use tikv_jemalloc_ctl::{Error, profiling, raw};

/// Whether profiles are compiled in and were enabled when the program started.
pub(super) fn is_enabled() -> bool {
    profiling::prof::read().unwrap_or(false)
}

/// Whether allocations are sampled.
pub(super) fn is_active() -> bool {
    // SAFETY: `prof.active` is a bool.
    is_enabled() && unsafe { raw::read::<bool>(b"prof.active\0") }.unwrap_or(false)
}

/// Has allocations sampled, or not.
pub(super) fn set_active(active: bool) -> Result<(), Error> {
    // SAFETY: `prof.active` is a bool.
    unsafe { raw::write(b"prof.active\0", active) }
}

/// The binary logarithm of how many bytes lie between two samples.
pub(super) fn log_sample() -> Result<usize, Error> {
    // SAFETY: `prof.lg_sample` is a size_t.
    unsafe { raw::read(b"prof.lg_sample\0") }
}

/// Forgets all samples, and takes one every 2 to the power of `log_sample` bytes from now on.
pub(super) fn reset(log_sample: usize) -> Result<(), Error> {
    // SAFETY: `prof.reset` takes a size_t.
    unsafe { raw::write(b"prof.reset\0", log_sample) }
}

/// Writes all samples into a file in memory: there may be no disk to write to. It is to be read from its beginning.
pub(super) fn dump() -> io::Result<File> {
    let file = memory_file("heap-profile")?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: `prof.dump` takes a path that ends with zero, and it lives until the call returns.
    unsafe { raw::write(b"prof.dump\0", path.as_ptr()) }
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(file.into())
}

fn memory_file(name: &(impl NixPath + ?Sized)) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?)
}
