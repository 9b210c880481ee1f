//! UDP sockets that know which address of ours a datagram was sent to, and answer from it.
//!
//! An answer must leave from the address that the request came to (DESIGN section 6), which a socket bound to 0.0.0.0 does not do by
//! itself: so IP_PKTINFO is read with each datagram and given back with the answer.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Bytes that the kernel holds for us while the node is busy: some thousand requests.
const BUFFER_BYTES: usize = 4 << 20;
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

    /// The next datagram: its length, its sender, and the address of ours that it was sent to; `None` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr, Option<IpAddr>)>> {
        let mut control = Control([0; CONTROL_BYTES]);
        // SAFETY: `message` points to buffers that outlive the call, with their lengths; the kernel writes no further. Both
        // structures are plain data for which all zeroes is a value.
        unsafe {
            let mut name: libc::sockaddr_storage = mem::zeroed();
            let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = std::ptr::from_mut(&mut name).cast();
            message.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
            message.msg_iov = &mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = CONTROL_BYTES as _;
            let length = libc::recvmsg(self.fd(), &mut message, 0);
            if length < 0 {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                    _ => Err(error),
                };
            }
            let Some(from) = socket_address(&name) else { return Ok(None) };
            Ok(Some((length as usize, from, sent_to(&message))))
        }
    }

    /// Sends from this address of ours, where one is given.
    pub fn send(&self, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let to = SockAddr::from(to);
        let mut control = Control([0; CONTROL_BYTES]);
        // SAFETY: as in `receive`; the control message is written within its buffer, whose size fits either family.
        let sent = unsafe {
            let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = to.as_ptr().cast_mut().cast();
            message.msg_namelen = to.len();
            message.msg_iov = &mut part;
            message.msg_iovlen = 1;
            if let Some(from) = from {
                message.msg_control = control.0.as_mut_ptr().cast();
                message.msg_controllen = CONTROL_BYTES as _;
                self.put_source(&mut message, from);
            }
            libc::sendmsg(self.fd(), &message, 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
        let mut buffer = [0; 100];
        let (length, from, to) = (0..100)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                ours.receive(&mut buffer).unwrap()
            })
            .unwrap();
        assert_eq!(
            (&buffer[..length], from, to),
            (&b"hello"[..], theirs.local_addr().unwrap(), Some([127, 0, 0, 77].into()))
        );
        ours.send(b"answer", from, to).unwrap();
        let (_, source) = theirs.recv_from(&mut buffer).unwrap();
        assert_eq!(source, SocketAddr::from(([127, 0, 0, 77], port)));
    }
}
