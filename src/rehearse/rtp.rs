//! What a phone says and hears while a call is up: its RTP port, and the SDP that names it.
//!
//! Knows: an SDP as an OpenBTS writes it (wire.md 3.1), and an RTP header. Does not know: speech; a packet carries noise.
//! Limits: [`PACKET_COUNT`] packets each way, [`HEAR_WAIT`] for the last of them.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// What each side says in one exchange.
pub const PACKET_COUNT: usize = 10;
/// "RTP.Start 16484, even ports" (wire.md 0).
const PORT_MIN: u16 = 16_484;
const PORT_MAX: u16 = 19_998;
const PACKET_EVERY: Duration = Duration::from_millis(20);
const HEAR_WAIT: Duration = Duration::from_secs(2);

/// One end of a conversation, bound before its port is named to anybody.
pub struct Ear {
    socket: UdpSocket,
    address: SocketAddr,
    ssrc: u32,
}

impl Ear {
    /// Errors: no even port is free there.
    pub fn open(ip: IpAddr) -> io::Result<Ear> {
        let mut dice = [0; 4];
        getrandom::fill(&mut dice).map_err(io::Error::other)?;
        let ssrc = u32::from_be_bytes(dice);
        // Not always the same one: a packet of a former call must not be taken for one of this.
        let count = (PORT_MAX - PORT_MIN) / 2 + 1;
        let first = (ssrc % u32::from(count)) as u16;
        let mut taken = io::Error::other("no even port is free for RTP");
        for turn in 0..count {
            let port = PORT_MIN + 2 * ((first + turn) % count);
            match UdpSocket::bind((ip, port)) {
                Ok(socket) => {
                    socket.set_nonblocking(true)?;
                    return Ok(Ear { address: socket.local_addr()?, socket, ssrc });
                }
                Err(error) => taken = error,
            }
        }
        Err(taken)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// "`c=` after `m=`; GSM FR only; no telephone-event" (wire.md 3.1, the literal one).
    pub fn sdp(&self, user: &str) -> Vec<u8> {
        let (ip, port) = (self.address.ip(), self.address.port());
        format!(
            "v=0\r\no={user} 0 0 IN IP4 {ip}\r\ns=Talk Time\r\nt=0 0\r\nm=audio {port} RTP/AVP 3\r\nc=IN IP4 {ip}\r\n\
             a=rtpmap:3 GSM/8000\r\n"
        )
        .into_bytes()
    }

    /// A packet of 20 ms: version 2, payload type 3, 33 bytes of a GSM frame.
    fn say(&self, number: u16, to: SocketAddr) {
        let mut packet = vec![0x80, 3];
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&(u32::from(number) * 160).to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.push(0xD5);
        packet.resize(12 + 33, number as u8);
        // What is lost is not heard, and that is what is looked at.
        let _ = self.socket.send_to(&packet, to);
    }

    /// How many packets of `other` are here now; all that is here is taken.
    fn hear(&self, other: &Ear) -> usize {
        let mut buffer = [0; 2048];
        let mut count = 0;
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            let is_theirs = len == 45 && buffer[8..12] == other.ssrc.to_be_bytes() && from == other.address;
            count += usize::from(is_theirs);
        }
        count
    }
}

/// The two talk for a moment, each to the address that the other's SDP named it, and say how many packets each has heard from
/// the other's own port.
pub fn converse(one: &Ear, to_other: SocketAddr, other: &Ear, to_one: SocketAddr) -> (usize, usize) {
    for number in 0..PACKET_COUNT as u16 {
        one.say(number, to_other);
        other.say(number, to_one);
        std::thread::sleep(PACKET_EVERY);
    }
    let (mut heard, until) = ((0, 0), Instant::now() + HEAR_WAIT);
    loop {
        heard = (heard.0 + one.hear(other), heard.1 + other.hear(one));
        if (heard.0 >= PACKET_COUNT && heard.1 >= PACKET_COUNT) || Instant::now() >= until {
            return heard;
        }
        std::thread::sleep(PACKET_EVERY);
    }
}

/// Where an SDP wants its RTP: the address of `c=`, the port of `m=audio`.
pub fn media_of(sdp: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(sdp).ok()?;
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let port: u16 = line("m=audio ")?.split(' ').next()?.parse().ok()?;
    Some(SocketAddr::new(line("c=IN IP4 ")?.trim().parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_hear_each_other_at_the_addresses_of_their_sdp() {
        let ip = "127.0.0.1".parse().unwrap();
        let (one, other) = (Ear::open(ip).unwrap(), Ear::open(ip).unwrap());
        assert_eq!(one.address().port() % 2, 0);
        let sdp = one.sdp("IMSI001010000000001");
        // "Content-Length: 135" (wire.md 3.1), with as many digits in the port.
        assert_eq!(sdp.len(), 135);
        assert_eq!(media_of(&sdp), Some(one.address()));
        let (from_other, from_one) = converse(&one, other.address(), &other, media_of(&sdp).unwrap());
        assert_eq!((from_other, from_one), (PACKET_COUNT, PACKET_COUNT));
        assert_eq!(media_of(b"v=0\r\n"), None);
    }

    #[test]
    fn who_talks_to_somebody_else_is_not_heard() {
        let ip = "127.0.0.1".parse().unwrap();
        let (one, other, third) = (Ear::open(ip).unwrap(), Ear::open(ip).unwrap(), Ear::open(ip).unwrap());
        assert_eq!(converse(&one, third.address(), &other, one.address()), (PACKET_COUNT, 0));
    }
}
