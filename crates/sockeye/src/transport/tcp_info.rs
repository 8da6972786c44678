//! The state of a TCP connection as Linux reports it (`TCP_INFO`).

use std::mem::{self, MaybeUninit};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

/// See [`super::socket::window_edge`]. `None` before Linux 5.4, which does not report the window.
pub(super) fn window_edge(tcp: &TcpStream) -> Option<NonZeroU32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` is a live buffer of `len` bytes and the kernel writes at most that many. `tcp` keeps its
    // descriptor open during the call.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::getsockopt(
            tcp.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let end = mem::offset_of!(libc::tcp_info, tcpi_snd_wnd) + mem::size_of::<u32>();
    if result != 0 || (len as usize) < end {
        return None;
    }
    // SAFETY: `tcp_info` has only integer fields, for which any bytes are a value; those that the kernel did not write
    // are zero.
    #[allow(unsafe_code)]
    let info = unsafe { info.assume_init() };
    // An edge of 0 reads as unknown once in 4 GiB, which is harmless.
    NonZeroU32::new((info.tcpi_bytes_acked as u32).wrapping_add(info.tcpi_snd_wnd))
}
