//! UDP sockets that know which address of ours a datagram was sent to, and answer from it.
//!
//! An answer must leave from the address that the request came to (DESIGN section 6), which a socket bound to 0.0.0.0 does not do by
//! itself: so IP_PKTINFO is read with each datagram and given back with the answer. What waits at a socket is read with one system call,
//! up to [`BATCH`] datagrams, and what is to be sent through it leaves with one.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sip::parse::MESSAGE_BYTES_MAX;

/// Bytes that the kernel holds for us while the node is busy: some thousand requests.
const BUFFER_BYTES: usize = 4 << 20;
/// Datagrams read or sent with one system call.
pub const BATCH: usize = 32;
/// Room for one control message of either family.
const CONTROL_BYTES: usize = 128;

/// One bound UDP socket, never blocking.
pub struct Udp {
    socket: UdpSocket,
    is_v4: bool,
}

impl Udp {
    pub fn bind(address: SocketAddr) -> io::Result<Udp> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Where the limit of the system is lower, it gives what it may.
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        let socket: UdpSocket = socket.into();
        let (level, option) = match address {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        };
        let on: libc::c_int = 1;
        // SAFETY: the option's value is a c_int that lives for the call, and its length is told.
        let done = unsafe {
            let value = std::ptr::from_ref(&on).cast();
            libc::setsockopt(socket.as_raw_fd(), level, option, value, mem::size_of_val(&on) as libc::socklen_t)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Udp { socket, is_v4: address.is_ipv4() })
    }

    pub fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Reads what waits, up to [`BATCH`] datagrams, in place of what `inbox` held.
    pub fn receive(&self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.count = 0;
        let mut parts = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; BATCH];
        for (part, bytes) in parts.iter_mut().zip(inbox.bytes.chunks_exact_mut(MESSAGE_BYTES_MAX)) {
            *part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        }
        // SAFETY: each message points to its own part of buffers that outlive the call, with their lengths; the kernel writes no
        // further. All zeroes is a value of the structure.
        let count = unsafe {
            let mut messages: [libc::mmsghdr; BATCH] = mem::zeroed();
            for (n, message) in messages.iter_mut().enumerate() {
                let message = &mut message.msg_hdr;
                message.msg_name = std::ptr::from_mut(&mut inbox.names[n]).cast();
                message.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
                message.msg_iov = &mut parts[n];
                message.msg_iovlen = 1;
                message.msg_control = inbox.controls[n].0.as_mut_ptr().cast();
                message.msg_controllen = CONTROL_BYTES as _;
            }
            let count = libc::recvmmsg(self.fd(), messages.as_mut_ptr(), BATCH as u32, 0, std::ptr::null_mut());
            for (n, message) in messages.iter().enumerate().take(usize::try_from(count).unwrap_or(0)) {
                inbox.heads[n] = (message.msg_len as usize, sent_to(&message.msg_hdr));
            }
            count
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        }
        inbox.count = count as usize;
        Ok(())
    }

    /// Sends them in their order, with one system call where none is refused; `refused` is told of those that are.
    pub fn send(&self, outgoing: &[Outgoing], mut refused: impl FnMut(&Outgoing, io::Error)) {
        for outgoing in outgoing.chunks(BATCH) {
            let mut left = outgoing;
            while let Some((first, others)) = left.split_first() {
                match self.send_batch(left) {
                    Ok(count) => left = &left[count..],
                    // "…an error is returned only if no datagrams could be sent" (sendmmsg(2)): it is the first that was refused.
                    Err(error) => {
                        refused(first, error);
                        left = others;
                    }
                }
            }
        }
    }

    /// Sends the first of these, at most [`BATCH`]; says how many.
    fn send_batch(&self, outgoing: &[Outgoing]) -> io::Result<usize> {
        let count = outgoing.len().min(BATCH);
        let names: [Option<SockAddr>; BATCH] = std::array::from_fn(|n| Some(SockAddr::from(outgoing.get(n)?.to)));
        let mut parts = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; BATCH];
        let mut controls = [const { Control([0; CONTROL_BYTES]) }; BATCH];
        // SAFETY: as in `receive`; a control message is written within its buffer, whose size fits either family.
        let sent = unsafe {
            let mut messages: [libc::mmsghdr; BATCH] = mem::zeroed();
            for (n, (Outgoing { bytes, from, .. }, to)) in outgoing.iter().zip(names.iter().flatten()).enumerate() {
                parts[n] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                let message = &mut messages[n].msg_hdr;
                message.msg_name = to.as_ptr().cast_mut().cast();
                message.msg_namelen = to.len();
                message.msg_iov = &mut parts[n];
                message.msg_iovlen = 1;
                if let Some(from) = from {
                    message.msg_control = controls[n].0.as_mut_ptr().cast();
                    message.msg_controllen = CONTROL_BYTES as _;
                    self.put_source(message, *from);
                }
            }
            libc::sendmmsg(self.fd(), messages.as_mut_ptr(), count as u32, 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    /// # Safety
    /// `message.msg_control` points to [`CONTROL_BYTES`] writable bytes.
    unsafe fn put_source(&self, message: &mut libc::msghdr, from: IpAddr) {
        // SAFETY: the first header lies within the buffer that the caller gives, and so does either structure behind it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            let length = match from {
                IpAddr::V4(from) if self.is_v4 => {
                    (*header).cmsg_level = libc::IPPROTO_IP;
                    (*header).cmsg_type = libc::IP_PKTINFO;
                    let mut info: libc::in_pktinfo = mem::zeroed();
                    info.ipi_spec_dst.s_addr = u32::from_ne_bytes(from.octets());
                    libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
                    mem::size_of::<libc::in_pktinfo>()
                }
                IpAddr::V6(from) if !self.is_v4 => {
                    (*header).cmsg_level = libc::IPPROTO_IPV6;
                    (*header).cmsg_type = libc::IPV6_PKTINFO;
                    let mut info: libc::in6_pktinfo = mem::zeroed();
                    info.ipi6_addr.s6_addr = from.octets();
                    libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().write_unaligned(info);
                    mem::size_of::<libc::in6_pktinfo>()
                }
                _ => {
                    message.msg_control = std::ptr::null_mut();
                    message.msg_controllen = 0;
                    return;
                }
            } as u32;
            (*header).cmsg_len = libc::CMSG_LEN(length) as _;
            message.msg_controllen = libc::CMSG_SPACE(length) as _;
        }
    }
}

/// A datagram that is to be sent, from this address of ours where one is given.
pub struct Outgoing {
    pub bytes: Vec<u8>,
    pub to: SocketAddr,
    pub from: Option<IpAddr>,
}

/// What one [`Udp::receive`] read. Of its two megabytes only those pages are ever in memory that datagrams were written to.
pub struct Inbox {
    bytes: Vec<u8>,
    names: [libc::sockaddr_storage; BATCH],
    controls: [Control; BATCH],
    /// The length of each, and the address of ours that it was sent to.
    heads: [(usize, Option<IpAddr>); BATCH],
    count: usize,
}

impl Inbox {
    pub fn new() -> Box<Inbox> {
        Box::new(Inbox {
            bytes: vec![0; BATCH * MESSAGE_BYTES_MAX],
            // SAFETY: all zeroes is a value of the structure.
            names: unsafe { mem::zeroed() },
            controls: [const { Control([0; CONTROL_BYTES]) }; BATCH],
            heads: [(0, None); BATCH],
            count: 0,
        })
    }

    /// There may be more than it has room for.
    pub fn is_full(&self) -> bool {
        self.count == BATCH
    }

    /// Each datagram with its sender, and the address of ours that it was sent to.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr, Option<IpAddr>)> {
        let bytes = self.bytes.chunks_exact(MESSAGE_BYTES_MAX);
        let all = bytes.zip(&self.names).zip(&self.heads).take(self.count);
        all.filter_map(|((bytes, name), (length, to))| Some((&bytes[..*length], socket_address(name)?, *to)))
    }
}

/// Aligned as a control message's header must be.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

fn socket_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the kernel wrote, and the storage is large and aligned enough for it.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::from((address, u16::from_be(name.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::from((Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port))))
        }
        _ => None,
    }
}

/// # Safety
/// `message` is as `recvmsg` left it.
unsafe fn sent_to(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the headers are walked by the kernel's own macros; each is read as what its level and type say it is.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => header = libc::CMSG_NXTHDR(message, header),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_leaves_from_the_address_that_the_request_came_to() {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ours = Udp::bind(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
        let theirs = UdpSocket::bind("127.0.0.9:0").unwrap();
        theirs.send_to(b"hello", ("127.0.0.77", port)).unwrap();
        theirs.send_to(b"again", ("127.0.0.78", port)).unwrap();
        let mut inbox = Inbox::new();
        let mut received = Vec::new();
        for _ in 0..100 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            ours.receive(&mut inbox).unwrap();
            received.extend(inbox.datagrams().map(|(bytes, from, to)| (bytes.to_vec(), from, to.unwrap())));
            if received.len() == 2 {
                break;
            }
        }
        let sender = theirs.local_addr().unwrap();
        let [first, second] =
            [("hello", 77), ("again", 78)].map(|(text, last)| (text.into(), sender, [127, 0, 0, last].into()));
        assert_eq!(received, [first, second]);
        let outgoing = |bytes: &[u8], to: SocketAddr, last| Outgoing {
            bytes: bytes.to_vec(),
            to,
            from: Some([127, 0, 0, last].into()),
        };
        let mut refused = Vec::new();
        // The kernel sends nothing to port 0; what stands behind it leaves all the same.
        let nowhere = SocketAddr::from(([127, 0, 0, 9], 0));
        let batch = [outgoing(b"answer", sender, 77), outgoing(b"lost", nowhere, 77), outgoing(b"answer", sender, 78)];
        ours.send(&batch, |which, _| refused.push(which.bytes.clone()));
        assert_eq!(refused, [b"lost"]);
        let mut buffer = [0; 100];
        for last in [77, 78] {
            let (length, source) = theirs.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], source), (&b"answer"[..], SocketAddr::from(([127, 0, 0, last], port))));
        }
    }
}
