package socket

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"reflect"
	"sync"
	"time"
	"unsafe"
)

// A TLS connection is parked like a plain one. crypto/tls reads and writes a net.Conn, which it was given by a TLSListener; once a
// Conn has taken that over it is no network any more: reading takes what the socket has, without waiting, and what is written is
// gathered, for the Conn to send as it sends everything. So what waits in the queue is already encrypted, in the order of its
// records.

// TLSListener has crypto/tls serve the connections of l, so that a Group may park them.
func TLSListener(l net.Listener, config *tls.Config) net.Listener {
	return tls.NewListener(beneathTLS{l}, config)
}

// beneathTLS is the listener under a tls.Listener.
type beneathTLS struct{ net.Listener }

// Accept implements net.Listener.
func (l beneathTLS) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &beneath{Conn: nc}, nil
}

// beneath is what crypto/tls takes for the network.
type beneath struct {
	net.Conn         // static
	records  records // owned by who reads
	owner    *Conn   // owned by who reads and writes, until there is one: it never changes again

	mu  sync.Mutex
	out []byte // guarded by mu; what has to be sent
}

// Read implements net.Conn. It fails with errNothing, which crypto/tls takes for temporary, while an owner has nothing to read.
func (u *beneath) Read(b []byte) (n int, err error) {
	if u.owner == nil {
		n, err = u.Conn.Read(b)
	} else {
		n, err = u.owner.readSocket(b)
	}
	u.records.pass(b[:n])
	return n, err
}

// Write implements net.Conn.
func (u *beneath) Write(b []byte) (int, error) {
	if u.owner == nil {
		return u.Conn.Write(b)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out = append(u.out, b...)
	return len(b), nil
}

// take returns what was written since the last call.
func (u *beneath) take() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.out
	u.out = nil
	return out
}

// NetConn returns what is beneath.
func (u *beneath) NetConn() net.Conn { return u.Conn }

// SetDeadline implements net.Conn. Nothing waits once there is an owner.
func (u *beneath) SetDeadline(t time.Time) error {
	if u.owner != nil {
		return nil
	}
	return u.Conn.SetDeadline(t)
}

// SetWriteDeadline implements net.Conn, as SetDeadline.
func (u *beneath) SetWriteDeadline(t time.Time) error {
	if u.owner != nil {
		return nil
	}
	return u.Conn.SetWriteDeadline(t)
}

// secure is the TLS of a Conn.
type secure struct {
	tls    *tls.Conn // static
	under  *beneath  // static
	inside bool      // owned by the reader; crypto/tls may hold what it has not given yet, for which nothing wakes the poller
	lent   *[]byte   // owned by the reader; what crypto/tls reads into, or has outgrown
}

// secureOf takes a connection over for c, if it is of a TLSListener and has a socket that can be parked.
func secureOf(nc net.Conn, c *Conn) *secure {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return nil
	}
	under, ok := t.NetConn().(*beneath)
	if !ok || socketOf(under.Conn) < 0 {
		return nil
	}
	under.owner = c
	return &secure{tls: t, under: under, inside: true}
}

// read reads what there is, as readSocket does. crypto/tls gives a record at a time: b is filled from as many as there are.
func (s *secure) read(b []byte) (n int, err error) {
	s.inside = true
	s.lend()
	for n < len(b) && err == nil {
		var k int
		k, err = s.tls.Read(b[n:])
		n += k
	}
	if errors.Is(err, errNothing) {
		s.inside = false
		s.takeBack()
	}
	if n > 0 {
		return n, nil // an error comes again
	}
	return 0, err
}

// seal makes records of b, behind those that TLS itself has to send.
func (s *secure) seal(b []byte) []byte {
	if len(b) > 0 {
		s.tls.Write(b) // into memory; where it can't, the connection has ended, which the reader notices
	}
	return s.under.take()
}

// goodbye is the record that ends what is sent (RFC 8446 section 6.1).
func (s *secure) goodbye() []byte {
	s.tls.CloseWrite()
	return s.under.take()
}

// crypto/tls keeps its buffers as large as they ever had to be: 4.4 KB of an idle connection, the greeting of a client with
// post-quantum keys, and up to 33 KB after a large message. It has no way to be told that it is idle, so they are taken from it when
// there is nothing in them, and what it reads into is lent to it for a while.
var (
	tlsInput     = bufferIn(reflect.TypeFor[tls.Conn](), "rawInput")
	tlsHandshake = bufferIn(reflect.TypeFor[tls.Conn](), "hand")
	tlsBuffers   = sync.Pool{New: func() any { b := make([]byte, 0, turnBytes); return &b }}
)

// noField is the offset of a field that is not there.
const noField = ^uintptr(0)

// bufferIn returns the offset of a field of that name, if it is a buffer.
func bufferIn(t reflect.Type, name string) uintptr {
	if f, ok := t.FieldByName(name); ok && f.Type == reflect.TypeFor[bytes.Buffer]() {
		return f.Offset
	}
	return noField
}

// buffer is that of crypto/tls at an offset, if there is one and it is empty. The reader calls it.
func (s *secure) buffer(offset uintptr) *bytes.Buffer {
	if offset == noField {
		return nil
	}
	b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(s.tls), offset))
	if b.Len() > 0 {
		return nil
	}
	return b
}

// lend gives crypto/tls a buffer to read into, if it has none. The reader calls it.
func (s *secure) lend() {
	if b := s.buffer(tlsInput); b != nil && b.Cap() == 0 {
		s.lent = tlsBuffers.Get().(*[]byte)
		*b = *bytes.NewBuffer(*s.lent)
	}
}

// takeBack takes away what crypto/tls does not use of its buffers. The reader calls it.
func (s *secure) takeBack() {
	if b := s.buffer(tlsHandshake); b != nil {
		*b = bytes.Buffer{}
	}
	b := s.buffer(tlsInput)
	if b == nil {
		return // the rest of a record is still to come
	}
	*b = bytes.Buffer{}
	if s.lent != nil {
		tlsBuffers.Put(s.lent)
		s.lent = nil
	}
}

// records finds the ends of records in what a client sends (RFC 8446 section 5.1).
type records struct {
	head [5]byte
	got  uint8 // bytes of head that have come
	left int   // bytes of the record at hand that are still to come
}

// amid reports whether the rest of a record is still to come.
func (r *records) amid() bool { return r.got > 0 || r.left > 0 }

func (r *records) pass(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			r.left -= n
			b = b[n:]
			continue
		}
		n := copy(r.head[r.got:], b)
		r.got += uint8(n)
		b = b[n:]
		if int(r.got) == len(r.head) {
			r.left, r.got = int(binary.BigEndian.Uint16(r.head[3:])), 0
		}
	}
}

// flushSecure sends what TLS has to say by itself, such as the answer to new keys (RFC 8446 section 4.6.3).
func (c *Conn) flushSecure() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		c.sendLocked(c.secure.under.take())
	}
}

// timeRecord gives a record that has begun the time of a message.
func (c *Conn) timeRecord() {
	switch amid := c.secure.under.records.amid(); {
	case amid && !c.timed && !c.deaf:
		c.timed = true
		c.expect(c.group.cfg.MessageWait)
	case !amid && c.timed && !c.frames.begun():
		c.timed = false
		c.expect(0)
	}
}
