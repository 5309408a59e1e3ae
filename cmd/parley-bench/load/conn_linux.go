package load

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// A conn is one connection. There may be many thousands: what only few need is behind pointers.
type conn struct {
	receiver
	fd      int32
	sender  int32 // its index in loop.senders plus one; 0 if it does not send
	state   state
	inPhase bool
	watches bool // for a chance to write
	secure  *secureConn
	rest    []byte // the beginning of a frame, or of the answer to the handshake
	out     []byte // what the socket has not taken yet
	framer  framer
}

type state byte

const (
	down       state = iota
	connecting       // the socket, or TLS
	upgrading        // the handshake is sent
	greeting         // upgraded; with parley.v1 a welcome is to come
	ready            // to join
	joining
	joined // or upgraded, with plain text
)

func (s state) String() string {
	return [...]string{
		"closed", "connecting", "waiting for the answer to the handshake", "waiting for a welcome", "connected", "joining", "joined",
	}[s]
}

// An address is a target that was looked up.
type address struct {
	target
	addr     unix.Sockaddr
	family   int
	loopback bool // 127.0.0.0/8, so the source address can be chosen
	insecure bool
}

func resolve(u string, insecure bool) (address, error) {
	t, err := parseTarget(u)
	if err != nil {
		return address{}, err
	}
	tcp, err := net.ResolveTCPAddr("tcp", t.host)
	if err != nil {
		return address{}, fmt.Errorf("%s: %w", u, err)
	}
	a := address{target: t, insecure: insecure}
	if ip := tcp.IP.To4(); ip != nil {
		a.family, a.addr, a.loopback = unix.AF_INET, &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(ip)}, ip[0] == 127
	} else {
		a.family, a.addr = unix.AF_INET6, &unix.SockaddrInet6{Port: tcp.Port, Addr: [16]byte(tcp.IP.To16())}
	}
	return a, nil
}

func (l *loop) number(c *conn) int { return int(c.room.first) + int(c.member) }

func (l *loop) targetOf(c *conn) *address { return &l.targets[l.plan.targetOf(l.number(c))] }

// dial begins to connect.
func (l *loop) dial(c *conn) (bool, error) {
	if c.state != down {
		return false, nil
	}
	a := l.targetOf(c)
	fd, err := a.socket(l.plan.sourceOf(l.number(c), l.round))
	if err != nil {
		return false, err
	}
	c.fd, c.state = int32(fd), connecting
	if err := unix.Connect(fd, a.addr); err != nil && err != unix.EINPROGRESS {
		l.hangUp(c)
		return false, fmt.Errorf("connect to %s: %w", a.host, err)
	}
	if err := l.watch(c, unix.EPOLL_CTL_ADD, true); err != nil {
		l.hangUp(c)
		return false, err
	}
	return true, nil
}

// socket makes a socket that comes from a loopback address, if it goes to one.
func (a *address) socket(source [4]byte) (int, error) {
	fd, err := unix.Socket(a.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if a.loopback {
		// Without a port, which is chosen for the pair of addresses when connecting.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: source}); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("bind to %v: %w", net.IP(source[:]), err)
		}
	}
	return fd, nil
}

func (l *loop) watch(c *conn, op int, write bool) error {
	number := l.number(c) - l.first
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)}
	if write {
		event.Events |= unix.EPOLLOUT
	}
	c.watches = write
	if err := unix.EpollCtl(l.epoll, op, int(c.fd), &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// connected goes on when the socket is connected, or not.
func (l *loop) connected(c *conn) {
	a := l.targetOf(c)
	if code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		if err == nil {
			err = unix.Errno(code)
		}
		l.drop(c, fmt.Errorf("connect to %s: %w", a.host, err))
		return
	}
	if err := l.watch(c, unix.EPOLL_CTL_MOD, false); err != nil {
		l.drop(c, err)
		return
	}
	if a.tls {
		l.secure(c, a)
		return
	}
	l.handshake(c, a)
}

func (l *loop) handshake(c *conn, a *address) {
	c.state = upgrading
	l.open++
	l.frame = appendHandshake(l.frame[:0], a.target, l.codec, c.room.name)
	l.write(c, l.frame)
}

// upgraded reads the answer to the handshake, and returns what follows it; done is false if there is more to come.
func (l *loop) upgraded(c *conn, b []byte) (rest []byte, done bool) {
	n, err := cutHandshake(b, l.codec)
	if err != nil {
		l.drop(c, err)
		return nil, false
	}
	if n == 0 {
		return b, false
	}
	if l.codec == Text {
		l.setJoined(c)
	} else {
		c.state = greeting
	}
	return b[n:], true
}

func (l *loop) setJoined(c *conn) {
	c.state = joined
	l.joined++
	l.settlePhase(c, nil)
}

// join asks for the room.
func (l *loop) join(c *conn) (bool, error) {
	if c.state != ready {
		return false, nil
	}
	c.state = joining
	l.text = appendJoin(l.text[:0], c.room.name)
	l.frame = appendFrame(l.frame[:0], opText, l.text)
	l.write(c, l.frame)
	return true, nil
}

// write sends b now, or as soon as the socket takes it.
func (l *loop) write(c *conn, b []byte) {
	if c.fd < 0 {
		return
	}
	if c.secure != nil {
		if _, err := c.secure.tls.Write(b); err != nil {
			l.drop(c, fmt.Errorf("write: %w", err))
			return
		}
		b = c.secure.takeUnsent()
	}
	if len(c.out) == 0 && len(b) > 0 {
		n, err := unix.Write(int(c.fd), b)
		if err != nil && err != unix.EAGAIN {
			l.drop(c, fmt.Errorf("write: %w", err))
			return
		}
		b = b[max(0, n):]
	}
	if len(b) > 0 {
		c.out = append(c.out, b...)
		if !c.watches {
			l.watch(c, unix.EPOLL_CTL_MOD, true)
		}
	}
}

// flush sends what waits for the socket.
func (l *loop) flush(c *conn) {
	n, err := unix.Write(int(c.fd), c.out)
	if err != nil && err != unix.EAGAIN {
		l.drop(c, fmt.Errorf("write: %w", err))
		return
	}
	c.out = c.out[max(0, n):]
	if len(c.out) == 0 {
		c.out = nil
		l.watch(c, unix.EPOLL_CTL_MOD, false)
	}
}

// drop closes a connection that should have stayed.
func (l *loop) drop(c *conn, err error) {
	if c.inPhase {
		l.settlePhase(c, fmt.Errorf("while %s: %w", c.state, err))
	}
	if c.state == joined {
		l.dropped++
	}
	l.fail(fmt.Errorf("a connection was lost: %w", err))
	l.hangUp(c)
}

// hangUp closes a connection, with a goodbye if it got so far.
func (l *loop) hangUp(c *conn) {
	if c.fd < 0 {
		return
	}
	if c.state > upgrading && len(c.out) == 0 {
		goodbye := appendFrame(nil, opClose, []byte{1000 >> 8, 1000 & 0xFF})
		if c.secure != nil {
			c.secure.tls.Write(goodbye)
			goodbye = c.secure.takeUnsent()
		}
		unix.Write(int(c.fd), goodbye)
	}
	if c.state == joined {
		l.joined--
	}
	if c.state >= upgrading {
		l.open--
	}
	if c.secure != nil && c.secure.shaking {
		unix.Shutdown(int(c.fd), unix.SHUT_RDWR)
	} else {
		unix.Close(int(c.fd))
	}
	c.fd, c.state, c.watches = -1, down, false
	c.secure, c.rest, c.out, c.framer = nil, nil, nil, framer{}
}
